"""What is a message, however it is cut, and how its answer is framed."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase

from tests.wire import Wire, every_cut, pieces
from twistednet.protocols.framing import MESSAGE_GAP, TURN, IdleTimer, LineClient, MessageFactory, MessageProtocol


class Quote(MessageProtocol):
    """Answers each message with itself between quotes; closes when told to."""

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(b"'" + line + b"'")
        if line == b"close":
            self.close()


class QuoteFactory(MessageFactory[Quote]):
    protocol = Quote


class Slow(MessageProtocol):
    """Writes more than fits into the transport's buffer for each message."""

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(line * 70_000)


class SlowFactory(MessageFactory[Slow]):
    protocol = Slow


def expected(stream: bytes, limit: int = MessageProtocol.MAX_LENGTH) -> bytes:
    """The answer to the whole of `stream`, ended by its sender, written as plainly as can be."""
    answer = b""
    ending = b"\n"
    *lines, last = stream.split(b"\n")
    for line in lines:
        this = b"\r\n" if line.endswith(b"\r") else b"\n"
        message = line.removesuffix(b"\r")
        if len(message) > limit:
            return answer + b"error: a message is longer than %d bytes" % limit + ending
        ending = this
        answer += b"'" + message + b"'" + ending
        if message == b"close":
            return answer
    if len(last) > limit:
        return answer + b"error: a message is longer than %d bytes" % limit + ending
    return answer + (b"'" + last + b"'" if last else b"")


class MessageTests(SynchronousTestCase):
    """`MessageProtocol`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = QuoteFactory(reactor=cast(IReactorTime, self.clock))

    def connect(self) -> Wire:
        """A new connection."""
        return Wire.to(self.factory)

    def test_owing_and_paused(self) -> None:
        """Answers to what has been read are owed while the peer does not read; meanwhile no message can end."""
        wire = Wire.to(SlowFactory(reactor=cast(IReactorTime, self.clock)))
        protocol = cast(MessageProtocol, wire.protocol)
        self.assertEqual((protocol.owing, protocol.input_paused), (False, False))
        wire.arrive(b"a\nb\nc")
        self.assertEqual((protocol.owing, protocol.input_paused), (True, True))
        wire.end()
        wire.turn()
        self.assertEqual((protocol.owing, wire.received.count(b"\n"), wire.ended), (False, 2, True))

    def test_is_a_line_receiver(self) -> None:
        """The framing is Twisted's LineReceiver to whoever asks, with its limit."""
        self.assertIsInstance(self.connect().protocol, LineReceiver)
        self.assertEqual(MessageProtocol.MAX_LENGTH, 16384)

    def test_framed_as_the_question(self) -> None:
        """An answer ends as its question did."""
        wire = self.connect().send(b"a\nb\r\n\n\r\nc")
        self.assertEqual(wire.received, b"'a'\n'b'\r\n''\n''\r\n")
        self.assertEqual(wire.end().received, b"'a'\n'b'\r\n''\n''\r\n'c'")
        self.assertTrue(wire.closed)

    def test_cut_at_every_position(self) -> None:
        """The answers are the same wherever the stream is cut."""
        stream = b"one\ntwo\r\n\r\n\n\rthree\r\r\nfour\rfive\nclose\r\nsix\n"
        for first, second in every_cut(stream):
            self.assertEqual(self.connect().send(first, second).end().received, expected(stream), (first, second))

    def test_byte_by_byte(self) -> None:
        """The answers are the same when each byte comes by itself."""
        stream = b"one\ntwo\r\n\nthree"
        wire = self.connect().send(*[bytes([byte]) for byte in stream]).end()
        self.assertEqual(wire.received, expected(stream))

    @given(
        st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"\r", b"close\n", b"x" * 20, b"\xff"])),
        st.lists(st.integers(0, 9)),
    )
    def test_random_pieces(self, parts: list[bytes], sizes: list[int]) -> None:
        """The answers are the same whatever the stream, and however it is cut; too long a message included."""
        stream = b"".join(parts)
        wire = self.connect()
        wire.protocol.MAX_LENGTH = 19  # type: ignore[attr-defined]
        wire.send(*pieces(stream, sizes)).end()
        self.assertEqual(wire.received, expected(stream, 19))
        self.assertTrue(wire.closed)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.integers(1, 3000), max_size=30), st.lists(st.integers(0, 40000), max_size=8))
    def test_slow_reader(self, reads: list[int], sizes: list[int]) -> None:
        """A peer that reads slowly loses nothing, and makes no more than the transport's buffer wait."""
        stream = b"\n" * 30000 + b"line\r\n" * 5000 + b"last"
        wire = self.connect()
        for piece in pieces(stream, sizes):
            wire.arrive(piece)
        for size in reads:
            wire.read(size)
            self.assertLess(len(wire.waiting), 3 * 65536)
        wire.end()
        self.assertEqual(wire.received, expected(stream))
        self.assertTrue(wire.closed)

    def test_paused_between_messages(self) -> None:
        """Messages that have arrived wait where the answers do not fit, and more input is not taken."""
        wire = self.connect()
        wire.arrive(b"x" * 10000 + b"\n" + b"y" * 10000 + b"\n" + b"z\n" * 30000)
        self.assertEqual(wire.producerState, "paused")
        waiting = len(wire.waiting)
        wire.arrive(b"late\n")
        self.assertEqual(len(wire.waiting), waiting)
        wire.turn()
        self.assertTrue(wire.received.endswith(b"'z'\n'late'\n"))
        self.assertEqual(wire.received.count(b"\n"), 30003)

    def test_leaves_while_messages_wait(self) -> None:
        """A peer that leaves takes the messages that wait with it."""
        wire = self.connect()
        wire.arrive(b"z\n" * 60000)
        wire.reset()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_write(self) -> None:
        """The answers to what arrived together leave in one write."""
        wire = self.connect().send(b"a\nb\r\nc\n" * 100)
        self.assertEqual(len(wire.writes), 1)

    def test_many_answers_leave_early(self) -> None:
        """More answers than the transport buffers leave in several writes, so that it can pause."""
        wire = self.connect().send(b"\n" * 60000)
        self.assertEqual(wire.received, b"''\n" * 60000)
        self.assertGreater(len(wire.writes), 1)
        self.assertLess(max(map(len, wire.writes)), 65536 + 100)

    def test_arrival_within_an_answer(self) -> None:
        """What a transport delivers while an answer is being made is answered after it."""

        class Eager(Quote):
            def lineReceived(self, line: bytes) -> None:
                if line == b"a":
                    self.dataReceived(b"b\n")
                super().lineReceived(line)

        self.factory.protocol = Eager
        wire = self.connect().send(b"a\nc\n")
        self.assertEqual(wire.writes, [b"'a'\n'c'\n'b'\n"])

    def test_answer_later(self) -> None:
        """An answer that is not made at once leaves by itself, framed as the last question."""
        wire = self.connect().send(b"a\r\n")
        cast(Quote, wire.protocol).sendLine(b"later")
        self.assertEqual(wire.writes, [b"'a'\r\n", b"later\r\n"])

    def test_close(self) -> None:
        """A protocol that closes has its answers delivered, and gets no more messages."""
        wire = self.connect().send(b"a\nclose\nb\n", b"c\n")
        self.assertEqual((wire.received, wire.ended), (b"'a'\n'close'\n", True))

    def test_longest(self) -> None:
        """A message of MAX_LENGTH bytes is one, whatever its ending."""
        for ending in (b"\n", b"\r\n", b""):
            stream = b"x" * 16384 + ending
            wire = self.connect().send(*pieces(stream, [16384, 1])).end()
            self.assertEqual(wire.received, b"'" + b"x" * 16384 + b"'" + ending)

    def test_too_long(self) -> None:
        """A longer one gets an error line after the answers before it, and the connection is closed."""
        for stream in (b"a\r\n" + b"x" * 16385 + b"\nb\n", b"a\r\n" + b"x" * 16386, b"a\r\n" + b"x" * 16384 + b"\rx"):
            for first, second in ((stream, b""), (stream[:5000], stream[5000:])):
                wire = self.connect().send(first, second)
                error = b"error: a message is longer than 16384 bytes\r\n"
                self.assertEqual(wire.received, b"'a'\r\n" + error)
                self.assertTrue(wire.ended)
                self.assertTrue(wire.send(b"x" * 100000).end().closed)
                self.assertEqual(wire.received, b"'a'\r\n" + error)

    def test_too_long_anywhere(self) -> None:
        """One octet too many is found wherever the message begins in what arrives, and whatever the limit."""
        for limit in range(1, 12):
            for before in range(3 * limit):
                for length in (limit, limit + 1):
                    for ending in (b"\n", b"\r\n"):
                        stream = b"\n" * before + b"x" * length + ending + b"\n" * 20
                        wire = self.connect()
                        wire.protocol.MAX_LENGTH = limit  # type: ignore[attr-defined]
                        self.assertEqual(wire.send(stream).end().received, expected(stream, limit))

    def test_too_long_by_a_cr(self) -> None:
        """A CR that the end of the stream follows, or a pause, is an octet of its message, and may be one too many."""
        question = b"x" * 16384 + b"\r"
        error = b"error: a message is longer than 16384 bytes\n"
        self.assertEqual(self.connect().send(question).end().received, error)
        waiting = self.connect().send(question)
        self.clock.advance(MESSAGE_GAP)
        waiting.turn()
        self.assertEqual(waiting.received, error)

    def test_too_long_at_once(self) -> None:
        """Where no message had an ending yet, the error line has one nevertheless."""
        wire = self.connect().send(b"x" * 20000)
        self.assertEqual(wire.received, b"error: a message is longer than 16384 bytes\n")

    def test_longest_among_mixed_endings(self) -> None:
        """The CR of an ending is no part of the message."""
        stream = b"a\n" + b"x" * 16384 + b"\r\n"
        self.assertEqual(self.connect().send(stream).received, b"'a'\n'" + b"x" * 16384 + b"'\r\n")

    def test_too_long_and_gone(self) -> None:
        """A peer whose end is seen while the error line waits behind other answers still gets it."""
        wire = self.connect()
        wire.arrive(b"x" * 10000 + b"\n" + b"y" * 10000 + b"\n" + b"z\n" * 14000 + b"x" * 17000)
        cast(Quote, wire.protocol).readConnectionLost()
        self.assertFalse(wire.disconnecting)
        wire.turn()
        self.assertTrue(wire.received.endswith(b"'z'\nerror: a message is longer than 16384 bytes\n"))
        self.assertTrue(wire.closed)

    def test_no_raw_mode(self) -> None:
        """There is no raw mode, and it says so."""
        self.assertRaises(NotImplementedError, cast(Quote, self.connect().protocol).setRawMode)


class MessageGapTests(SynchronousTestCase):
    """Clients that send no line endings."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, gap: float = MESSAGE_GAP) -> Wire:
        """A new connection."""
        return Wire.to(QuoteFactory(message_gap=gap, reactor=cast(IReactorTime, self.clock)))

    def wait(self, wire: Wire, seconds: float) -> bytes:
        """What has been answered `seconds` later."""
        self.clock.advance(seconds)
        wire.turn()
        return wire.received

    def test_answered_after_a_pause(self) -> None:
        """What came without an ending is a message after a pause, and its answer has no ending."""
        wire = self.connect().send(b"hello")
        self.assertEqual(self.wait(wire, MESSAGE_GAP - 0.01), b"")
        self.assertEqual(self.wait(wire, 0.02), b"'hello'")
        wire.send(b"again")
        self.assertEqual(self.wait(wire, MESSAGE_GAP), b"'hello''again'")

    def test_the_pause_is_measured_from_the_last_arrival(self) -> None:
        """As long as more comes, the message goes on."""
        wire = self.connect()
        for piece in (b"one", b" message", b" in three"):
            wire.send(piece)
            self.assertEqual(self.wait(wire, 0.2), b"")
        self.assertEqual(self.wait(wire, 0.05), b"'one message in three'")

    def test_off_once_an_ending_was_sent(self) -> None:
        """From the first line ending on, only line endings count."""
        wire = self.connect().send(b"a\nb")
        self.assertEqual(self.wait(wire, 10), b"'a'\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        wire.send(b"c\n")
        self.assertEqual(wire.received, b"'a'\n'bc'\n")

    def test_ending_within_the_pause(self) -> None:
        """A line ending that comes before the pause is over ends the message, once."""
        wire = self.connect().send(b"a", b"b\n")
        self.assertEqual(self.wait(wire, 10), b"'ab'\n")

    def test_ending_after_the_pause(self) -> None:
        """A line ending that comes after the answer is an empty message."""
        wire = self.connect().send(b"a")
        self.assertEqual(self.wait(wire, 1), b"'a'")
        self.assertEqual(wire.send(b"\n").received, b"'a'''\n")

    def test_turned_off(self) -> None:
        """With a gap of 0, a message without an ending waits for the end of the stream."""
        wire = self.connect(gap=0).send(b"a")
        self.assertEqual(self.wait(wire, 100), b"")
        self.assertEqual(wire.end().received, b"'a'")

    def test_peer_leaves(self) -> None:
        """No timer outlives the connection."""
        self.connect().send(b"a").reset()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_long(self) -> None:
        """Too long a message leaves no timer either."""
        self.connect().send(b"a", b"x" * 20000).end()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class IdleTimerTests(SynchronousTestCase):
    """`IdleTimer`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[float] = []
        self.timer = IdleTimer(cast(IReactorTime, self.clock), 1, lambda: self.calls.append(self.clock.seconds()))

    def test_one_timer(self) -> None:
        """However often it is marked, one timer runs."""
        for _ in range(5):
            self.timer.mark()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_calls_once(self) -> None:
        """It calls once, a while after the last mark; the next mark starts it anew."""
        self.timer.mark()
        self.clock.advance(0.75)
        self.timer.mark()
        self.clock.pump([0.25, 0.75, 5])
        self.timer.mark()
        self.clock.advance(1)
        self.assertEqual(self.calls, [1.75, 7.75])

    def test_cancel(self) -> None:
        """Cancelled, it does not call, and can be cancelled again."""
        self.timer.mark()
        self.timer.cancel()
        self.timer.cancel()
        self.clock.advance(5)
        self.assertEqual(self.calls, [])


class LineClientTests(SynchronousTestCase):
    """`LineClient`."""

    def setUp(self) -> None:
        self.wire = Wire.to(Factory.forProtocol(LineClient))
        self.client = cast(LineClient, self.wire.protocol)

    def test_exchange(self) -> None:
        """A line goes out and a line comes back, in however many pieces; what nobody asked for is ignored."""
        asked = self.client.ask(b"question")
        self.wire.send(b"ans")
        self.assertNoResult(asked)
        self.wire.send(b"wer\nmore\n")
        self.assertEqual(self.successResultOf(asked), b"answer")
        self.assertEqual(self.wire.received, b"question\n")

    def test_lost(self) -> None:
        """A lost connection fails what was asked, and what will be."""
        asked = self.client.ask(b"question")
        self.wire.reset()
        self.failureResultOf(asked, ConnectionLost)
        self.failureResultOf(self.client.ask(b"again"), ConnectionLost)

    def test_lost_in_silence(self) -> None:
        """A connection may be lost while nothing is asked."""
        self.wire.reset()
        self.assertTrue(self.wire.closed)


class TurnTests(SynchronousTestCase):
    """How much of a connection's input is taken in one turn of the loop."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = QuoteFactory(reactor=self.clock)
        self.wire = Wire.to(self.factory)

    def arrive(self, data: bytes) -> None:
        """More arrives at once than Twisted reads."""
        cast(Quote, self.wire.protocol).dataReceived(data)

    def end(self) -> None:
        """The end of input is seen."""
        cast(Quote, self.wire.protocol).readConnectionLost()

    def test_a_turn_at_a_time(self) -> None:
        """A part of it is answered in each turn, in order, and nothing is read meanwhile."""
        self.arrive(b"\n" * (3 * TURN + 1))
        self.assertEqual(self.wire.producerState, "paused")
        self.wire.read()
        counts = [self.wire.received.count(b"\n")]
        while self.wire.producerState == "paused":
            self.clock.advance(0)
            self.wire.read()
            counts.append(self.wire.received.count(b"\n"))
        self.assertLessEqual(max(later - earlier for earlier, later in pairwise([0, *counts])), TURN)
        self.wire.turn()
        self.assertEqual(self.wire.received, b"''\n" * (3 * TURN + 1))
        self.assertEqual(self.wire.send(b"last\n").received[-7:], b"'last'\n")

    def test_more_arrives(self) -> None:
        """What comes before its turn waits for it, in order."""
        self.arrive(b"a\n" * TURN)
        self.arrive(b"b\n")
        self.wire.turn()
        self.assertEqual(self.wire.received, b"'a'\n" * TURN + b"'b'\n")

    def test_end(self) -> None:
        """The end of input comes after all of it, and the last message is answered without an ending."""
        self.arrive(b"a\n" * TURN + b"last")
        self.end()
        self.wire.turn()
        self.assertEqual(self.wire.received, b"'a'\n" * TURN + b"'last'")

    def test_closes(self) -> None:
        """After the message that closes nothing is answered, however much has arrived."""
        self.arrive(b"close\n" + b"a\n" * TURN)
        self.wire.turn()
        self.assertNotIn(b"a", self.wire.received)

    def test_too_long(self) -> None:
        """A message that is too long ends it as ever."""
        self.arrive(b"a\n" + b"x" * 3 * TURN)
        self.wire.turn()
        self.assertTrue(self.wire.received.startswith(b"'a'\nerror: a message is longer"))

    def test_gone(self) -> None:
        """With the peer the rest is gone, and no timer is left."""
        self.arrive(b"a\n" * TURN)
        self.wire.reset()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_reader(self) -> None:
        """A peer that doesn't read has what waits bounded, and loses nothing in the end."""
        self.arrive(b"a\n" * TURN)
        for _ in range(10):
            self.clock.advance(0)
            self.assertLess(len(self.wire.waiting), 4 * TURN)
        for _ in range(20):
            self.wire.read()
            self.clock.advance(0)
        self.wire.turn()
        self.assertEqual(self.wire.received, b"'a'\n" * TURN)

    def test_unfinished(self) -> None:
        """Which message has begun is known, and how many have come."""
        protocol = cast(Quote, self.wire.protocol)
        seen = []
        for data in (b"", b"ab", b"c", b"\nd\n", b"\r", b"\n"):
            self.wire.send(data)
            seen.append((protocol.messages, protocol.unfinished))
        self.assertEqual(seen, [(0, None), (0, 0), (0, 0), (2, None), (2, 2), (3, None)])

    def test_finish_with_unread_input(self) -> None:
        """What has been read is answered, though it takes more than one turn of the loop."""
        protocol = cast(Quote, self.wire.protocol)
        lines = b"".join(b"%05d\n" % n for n in range(30_000))
        protocol.dataReceived(lines)
        protocol.finish()
        self.wire.turn()
        self.assertEqual(self.wire.received.count(b"\n"), 30_000)
        self.assertTrue(self.wire.ended)

    def test_finish(self) -> None:
        """It answers what it has, and closes; once."""
        protocol = cast(Quote, self.wire.protocol)
        self.wire.send(b"ab\n")
        protocol.finish()
        protocol.finish()
        self.wire.turn()
        self.assertEqual((self.wire.received, self.wire.ended), (b"'ab'\n", True))
