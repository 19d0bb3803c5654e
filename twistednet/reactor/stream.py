"""Stream connections that the loop carries: Twisted's own transports, with the loop in place of the descriptor.

See the package's docstring for the life of a connection. Here is only what differs from Twisted's classes: how data
is read and written, and how the loop's news become the readiness events that Twisted's classes understand.
"""

from __future__ import annotations

import _socket
import socket
import struct
from asyncio import Future, Transport
from collections.abc import Iterable
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet._newtls import startTLS
from twisted.internet.abstract import FileDescriptor, _dataMustBeBytes
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.main import CONNECTION_LOST
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python import log
from twisted.python.failure import Failure

DONE = Failure(ConnectionDone())

TLS_METHODS = ("write", "writeSequence", "loseConnection", "registerProducer", "unregisterProducer")
"""What goes through TLS once it has been started."""


class LoopStream(tcp.Connection):
    """Mixed in before one of Twisted's stream transports: lets the loop carry the connection.

    One object is the transport of the Twisted protocol, and the asyncio protocol of the loop's transport.
    """

    reactor: Any
    socket: socket.socket
    _writeDisconnected: bool
    _tempDataBuffer: list[bytes]

    _carried = False
    """It is the loop that watches the descriptor and closes it."""

    def __init__(self, *args: Any) -> None:
        # Nearly all that will ever be set is set here: Python keeps the names of attributes once for all objects of a
        # class if the first objects have them from the start, and else in each, which takes twice the memory.
        self._carrier: Transport | None = None  # the loop's transport, from the loop's first word to its last
        self.reading = False
        self.writing = False  # somebody waits until the loop's buffer is empty (Twisted: until it may write)
        self._leaving = False  # to be taken back from the loop, as soon as the loop's buffer is empty
        self._early: bytes | None = None  # what the loop has read, and nobody taken; empty for the end of the stream
        self._ended = False  # the end of the stream has been read
        self._delays = False  # TCP_NODELAY, which the loops set, has been taken away
        self._bound = True  # write is the loop's
        self.write = None  # type: ignore[assignment, method-assign]
        self._unbind_write()
        self.disconnecting = self.disconnected = False
        super().__init__(*args)

    # From Twisted to the loop, and back

    def _hand_over(self) -> None:
        """Give the socket to the loop, which calls `connection_made` on its next turn."""
        self._carried = True
        self.reactor.streams.add(self)
        # This coroutine makes the transport before it first waits, and has nothing left to do afterwards. A task
        # for it would cost every connection two more turns of the loop.
        starting = self.reactor.loop.connect_accepted_socket(lambda: self, self.socket).__await__()
        waiter: Future[None] = next(starting)
        waiter.add_done_callback(lambda _waiter: next(starting, None))

    def connection_made(self, carrier: Transport) -> None:
        """From the loop: it has the connection, and is about to read."""
        if not self.connected:
            carrier.abort()
            return
        self._carrier = carrier
        carrier.set_write_buffer_limits(high=self.bufferSize, low=0)
        if self._tempDataLen and not self._leaving:
            # What was written in connectionMade.
            early, self._tempDataBuffer, self._tempDataLen = self._tempDataBuffer, [], 0
            carrier.write(b"".join(early))
        if not self.reading:
            # Every loop starts to read after this, whatever it is told.
            self.data_received = self._keep  # type: ignore[method-assign]
        carrier.set_protocol(cast(Any, self))
        if self.writing:
            self._wait_until_empty()
        self._bind_write()

    def _take_back(self) -> None:
        """Go on without the loop, on a duplicate of the socket."""
        carrier, self._carrier = self._carrier, None
        assert carrier is not None
        self.socket = self.socket.dup()
        self.fileno = self.socket.fileno
        self._leaving = self._carried = False
        self.reactor.streams.discard(self)
        carrier.abort()
        if self.reading:
            self.startReading()
        self.startWriting()

    def connection_lost(self, error: BaseException | None) -> None:
        """From the loop: it has closed the connection; by itself, unless it was told to."""
        if self._carrier is None:
            return
        if error is None or raised_by_loop(error):
            error = CONNECTION_LOST
        elif isinstance(error, OSError):
            # The loop says nothing of an exception that could be the network's.
            self.failed(error)
        if self._aborting:
            return  # That is the reason, and on its way.
        self.reactor._disconnectSelectable(self, error, False)

    def failed(self, error: BaseException) -> None:
        """From the loop: the Twisted protocol has raised `error`."""
        log.callWithLogger(self, log.err, Failure(error))

    def connectionLost(self, reason: Failure) -> None:
        self._unbind_write()
        if self.TLS:
            for name in TLS_METHODS:
                self.__dict__.pop(name, None)
        super().connectionLost(reason)

    def _closeSocket(self, orderly: bool) -> None:
        if not self._carried:
            super()._closeSocket(orderly)
            return
        self.reactor.streams.discard(self)
        if not orderly:
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass  # The loop has closed it already.
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.abort()
            self.socket.close()
        # Else the loop has still to come with it, and must find an open descriptor.

    # What the Twisted protocol reads

    def data_received(self, data: bytes) -> None:
        """From the loop: it has read `data`."""
        self.protocol.dataReceived(data)

    def _keep(self, data: bytes) -> None:
        """In the place of `data_received`, once: keep what the loop has read until somebody takes it."""
        del self.data_received
        carrier = cast(Transport, self._carrier)
        carrier.set_protocol(cast(Any, self))
        carrier.pause_reading()
        self._early = data
        self._deliver()

    def eof_received(self) -> bool:
        """From the loop: the peer has ended its stream. The connection stays; Twisted decides what becomes of it."""
        self._ended = True
        if self.reading:
            self.readConnectionLost(DONE)
        else:
            self._early = b""
        return True

    def _deliver(self) -> None:
        if self.reading and self._early is not None:
            log.callWithLogger(self, self.reactor._readOrWrite, self, True)

    def doRead(self) -> Any:
        if self._early is None:
            return super().doRead()
        early, self._early = self._early, None
        self.startReading()
        return self._dataReceived(early)

    def startReading(self) -> None:
        self.reading = True
        if self._early is not None:
            self.reactor.loop.call_soon(self._deliver)
        elif not self._carried:
            super().startReading()
        elif self._carrier is not None and not self._ended:
            self._carrier.resume_reading()

    def stopReading(self) -> None:
        self.reading = False
        if not self._carried:
            super().stopReading()
        elif self._carrier is not None:
            self._carrier.pause_reading()

    # What the Twisted protocol writes

    def _unbind_write(self) -> None:
        """Let the Twisted protocol call `write`."""
        if self._bound:
            self._bound = False
            del self.write

    def _bind_write(self) -> None:
        """Let the Twisted protocol call the loop, where nothing has to be seen to at every write."""
        if self.TLS:
            return
        carrier = self._carrier if self.connected else None
        special = self.writing or self._leaving or self._aborting or self._writeDisconnected
        pulls = self.producer is not None and not self.streamingProducer
        if carrier is None or special or pulls or isinstance(self.protocol, TLSMemoryBIOProtocol):
            self._unbind_write()
        else:
            self._bound = True
            self.write = carrier.write  # type: ignore[method-assign]

    def write(self, data: bytes) -> None:
        if self._carrier is None or self._leaving:
            FileDescriptor.write(self, data)
            return
        _dataMustBeBytes(data)
        # What TLS has to say while it aborts would wait in Twisted's buffer, and be dropped with it.
        aborting = self._aborting or getattr(self.protocol, "_aborted", False)
        if self.connected and not self._writeDisconnected and not aborting:
            self._carrier.write(data)
            self._maybePauseProducer()
            if self.producer is not None and not self.streamingProducer:
                # It is asked for more when this has left.
                self.startWriting()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        pieces = list(iovec)
        for piece in pieces:
            _dataMustBeBytes(piece)
        self.write(b"".join(pieces))

    def writeSomeData(self, data: bytes) -> Any:
        # What the loop carries waits in the loop's buffer, and not in Twisted's.
        return 0 if self._carried else super().writeSomeData(data)

    def _isSendBufferFull(self) -> bool:
        if self._carrier is None or self._leaving:
            return bool(super()._isSendBufferFull())
        return self._carrier.get_write_buffer_size() > self.bufferSize

    def bytes_waiting(self) -> int:
        """How many octets wait to be taken by the system."""
        waiting: int = self._tempDataLen
        return waiting if self._carrier is None else waiting + self._carrier.get_write_buffer_size()

    def pause_writing(self) -> None:
        """From the loop: its buffer is full; or not empty, if that is waited for."""
        self._maybePauseProducer()

    def resume_writing(self) -> None:
        """From the loop: its buffer is empty."""
        # Not at once: asyncio's transport doesn't expect to be closed from here.
        self.reactor.loop.call_soon(self._emptied)

    def _wait_until_empty(self) -> None:
        carrier = cast(Transport, self._carrier)
        if carrier.get_write_buffer_size():
            carrier.set_write_buffer_limits(high=0)
        else:
            self.reactor.loop.call_soon(self._emptied)

    def _emptied(self) -> None:
        """The loop's buffer is empty: Twisted's chance to write, or to close."""
        carrier = self._carrier
        if carrier is None or self._aborting:
            return
        if carrier.get_write_buffer_size():
            # Something has been written since.
            self._wait_until_empty()
        elif self._leaving:
            self._take_back()
        elif self.disconnecting and self.producer is None:
            log.callWithLogger(self, self.connectionLost, DONE)
        else:
            carrier.set_write_buffer_limits(high=self.bufferSize, low=0)
            if self.writing or self.producerPaused:
                log.callWithLogger(self, self.reactor._readOrWrite, self, False)
            self._bind_write()

    def startWriting(self) -> None:
        if not self._carried:
            super().startWriting()
        elif not self.writing:
            self.writing = True
            self._unbind_write()
            if self._carrier is not None:
                self._wait_until_empty()

    def stopWriting(self) -> None:
        self.writing = False
        if not self._carried:
            super().stopWriting()

    def setTcpNoDelay(self, enabled: bool) -> None:
        if self._delays or not enabled:
            super().setTcpNoDelay(enabled)
            self._delays = not enabled

    # The rest of a transport. What Twisted's TLS mixin does in these it does by overriding: see startTLS.

    def loseConnection(self) -> None:
        if not self._carried:
            FileDescriptor.loseConnection(self)
        elif self.connected and not self.disconnecting:
            self.stopReading()
            self.startWriting()
            self.disconnecting = True

    def abortConnection(self) -> None:
        super().abortConnection()
        self._bind_write()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if not streaming:
            # Before it writes, which it does at once.
            self._unbind_write()
        FileDescriptor.registerProducer(self, producer, streaming)
        if not streaming:
            self.startWriting()

    def unregisterProducer(self) -> None:
        FileDescriptor.unregisterProducer(self)
        self._bind_write()

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        producer, streaming = self.producer, self.streamingProducer
        if producer is not None:
            self.unregisterProducer()
        self._unbind_write()
        startTLS(self, ctx, normal, LoopStream)
        for name in TLS_METHODS:
            setattr(self, name, getattr(self.protocol, name))
        if producer is not None:
            self.registerProducer(producer, streaming)


def raised_by_loop(error: BaseException) -> bool:
    """Whether `error`, for which the loop has closed a connection, is the network's, and not the protocol's."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    # uvloop makes its errors without raising them.
    module = "asyncio" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
    return isinstance(error, OSError) and module.startswith("asyncio")


class TCPSocket(socket.socket):
    """A TCP socket, as the loops like it.

    It says of which protocol it is, or else asyncio would not set TCP_NODELAY. Its family and its type are numbers:
    Python's sockets make members of enumerations of them, anew each time that somebody asks, and the way of a
    connection to the loop asks five times.
    """

    __slots__ = ()
    family = cast(Any, _socket.socket.family)
    type = cast(Any, _socket.socket.type)

    def accept(self) -> tuple[socket.socket, Any]:
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        return TCPSocket(self.family, self.type, self.proto, descriptor), address

    @classmethod
    def out_of(cls, made: socket.socket) -> TCPSocket:
        """One that takes the place of `made`, an unconnected socket of Twisted's."""
        tcp_socket = cls(made.family, made.type, socket.IPPROTO_TCP, made.detach())
        tcp_socket.setblocking(False)
        return tcp_socket


class Server(LoopStream, tcp.Server):
    """A TCP connection that was accepted."""

    _carried = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._hand_over()


class Client(LoopStream, tcp.Client):
    """A TCP connection that was made: Twisted connects, then the loop carries."""

    def createInternetSocket(self) -> TCPSocket:
        return TCPSocket.out_of(super().createInternetSocket())

    def _connectDone(self) -> None:
        self._hand_over()
        super()._connectDone()


class LoopUNIX(LoopStream):
    """Mixed in before one of Twisted's Unix transports, which can pass descriptors, as the loop can't."""

    def _hand_over(self) -> None:
        if not IFileDescriptorReceiver.providedBy(self.protocol):
            super()._hand_over()
            return
        self._carried = False
        if self.reading:
            self.startReading()
        if self.writing:
            self.startWriting()

    def sendFileDescriptor(self, fileno: int) -> None:
        if self._carried:
            self._leaving = True
            self._bind_write()
        super().sendFileDescriptor(fileno)  # type: ignore[misc]


class UNIXServer(LoopUNIX, unix.Server):
    """A Unix connection that was accepted."""

    _carried = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._hand_over()


class UNIXClient(LoopUNIX, unix.Client):
    """A Unix connection that was made."""

    def _connectDone(self) -> None:
        self._carried = True
        try:
            super()._connectDone()
        finally:
            self._hand_over()


class Port(tcp.Port):
    """A TCP port whose connections the loop carries."""

    transport: Any = Server

    @classmethod
    def _fromListeningDescriptor(cls, *where: Any) -> Any:
        listening = super()._fromListeningDescriptor(*where)
        listening._preexistingSocket = TCPSocket.out_of(listening._preexistingSocket)
        return listening

    def createInternetSocket(self) -> TCPSocket:
        return TCPSocket.out_of(super().createInternetSocket())


class Connector(tcp.Connector):
    """Connects with TCP, and lets the loop carry the connection."""

    def _makeTransport(self) -> Client:
        return Client(self.host, self.port, self.bindAddress, self, self.reactor)


class UNIXPort(unix.Port):
    """A Unix port whose connections the loop carries."""

    transport: Any = UNIXServer


class UNIXConnector(unix.Connector):
    """Connects to a Unix socket, and lets the loop carry the connection."""

    def _makeTransport(self) -> Any:
        return UNIXClient(self.address, self, self.reactor, self.checkPID)
