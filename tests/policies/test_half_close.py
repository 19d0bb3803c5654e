"""Half-close through TLS and through PROXY headers, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, cast

import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL.SSL import (
    TLS1_2_VERSION,
    TLS1_3_VERSION,
    TLS_CLIENT_METHOD,
    TLS_SERVER_METHOD,
    Connection,
    Context,
    Error,
    WantReadError,
)
from OpenSSL.SSL import ZeroReturnError as CloseNotify
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, implementer

from tests.wire import BUFFER_SIZE, OneWayWire, Wire, pieces
from twistednet.policies.half_close import (
    HalfClosingTLS,
    HalfClosingTLSFactory,
    HalfClosingWrapper,
)
from twistednet.policies.limits import LimitedFactory, Limits
from twistednet.protocols import EchoClient, EchoFactory, ReverseClient, ReverseFactory
from twistednet.protocols.flow import LINGER, RepeatingProducer, StreamFactory, StreamProtocol, can_half_close
from twistednet.protocols.simple import CHARGEN


class Creator:
    """Makes TLS connections for either side; neither is verified.

    :param method: the side.
    """

    def __init__(self, method: int) -> None:
        self.context = Context(method)
        if method == TLS_SERVER_METHOD:
            trustme.CA().issue_cert("localhost").configure_cert(self.context)

    def serverConnectionForTLS(self, tls: Any) -> Connection:
        return Connection(self.context, None)

    clientConnectionForTLS = serverConnectionForTLS


@cache
def server_creator() -> Any:
    """A server's, with a certificate."""
    creator = Creator(TLS_SERVER_METHOD)
    directlyProvides(creator, IOpenSSLServerConnectionCreator)
    return creator


class OneEnd(Protocol):
    """Keeps what happens; it has one end for both directions."""

    def __init__(self) -> None:
        self.seen: list[bytes | str] = []
        self.reason: Exception | None = None

    def dataReceived(self, data: bytes) -> None:
        self.seen.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.seen.append("lost")
        self.reason = cast(Exception, reason.value)


@implementer(IHalfCloseableProtocol)
class TwoEnds(OneEnd):
    """The same with half-close."""

    def readConnectionLost(self) -> None:
        self.seen.append("read")

    def writeConnectionLost(self) -> None:
        self.seen.append("written")


class OneEndEcho(Protocol):
    """Twisted's way to write an echo."""

    reason: Exception | None = None

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = cast(Exception, reason.value)


class Peer:
    """An OpenSSL client of a server behind `HalfClosingTLS`, over a `Wire`.

    `received` is what it has read, `ended` whether close_notify has come.
    """

    def __init__(self, factory: Any, version: int = TLS1_3_VERSION, *, handshake: bool = True) -> None:
        self.clock = Clock()
        wrapping = HalfClosingTLSFactory(server_creator(), False, factory, cast(IReactorTime, self.clock))
        self.wire = Wire.to(wrapping)
        self.server = cast(HalfClosingTLS, self.wire.protocol)
        self.protocol = cast(Any, self.server.wrappedProtocol)
        context = Context(TLS_CLIENT_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        self.tls = Connection(context, None)
        self.tls.set_connect_state()
        self.received = b""
        self.ended = False
        self._taken = 0
        if handshake:
            self.turn()

    def turn(self) -> Peer:
        """Send what there is to send, and read what there is to read, until nothing happens any more."""
        while True:
            before = len(self.wire.received), self.wire.closed, self.clock.getDelayedCalls()
            for data in self.records():
                self.wire.arrive(data)
            self.clock.advance(0)
            self.wire.turn()
            self.read()
            if before == (len(self.wire.received), self.wire.closed, self.clock.getDelayedCalls()):
                return self

    def records(self) -> Iterator[bytes]:
        """What there is to send."""
        if not self.tls.get_finished():
            try:
                self.tls.do_handshake()
            except WantReadError:
                pass
        while True:
            try:
                yield self.tls.bio_read(2**15)
            except WantReadError:
                return

    def read(self) -> None:
        """Decrypt what the wire has brought."""
        data, self._taken = self.wire.received[self._taken :], len(self.wire.received)
        if data:
            self.tls.bio_write(data)
        while not self.ended:
            try:
                self.received += self.tls.recv(2**15)
            except WantReadError:
                return
            except CloseNotify:
                self.ended = True
            except Error:
                return  # a fatal alert

    def write(self, data: bytes) -> Peer:
        """Encrypt `data`."""
        for i in range(0, len(data), 2**14):
            self.tls.send(data[i : i + 2**14])
        return self

    def end(self) -> Peer:
        """Send close_notify."""
        try:
            self.tls.shutdown()
        except Error:
            pass
        return self


def recording(protocol: Any = TwoEnds) -> Factory[Any]:
    """A factory of `protocol`."""
    factory: Factory[Any] = Factory.forProtocol(protocol)
    factory.noisy = False
    return factory


class Goodbye(StreamProtocol):
    """Answers what comes first, and closes first."""

    def dataReceived(self, data: bytes) -> None:
        if not self.closing:
            self.transport.write(b"goodbye " + data * 20000)
            self.close()


class Welcome(StreamProtocol):
    """Speaks first."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.write(b"welcome")

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class TLSInputTests(SynchronousTestCase):
    """The peer's stream, and its end."""

    def test_last_message(self) -> None:
        """A last message without an ending is answered after close_notify, however both were cut."""
        for version in (TLS1_2_VERSION, TLS1_3_VERSION):
            size = len(b"".join(Peer(ReverseFactory(), version).write(b"ab\ncd").end().records()))
            for cut in range(size + 1):
                clock = cast(IReactorTime, Clock())
                peer = Peer(ReverseFactory(reactor=clock), version).write(b"ab\ncd").end()
                data = b"".join(peer.records())
                for piece in filter(None, (data[:cut], data[cut:])):
                    peer.wire.arrive(piece)
                    peer.turn()
                self.assertEqual((peer.received, peer.ended), (b"ba\ndc", True))
                self.assertTrue(peer.wire.closed)

    def test_peer_ends_tcp_too(self) -> None:
        """A FIN after close_notify changes nothing: what is owed is delivered."""
        data = b"x" * 1_000_000
        peer = Peer(EchoFactory()).write(data).end()
        for record in peer.records():
            peer.wire.arrive(record)
        peer.wire._peer_ended = True
        peer.turn()
        self.assertEqual((peer.received == data, peer.ended, peer.wire.closed), (True, True, True))

    def test_told_once(self) -> None:
        """The end is told after everything that came before it, once, and the connection stays open."""
        peer = Peer(recording()).write(b"all").end().turn()
        peer.wire.end()
        peer.server.readConnectionLost()
        self.assertEqual(peer.protocol.seen, [b"all", "read"])
        self.assertFalse(peer.wire.closed)
        peer.server.write(b"answer")
        peer.turn()
        self.assertEqual((peer.received, peer.ended), (b"answer", False))
        peer.server.loseConnection()
        peer.turn()
        self.assertEqual((peer.ended, peer.wire.closed, peer.wire._ending), (True, True, False))
        self.assertIsInstance(peer.protocol.reason, ConnectionDone)

    def test_after_the_end(self) -> None:
        """What comes after close_notify is neither delivered nor kept."""
        peer = Peer(recording()).end().turn()
        pending = cast(Any, peer.server)._tlsConnection
        peer.wire.send(b"\x17\x03\x03\x40\x00" + b"x" * 2**14)
        self.assertEqual(peer.protocol.seen, ["read"])
        self.assertEqual(pending.pending(), 0)
        self.assertRaises(CloseNotify, pending.recv, 1)
        self.assertIs(vars(peer.server)["dataReceived"](b"x"), None)
        self.assertFalse(peer.wire.closed)

    def test_truncated(self) -> None:
        """A FIN without close_notify is a lost connection; what was answered is delivered, the last is not asked."""
        factory = ReverseFactory(reactor=cast(IReactorTime, Clock()))
        lost: list[Failure] = []
        peer = Peer(factory).write(b"ab\ncd")
        peer.protocol.connectionLost = lost.append
        for record in peer.records():
            peer.wire.arrive(record)
        peer.wire.end()
        peer.read()
        self.assertEqual((peer.received, peer.wire.closed), (b"ba\n", True))
        self.assertIsInstance(lost[0].value, ConnectionLost)

    def test_truncated_slow_reader(self) -> None:
        """A truncated connection whose peer reads slowly is closed when what was answered has been delivered."""
        data = b"x" * (4 * BUFFER_SIZE)
        peer = Peer(EchoFactory())
        peer.write(data[: 2 * BUFFER_SIZE])
        for record in peer.records():
            peer.wire.arrive(record)
        self.assertEqual(peer.wire.producerState, "paused")
        peer.server.readConnectionLost()
        self.assertFalse(peer.wire.closed)
        peer.wire.read()
        peer.read()
        self.assertTrue(peer.wire.closed)
        self.assertGreaterEqual(len(peer.received), BUFFER_SIZE)
        self.assertEqual(peer.clock.getDelayedCalls(), [])

    def test_truncated_handshake(self) -> None:
        """A FIN in the handshake loses the connection."""
        peer = Peer(recording(), handshake=False)
        peer.wire.arrive(next(peer.records())[:20])
        peer.wire.end()
        self.assertEqual((peer.protocol.seen, peer.wire.closed), (["lost"], True))
        self.assertIsInstance(peer.protocol.reason, ConnectionLost)

    def test_not_tls(self) -> None:
        """What is not TLS loses the connection, with OpenSSL's reason."""
        peer = Peer(recording(), handshake=False)
        peer.wire.send(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual((peer.protocol.seen, peer.wire.closed), (["lost"], True))
        self.assertIsInstance(peer.protocol.reason, Error)

    def test_one_end(self) -> None:
        """A protocol that can't be half-closed is lost at close_notify, as ever; its last answer is not."""
        peer = Peer(recording(OneEndEcho)).write(b"hello").end().turn()
        self.assertEqual((peer.received, peer.ended, peer.wire.closed), (b"hello", True, True))
        self.assertIsInstance(peer.protocol.reason, ConnectionDone)
        self.assertFalse(IHalfCloseableProtocol.providedBy(peer.server))

    def test_one_end_truncated(self) -> None:
        """It is lost at a FIN too."""
        peer = Peer(recording(OneEnd))
        peer.wire.end()
        self.assertEqual((peer.protocol.seen, peer.wire.closed), (["lost"], True))
        self.assertIsInstance(peer.protocol.reason, ConnectionLost)

    def test_aborted(self) -> None:
        """A protocol that aborts is given no more of what has arrived already."""
        peer = Peer(recording())
        peer.wire.abortConnection = lambda: None  # type: ignore[method-assign]

        def abort(data: bytes) -> None:
            peer.protocol.seen.append(data)
            peer.server.abortConnection()

        peer.protocol.dataReceived = abort
        for record in peer.write(b"one").write(b"two").records():
            peer.wire.arrive(record)
        self.assertEqual(peer.protocol.seen, [b"one"])

    def test_reset(self) -> None:
        """A reset loses the connection, and leaves no timer."""
        peer = Peer(recording())
        peer.server.pauseProducing()
        peer.server._flushReceiveBIO()
        peer.server.resumeProducing()
        peer.server.write(b"never sent")
        peer.wire.reset()
        self.assertEqual(peer.protocol.seen, ["lost"])
        self.assertEqual(peer.clock.getDelayedCalls(), [])


class TLSBackPressureTests(SynchronousTestCase):
    """A protocol that pauses its transport."""

    def test_pause(self) -> None:
        """It is given nothing until it resumes, neither what has arrived already nor the end, and then everything."""
        peer = Peer(recording())
        protocol, server = peer.protocol, peer.server

        def pause_after(data: bytes) -> None:
            protocol.seen.append(data)
            server.pauseProducing()

        protocol.dataReceived = pause_after
        peer.write(b"one").write(b"two").end()
        peer.turn()
        self.assertEqual((protocol.seen, peer.wire.producerState), ([b"one"], "paused"))
        server.resumeProducing()
        server.resumeProducing()
        self.assertEqual(protocol.seen, [b"one"])
        peer.turn()
        self.assertEqual((protocol.seen, peer.wire.producerState), ([b"one", b"two"], "paused"))
        server.resumeProducing()
        server.pauseProducing()
        peer.turn()
        self.assertEqual(protocol.seen, [b"one", b"two"])
        server.resumeProducing()
        peer.turn()
        self.assertEqual((protocol.seen, peer.wire.producerState), ([b"one", b"two", "read"], "producing"))

    def test_before_the_handshake(self) -> None:
        """A protocol that speaks before the handshake, and so is paused, does not keep the handshake waiting."""
        factory: StreamFactory[Any] = StreamFactory()
        factory.protocol = Welcome
        peer = Peer(factory, handshake=False)
        peer.clock.advance(0)
        peer.turn()
        self.assertEqual(peer.received, b"welcome")
        peer.write(b"hello").end().turn()
        self.assertEqual((peer.received, peer.ended, peer.wire.closed), (b"welcomehello", True, True))

    def test_paused_from_the_beginning(self) -> None:
        """A protocol that pauses before the handshake is given nothing after it, and the peer is not read from."""
        peer = Peer(recording(), handshake=False)
        peer.server.pauseProducing()
        peer.turn()
        peer.write(b"one").turn()
        self.assertEqual((peer.protocol.seen, peer.wire.producerState), ([], "paused"))
        peer.server.resumeProducing()
        peer.turn()
        self.assertEqual((peer.protocol.seen, peer.wire.producerState), ([b"one"], "producing"))

    def test_resume_at_once(self) -> None:
        """One that pauses and resumes while it is given something is given the rest."""
        peer = Peer(recording())

        def pause_shortly(data: bytes) -> None:
            peer.protocol.seen.append(data)
            peer.server.pauseProducing()
            peer.server.resumeProducing()

        peer.protocol.dataReceived = pause_shortly
        peer.write(b"one").write(b"two").turn()
        self.assertEqual((peer.protocol.seen, peer.clock.getDelayedCalls()), ([b"one", b"two"], []))

    def test_reader_that_stops(self) -> None:
        """A peer that does not read is not read from, and what waits for it is bounded."""
        peer = Peer(EchoFactory()).write(b"x" * 1_000_000)
        arrived = 0
        for record in peer.records():
            peer.wire.arrive(record)
            arrived += len(record) * (peer.wire.producerState == "producing")
        self.assertLess(arrived, 3 * BUFFER_SIZE)
        self.assertLess(len(peer.wire.waiting), 3 * BUFFER_SIZE)
        peer.end().turn()
        self.assertEqual((len(peer.received), peer.ended), (1_000_000, True))

    def test_pull_producer(self) -> None:
        """What makes output piece by piece goes on after the peer's end."""
        peer = Peer(recording())

        def finish() -> None:
            peer.server.unregisterProducer()
            peer.server.loseConnection()

        peer.end().turn()
        producer = RepeatingProducer(cast(Any, peer.server), b"abc", 200_000, finish)
        pushed = Pushed(producer)
        peer.server.registerProducer(pushed, True)
        while not pushed.stopped:
            pushed.more()
        peer.turn()
        self.assertEqual((peer.received, peer.ended), ((b"abc" * 70_000)[:200_000], True))


class Pushed:
    """Pushes what another would have to be asked for, when the test says so."""

    stopped = False

    def __init__(self, producer: RepeatingProducer) -> None:
        self.producer = producer
        producer._done, self._finish = self._stop, producer._done

    def more(self) -> None:
        """Produce a piece."""
        self.producer.resumeProducing()

    def _stop(self) -> None:
        self.stopped = True
        self._finish()

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        self.stopped = True


class TLSOutputTests(SynchronousTestCase):
    """Our stream, and its end."""

    def test_can(self) -> None:
        """A protocol inside can half-close it."""
        self.assertTrue(can_half_close(cast(Any, Peer(recording()).server)))

    def test_end(self) -> None:
        """close_notify follows all that was written; what the peer sends still comes; TCP goes on both ways."""
        peer = Peer(recording())
        peer.server.write(b"all")
        peer.server.loseWriteConnection()
        peer.server.loseWriteConnection()
        peer.server.write(b"too late")
        peer.server.writeSequence([b"too ", b"late"])
        peer.turn()
        self.assertEqual((peer.received, peer.ended, peer.wire.closed), (b"all", True, False))
        self.assertEqual(peer.protocol.seen, ["written"])
        peer.write(b"more").end().turn()
        self.assertEqual(peer.protocol.seen, ["written", b"more", "read"])
        self.assertEqual((peer.wire.closed, peer.wire._ending), (False, False))
        peer.server.loseConnection()
        peer.turn()
        self.assertTrue(peer.wire.closed)
        self.assertIsInstance(peer.protocol.reason, ConnectionDone)

    def test_written_when_sent(self) -> None:
        """The end is told when the peer has taken all of it, and not before."""
        peer = Peer(recording())
        peer.server.write(b"x" * 100_000)
        peer.server.loseWriteConnection()
        peer.wire.read(50_000)
        self.assertEqual(peer.protocol.seen, [])
        peer.wire.read()
        self.assertEqual(peer.protocol.seen, ["written"])

    def test_reset_before_it_is_sent(self) -> None:
        """A connection that breaks before that has no end of its own."""
        peer = Peer(recording())
        peer.server.loseWriteConnection()
        peer.wire.reset()
        self.assertEqual(peer.protocol.seen, ["lost"])

    def test_after_the_peer(self) -> None:
        """Both ends in turn leave the connection open until the protocol closes it, as on TCP."""
        peer = Peer(recording()).end().turn()
        peer.server.loseWriteConnection()
        peer.turn()
        self.assertEqual((peer.protocol.seen, peer.ended, peer.wire.closed), (["read", "written"], True, False))
        peer.server.loseConnection()
        self.assertTrue(peer.turn().wire.closed)

    def test_in_the_handshake(self) -> None:
        """What ends before the handshake has is written and ended after it; so is what has nothing to write."""
        for data in (b"early", b""):
            peer = Peer(recording(), handshake=False)
            peer.server.write(data)
            peer.server.loseWriteConnection()
            peer.turn()
            self.assertEqual((peer.received, peer.ended, peer.wire.closed), (data, True, False))
            self.assertEqual(peer.protocol.seen, ["written"])

    def test_producer(self) -> None:
        """Output ends when its producer has been unregistered."""
        peer = Peer(recording())
        peer.server.registerProducer(Pushed(RepeatingProducer(cast(Any, peer.server), b"x")), True)
        peer.server.loseWriteConnection()
        peer.server.write(b"still")
        self.assertFalse(peer.turn().ended)
        peer.server.write(b" more")
        peer.server.unregisterProducer()
        peer.turn()
        self.assertEqual((peer.received, peer.ended), (b"still more", True))

    def test_closing_with_producer(self) -> None:
        """What is closed while a producer goes on is written to its end, though the peer has ended."""
        peer = Peer(recording())
        peer.server.registerProducer(Pushed(RepeatingProducer(cast(Any, peer.server), b"x")), True)
        peer.server.loseConnection()
        peer.end().turn()
        self.assertEqual((peer.protocol.seen, peer.ended, peer.wire.closed), ([], False, False))
        peer.server.write(b"last")
        peer.server.unregisterProducer()
        peer.turn()
        self.assertEqual((peer.received, peer.ended, peer.wire.closed), (b"last", True, True))

    def test_timed_out(self) -> None:
        """A time-out closes at once, though the protocol has registered its reading side as a producer."""
        clock = Clock()
        factory = LimitedFactory(EchoFactory(reactor=clock), Limits(idle_timeout=2), reactor=clock)
        peer = Peer(factory)
        for _ in range(2):
            self.assertFalse(peer.ended)
            clock.advance(1)
        peer.turn()
        self.assertTrue(peer.ended)

    def test_closing(self) -> None:
        """A close that waits for the peer's close_notify is done when that comes; it is no news to the protocol."""
        peer = Peer(recording())
        peer.server.loseConnection()
        self.assertFalse(peer.turn().wire.closed)
        peer.end().turn()
        self.assertEqual((peer.protocol.seen, peer.wire.closed), (["lost"], True))
        self.assertIsInstance(peer.protocol.reason, ConnectionDone)

    def test_end_after_close(self) -> None:
        """A connection that is being closed has no end of its own."""
        peer = Peer(recording())
        peer.server.loseConnection()
        peer.server.loseWriteConnection()
        peer.end().turn()
        self.assertEqual(peer.protocol.seen, ["lost"])

    def test_one_end(self) -> None:
        """A protocol that can't be half-closed can end its output all the same, and is not told."""
        peer = Peer(recording(OneEnd))
        peer.server.loseWriteConnection()
        peer.server.writeConnectionLost()
        self.assertEqual((peer.turn().ended, peer.protocol.seen, peer.wire.closed), (True, [], False))

    def test_close_first_lingers(self) -> None:
        """A stream protocol that closes first waits for the peer's end from when its last answer has been taken."""
        clock = Clock()
        factory: StreamFactory[Any] = StreamFactory(reactor=cast(IReactorTime, clock))
        factory.protocol = Goodbye
        peer = Peer(factory).write(b"hello")
        for record in peer.records():
            peer.wire.arrive(record)
        clock.advance(LINGER)
        self.assertFalse(peer.wire.closed)
        peer.turn()
        self.assertEqual((peer.received, peer.ended), (b"goodbye " + b"hello" * 20000, True))
        peer.write(b"more").turn()
        clock.advance(LINGER - 0.1)
        self.assertFalse(peer.turn().wire.closed)
        clock.advance(0.1)
        self.assertTrue(peer.turn().wire.closed)

    def test_close_first_until_the_peer_ends(self) -> None:
        """The peer's end closes it, and leaves no timer."""
        clock = Clock()
        factory: StreamFactory[Any] = StreamFactory(reactor=cast(IReactorTime, clock))
        factory.protocol = Goodbye
        peer = Peer(factory).write(b"hello").turn()
        self.assertTrue(peer.end().turn().wire.closed)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_endless(self) -> None:
        """What never ends is told to stop when the peer has gone."""
        peer = Peer(recording())
        pushed = Pushed(RepeatingProducer(cast(Any, peer.server), CHARGEN))
        peer.server.registerProducer(pushed, True)
        peer.wire.end()
        self.assertTrue(pushed.stopped)
        self.assertTrue(peer.turn().wire.closed)


class TLSPropertyTests(SynchronousTestCase):
    """Whatever is sent, and however it is cut and read, an echo is the same."""

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.binary(min_size=1, max_size=30_000), max_size=8),
        st.lists(st.integers(1, 50_000), max_size=12),
        st.lists(st.integers(1, 50_000), max_size=12),
        st.booleans(),
    )
    def test_echo(self, writes: list[bytes], cuts: list[int], reads: list[int], fin: bool) -> None:
        """Every byte comes back, then close_notify; then the connection is closed, and nothing is left."""
        peer = Peer(EchoFactory())
        for data in writes:
            peer.write(data)
        stream = b"".join(peer.end().records())
        for piece, size in zip(pieces(stream, cuts), [*reads, *([None] * len(cuts)), None], strict=False):
            peer.wire.arrive(piece)
            peer.clock.advance(0)
            peer.wire.read(size)
        if fin:
            peer.wire.end()
        peer.turn()
        self.assertEqual((peer.received, peer.ended, peer.wire.closed), (b"".join(writes), True, True))
        self.assertEqual(peer.clock.getDelayedCalls(), [])


class ClientTests(SynchronousTestCase):
    """Our clients over TLS: they end their stream, and go on receiving."""

    def connect(self, client: Any, factory: Any) -> tuple[Any, Any, Any, Any]:
        """`client` and what `factory` makes, connected."""
        clock = Clock()
        creator = cast(Any, Creator(TLS_CLIENT_METHOD))
        directlyProvides(creator, IOpenSSLClientConnectionCreator)
        seconds = cast(IReactorTime, clock)
        near = Wire.to(HalfClosingTLSFactory(creator, True, recording(client), seconds))
        far = Wire.to(HalfClosingTLSFactory(server_creator(), False, factory, seconds))
        return cast(Any, near.protocol).wrappedProtocol, near, far, clock

    def turn(self, near: Wire, far: Wire, clock: Clock) -> None:
        """Carry everything both ways, the close of the one included."""
        for _ in range(40):
            for one, other in ((near, far), (far, near)):
                data = one.read()
                if data and not other.closed:
                    other.arrive(data)
                if one.closed and not other.closed:
                    other.end()
            clock.advance(0)

    def test_reverse(self) -> None:
        """A last line without an ending comes back after the client's end; what came before it is awaited."""
        client, *rest = self.connect(ReverseClient, ReverseFactory(reactor=cast(IReactorTime, Clock())))
        finished = client.finished()
        client.send(b"ab\nc")
        client.send(b"d")
        client.end()
        self.assertFalse(rest[0].protocol._ending)
        self.turn(*rest)
        self.assertEqual((client.answer, client.owed), (b"ba\ndc", 0))
        self.assertIsNone(self.successResultOf(finished))
        self.assertEqual([wire.closed for wire in rest[:2]], [True, True])

    def test_echo_that_has_one_end(self) -> None:
        """A server that closes at the client's end has answered everything by then."""
        client, *rest = self.connect(EchoClient, recording(OneEndEcho))
        finished = client.finished()
        client.send(b"x" * 100_000)
        client.end()
        self.turn(*rest)
        self.assertEqual((len(client.answer), client.owed), (100_000, 0))
        self.assertIsNone(self.successResultOf(finished))

    def test_nothing(self) -> None:
        """A client that ends at once, before the handshake, is closed by the server."""
        client, *rest = self.connect(EchoClient, EchoFactory())
        finished = client.finished()
        client.end()
        self.turn(*rest)
        self.assertIsNone(self.successResultOf(finished))


class WrapperTests(SynchronousTestCase):
    """`HalfClosingWrapper`."""

    def wrap(self, protocol: Any, kind: type[OneWayWire] = Wire) -> OneWayWire:
        """`protocol` in a wrapper, connected."""
        factory: WrappingFactory[Any] = WrappingFactory(recording(protocol))
        factory.protocol = HalfClosingWrapper
        factory.noisy = False
        return kind.to(factory)

    def test_both_ends(self) -> None:
        """Both ends are passed on."""
        wire = self.wrap(TwoEnds)
        wrapper = cast(Any, wire.protocol)
        wire.send(b"all").end()
        wrapper.write(b"answer")
        self.assertTrue(can_half_close(wrapper))
        wrapper.loseWriteConnection()
        wire.turn()
        self.assertEqual(wrapper.wrappedProtocol.seen, [b"all", "read", "written"])
        self.assertEqual((wire.received, wire.ended, wire.closed), (b"answer", True, False))

    def test_one_end(self) -> None:
        """A protocol that has one end is lost at the peer's, as it is without the wrapper."""
        wire = self.wrap(OneEnd)
        protocol = cast(Any, wire.protocol).wrappedProtocol
        self.assertTrue(wire.send(b"all").end().closed)
        self.assertEqual(protocol.seen, [b"all", "lost"])

    def test_transport_that_has_one_end(self) -> None:
        """Where the transport can't be half-closed, it is closed, after what was written."""
        wire = self.wrap(TwoEnds, OneWayWire)
        wrapper = cast(Any, wire.protocol)
        wrapper.write(b"answer")
        wrapper.loseWriteConnection()
        wire.turn()
        self.assertEqual((wire.received, wire.closed), (b"answer", True))


class NoProtocolTests(SynchronousTestCase):
    """A factory that has no protocol for a connection."""

    def test_tls(self) -> None:
        """TLS is not begun: the port closes the connection."""

        class Refuses(Factory[Protocol]):
            def buildProtocol(self, addr: Any) -> None:
                return None

        factory = HalfClosingTLSFactory(server_creator(), False, Refuses())
        self.assertIsNone(factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)))
        self.assertEqual(factory.protocols, {})
