"""A greeting and a goodbye, to whatever comes."""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.wire import Wire, every_cut
from twistednet.protocols import GreeterFactory


class GreeterTests(SynchronousTestCase):
    """`Greeter` and its factory."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self) -> Wire:
        """A new connection."""
        return Wire.to(GreeterFactory(reactor=cast(IReactorTime, self.clock)))

    def test_line(self) -> None:
        """A line is answered with two that end as it did, wherever it is cut; then the server closes."""
        for ending in (b"\n", b"\r\n"):
            for first, second in every_cut(b"Hello World" + ending):
                wire = self.connect().send(first, second)
                self.assertEqual(wire.received, b"Hello Yourself" + ending + b"Goodbye" + ending)
                self.assertTrue(wire.ended)

    def test_the_textbook(self) -> None:
        """The textbook's client, which sends no line ending, gets both texts, at the end of its pause or stream."""
        wire = self.connect().send(b"Hello World")
        self.clock.advance(0.25)
        wire.turn()
        self.assertEqual((wire.received, wire.ended), (b"Hello YourselfGoodbye", True))
        self.assertEqual(self.connect().send(b"Hello World").end().received, b"Hello YourselfGoodbye")

    def test_one_answer(self) -> None:
        """Whatever follows the first message is not answered."""
        wire = self.connect().send(b"a\nb\n" * 1000, b"c" * 100000)
        self.assertEqual(wire.received, b"Hello Yourself\nGoodbye\n")
        self.assertTrue(wire.end().closed)

    def test_nothing(self) -> None:
        """A client that says nothing is told nothing."""
        wire = self.connect().end()
        self.assertEqual((wire.received, wire.closed), (b"", True))

    def test_own_texts(self) -> None:
        """Both texts can be chosen."""
        factory = GreeterFactory(greeting="Grüß Gott", goodbye="Servus", reactor=cast(IReactorTime, self.clock))
        self.assertEqual(Wire.to(factory).send(b"\n").received, "Grüß Gott\nServus\n".encode())

    def test_too_long(self) -> None:
        """Too long a message gets an error line."""
        wire = self.connect().send(b"x" * 100000)
        self.assertEqual(wire.received, b"error: a message is longer than 16384 bytes\n")
