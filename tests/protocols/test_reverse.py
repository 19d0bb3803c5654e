"""Each message comes back, reversed."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IReactorTime, ISSLTransport
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from tests.wire import OneWayWire, Wire, every_cut, pieces
from twistednet.protocols import ReverseClient, ReverseFactory
from twistednet.protocols.reverse import reverse_bytes, reverse_characters


class ReverseCharactersTests(SynchronousTestCase):
    """`reverse_characters`."""

    def test_what_a_reader_sees(self) -> None:
        """Grapheme clusters stay whole: accents, joined emoji, flags, Hangul jamo, Devanagari conjuncts."""
        for text, answer in {
            "stressed": "desserts",
            "noe\u0308l": "le\u0308on",
            "a\U0001f468\u200d\U0001f469\u200d\U0001f467b": "b\U0001f468\u200d\U0001f469\u200d\U0001f467a",
            "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea": "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7",
            "\u1112\u1161\u11abx": "x\u1112\u1161\u11ab",
            "\u0915\u094d\u0937\u093fx": "x\u0915\u094d\u0937\u093f",
            "": "",
        }.items():
            self.assertEqual(reverse_characters(text.encode()), answer.encode())

    def test_bytes(self) -> None:
        """By bytes, characters fall apart."""
        self.assertEqual(reverse_bytes("é1".encode()), b"1\xa9\xc3")

    def test_not_text(self) -> None:
        """What is not UTF-8 is reversed by bytes."""
        self.assertEqual(reverse_characters(b"\xff\xfea"), b"a\xfe\xff")
        self.assertEqual(reverse_characters("é".encode()[:1] + b"a"), b"a\xc3")

    @given(st.text())
    def test_same_characters(self, text: str) -> None:
        """No byte is lost or invented."""
        self.assertEqual(sorted(reverse_characters(text.encode())), sorted(text.encode()))


class ReverseTests(SynchronousTestCase):
    """`Reverse` and its factory."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, unit: str = "character") -> Wire:
        """A new connection."""
        return Wire.to(ReverseFactory(unit=unit, reactor=cast(IReactorTime, self.clock)))

    def test_the_textbook(self) -> None:
        """The textbook's client sends no line ending, and gets its answer without one, again and again."""
        wire = self.connect()
        for _ in range(3):
            wire.send(b"SNS is the best course ever !")
            self.clock.advance(0.25)
            self.assertEqual(wire.read(), b"! reve esruoc tseb eht si SNS")

    def test_cut_at_every_position(self) -> None:
        """The answers are the same wherever the stream is cut, inside a character too."""
        stream = "stressed\nno\u00ebl\r\n\nlast é".encode()
        for first, second in every_cut(stream):
            wire = self.connect().send(first, second).end()
            self.assertEqual(wire.received, "desserts\nl\u00ebon\r\n\né tsal".encode())
            self.assertTrue(wire.closed)

    def test_unit_byte(self) -> None:
        """By bytes, every message is ``data[::-1]``."""
        stream = "é\r\nab\n".encode()
        for first, second in every_cut(stream):
            self.assertEqual(self.connect("byte").send(first, second).received, b"\xa9\xc3\r\nba\n")

    @given(st.lists(st.binary(max_size=8).filter(lambda m: b"\n" not in m)), st.lists(st.integers(0, 9)))
    def test_random_pieces(self, messages: list[bytes], sizes: list[int]) -> None:
        """Each message comes back reversed, in order, however the stream is cut."""
        stream = b"".join(message + b"|\n" for message in messages)
        wire = self.connect("byte").send(*pieces(stream, sizes)).end()
        self.assertEqual(wire.received, b"".join(b"|" + message[::-1] + b"\n" for message in messages))

    def test_slow_reader(self) -> None:
        """A peer that does not read is not read from; when it reads, everything is there."""
        wire = self.connect("byte")
        for _ in range(100):
            wire.arrive(b"ab\n" * 10000)
        self.assertLess(len(wire.waiting), 3 * 65536)
        wire.end()
        self.assertEqual(wire.received, b"ba\n" * 1_000_000)

    def test_too_long(self) -> None:
        """Too long a message gets an error line and the end of the connection."""
        wire = self.connect().send(b"x" * 1_000_000)
        self.assertEqual(wire.received, b"error: a message is longer than 16384 bytes\n")
        self.assertTrue(wire.ended)

    def test_other_unit(self) -> None:
        """A unit that there is not is an error that names those there are."""
        error = self.assertRaises(ValueError, ReverseFactory, unit="word")
        self.assertEqual(str(error), "unit is 'word', not one of character, byte")


class ReverseClientTests(SynchronousTestCase):
    """`ReverseClient`."""

    def test_against_the_server(self) -> None:
        """Client and server understand each other."""
        client = Wire.to(Factory.forProtocol(ReverseClient))
        server = Wire.to(ReverseFactory(reactor=cast(IReactorTime, Clock())))
        asked = cast(ReverseClient, client.protocol).ask(b"stressed\n")
        client.send(server.send(client.read()).received)
        self.assertEqual(self.successResultOf(asked), b"desserts\n")

    def test_last_line(self) -> None:
        """Under TLS, the end is said when only a last line without an ending is still owed, which may need it."""
        for kind, ended in ((Wire, True), (OneWayWire, False)):
            wire = kind.to(Factory.forProtocol(ReverseClient))
            directlyProvides(wire, ISSLTransport)
            client = cast(ReverseClient, wire.protocol)
            client.send(b"ab\nc")
            client.send(b"d")
            client.end()
            wire.send(b"ba")
            self.assertFalse(wire.ended)
            wire.send(b"\n")
            self.assertEqual((wire.ended, wire.closed), (ended, False))
            wire.send(b"dc")
            self.assertEqual(wire.closed, not ended)
