"""One message comes back, many times."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.wire import Wire, every_cut, pieces
from twistednet.protocols import RepeatFactory


class RepeatTests(SynchronousTestCase):
    """`Repeat` and its factory."""

    def setUp(self) -> None:
        self.clock = Clock()

    def factory(self, copies: int = 10, *, wait: bool = False) -> RepeatFactory:
        """A factory."""
        return RepeatFactory(copies=copies, wait=wait, reactor=cast(IReactorTime, self.clock))

    def test_the_textbook(self) -> None:
        """The textbook's ``abc`` comes back 10,000 times, and the server closes."""
        wire = Wire.to(RepeatFactory(reactor=cast(IReactorTime, self.clock))).send(b"abc")
        self.clock.advance(0.25)
        wire.turn()
        self.assertEqual((wire.received, wire.ended), (b"abc" * 10000, True))

    def test_owing(self) -> None:
        """The copies are owed while they are sent, but not while the go-ahead is awaited: none comes at the end."""
        for wait in (False, True):
            wire = Wire.to(self.factory(100_000, wait=wait))
            repeat = cast(Any, wire.protocol)
            self.assertFalse(repeat.owing)
            wire.arrive(b"abc\n")
            self.assertEqual(repeat.owing, not wait)

    def test_unfinished(self) -> None:
        """The message is unfinished until its end has come; what comes after it is no message."""
        wire = Wire.to(self.factory(100_000))
        repeat = cast(Any, wire.protocol)
        self.assertIsNone(repeat.unfinished)
        wire.arrive(b"ab")
        self.assertEqual(repeat.unfinished, 0)
        wire.arrive(b"c\nmore")
        self.assertIsNone(repeat.unfinished)

    def test_cut_at_every_position(self) -> None:
        """The message is the same wherever it is cut, its ending part of each copy; the rest is not looked at."""
        for first, second in every_cut(b"abc\r\nmore\n"):
            wire = Wire.to(self.factory()).send(first, second)
            if b"\n" in first or b"\n" in second:
                self.assertEqual((wire.received, wire.ended), (b"abc\r\n" * 10, True))

    @given(st.integers(1, 200_000), st.integers(0, 40), st.lists(st.integers(0, 70000), max_size=5))
    def test_sizes(self, size: int, copies: int, sizes: list[int]) -> None:
        """Any size any number of times is exact, and no more than a chunk or two waits in the server."""
        message = bytes(range(11, 256)) * (size // 245) + b"x" * (size % 245)
        wire = Wire.to(self.factory(copies)).send(*pieces(message, sizes)).end()
        self.assertTrue(wire.received == message * copies)
        self.assertTrue(wire.closed)
        self.assertLessEqual(max(map(len, wire.writes), default=0), 65536)

    def test_slow_reader(self) -> None:
        """A megabyte ten thousand times is made as it is read."""
        wire = Wire.to(self.factory(10000))
        wire.arrive(b"x" * 1_000_000 + b"\n")
        for _ in range(100):
            self.assertLessEqual(len(wire.waiting), 65536)
            wire.read(30000)
        self.assertEqual(wire.received[:1_000_001], b"x" * 1_000_000 + b"\n")
        self.assertGreater(len(wire.received), 2_000_000)
        wire.reset()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_half_close(self) -> None:
        """A client that ends its stream after its message gets all copies."""
        wire = Wire.to(self.factory(30000))
        wire.arrive(b"abc\n")
        wire.end()
        self.assertEqual((wire.received, wire.closed), (b"abc\n" * 30000, True))

    def test_too_long(self) -> None:
        """A message of up to 1,048,576 bytes is repeated; a longer one gets an error line."""
        wire = Wire.to(self.factory(1)).send(b"x" * 2**20 + b"\n")
        self.assertEqual(len(wire.received), 2**20 + 1)
        wire = Wire.to(self.factory(1)).send(b"x" * (2**20 + 2))
        self.assertEqual(wire.received, b"error: a message is longer than 1048576 bytes\n")

    def test_nothing(self) -> None:
        """A client that says nothing is told nothing."""
        self.assertTrue(Wire.to(self.factory()).end().closed)

    def test_junk_after_the_message(self) -> None:
        """However much follows the message, it does not stop the copies."""
        wire = Wire.to(self.factory(2**16))
        wire.arrive(b"abc\n")
        wire.arrive(b"x" * 2**21)
        wire.end()
        self.assertEqual(wire.received, b"abc\n" * 2**16)


class GoAheadTests(SynchronousTestCase):
    """Clients that wait for the operator."""

    def setUp(self) -> None:
        self.factory = RepeatFactory(copies=2, wait=True, reactor=cast(IReactorTime, Clock()))

    def test_nobody(self) -> None:
        """With nobody there, or nobody who has asked, the go-ahead goes to nobody."""
        self.assertIsNone(self.factory.go_ahead())
        Wire.to(self.factory)
        self.assertIsNone(self.factory.go_ahead())

    def test_in_turn(self) -> None:
        """Nothing is sent before the go-ahead; each goes to the client that has waited longest, and says who."""
        wires = [Wire.to(self.factory) for _ in range(3)]
        for number, wire in enumerate(wires):
            wire.peerAddr = IPv4Address("TCP", "192.0.2.1", number)
        for number in (1, 0, 2):
            wires[number].send(b"%d\n" % number)
        self.assertEqual([wire.received for wire in wires], [b"", b"", b""])
        self.assertEqual(self.factory.waiting, 3)
        for number in (1, 0, 2):
            self.assertEqual(self.factory.go_ahead(), wires[number].peerAddr)
            wires[number].turn()
            self.assertEqual(wires[number].received, b"%d\n" % number * 2)
        self.assertEqual(self.factory.waiting, 0)

    def test_leaves(self) -> None:
        """A client that leaves waits no more; one that has only ended its stream does."""
        first, second = (Wire.to(self.factory).send(b"a\n") for _ in range(2))
        first.reset()
        second.end()
        self.assertFalse(second.closed)
        self.assertEqual(self.factory.waiting, 1)
        self.factory.go_ahead()
        second.turn()
        self.assertEqual((second.received, second.closed), (b"a\na\n", True))
