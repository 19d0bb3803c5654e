"""A reactor whose connections run at the speed of the loop.

Twisted's reactors watch descriptors, and Twisted's transports read from and write to them: each answer is buffered,
and costs a turn of the loop and three calls of the system besides the one that sends it. asyncio's loops, uvloop above
all, have transports of their own that do the same work in C, and write at once. This reactor has Twisted's protocols
carried by those, with no change to a protocol::

    from twistednet.reactor import install

    install()  # before anything imports twisted.internet.reactor

or, for any Twisted application, ``twistd --reactor=twistednet ...``; ``twistednet-asyncio`` is the same on asyncio's
own loop where uvloop is installed too.

Theory of operation
===================

It is Twisted's `AsyncioSelectorReactor`, and what is not said here is done there: timers, threads, processes, signals,
standard input and output, serial ports, datagrams on Unix sockets, connections adopted from elsewhere. TCP and
Unix streams, of servers and clients, are carried by the loop. UDP is not, as that would be slower: see `datagram`.

The life of a connection
    Twisted listens, accepts and connects, as ever: with its own ports and connectors, and so with its addresses, its
    log lines, its time-outs, and its way out when descriptors run out. It then makes one of its own transports, an
    instance of a subclass that is defined in `stream`, and calls ``makeConnection``. By then the socket has been given
    to the loop, which comes with its own transport, the *carrier*, on its next turn. From there on

    ====================================  ====================================================================
    the loop                              is what Twisted knows as
    ====================================  ====================================================================
    has data                              ``dataReceived`` of the protocol, called by the loop
    reads the end of the stream           the end of the stream: ``readConnectionLost``, or ``connectionLost``
    fills its buffer                      a full buffer: ``pauseProducing`` of the producer
    has sent all, while somebody waits    a writable socket: Twisted resumes the producer, closes, half-closes
    closes by itself                      ``connectionLost``, with an error of the network's or the protocol's
    ====================================  ====================================================================

    and ``transport.write`` *is* the carrier's ``write``, as long as nothing needs to be seen to at every write. When
    Twisted has called ``connectionLost``, the carrier is told to close, and what it still says is not listened to.

    Nothing is ever delivered inside ``write`` or ``loseConnection``; ``connectionLost`` comes in a later turn.

Who owns which buffer
    What is written before the carrier has come (in ``connectionMade``) waits in Twisted's buffer. After that the only
    buffer is the carrier's: Twisted's stays empty. The carrier tries to write at once, and keeps what the system does
    not take; above 64 KiB it asks for a pause, and it asks for more when it has sent everything, as Twisted does.

    Nothing that is read is kept, with one exception: a loop starts to read even when the protocol has paused its
    transport in ``connectionMade``. The first piece that comes is then kept, and delivered when it is asked for.

Who owns the descriptor
    The carrier closes it. The socket object is there to be asked (``getHandle``, ``getHost``, TCP options).

Descriptors sent over a Unix socket
    The loop can neither send nor receive them. A protocol that is an `IFileDescriptorReceiver` keeps Twisted's own
    transport; a connection over which one is sent is taken back from the loop, on a duplicate of its socket.

What is different from Twisted's own transports
    - TCP_NODELAY is set on every connection, as the loops do.
    - A log line from ``dataReceived`` has no prefix that names the connection: putting one there costs as much as
      the rest of an echo.
    - A small write leaves at once, and not with the others of its turn: ``writeSequence`` is one write.
    - A listen queue for which nobody has asked a length, or for which 50 was asked, is as long as the system lets it.
    - A connection is closed without a ``shutdown`` before: a process that was forked off, and has executed nothing,
      keeps it open until it ends. What is executed inherits no descriptor.
    - A UDP port is not closed by an error, and takes at most 32 datagrams in a turn: see `datagram`.
    - When the reactor stops, connections that neither read nor write are closed with the others.

What is not supported
    - Windows.
    - Buffers other than bytes are refused by ``write`` late or not at all. Write bytes.
    - ``SystemExit`` and ``KeyboardInterrupt`` out of ``dataReceived`` end the loop where it is asyncio's, and only the
      connection where it is uvloop's.
    - The attributes of Twisted's transports that are not part of an interface: ``dataBuffer``, ``doWrite`` and such.
"""

# ruff: noqa: N803 (the parameters of Twisted's methods have the names that Twisted gives them)

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any, Literal

from twisted.internet._signals import _MultiSignalHandling
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.error import UnsupportedAddressFamily
from twisted.internet.main import CONNECTION_LOST, installReactor
from twisted.internet.process import reapAllProcesses
from twisted.python import log
from twisted.python.failure import Failure

from twistednet.reactor.datagram import MulticastPort
from twistednet.reactor.datagram import Port as UDPPort
from twistednet.reactor.stream import Connector, LoopStream, Port, UNIXConnector, UNIXPort

__all__ = ["AsyncioReactor", "LoopReactor", "UvloopReactor", "install"]

TWISTEDS_BACKLOG = 50
"""The length of the listen queue where nobody has said one."""
BACKLOG = 4096
"""What it is here: Linux's own limit since 5.4. In Twisted's, a burst of connects is dropped, and tries again after
a second."""


class LoopReactor(AsyncioSelectorReactor):
    """Twisted's asyncio reactor, with streams that the loop carries.

    :param loop: the loop to run on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.streams: set[LoopStream] = set()
        super().__init__(loop)
        self._report = self.loop.get_exception_handler()
        self.loop.set_exception_handler(self._loop_failed)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that this reactor runs on."""
        return self._asyncioEventloop

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(protocol := context.get("protocol"), LoopStream):
            protocol.failed(context["exception"])
        elif self._report is None:
            loop.default_exception_handler(context)
        else:
            self._report(loop, context)

    def _signalsFactory(self) -> Any:
        return _MultiSignalHandling((super()._signalsFactory(), ChildSignal(self.loop)))

    # What Twisted asks a reactor about its descriptors

    def addReader(self, reader: Any) -> None:
        reader.startReading() if reader in self.streams else super().addReader(reader)

    def removeReader(self, reader: Any) -> None:
        reader.stopReading() if reader in self.streams else super().removeReader(reader)

    def addWriter(self, writer: Any) -> None:
        writer.startWriting() if writer in self.streams else super().addWriter(writer)

    def removeWriter(self, writer: Any) -> None:
        writer.stopWriting() if writer in self.streams else super().removeWriter(writer)

    def getReaders(self) -> list[Any]:
        return [*super().getReaders(), *(stream for stream in self.streams if stream.reading)]

    def getWriters(self) -> list[Any]:
        return [*super().getWriters(), *(stream for stream in self.streams if stream.writing)]

    def removeAll(self) -> list[Any]:
        streams = [stream for stream in self.streams if stream.reading or stream.writing]
        for stream in streams:
            stream.stopReading()
            stream.stopWriting()
        return [*super().removeAll(), *streams]

    def disconnectAll(self) -> None:
        super().disconnectAll()
        for stream in list(self.streams):
            log.callWithLogger(stream, stream.connectionLost, Failure(CONNECTION_LOST))

    # What Twisted asks a reactor for

    def listenTCP(self, port: Any, factory: Any, backlog: int = TWISTEDS_BACKLOG, interface: str = "") -> Port:
        listening = Port(port, factory, queue_length(backlog), interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30.0, bindAddress: Any = None
    ) -> Connector:
        connector = Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = TWISTEDS_BACKLOG, mode: int = 0o666, wantPID: int = 0
    ) -> UNIXPort:
        listening = UNIXPort(address, factory, queue_length(backlog), mode, self, wantPID)
        listening.startListening()
        return listening

    def connectUNIX(self, address: Any, factory: Any, timeout: float = 30, checkPID: int = 0) -> UNIXConnector:
        connector = UNIXConnector(address, factory, timeout, self, checkPID)
        connector.connect()
        return connector

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: socket.AddressFamily, factory: Any) -> Any:
        listening: Any
        if addressFamily == socket.AF_UNIX:
            listening = UNIXPort._fromListeningDescriptor(self, fileDescriptor, factory)
        elif addressFamily in (socket.AF_INET, socket.AF_INET6):
            listening = Port._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        else:
            raise UnsupportedAddressFamily(addressFamily)
        listening.startListening()
        return listening

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> UDPPort:
        listening = UDPPort(port, protocol, interface, maxPacketSize, self)
        listening.startListening()
        return listening

    def listenMulticast(
        self,
        port: int,
        protocol: Any,
        interface: str = "",
        maxPacketSize: int = 8192,
        listenMultiple: bool = False,
    ) -> MulticastPort:
        listening = MulticastPort(port, protocol, interface, maxPacketSize, self, listenMultiple)
        listening.startListening()
        return listening


class ChildSignal:
    """Sees the end of child processes where the loop has taken the descriptor that Twisted is told of signals by:
    uvloop does so as soon as it runs, asyncio when it is given a signal to care for.

    :param loop: the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def install(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: self._loop.call_soon_threadsafe(reapAllProcesses))
        signal.siginterrupt(signal.SIGCHLD, False)

    def uninstall(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


class UvloopReactor(LoopReactor):
    """The reactor on uvloop.

    :raises ImportError: where uvloop is not installed.
    """

    def __init__(self) -> None:
        import uvloop

        super().__init__(uvloop.new_event_loop())


class AsyncioReactor(LoopReactor):
    """The reactor on asyncio's own loop."""

    def __init__(self) -> None:
        super().__init__(asyncio.SelectorEventLoop())


def queue_length(backlog: int) -> int:
    """The length of the listen queue of which the caller, or Twisted for him, says that it be `backlog`."""
    return BACKLOG if backlog == TWISTEDS_BACKLOG else backlog


def install(loop: asyncio.AbstractEventLoop | Literal["uvloop", "asyncio"] | None = None) -> LoopReactor:
    """Make this the global reactor.

    :param loop: a loop, or the name of one; uvloop where it is installed, and else asyncio's, when left out.
    :raises twisted.internet.error.ReactorAlreadyInstalledError: where there is one already.
    """
    reactor: LoopReactor
    if loop is None:
        try:
            reactor = UvloopReactor()
        except ImportError:
            reactor = AsyncioReactor()
    elif isinstance(loop, str):
        reactor = {"uvloop": UvloopReactor, "asyncio": AsyncioReactor}[loop]()
    else:
        reactor = LoopReactor(loop)
    asyncio.set_event_loop(reactor.loop)
    installReactor(reactor)
    return reactor
