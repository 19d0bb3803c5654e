"""Stream connections that the loop carries: Twisted's own transports, with the loop in place of the descriptor.

The package's docstring describes the life of a connection. This module has only what differs from Twisted's classes:
how data is read and written, and how the loop's callbacks become the readiness events that Twisted's classes expect.
"""

from __future__ import annotations

import _socket
import socket
import struct
import sys
from asyncio import Future, Transport
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet._newtls import startTLS
from twisted.internet.abstract import FileDescriptor, _dataMustBeBytes
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.main import CONNECTION_LOST
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from twistednet import tcp_info
from twistednet.interfaces import IEndObserver, IOctetCounter, IOutputPending

DONE = Failure(ConnectionDone())

COLLECTED = 65536
"""So many octets are not collected any longer, but given to the loop: Twisted's transports have the same buffer."""

QUICK = 20e-6
"""Seconds within which ``dataReceived`` returns if what collecting costs counts at all. Those that take longer share
a flush at the end of the turn: to wake a peer that waits on another processor costs up to 15 microseconds."""
QUICK_ANSWERS = 4
"""After so many arrivals in a row that were each answered with one write, and within `QUICK`, writes go straight to
the loop."""


@implementer(IOutputPending)
class PlainStream(tcp.Connection):
    """A connection that the loop carries, without what TLS adds to it: see `LoopStream`."""

    reactor: Any
    socket: socket.socket
    _writeDisconnected: bool
    _tempDataBuffer: list[bytes]

    _handed_over = False
    """The loop watches the descriptor and closes it."""

    # On few connections these are ever set, or only at the end.
    _emptied_due = False  # _emptied is about to be called
    _detaching = False  # to be taken back from the loop as soon as the loop's buffer is empty
    _early: bytes | None = None  # read by the loop before it was asked for; b"" is the end of the stream
    _delays = False  # TCP_NODELAY, which the loops set, has been turned off

    def __init__(self, *args: Any) -> None:
        # Nearly every attribute that every connection has is set here: CPython shares the names of attributes among the
        # instances of a class if the first instances get them from the start, and if there are fewer than 30, those of
        # Twisted's base classes included. Otherwise each instance has a dictionary of five times the size.
        self._loop_transport: Transport | None = None  # from connection_made to connectionLost
        self._send: Callable[[bytes], object] | None = None  # the loop's write, while writes go straight to it
        self._quick_answers = 0  # how many arrivals in a row were answered with one write, within QUICK
        self._receiving = False  # the protocol's dataReceived is running
        self._collecting = False  # something has been collected, and nothing keeps more from being added to it
        self._loop_paused = True  # the loop wants no more for now: it is still to come, or has called pause_writing
        self.reading = False
        self.writing = False  # Twisted waits until it may write; here, until the loop's buffer is empty
        self._ended = False  # the end of the stream has been read
        self._end_observer: IEndObserver | None = None
        self.disconnecting = self.disconnected = False
        super().__init__(*args)

    # From Twisted to the loop, and back

    def _hand_over(self) -> None:
        """Give the socket to the loop, which calls `connection_made` on its next turn."""
        self._handed_over = True
        self.reactor.streams.add(self)
        # This coroutine makes the transport before it first waits, and has nothing left to do afterwards. A task
        # for it would cost every connection two more turns of the loop.
        starting = self.reactor.loop.connect_accepted_socket(lambda: self, self.socket).__await__()
        waiter: Future[None] = next(starting)
        waiter.add_done_callback(lambda _waiter: next(starting, None))

    def connection_made(self, loop_transport: Transport) -> None:
        """From the loop: it has the connection, and starts to read after this, whether the protocol reads or not."""
        if not self.connected:
            loop_transport.abort()
            return
        self._loop_transport = loop_transport
        self._loop_paused = False
        loop_transport.set_write_buffer_limits(high=self.bufferSize, low=0)
        if self._tempDataBuffer:  # written in connectionMade
            log.callWithLogger(self, self.flush)
        if self.writing or self.producerPaused:
            self._wait_until_empty()

    def _take_back(self) -> None:
        """Go on without the loop, on a duplicate of the socket."""
        loop_transport, self._loop_transport = self._loop_transport, None
        assert loop_transport is not None
        self.socket = self.socket.dup()
        self.fileno = self.socket.fileno
        self._detaching = self._handed_over = False
        self.reactor.streams.discard(self)
        loop_transport.abort()
        if self.reading:
            self.startReading()
        self.startWriting()

    def connection_lost(self, error: BaseException | None) -> None:
        """From the loop: it has closed the connection because of `error`, or because it was told to."""
        if self._loop_transport is not None and self._aborting:
            # The loop closes the descriptor after this, and connectionLost is scheduled for later.
            log.callWithLogger(self, self.connectionLost, Failure(ConnectionAborted()))
        elif self._loop_transport is not None:
            self.collect_writes()
            if isinstance(error, OSError):
                self._read_the_rest()
            elif error is not None:
                log.callWithLogger(self, log.err, Failure(error))
            log.callWithLogger(self, self.reactor._disconnectSelectable, self, CONNECTION_LOST, False)

    def _read_the_rest(self) -> None:
        """Deliver what came before the connection was reset: the loop may have met the error when it wrote."""
        while self.reading and not self._aborting:
            try:
                data = self.socket.recv(self.bufferSize)
            except OSError:
                return
            if not data:
                return
            self.data_received(data)

    def _protocol_failed(self) -> None:
        """The Twisted protocol has raised an exception: log it, and close the connection with it as the reason."""
        error = sys.exc_info()[1]
        log.callWithLogger(self, log.err)
        log.callWithLogger(self, self.reactor._disconnectSelectable, self, error, True)

    def connectionLost(self, reason: Failure) -> None:
        self.collect_writes()
        observer, self._end_observer = self._end_observer, None
        if observer is None:
            self._end(reason)
            return
        try:
            received, written, _, _ = self.octets()  # while the socket is open
        except OSError:
            received = written = 0
        try:
            self._end(reason)
        finally:
            observer.transport_lost(received, written)

    def _end(self, reason: Failure) -> None:
        self._tempDataBuffer.clear()
        self._tempDataLen = 0
        self._collecting = False
        super().connectionLost(reason)

    def _closeSocket(self, orderly: bool) -> None:
        if not self._handed_over:
            super()._closeSocket(orderly)
            return
        self.reactor.streams.discard(self)
        if not orderly:
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass  # The loop has closed it already.
        loop_transport, self._loop_transport = self._loop_transport, None
        if loop_transport is not None:
            loop_transport.abort()
            self.socket.close()
        # Otherwise connection_made is still to come, and must find an open descriptor.

    # Reading

    def data_received(self, data: bytes) -> None:
        """From the loop: it has read `data`."""
        if self._send is not None:
            try:
                self.protocol.dataReceived(data)
            except BaseException:
                self._protocol_failed()
        elif self.reading:
            self._receive(data)
        else:
            # The protocol paused its transport before the loop began to read.
            cast(Transport, self._loop_transport).pause_reading()
            self._early = data

    def _receive(self, data: bytes) -> None:
        """Deliver `data`, and send what is written meanwhile: at once if that took no time, else with what others write
        in this turn, which wakes a waiting peer less often."""
        before = len(self._tempDataBuffer)
        self._receiving = True
        began = perf_counter()
        try:
            self.protocol.dataReceived(data)
        except BaseException:
            self._protocol_failed()
        self._receiving = False
        written = len(self._tempDataBuffer) - before
        if perf_counter() - began >= QUICK:
            self._quick_answers = 0
            if written:
                self.reactor.flush_soon(self)
        elif written:
            self.flush()
            self._quick_answers = self._quick_answers + 1 if written == 1 else 0
            if self._quick_answers == QUICK_ANSWERS:
                self._write_directly()

    def eof_received(self) -> bool:
        """From the loop: the peer has ended its stream. The connection stays; Twisted decides what becomes of it."""
        self._ended = True
        if self.reading:
            self.reading = False
            try:
                self.readConnectionLost(DONE)
            except BaseException:
                self._protocol_failed()
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
        if self._aborting or (self._ended and self._early is None):
            return  # Nothing is to come.
        self.reading = True
        if self._early is not None:
            self.reactor.loop.call_soon(self._deliver)
        elif not self._handed_over:
            super().startReading()
        elif self._loop_transport is not None:
            self._loop_transport.resume_reading()

    def stopReading(self) -> None:
        self.reading = False
        if not self._handed_over:
            super().stopReading()
        elif self._loop_transport is not None:
            self._loop_transport.pause_reading()

    # Writing

    def write(self, data: bytes) -> None:
        if type(data) is not bytes:
            _dataMustBeBytes(data)
        if not self._handed_over or self._detaching:
            FileDescriptor.write(self, data)
        elif data and self.connected and not self._writeDisconnected:
            collected = self._tempDataBuffer
            if not self._receiving:
                self._quick_answers = 0
                if not collected:
                    self.reactor.flush_soon(self)
            collected.append(data)
            self._tempDataLen += len(data)
            if self._loop_paused:
                self.flush()
                self._maybePauseProducer()
            elif self._tempDataLen >= COLLECTED:
                self.flush_early()
            else:
                self._collecting = not self.TLS

    def flush_early(self) -> None:
        """Give the loop what has been collected before the turn is over."""
        self.flush()
        self.reactor.flush_soon(self)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        PlainStream.write(self, joined(iovec))

    def flush(self) -> None:
        """Give the loop what has been collected."""
        loop_transport, collected = self._loop_transport, self._tempDataBuffer
        if not collected or loop_transport is None or self._detaching or self._aborting or loop_transport.is_closing():
            return
        octets, self._tempDataLen = self._tempDataLen, 0
        pieces, self._tempDataBuffer = collected, []
        self._collecting = False
        was_paused = self._loop_paused
        if len(pieces) == 1:
            loop_transport.write(pieces[0])
        elif octets < COLLECTED:
            loop_transport.write(b"".join(pieces))
        else:
            loop_transport.writelines(pieces)  # which uvloop does without copying them
        if self._loop_paused and not was_paused:
            self._maybePauseProducer()
        pulls = self.producer is not None and not self.streamingProducer
        if pulls or self.disconnecting or (self._writeDisconnecting and not self._writeDisconnected):
            # When this has been sent, Twisted asks for more, closes, or half-closes.
            self.startWriting()

    def _write_directly(self) -> None:
        """Let writes go straight to the loop, unless something has to be done at each."""
        self._quick_answers = 0
        self.flush()
        busy = self.writing or self._loop_paused or self._detaching or self._aborting
        ending = self.disconnecting or self._writeDisconnecting
        if (
            self._loop_transport is not None
            and not (busy or ending)
            and (self.producer is None or self.streamingProducer)
            # TLS may write while it aborts, which must not be sent.
            and not isinstance(self.protocol, TLSMemoryBIOProtocol)
        ):
            self._send = self._loop_transport.write
            self.reactor.writes_directly(self)

    def collect_writes(self) -> None:
        """Collect what is written from now on."""
        if self._send is not None:
            self._send = None
            self.reactor.direct.discard(self)

    def writeSomeData(self, data: bytes) -> Any:
        # What the loop carries waits in the loop's buffer, and not in Twisted's.
        return 0 if self._handed_over else super().writeSomeData(data)

    def _isSendBufferFull(self) -> bool:
        return self.bytes_waiting() > self.bufferSize

    def bytes_waiting(self) -> int:
        """How many octets wait to be taken by the system."""
        waiting = len(self.dataBuffer) - self.offset + self._tempDataLen
        if self._loop_transport is not None:
            waiting += self._loop_transport.get_write_buffer_size()
        return waiting

    def octets(self) -> tuple[int, int, int, int]:
        """See `IOctetCounter`; of a TCP connection only. When TLS has been started, what it makes is counted."""
        received, acknowledged, waiting, fin_received = tcp_info.tcp_counters(self.socket)
        waiting += self.bytes_waiting()
        written = acknowledged + waiting
        return received - (fin_received or self._ended), written - self._writeDisconnected, acknowledged, waiting

    def observe_end(self, observer: IEndObserver) -> None:
        """See `IOctetCounter`."""
        self._end_observer = observer

    def pause_writing(self) -> None:
        """From the loop: its buffer is above the limit that was set, which is 0 while Twisted waits to write."""
        self._loop_paused = True
        if self._send is not None:
            self.collect_writes()
            log.callWithLogger(self, self._maybePauseProducer)

    def resume_writing(self) -> None:
        """From the loop: its buffer is empty."""
        self._loop_paused = False
        # Not at once: asyncio's transport doesn't expect to be closed from here.
        self._call_emptied_soon()

    def _wait_until_empty(self) -> None:
        loop_transport = cast(Transport, self._loop_transport)
        self.flush()
        if loop_transport.get_write_buffer_size():
            loop_transport.set_write_buffer_limits(high=0)
        else:
            self._call_emptied_soon()

    def _call_emptied_soon(self) -> None:
        if not self._emptied_due:
            self._emptied_due = True
            self.reactor.loop.call_soon(self._emptied)

    def _emptied(self) -> None:
        """The loop's buffer is empty: Twisted may write, or close."""
        self._emptied_due = False
        if self._loop_transport is None or self._aborting:
            return
        self.flush()
        if self._loop_transport.get_write_buffer_size():
            # Something has been written since.
            self._wait_until_empty()
        elif self._detaching:
            self._take_back()
        elif self.disconnecting and (self.producer is None or self._writeDisconnected):
            log.callWithLogger(self, self.connectionLost, DONE)
        else:
            self._loop_transport.set_write_buffer_limits(high=self.bufferSize, low=0)
            if self.writing or (self.producerPaused and self.producer is not None):
                log.callWithLogger(self, self.reactor._readOrWrite, self, False)

    def startWriting(self) -> None:
        if not self._handed_over:
            super().startWriting()
        elif not self.writing:
            self.writing = True
            self.collect_writes()
            if self._loop_transport is not None:
                self._wait_until_empty()

    def stopWriting(self) -> None:
        self.writing = False
        if not self._handed_over:
            super().stopWriting()

    def setTcpNoDelay(self, enabled: bool) -> None:
        if self._delays or not enabled:
            super().setTcpNoDelay(enabled)
            self._delays = not enabled

    # The rest of a transport

    def loseConnection(self) -> None:
        if not self._handed_over:
            FileDescriptor.loseConnection(self)
        elif self.connected and not self.disconnecting:
            self.stopReading()
            self.startWriting()
            self.disconnecting = True

    def abortConnection(self) -> None:
        super().abortConnection()
        self.collect_writes()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        written = self._send is not None or self.reactor.flushes_soon(self) or self.bytes_waiting() > 0
        if not streaming:
            self.collect_writes()
        FileDescriptor.registerProducer(self, producer, streaming)
        if not streaming and written:
            # What was written before is, for Twisted, still to be sent; then the producer is asked for more.
            self.startWriting()

    def unregisterProducer(self) -> None:
        FileDescriptor.unregisterProducer(self)


class LoopStream(PlainStream):
    """Mixed in before one of Twisted's stream transports: lets the loop carry the connection.

    One object is the transport of the Twisted protocol and the asyncio protocol of the loop's transport. The methods
    here go through TLS once that has been started; TLS itself uses those of `PlainStream`.
    """

    def write(self, data: bytes) -> None:
        """Send `data`.

        What is written in one turn of the loop is collected, and leaves in one piece before the loop next waits for
        events; earlier when 64 KiB have been collected, or when a short ``dataReceived`` returns. So many small writes
        cost one system call, one segment and one wake-up of the peer.

        Where the protocol answers each arrival quickly and with one write, there is nothing to collect: ``write`` then
        calls the loop's own, which sends at once. Once a second the reactor has such connections collect again, for
        the case that their protocols have changed what they do.

        :param data: bytes. A connection that does not collect leaves it to the loop to refuse anything else.
        :raises TypeError: for anything else.
        """
        send = self._send
        if send is not None:
            send(data)
        elif self._collecting and type(data) is bytes:
            self._tempDataBuffer.append(data)
            self._tempDataLen = collected = self._tempDataLen + len(data)
            if collected >= COLLECTED:
                self.flush_early()
        elif not self.TLS:
            PlainStream.write(self, data)
        elif self.connected:
            self.protocol.write(data)  # type: ignore[attr-defined]

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if not self.TLS:
            self.write(joined(iovec))
        elif self.connected:
            self.protocol.writeSequence(iovec)  # type: ignore[attr-defined]

    def loseConnection(self) -> None:
        if not self.TLS:
            super().loseConnection()
        elif self.connected and not self.disconnecting:
            self.protocol.loseConnection()  # type: ignore[attr-defined]

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.TLS:
            self.protocol.registerProducer(producer, streaming)  # type: ignore[attr-defined]
        else:
            super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self.TLS:
            self.protocol.unregisterProducer()  # type: ignore[attr-defined]
        else:
            super().unregisterProducer()

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        self.collect_writes()
        self._collecting = False
        startTLS(self, ctx, normal, PlainStream)


def joined(pieces: Iterable[bytes]) -> bytes:
    """`pieces` in one piece.

    :raises TypeError: if one of them is not bytes.
    """
    pieces = list(pieces)
    for piece in pieces:
        _dataMustBeBytes(piece)
    return b"".join(pieces)


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


def counting_octets(cls: Any) -> Any:
    """Declare that `cls` is an `IOctetCounter`, where the kernel counts."""
    return implementer(IOctetCounter)(cls) if tcp_info.AVAILABLE else cls


@counting_octets
class Server(LoopStream, tcp.Server):
    """A TCP connection that was accepted."""

    _handed_over = True

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
        self._handed_over = False
        if self.reading:
            self.startReading()
        if self.writing or self._tempDataBuffer:
            self.startWriting()

    def sendFileDescriptor(self, fileno: int) -> None:
        if self._handed_over:
            self._detaching = True
            self._collecting = False
            self.collect_writes()
        super().sendFileDescriptor(fileno)  # type: ignore[misc]


class UNIXServer(LoopUNIX, unix.Server):
    """A Unix connection that was accepted."""

    _handed_over = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._hand_over()


class UNIXClient(LoopUNIX, unix.Client):
    """A Unix connection that was made."""

    def _connectDone(self) -> None:
        self._handed_over = True
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
