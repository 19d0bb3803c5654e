"""Flow: what every stream protocol here does about half-close and back-pressure.

A TCP connection is two streams, and each can end or stall by itself. Three rules follow, kept here once:

half-close
    The end of the peer's stream ends what it asks, never what it is owed: everything already written, and every
    answer still to come, is delivered before the connection is closed.
back-pressure
    A peer that does not read is not read from: the transport tells its producer to pause when more than its
    buffer (64 KiB in Twisted) is waiting, and the producer is whoever makes output out of input.
closing first
    Closing a socket on which unread input waits makes the kernel send RST, and RST can destroy what the peer has
    not read yet. So a protocol that closes first ends its own stream only, and discards what still comes until
    the peer has ended its own, or for `LINGER` seconds.

TCP_NODELAY is set on every TCP connection: an answer never waits for the acknowledgement of the one before.

Sources: RFC 9293 §3.6 (closing a connection; half-close), RFC 1122 §4.2.2.13 (RST on unread data).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twistednet.interfaces import IFinishable


class IStreamTransport(ITCPTransport, IConsumer, IPushProducer):
    """What a stream protocol's transport is: a connection that can be written to, and paused, both ways."""


LINGER = 5.0
"""Seconds for which a peer that has had its last answer may go on sending before the connection is closed under
it; nginx's ``lingering_timeout`` has the same default."""


def can_half_close(transport: ITCPTransport) -> bool:
    """Whether one direction of `transport` can be ended by itself.

    A wrapper such as TLS forwards attributes it does not have to what it wraps: calling ``loseWriteConnection``
    there would end the stream underneath it, in mid-record. So the method must be the transport's own.
    """
    return hasattr(type(transport), "loseWriteConnection")


def set_no_delay(transport: ITCPTransport) -> None:
    """Set TCP_NODELAY where the connection is a TCP one."""
    # Twisted's Unix sockets have the method too, and are refused by the system. To look at the address takes longer.
    with suppress(AttributeError, OSError):
        transport.setTcpNoDelay(True)


@implementer(IHalfCloseableProtocol, IFinishable)
class StreamProtocol(Protocol):
    """A server protocol that loses nothing at half-close and buffers nothing for a peer that does not read.

    A subclass writes its answers in ``dataReceived`` and closes with `close`, not with
    ``transport.loseConnection()``. One that makes much output out of little input overrides `producer`, so that
    back-pressure stops the making as well as the reading.
    """

    factory: StreamFactory[Any]
    transport: IStreamTransport
    closing = False
    """No more answers: nothing that still arrives will be looked at."""
    input_ended = False
    """The peer has ended its stream."""
    finishing = False
    """The service stops: no more is read than has been."""
    _linger: IDelayedCall | None = None

    @property
    def producer(self) -> Any:
        """Whom the transport pauses while too much output waits (an `IPushProducer`): its own reading side."""
        return self.transport

    def connectionMade(self) -> None:
        set_no_delay(self.transport)
        self.transport.registerProducer(self.producer, True)

    def readConnectionLost(self) -> None:
        self.input_ended = True
        if self.closing:
            self.transport.loseConnection()
        else:
            self.end_of_input()

    def end_of_input(self) -> None:
        """The peer will send no more. By default nothing more is owed than what has been written."""
        self.close()

    @property
    def owing(self) -> bool:
        """See `IFinishable`. By default, every answer is written as soon as its question has been read."""
        return False

    def finish(self) -> None:
        """The service stops: deliver what is owed, as at the end of the peer's stream, and close."""
        self.finishing = True
        if not self.closing and not self.input_ended:
            self.end_of_input()

    def close(self) -> None:
        """Deliver what has been written, then close; see the module's *closing first*."""
        if self.closing:
            return
        self.closing = True
        self.transport.unregisterProducer()
        if self.input_ended or not can_half_close(self.transport):
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()
            self.transport.resumeProducing()

    def produce(self, producer: IPullProducer | IPushProducer, *, streaming: bool) -> None:
        """Let `producer` write what is to come, as the peer reads it; see ``registerProducer`` of `IConsumer`.

        What still arrives goes to ``dataReceived``, unless this protocol itself pauses its transport.
        """
        self.transport.unregisterProducer()
        self.transport.registerProducer(producer, streaming)
        self.transport.resumeProducing()

    def writeConnectionLost(self) -> None:
        self._linger = self.factory.reactor.callLater(LINGER, self.transport.loseConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closing = True
        if self._linger is not None and self._linger.active():
            self._linger.cancel()


CHUNK = 65536
"""How much a producer here makes at a time, in bytes: the buffer at which Twisted pauses one."""


@implementer(IPullProducer)
class RepeatingProducer:
    """Writes a pattern again and again, a chunk whenever the consumer has room for one.

    :param consumer: what it writes to; register it there with ``streaming=False``.
    :param pattern: at least one byte.
    :param length: how many bytes to write in all; without end when left out.
    :param done: called after the last byte.
    """

    def __init__(
        self,
        consumer: IConsumer,
        pattern: bytes,
        length: int | None = None,
        done: Callable[[], object] = lambda: None,
    ) -> None:
        self._consumer = consumer
        self._block = pattern * max(1, CHUNK // len(pattern))
        self._position = 0
        self._left = length
        self._done = done

    def resumeProducing(self) -> None:
        size = CHUNK if self._left is None else min(CHUNK, self._left)
        chunk = self._block[self._position : self._position + size]
        self._position = (self._position + len(chunk)) % len(self._block)
        self._consumer.write(chunk)
        if self._left is not None:
            self._left -= len(chunk)
            if not self._left:
                self._done()

    def stopProducing(self) -> None:
        """The consumer is gone."""


_P = TypeVar("_P", bound=StreamProtocol)


class StreamFactory(Factory[_P]):
    """A factory of `StreamProtocol`.

    :param reactor: the clock of the protocols' timers; the global reactor when left out.
    """

    noisy = False

    def __init__(self, *, reactor: IReactorTime | None = None) -> None:
        if reactor is not None:
            self.reactor = reactor

    @cached_property
    def reactor(self) -> IReactorTime:
        # Imported at the first use of a timer, so that making a factory installs no reactor.
        from twisted.internet import reactor

        return cast(IReactorTime, reactor)


@implementer(IHalfCloseableProtocol)
class StreamClient(Protocol):
    """A client that sends any amount and receives any amount, both at once, until the server closes.

    What arrives is given to `received`, which may be replaced, and kept for `answer` unless it is.
    """

    transport: IStreamTransport

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.received: Callable[[bytes], object] = self._chunks.append
        self._waiter: Deferred[None] | None = None
        self._lost: Failure | None = None

    def connectionMade(self) -> None:
        set_no_delay(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.received(data)

    @property
    def waiting(self) -> bool:
        """Whether an answer is known to be still to come."""
        return False

    @property
    def answer(self) -> bytes:
        """All that has been kept so far."""
        return b"".join(self._chunks)

    def send(self, data: bytes) -> None:
        """Send `data`."""
        self.transport.write(data)

    def end(self) -> None:
        """Say that nothing more will be sent, and go on receiving, where the transport can (Twisted's TLS can not)."""
        if can_half_close(self.transport):
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close once everything sent has been delivered."""
        self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = reason
        if self._waiter is not None:
            self._tell(self._waiter, reason)

    def finished(self) -> Deferred[None]:
        """Wait for the end; call it once.

        :return: fires with ``None`` when the server has closed after its last byte; fails with the reason when the
            connection breaks.
        """
        self._waiter = Deferred()
        if self._lost is not None:
            self._tell(self._waiter, self._lost)
        return self._waiter

    def _tell(self, waiter: Deferred[None], reason: Failure) -> None:
        if reason.check(ConnectionDone):
            waiter.callback(None)
        else:
            waiter.errback(reason)
