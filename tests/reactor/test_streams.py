"""What every stream transport owes its protocol, on whatever reactor the tests run; see `test_ours` for ours."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import trustme
from OpenSSL import SSL
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IOpenSSLContextFactory,
    IPushProducer,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python import context, log
from twisted.python.failure import Failure
from zope.interface import implementer

PATIENCE = 10.0


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """One end of a connection, that notes what happens.

    :param made: what to do in ``connectionMade``.
    """

    transport: Any

    def __init__(self, made: Callable[[Peer], None] = lambda _peer: None) -> None:
        self.made = made
        self.opened: Deferred[Peer] = Deferred()
        self.lost: Deferred[type[BaseException]] = Deferred()
        self.received = b""
        self.events: list[str] = []
        self._waiting: tuple[int, Deferred[bytes]] | None = None

    def connectionMade(self) -> None:
        self.made(self)
        self.opened.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._settle()

    def receive(self, size: int) -> Deferred[bytes]:
        """Wait until `size` bytes have come in all."""
        waiting: Deferred[bytes] = Deferred()
        self._waiting = size, waiting
        self._settle()
        return waiting

    def _settle(self) -> None:
        if self._waiting is not None and len(self.received) >= self._waiting[0]:
            (_, waiting), self._waiting = self._waiting, None
            waiting.callback(self.received)

    def readConnectionLost(self) -> None:
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.type or ConnectionDone)


@implementer(IFileDescriptorReceiver)
class DescriptorPeer(Peer):
    """One end of a connection over which descriptors come."""

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.events.append(os.read(descriptor, 100).decode())
        os.close(descriptor)


Connect = Callable[..., Any]


@pytest_twisted.async_yield_fixture(params=["tcp", "unix"])
async def connect(request: pytest.FixtureRequest, live_reactor: Any, tmp_path: Path) -> Any:
    """A function that connects a server and a client, and gives both."""
    pairs: list[tuple[Peer, Peer]] = []
    listen = "tcp:0:interface=127.0.0.1" if request.param == "tcp" else f"unix:{tmp_path / 's'}"

    async def pair(server: Peer | None = None, client: Peer | None = None) -> tuple[Peer, Peer]:
        server, client = server or Peer(), client or Peer()
        factory = Factory.forProtocol(lambda: server)
        factory.noisy = False
        port = await serverFromString(live_reactor, listen).listen(factory)
        where = port.getHost()
        there = f"tcp:127.0.0.1:{where.port}" if request.param == "tcp" else f"unix:{os.fsdecode(where.name)}"
        await connectProtocol(clientFromString(live_reactor, there), client)
        await server.opened.addTimeout(PATIENCE, live_reactor)
        await port.stopListening()
        pairs.append((server, client))
        return server, client

    yield pair
    for peers in pairs:
        for peer in peers:
            if not peer.lost.called:
                peer.transport.abortConnection()
                await peer.lost.addTimeout(PATIENCE, live_reactor)


@pytest_twisted.async_fixture()
async def turn(live_reactor: Any) -> Any:
    """A function that lets the reactor turn for a while."""

    def wait(seconds: float) -> Deferred[None]:
        return deferLater(live_reactor, seconds, lambda: None)

    return wait


@pytest_twisted.ensureDeferred
async def test_written_in_connection_made(connect: Connect) -> None:
    """What is written in connectionMade arrives, before what is written after."""
    server, client = await connect(Peer(lambda peer: peer.transport.writeSequence([b"hel", b"lo"])))
    server.transport.write(b", world")
    assert await client.receive(12) == b"hello, world"
    client.transport.write(b"x")
    assert await server.receive(1) == b"x"


@pytest_twisted.ensureDeferred
async def test_nothing_inside_write(connect: Connect) -> None:
    """Neither an answer nor the end comes while write or loseConnection runs."""
    server, client = await connect()
    server.dataReceived = lambda data: (server.transport.write(data), server.transport.loseConnection())
    client.transport.write(b"x")
    assert client.received == b""
    client.transport.loseConnection()
    assert not client.lost.called
    client.transport.write(b"after that")
    await gatherResults([server.lost, client.lost])


@pytest_twisted.ensureDeferred
async def test_lose_connection_delivers(connect: Connect) -> None:
    """What waits when loseConnection is called is delivered to a peer that reads late."""
    server, client = await connect()
    client.transport.pauseProducing()
    sent = os.urandom(1 << 22)
    server.transport.write(sent)
    server.transport.loseConnection()
    client.transport.resumeProducing()
    assert await client.receive(len(sent)) == sent
    assert await server.lost is ConnectionDone
    server.transport.write(b"nobody")


@pytest_twisted.ensureDeferred
async def test_paused_at_first(connect: Connect, turn: Any) -> None:
    """A protocol that pauses its transport in connectionMade gets nothing before it resumes, and then everything."""
    server, client = await connect(Peer(lambda peer: peer.transport.pauseProducing()))
    client.transport.write(b"abc")
    client.transport.loseWriteConnection()
    await turn(0.05)
    assert (server.received, server.events) == (b"", [])
    server.transport.resumeProducing()
    assert await server.receive(3) == b"abc"
    await turn(0.05)
    assert server.events == ["read lost"]


@pytest_twisted.ensureDeferred
async def test_resumed_before_anything_came(connect: Connect, turn: Any) -> None:
    """A protocol that pauses its transport in connectionMade and resumes at once gets what comes later."""
    server, client = await connect(Peer(lambda peer: peer.transport.pauseProducing()))
    await turn(0.02)
    server.transport.resumeProducing()
    client.transport.write(b"abc")
    assert await server.receive(3) == b"abc"
    client.transport.write(b"def")
    assert await server.receive(6) == b"abcdef"


class Chunks:
    """A pull producer: a number of chunks, then the end."""

    def __init__(self, transport: Any, chunks: int) -> None:
        self.transport = transport
        self.left = chunks

    def resumeProducing(self) -> None:
        self.left -= 1
        self.transport.write(b"x" * 100_000)
        if not self.left:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        raise AssertionError("stopped early")


@pytest_twisted.ensureDeferred
async def test_pull_producer(connect: Connect) -> None:
    """A pull producer is asked again and again, also after loseConnection, until it has no more."""
    server, client = await connect()
    server.transport.registerProducer(Chunks(server.transport, 30), False)
    server.transport.loseConnection()
    assert len(await client.receive(3_000_000)) == 3_000_000
    await server.lost


class Tap:
    """A push producer that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.told.append(name)


@pytest_twisted.ensureDeferred
async def test_push_producer(connect: Connect, turn: Any) -> None:
    """A push producer is paused while a reader does not read, resumed when it does, and stopped at the end."""
    server, client = await connect()
    client.transport.pauseProducing()
    tap = Tap()
    server.transport.registerProducer(tap, True)
    with pytest.raises(RuntimeError):
        server.transport.registerProducer(tap, True)
    size = 1 << 24
    server.transport.write(bytes(size))
    assert tap.told == ["pauseProducing"]
    client.transport.resumeProducing()
    await client.receive(size)
    await turn(0.02)
    assert tap.told == ["pauseProducing", "resumeProducing"]
    client.transport.loseConnection()
    await client.lost
    await turn(0.02)
    server.transport.abortConnection()
    await server.lost
    assert tap.told == ["pauseProducing", "resumeProducing", "stopProducing"]


@pytest_twisted.ensureDeferred
async def test_half_close(connect: Connect, turn: Any) -> None:
    """Either direction can be ended by itself, after everything has been delivered."""
    server, client = await connect()
    sent = os.urandom(1 << 22)
    client.transport.write(sent)
    client.transport.loseWriteConnection()
    assert await server.receive(len(sent)) == sent
    await turn(0.02)
    assert (server.events, client.events) == (["read lost"], ["write lost"])
    client.transport.write(b"nothing")
    server.transport.write(b"answer")
    assert await client.receive(6) == b"answer"
    server.transport.loseConnection()
    await server.lost
    await turn(0.02)
    client.transport.loseConnection()
    assert await client.lost is ConnectionDone


@pytest_twisted.ensureDeferred
async def test_methods_that_change(connect: Connect) -> None:
    """A protocol may give itself another dataReceived, and its transport another protocol, at any time."""
    server, client = await connect()
    client.transport.write(b"a")
    await server.receive(1)
    elsewhere = Peer()
    server.dataReceived = elsewhere.dataReceived
    client.transport.write(b"b")
    assert await elsewhere.receive(1) == b"b"
    other = Peer()
    server.transport.protocol = other
    other.makeConnection(server.transport)
    client.transport.write(b"c")
    assert await other.receive(1) == b"c"
    assert server.received == b"a"
    other.transport.loseConnection()
    await other.lost
    server.lost.callback(ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_abort(connect: Connect) -> None:
    """abortConnection drops what waits; each end gets its reason, and nothing more."""
    server, client = await connect()
    client.transport.pauseProducing()
    server.transport.write(bytes(1 << 24))
    server.transport.abortConnection()
    server.transport.write(b"nothing")
    assert not server.lost.called
    assert await server.lost is ConnectionAborted
    client.transport.resumeProducing()
    if client.transport.getHost().__class__.__name__ != "UNIXAddress":  # where there is no RST
        assert await client.lost is ConnectionLost


@pytest_twisted.ensureDeferred
async def test_aborted_at_once(connect: Connect) -> None:
    """A connection can be aborted in connectionMade."""
    server, _ = await connect(Peer(lambda peer: peer.transport.abortConnection()))
    assert await server.lost is ConnectionAborted


@pytest_twisted.ensureDeferred
async def test_bytes_only(connect: Connect) -> None:
    """A string is refused."""
    server, _ = await connect()
    with pytest.raises(TypeError):
        server.transport.write("text")
    with pytest.raises(TypeError):
        server.transport.writeSequence(["text"])


@pytest_twisted.ensureDeferred
async def test_reading_is_known(connect: Connect, live_reactor: Any) -> None:
    """The reactor's lists have a connection in them as long as it reads; its handle is a socket."""
    server, _ = await connect()
    assert server.transport in live_reactor.getReaders()
    server.transport.pauseProducing()
    assert server.transport not in live_reactor.getReaders()
    assert isinstance(server.transport.getHandle(), socket.socket)


@pytest_twisted.ensureDeferred
async def test_descriptors(live_reactor: Any, tmp_path: Path) -> None:
    """A descriptor is sent in its place between bytes, over a connection that has been in use."""
    receiver, sender = DescriptorPeer(), Peer()
    factory = Factory.forProtocol(lambda: receiver)
    factory.noisy = False
    port = live_reactor.listenUNIX(str(tmp_path / "s"), factory)
    await connectProtocol(clientFromString(live_reactor, f"unix:{tmp_path / 's'}"), sender)
    await receiver.opened
    await port.stopListening()
    for n in range(3):
        sender.transport.write(b"before")
        await receiver.receive(n * 11 + 6)
        there, here = os.pipe()
        os.write(here, f"through {n}".encode())
        sender.transport.sendFileDescriptor(there)
        sender.transport.write(b"after")
        await receiver.receive(n * 11 + 11)
        os.close(there)
        os.close(here)
    assert receiver.received == b"beforeafter" * 3
    assert receiver.events == ["through 0", "through 1", "through 2"]
    receiver.transport.write(b"answer")
    assert await sender.receive(6) == b"answer"
    sender.transport.loseConnection()
    await sender.lost
    receiver.transport.loseConnection()
    await receiver.lost


class Writer(Peer):
    """A server that answers each arrival with several writes.

    :param answer: does so.
    """

    def __init__(self, answer: Callable[[Writer], object]) -> None:
        super().__init__()
        self.answer = answer
        self.count = 0

    def dataReceived(self, data: bytes) -> None:
        self.answer(self)

    def write(self, _result: object = None) -> None:
        """Write ten numbers, each by itself."""
        for _ in range(10):
            self.transport.write(b"%04d" % self.count)
            self.count += 1


def at_once(writer: Writer) -> None:
    """Answer in dataReceived."""
    writer.write()


def in_a_timer(writer: Writer) -> None:
    """Answer in the next turn."""
    net().callLater(0, writer.write)


def in_a_deferred(writer: Writer) -> None:
    """Answer when a Deferred has a result, in the next turn."""
    answer: Deferred[None] = Deferred()
    answer.addCallback(writer.write)
    net().callLater(0, answer.callback, None)


def in_a_coroutine(writer: Writer) -> None:
    """Answer in a coroutine."""

    async def answer() -> None:
        await deferLater(net(), 0)
        writer.write()

    Deferred.fromCoroutine(answer())


def from_a_thread(writer: Writer) -> None:
    """Answer in a call from a thread."""
    net().callInThread(net().callFromThread, writer.write)


def net() -> Any:
    """The reactor."""
    from twisted.internet import reactor

    return reactor


@pytest.mark.parametrize("answer", [at_once, in_a_timer, in_a_deferred, in_a_coroutine, from_a_thread])
@pytest_twisted.ensureDeferred
async def test_many_writes(connect: Connect, answer: Callable[[Writer], object]) -> None:
    """What is written in one turn arrives in one piece, wherever it is written."""
    pieces: list[bytes] = []
    _, client = await connect(Writer(answer))

    def receive(data: bytes) -> None:
        pieces.append(data)
        Peer.dataReceived(client, data)

    client.dataReceived = receive
    for n in range(1, 9):
        client.transport.write(b"?")
        await client.receive(40 * n)
    assert b"".join(pieces) == b"".join(b"%04d" % n for n in range(80))
    assert [len(piece) for piece in pieces] == [40] * 8


@pytest_twisted.ensureDeferred
async def test_order(connect: Connect) -> None:
    """Octets arrive in the order of the writes, whether a protocol answers with one write or with several, at once or
    later, through the transport or through a method of it that was kept."""
    server, client = await connect()
    expected = b""
    kept: Callable[[bytes], None] | None = None

    def answer(n: int) -> None:
        nonlocal expected, kept
        pieces = [b"%d." % n] if n % 16 < 8 else [b"%d:%d." % (n, piece) for piece in range(n % 5)]
        for piece in pieces:
            (kept or server.transport.write)(piece)
        expected += b"".join(pieces)
        if n % 16 == 7:
            kept = server.transport.write
        if n % 16 == 12:
            net().callLater(0, later)
            kept = None

    def later() -> None:
        nonlocal expected
        expected += b"later."
        server.transport.write(b"later.")

    def answer_each(data: bytes) -> None:
        for n in data:
            answer(n)

    server.dataReceived = answer_each
    for n in range(200):
        client.transport.write(bytes([n]))
        await deferLater(net(), 0)
        await client.receive(len(expected))
    await deferLater(net(), 0.05)
    assert client.received == expected


@pytest_twisted.ensureDeferred
async def test_full_at_first(connect: Connect) -> None:
    """A push producer that is registered when the buffer is full already is paused after two writes at most."""
    server, client = await connect()
    client.transport.pauseProducing()
    await deferLater(net(), 0.02)
    server.transport.write(bytes(1 << 24))
    await deferLater(net(), 0.02)
    tap = Tap()
    server.transport.registerProducer(tap, True)
    for _ in range(2):
        server.transport.write(bytes(1 << 17))
    assert "pauseProducing" in tap.told
    server.transport.unregisterProducer()


@implementer(IPushProducer)
class Producer:
    """Writes a little whenever it is resumed; `times` times, then it unregisters. It pays no heed to a pause."""

    def __init__(self, transport: Any, times: int, *, later: bool = False) -> None:
        self.transport = transport
        self.left = times
        self.later = later
        self.events: list[str] = []

    def resumeProducing(self) -> None:
        self.events.append("resume")
        if self.later:
            net().callLater(0.01, self.produce)
        else:
            self.produce()

    def produce(self) -> None:
        """Write."""
        self.events.append("write")
        self.left -= 1
        self.transport.write(b"more")
        if not self.left:
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Nothing."""

    def stopProducing(self) -> None:
        self.events.append("stop")


@pytest.mark.parametrize("streaming", [True, False])
@pytest_twisted.ensureDeferred
async def test_half_close_while_producing(connect: Connect, streaming: bool) -> None:
    """The stream ends when a producer that was registered when that was asked for has unregistered."""
    server, client = await connect()
    client.transport.pauseProducing()
    size = 0
    producer = Producer(server.transport, 1 if streaming else 3)
    server.transport.registerProducer(producer, streaming)
    if streaming:
        size = 1 << 24
        server.transport.write(bytes(size))
    server.transport.loseWriteConnection()
    client.transport.resumeProducing()
    await client.receive(size + 4 * producer.events.count("write"))
    await deferLater(net(), 0.1)
    assert len(client.received) == size + (4 if streaming else 12)
    assert (client.events, server.events) == (["read lost"], ["write lost"])


@pytest_twisted.ensureDeferred
async def test_close_while_producing(connect: Connect) -> None:
    """A connection is closed when what its producer wrote has been sent, though the producer has not unregistered."""
    server, client = await connect()
    client.transport.pauseProducing()
    producer = Producer(server.transport, 2)
    server.transport.registerProducer(producer, True)
    server.transport.write(bytes(1 << 24))
    server.transport.loseConnection()
    client.transport.resumeProducing()
    assert await server.lost is ConnectionDone
    assert producer.events == ["resume", "write", "stop"]


@pytest_twisted.ensureDeferred
async def test_close_after_half_close(connect: Connect, turn: Any) -> None:
    """A connection whose stream has ended is closed, though a producer is registered."""
    server, _ = await connect()
    server.transport.loseWriteConnection()
    await turn(0.02)
    producer = Producer(server.transport, 9)
    server.transport.registerProducer(producer, False)
    server.transport.loseConnection()
    assert await server.lost is ConnectionDone
    assert producer.events == ["resume", "write", "stop"]


@pytest_twisted.ensureDeferred
async def test_pull_producer_that_takes_its_time(connect: Connect) -> None:
    """A pull producer is asked for more after each write, and not before."""
    server, client = await connect()
    producer = Producer(server.transport, 3, later=True)
    server.transport.registerProducer(producer, False)
    await client.receive(12)
    assert producer.events == ["resume", "write"] * 3


@pytest_twisted.ensureDeferred
async def test_pause_raises(connect: Connect) -> None:
    """What pauseProducing raises is raised by write."""
    server, client = await connect()
    client.transport.pauseProducing()

    class Refusing(Producer):
        def pauseProducing(self) -> None:
            raise Unexpected

    server.transport.registerProducer(Refusing(server.transport, 1), True)
    with pytest.raises(Unexpected):
        server.transport.write(bytes(1 << 24))


@pytest.mark.parametrize("connect", ["tcp"], indirect=True)  # over Unix sockets there is no reset
@pytest_twisted.ensureDeferred
async def test_answer_before_a_reset(connect: Connect) -> None:
    """What the peer sent before it reset the connection is delivered, also if the reset was met while writing."""
    server, client = await connect()
    handle = server.transport.getHandle()
    client.transport.write(b"request")
    await server.receive(7)
    client.transport.write(b"unread")
    await deferLater(net(), 0.02)
    # By another descriptor, so that the client's reactor sees nothing of it before it writes.
    server.transport.pauseProducing()
    client.transport.write(b"unread")

    def answer_and_reset() -> None:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.socket.send(handle, b"413 too large")
        server.transport.abortConnection()
        server.transport.connectionLost(Failure(ConnectionAborted()))
        client.transport.write(b"v" * 70_000)

    answer_and_reset()
    assert await client.lost is ConnectionLost
    assert client.received == b"413 too large"


@pytest_twisted.ensureDeferred
async def test_nothing_after_abort(connect: Connect) -> None:
    """Nothing is received after abortConnection, though reading is resumed."""
    server, client = await connect()

    def abort(data: bytes) -> None:
        server.received += data
        server.transport.abortConnection()
        server.transport.resumeProducing()

    server.dataReceived = abort
    server.transport.pauseProducing()
    client.transport.write(bytes(1 << 22))
    await deferLater(net(), 0.02)
    server.transport.resumeProducing()
    assert await server.lost is ConnectionAborted
    assert len(server.received) <= 1 << 18


@implementer(IOpenSSLContextFactory)
@dataclass
class Context:
    """A context factory."""

    context: SSL.Context

    def getContext(self) -> SSL.Context:
        """The context."""
        return self.context


@pytest.mark.parametrize("connect", ["tcp"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_kept_method_under_tls(connect: Connect) -> None:
    """A method of the transport that was kept before TLS began goes through TLS afterwards."""
    context = SSL.Context(SSL.TLS_METHOD)
    trustme.CA().issue_cert("server").configure_cert(context)
    server, client = await connect()
    kept = server.transport.write, server.transport.writeSequence
    client.transport.write(b"x")
    await server.receive(1)
    kept[0](b"plain")
    server.transport.startTLS(Context(context))
    await client.receive(5)
    client.transport.startTLS(Context(SSL.Context(SSL.TLS_METHOD)))
    kept[0](b" secret")
    kept[1]([b" and", b" more"])
    assert await client.receive(21) == b"plain secret and more"
    client.transport.write(b" answer")
    assert await server.receive(8) == b"x answer"
    server.transport.loseConnection()
    await server.lost


@pytest_twisted.ensureDeferred
async def test_ended_is_no_reader(connect: Connect, turn: Any) -> None:
    """A connection whose peer has ended its stream is none of the reactor's readers any more."""
    server, client = await connect()
    client.transport.loseWriteConnection()
    await turn(0.02)
    assert server.events == ["read lost"]
    assert server.transport not in net().getReaders()


class Unexpected(Exception):
    """What a protocol raises."""


@pytest.mark.parametrize("closing", [False, True])
@pytest_twisted.ensureDeferred
async def test_raises_in_data_received(connect: Connect, expected_failures: list[Failure], closing: bool) -> None:
    """A protocol that raises an exception loses its connection for that reason, also when it has closed it before."""
    server, client = await connect()

    def fail(_data: bytes) -> None:
        if closing:
            server.transport.loseConnection()
        raise Unexpected

    server.dataReceived = fail
    client.transport.write(b"x")
    assert await server.lost is Unexpected
    assert [failure.type for failure in expected_failures] == [Unexpected]


@pytest.mark.parametrize("connect", ["tcp"], indirect=True)  # over Unix sockets there is no reset
@pytest_twisted.ensureDeferred
async def test_raises_in_connection_lost(connect: Connect, expected_failures: list[Failure], turn: Any) -> None:
    """An exception that connectionLost raises is logged by Twisted's log, also when the peer has reset."""
    server, client = await connect()

    def lost(_reason: Failure) -> None:
        raise Unexpected

    server.connectionLost = lost
    server.transport.write(b"unread")
    await turn(0.02)
    client.transport.abortConnection()
    await client.lost
    await turn(0.05)
    server.lost.callback(ConnectionLost)
    assert [failure.type for failure in expected_failures] == [Unexpected]


@pytest_twisted.ensureDeferred
async def test_log_prefix(connect: Connect) -> None:
    """A line that is logged in dataReceived says of which connection it is, and others do not."""
    server, client = await connect()
    systems: list[str] = []
    server.logPrefix = lambda: "The Server"
    server.transport.logstr = "The Server"

    def note(data: bytes) -> None:
        systems.append(context.get(log.ILogContext)["system"])
        systems.append(context.get(log.ILogContext).copy()["system"])
        Peer.dataReceived(server, data)

    server.dataReceived = note
    client.transport.write(b"x")
    await server.receive(1)
    assert len(systems) == 2
    assert all("The Server" in system for system in systems)
    await deferLater(net(), 0)
    assert context.get(log.ILogContext)["system"] == "-"


@pytest.mark.parametrize("connect", ["tcp"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_no_delay_at_first(connect: Connect) -> None:
    """What getTcpNoDelay says in connectionMade, and what is set there, holds afterwards."""
    seen: list[bool] = []
    server, client = await connect(
        Peer(lambda peer: seen.append(peer.transport.getTcpNoDelay())),
        Peer(lambda peer: peer.transport.setTcpNoDelay(False)),
    )
    client.transport.write(b"x")
    await server.receive(1)
    assert [server.transport.getTcpNoDelay()] == seen
    assert not client.transport.getTcpNoDelay()


@pytest.mark.parametrize("connect", ["tcp"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_no_delay(connect: Connect) -> None:
    """TCP_NODELAY can be set, taken away and set again, whatever it was at first."""
    for peer in await connect():
        for enabled in (True, False, True):
            peer.transport.setTcpNoDelay(enabled)
            assert peer.transport.getTcpNoDelay() is enabled
