"""The letters of all clients, in one string."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.wire import Wire, every_cut, pieces
from twistednet.protocols import AccumulatorFactory, ISharedText, LettersClient, SharedText, TextFull


def expected(stream: bytes, limit: int = 2**20) -> tuple[bytes, bytes]:
    """The answer to `stream` of an only client, and the string then, written as plainly as can be."""
    answer = text = b""
    line_is_empty = True
    for letter in stream.decode("utf-8", "surrogateescape"):
        if letter == "\n":
            answer += b"\n"
            if line_is_empty:
                break
            line_is_empty = True
        elif letter == "\r":
            answer += b"\r"
        else:
            line_is_empty = False
            encoded = letter.encode("utf-8", "surrogateescape")
            if len(text) + len(encoded) <= limit:
                text += encoded
                answer += text
            else:
                answer += b"error: the text has reached its %d bytes" % limit
    return answer, text


class SharedTextTests(SynchronousTestCase):
    """`SharedText`."""

    def test_interface(self) -> None:
        """It is what the accumulator asks for."""
        self.assertTrue(verifyObject(ISharedText, SharedText()))

    def test_append(self) -> None:
        """The whole string comes back."""
        text = SharedText()
        self.assertEqual([text.append(b"a"), text.append(b"b"), text.value], [b"a", b"ab", b"ab"])

    def test_full(self) -> None:
        """A letter that does not fit is not appended; one that does still is."""
        text = SharedText(max_length=3)
        text.append(b"ab")
        self.assertRaises(TextFull, text.append, "é".encode())
        self.assertEqual(text.append(b"c"), b"abc")
        self.assertRaises(TextFull, text.append, b"d")


class AccumulatorTests(SynchronousTestCase):
    """`Accumulator` and its factory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def factory(self, max_length: int = 2**20, clients: int | None = None) -> AccumulatorFactory:
        """A factory with a string of its own."""
        return AccumulatorFactory(
            text=SharedText(max_length=max_length), clients=clients, reactor=cast(IReactorTime, self.clock)
        )

    def logged(self) -> list[str | None]:
        """What the accumulator has logged."""
        return [formatEvent(event) for event in self.events if "accumulator" in event.get("log_namespace", "")]

    def test_owing(self) -> None:
        """Letters that have been read and not appended, as the client does not read, are owed their answers."""
        wire = Wire.to(self.factory())
        protocol = cast(Any, wire.protocol)
        self.assertFalse(protocol.owing)
        wire.arrive(b"x" * 1000)
        self.assertTrue(protocol.owing)

    def test_the_textbook(self) -> None:
        """Two clients that type letters in turn see what the textbook's saw, and the last one's leaving is logged."""
        factory = self.factory(clients=2)
        first, second = Wire.to(factory), Wire.to(factory)
        for wire, letters in ((first, b"abc"), (second, b"uuvv"), (first, b"d"), (second, b"ww"), (first, b"e")):
            for letter in letters:
                wire.send(bytes([letter]))
                self.assertEqual(wire.received[-len(factory.text.value) :], factory.text.value)
        self.assertEqual(first.received, b"aababcabcuuvvdabcuuvvdwwe")
        self.assertEqual(second.received, b"abcuabcuuabcuuvabcuuvvabcuuvvdwabcuuvvdww")
        first.end()
        self.assertNoResult(factory.finished)
        self.assertEqual(self.logged(), [])
        second.end()
        self.assertEqual(self.successResultOf(factory.finished), b"abcuuvvdwwe")
        self.assertEqual(self.logged(), ["the final value of v is abcuuvvdwwe"])

    def test_leaves_by_an_empty_line(self) -> None:
        """Enter on an empty line ends the connection, once everything before is answered."""
        wire = Wire.to(self.factory()).send(b"a\nb\r\n\r\nc")
        self.assertEqual((wire.received, wire.ended), (b"a\nab\r\n\r\n", True))
        wire.send(b"d")
        self.assertEqual(wire.end().received, b"a\nab\r\n\r\n")

    def test_cut_at_every_position(self) -> None:
        """The answer is a function of the stream, wherever it is cut."""
        stream = "ab\r\nc\nd\u00e9\r\r\n\U0001f600\rx\n\xff".encode() + b"\xff\xc3\n\r\nlate"
        for first, second in every_cut(stream):
            factory = self.factory()
            wire = Wire.to(factory).send(first, second).end()
            self.assertEqual((wire.received, factory.text.value), expected(stream), (first, second))

    @given(
        st.lists(st.sampled_from([b"a", b"b", b"\n", b"\r\n", b"\r", "é".encode(), b"\xe2\x82", b"\xac"])),
        st.lists(st.integers(0, 5)),
        st.integers(1, 12),
    )
    def test_random_pieces(self, parts: list[bytes], sizes: list[int], limit: int) -> None:
        """The answer is a function of the stream, whatever it is and however cut, with room for it or not."""
        stream = b"".join(parts)
        factory = self.factory(limit)
        wire = Wire.to(factory).send(*pieces(stream, sizes)).end()
        self.assertEqual((wire.received, factory.text.value), expected(stream, limit))
        self.assertTrue(wire.closed)

    def test_broken_off(self) -> None:
        """A byte that begins a character is a letter when no more comes for a while; it is not when more does."""
        factory = self.factory()
        wire = Wire.to(factory).send(b"\xc3")
        self.clock.advance(0.2)
        wire.send(b"\xa9\xe9")
        self.assertEqual(wire.received, b"\xc3\xa9")
        self.clock.advance(0.3)
        wire.turn()
        self.assertEqual(wire.received, b"\xc3\xa9\xc3\xa9\xe9")
        wire.send(b"\xc3").reset()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full(self) -> None:
        """Letters for which there is no room are refused, each, and those of a smaller one still fit."""
        factory = self.factory(max_length=3)
        wire = Wire.to(factory).send(b"a\nb\n", "é\n".encode(), b"c\nd\n")
        error = b"error: the text has reached its 3 bytes\n"
        self.assertEqual(wire.received, b"a\nab\n" + error + b"abc\n" + error)
        self.assertEqual(factory.text.value, b"abc")

    def test_slow_reader(self) -> None:
        """A long string times many letters is made as the peer reads, and no faster."""
        factory = self.factory()
        factory.text.append(b"x" * 30000)
        wire = Wire.to(factory)
        wire.arrive(b"y" * 1000)
        self.assertLess(len(wire.waiting), 3 * 65536)
        made = len(factory.text.value) - 30000
        self.assertLess(made, 10)
        wire.end()
        self.assertEqual(len(factory.text.value), 31000)
        self.assertEqual(len(wire.received), sum(30000 + n for n in range(1, 1001)))
        self.assertTrue(wire.closed)

    def test_leaves_while_letters_wait(self) -> None:
        """A client that leaves without reading its answers takes its unread letters with it."""
        factory = self.factory()
        factory.text.append(b"x" * 70000)
        wire = Wire.to(factory)
        wire.arrive(b"y" * 1000)
        wire.reset()
        self.assertEqual(factory.text.value, b"x" * 70000 + b"y")
        self.assertEqual(self.logged(), ["the final value of v is " + "x" * 200 + "… (70001 bytes)"])

    def test_turns_away(self) -> None:
        """With a number of clients to serve, more are turned away."""
        factory = self.factory(clients=1)
        Wire.to(factory)
        self.assertIsNone(factory.buildProtocol(None))

    def test_served_for_ever(self) -> None:
        """Without, the string outlives its clients, and is logged each time the last one leaves."""
        factory = self.factory()
        for letter in (b"a", b"b"):
            Wire.to(factory).send(letter).end()
        self.assertEqual(self.logged(), ["the final value of v is a", "the final value of v is ab"])
        self.assertNoResult(factory.finished)

    def test_own_text(self) -> None:
        """A factory that is given no string has one of its own."""
        first, second = AccumulatorFactory(), AccumulatorFactory()
        first.text.append(b"a")
        self.assertEqual((first.text.value, second.text.value), (b"a", b""))


class LettersClientTests(SynchronousTestCase):
    """`LettersClient`."""

    def test_against_the_server(self) -> None:
        """Client and server understand each other."""
        client = Wire.to(Factory.forProtocol(LettersClient))
        server = Wire.to(AccumulatorFactory(reactor=cast(IReactorTime, Clock())))
        for letter, answer in ((b"a", b"a"), ("é".encode(), "aé".encode())):
            added = cast(LettersClient, client.protocol).add(letter)
            before = len(server.received)
            server.send(client.read())
            client.send(server.received[before:])
            self.assertEqual(self.successResultOf(added), answer)
