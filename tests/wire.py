"""A connection in memory, whose peer can send in pieces, read slowly, half-close and leave."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Self

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from twistednet.interfaces import IOutputPending

BUFFER_SIZE = 65536
"""What may wait in the transport before it pauses its producer, and what it reads at a time: Twisted's own."""


@implementer(IOutputPending)
class OneWayWire(StringTransport):
    """The transport of a protocol under test; it behaves as Twisted's sockets do, one `turn` at a time.

    `received` is what the peer has read, `writes` each ``write`` of the protocol, `closed` whether both directions
    have ended, and `ended` whether the protocol has ended its own. It can't be half-closed by the protocol, as a
    TLS connection can't.
    """

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(lenient=True)
        self.protocol = protocol
        self.received = b""
        self.writes: list[bytes] = []
        self.waiting = bytearray()
        self.ended = False
        self.closed = False
        self._ending = False
        self._producer_paused = False
        self._arriving: deque[bytes] = deque()
        self._peer_ended = False

    @classmethod
    def to(cls, factory: Factory[Any]) -> Self:
        """A new connection to what `factory` builds."""
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        wire = cls(protocol)
        protocol.makeConnection(wire)
        return wire

    # What the peer does

    def send(self, *chunks: bytes) -> Self:
        """Send each of `chunks` by itself, and read all there is to read after each."""
        for chunk in chunks:
            self.arrive(chunk)
            self.turn()
        return self

    def arrive(self, data: bytes) -> None:
        """Data is there for the protocol, which gets it at once unless it has paused; at most a buffer at a time."""
        self._arriving.extend(data[i : i + BUFFER_SIZE] for i in range(0, len(data) or 1, BUFFER_SIZE))
        self._deliver()

    def end(self) -> Self:
        """Half-close: send no more, and read what comes."""
        self._peer_ended = True
        self.turn()
        return self

    def read(self, size: int | None = None) -> bytes:
        """Read up to `size` bytes of what waits; all of it when left out."""
        data = bytes(self.waiting[:size])
        del self.waiting[: len(data)]
        self.received += data
        if not self.waiting:
            self._drained()
        return data

    def turn(self) -> None:
        """Deliver and read, and let the loop turn, until nothing happens any more."""
        # Only a clock that the factory was given: the global reactor has turns of its own.
        clock = getattr(getattr(self.protocol, "factory", None), "__dict__", {}).get("reactor")
        while True:
            before = self._progress()
            self._deliver()
            if isinstance(clock, Clock):
                clock.advance(0)
            self.read()
            if before == self._progress():
                return

    def _progress(self) -> tuple[object, ...]:
        return len(self.received), len(self._arriving), self.producerState, self.closed, self.ended

    def reset(self) -> None:
        """Leave without a word."""
        self._lose(ConnectionLost())

    # What the transport does

    def bytes_waiting(self) -> int:
        """See `IOutputPending`."""
        return len(self.waiting)

    def _deliver(self) -> None:
        while self._arriving and self.producerState == "producing" and not self.closed and not self.disconnecting:
            self.protocol.dataReceived(self._arriving.popleft())
        if self._peer_ended and not self._arriving and self.producerState == "producing" and not self.closed:
            self._peer_ended = False
            if not self.disconnecting:
                if IHalfCloseableProtocol.providedBy(self.protocol):
                    self.protocol.readConnectionLost()
                else:
                    self._lose(ConnectionDone())

    def _drained(self) -> None:
        if self.producer is not None and (self._producer_paused or not self.streaming):
            self._producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self._lose(ConnectionDone())
        elif self._ending and not self.ended:
            self.ended = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()

    def _lose(self, error: Exception) -> None:
        if not self.closed:
            self.closed = self.ended = True
            if self.producer is not None:
                self.producer.stopProducing()
            self.protocol.connectionLost(Failure(error))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        if not streaming:
            producer.resumeProducing()

    def write(self, data: bytes) -> None:
        if self.closed or self._ending:
            return
        self.writes.append(data)
        self.waiting += data
        if self.producer is not None and self.streaming and len(self.waiting) > BUFFER_SIZE:
            self._producer_paused = True
            self.producer.pauseProducing()

    def loseConnection(self) -> None:
        super().loseConnection()
        if self.ended:
            self._lose(ConnectionDone())

    def abortConnection(self) -> None:
        self._lose(ConnectionAborted())

    def setTcpNoDelay(self, enabled: bool) -> None:
        if isinstance(self.getPeer(), UNIXAddress):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self.no_delay = enabled


class Wire(OneWayWire):
    """A connection whose directions can be ended one by one, as a TCP connection's can."""

    def loseWriteConnection(self) -> None:
        self._ending = True


def every_cut(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`data` in two pieces, in every way."""
    for i in range(len(data) + 1):
        yield data[:i], data[i:]


def pieces(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """`data` in pieces of `sizes`, and the rest."""
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data
