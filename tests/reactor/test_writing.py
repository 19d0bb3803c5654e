"""When what a protocol writes is given to the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from unittest import mock

from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from twistednet.reactor import stream
from twistednet.reactor.loop import DIRECT_SECONDS, LoopReactor
from twistednet.reactor.stream import QUICK, QUICK_ANSWERS, LoopStream


class FakeLoopTransport:
    """A transport of a loop, which notes what it is given, and takes nothing where it is `full`."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.full = False
        self.waiting = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.full:
            self.waiting += len(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing: the test says when the buffer is full."""

    def pause_reading(self) -> None:
        """Nothing is read."""

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing is connected."""


class FakeLoop:
    """A loop of which each turn, and the time, come when the test says so."""

    def __init__(self) -> None:
        self.ready: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.later: list[tuple[float, Callable[..., object]]] = []

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        self.ready.append((call, arguments))

    def call_later(self, delay: float, call: Callable[..., object]) -> object:
        self.later.append((delay, call))
        return object()

    def turn(self) -> None:
        """Call what is ready."""
        ready, self.ready = self.ready, []
        for call, arguments in ready:
            call(*arguments)


class Answering(Protocol):
    """Answers each arrival by writing each of its octets, and takes `seconds` for it."""

    def __init__(self, test: WritingTests) -> None:
        self.test = test
        self.seconds = 0.0

    def dataReceived(self, data: bytes) -> None:
        self.test.now += self.seconds
        for octet in data:
            assert self.transport is not None
            self.transport.write(bytes([octet]))


class WritingTests(SynchronousTestCase):
    """`LoopStream.write`."""

    def setUp(self) -> None:
        self.now = 0.0
        self.patch(stream, "perf_counter", lambda: self.now)
        self.loop = FakeLoop()
        self.reactor: Any = LoopReactor.__new__(LoopReactor)
        self.reactor._asyncioEventloop = cast(Any, self.loop)
        self.reactor.streams = set()
        self.reactor.direct = set()
        self.reactor._to_flush = {}
        self.reactor._ending_direct = None
        self.protocol = Answering(self)
        self.loop_transport = FakeLoopTransport()
        self.stream: Any = LoopStream(mock.Mock(), self.protocol, self.reactor)
        self.stream._handed_over = True
        self.stream.connected = True
        self.stream.reading = True
        self.protocol.makeConnection(self.stream)
        self.stream.connection_made(cast(Any, self.loop_transport))

    @property
    def written(self) -> list[bytes]:
        """What the loop has been given since this was last asked for."""
        written, self.loop_transport.written = self.loop_transport.written, []
        return written

    def answer_quickly(self, times: int = QUICK_ANSWERS) -> None:
        """Answer so many arrivals with one write each."""
        for _ in range(times):
            self.stream.data_received(b"x")
            self.loop.turn()
        self.assertEqual(self.written, [b"x"] * times)

    def test_collected(self) -> None:
        """What is written in a turn leaves in one piece, in the next."""
        self.stream.write(b"ab")
        self.stream.write(b"c")
        self.assertEqual(self.written, [])
        self.assertEqual(self.stream.bytes_waiting(), 3)
        self.loop.turn()
        self.assertEqual(self.written, [b"abc"])
        self.assertEqual(self.stream.bytes_waiting(), 0)
        self.loop.turn()
        self.assertEqual(self.written, [])

    def test_collected_in_data_received(self) -> None:
        """What is written in dataReceived leaves in one piece when that returns; in the next turn, if it took long."""
        self.stream.data_received(b"abc")
        self.assertEqual(self.written, [b"abc"])
        self.protocol.seconds = QUICK
        self.stream.data_received(b"abc")
        self.stream.write(b"d")
        self.assertEqual(self.written, [])
        self.loop.turn()
        self.assertEqual(self.written, [b"abcd"])

    def test_much(self) -> None:
        """When 64 KiB have been collected they leave at once."""
        self.stream.write(b"a" * 65535)
        self.assertEqual(self.written, [])
        self.stream.write(b"bc")
        self.stream.write(b"d")
        self.assertEqual(self.written, [b"a" * 65535 + b"bc"])
        self.loop.turn()
        self.assertEqual(self.written, [b"d"])

    def test_direct(self) -> None:
        """When enough arrivals in a row were answered quickly with one write, writes leave at once."""
        self.answer_quickly()
        self.stream.data_received(b"ab")
        self.assertEqual(self.written, [b"a", b"b"])
        self.assertEqual(self.reactor.direct, {self.stream})

    def test_not_yet_direct(self) -> None:
        """One fewer is not enough; one with two writes, a slow one, and a write at another time begin the count anew;
        an arrival that is not answered does not."""
        for interruption in (
            lambda: self.stream.data_received(b"ab"),
            lambda: self.stream.write(b"x"),
            self.answer_slowly,
        ):
            self.answer_quickly(QUICK_ANSWERS - 1)
            interruption()
            self.loop.turn()
            self.loop_transport.written.clear()
            self.answer_quickly(QUICK_ANSWERS - 1)
            self.stream.write(b"last")
            self.assertEqual(self.written, [])
            self.loop.turn()
            self.assertEqual(self.written, [b"last"])
        self.answer_quickly(QUICK_ANSWERS - 1)
        self.stream.data_received(b"")
        self.answer_quickly(1)
        self.stream.write(b"x")
        self.assertEqual(self.written, [b"x"])

    def answer_slowly(self) -> None:
        """Answer an arrival with one write, but not quickly."""
        self.protocol.seconds = QUICK
        self.stream.data_received(b"x")
        self.protocol.seconds = 0.0

    def test_direct_for_a_while(self) -> None:
        """After a second everything is collected again."""
        self.answer_quickly()
        ((delay, end),) = self.loop.later
        self.assertEqual(delay, DIRECT_SECONDS)
        end()
        self.assertEqual(self.reactor.direct, set())
        self.stream.data_received(b"ab")
        self.assertEqual(self.written, [b"ab"])
        self.answer_quickly()
        self.stream.write(b"x")
        self.assertEqual(self.written, [b"x"])
        self.assertEqual(len(self.loop.later), 2)

    def test_what_was_collected_before(self) -> None:
        """What has been collected when writes begin to leave at once has left before."""
        self.answer_quickly(QUICK_ANSWERS - 1)
        self.stream.data_received(b"a")
        self.stream.data_received(b"b")
        self.assertEqual(self.written, [b"a", b"b"])

    def test_not_direct(self) -> None:
        """Writes are collected where something is to be done at each: while the buffer is full, while a pull producer
        is registered, after loseConnection."""
        for change in (
            lambda: self.stream.pause_writing(),
            lambda: self.stream.registerProducer(mock.Mock(), False),
            lambda: self.stream.loseConnection(),
        ):
            self.setUp()
            self.answer_quickly()
            self.assertEqual(self.reactor.direct, {self.stream})
            change()
            self.assertEqual(self.reactor.direct, set())
            for _ in range(QUICK_ANSWERS):
                self.stream.data_received(b"x")
            self.assertEqual(self.reactor.direct, set(), change)

    def test_paused_at_every_write(self) -> None:
        """A producer is paused at every write into a full buffer."""
        self.loop_transport.full = True
        self.stream.write(bytes(70_000))
        self.stream.pause_writing()
        producer = mock.Mock()
        self.stream.registerProducer(producer, True)
        for times in (1, 2):
            self.stream.write(b"x")
            self.assertEqual(producer.pauseProducing.call_count, times)

    def test_after_the_end(self) -> None:
        """What has been collected when a connection is lost or aborted is dropped."""
        self.stream.write(b"x")
        self.stream._aborting = True
        self.loop.turn()
        self.assertEqual(self.written, [])

    def test_lost_while_aborting(self) -> None:
        """When the loop loses a connection that is being aborted, its protocol is told at once."""
        lost: list[Any] = []
        self.protocol.connectionLost = lost.append  # type: ignore[method-assign, assignment]
        self.stream._aborting = True
        self.stream.connection_lost(ConnectionResetError())
        self.assertEqual([reason.type for reason in lost], [ConnectionAborted])

    def test_bytes_only(self) -> None:
        """What is no bytes is refused where it is written."""
        for data in ("text", None, bytearray(b"x"), [b"x"]):
            self.assertRaises(TypeError, self.stream.write, data)
        self.loop.turn()
        self.assertEqual(self.written, [])
