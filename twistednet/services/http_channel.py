"""A server's side of HTTP/1.1: twisted.web's ``HTTPChannel``, with flow control and half-close as in `flow`.

``HTTPChannel`` parses requests and frames answers. This subclass decides when it does so:

one request a turn
    What arrives is buffered. `Channel` handles one request of it, and lets the reactor turn before the next: a client
    that sends thousands of requests in one packet does not keep the others waiting. A body is dropped in pieces of
    `BODY_PIECE` bytes, one a turn.
back-pressure
    No request is handled while an earlier one is being answered, or while the transport is full. With `MAX_BUFFERED`
    bytes buffered, the transport is paused. So a client that does not read costs one answer's buffer, however much it
    asks for.
half-close
    The end of the client's stream ends its requests. Those that are complete are answered, then the connection is
    closed.
closing first
    After ``Connection: close``, after HTTP/1.0, and after a request that is not HTTP (400), the server ends its stream
    only, and discards what still arrives; see `flow`.
finish
    When the service stops, the request that is being answered is the last one, and its answer says ``Connection:
    close``. Where its headers have been sent already, requests that have arrived completely are answered too, the next
    of them with ``Connection: close``. Without any, the connection is closed at once.
time-outs
    ``HTTPChannel``'s own are off. `unfinished` tells `LimitedFactory` of a request that has begun; without a
    `LimitedFactory` around the site, there is no time-out.

Sources: RFC 9112 §9 (persistence, pipelining, §9.6 on closing).
"""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from zope.interface import implementer

from twistednet.interfaces import IFinishable, IMessageInput
from twistednet.protocols.flow import LINGER, can_half_close

MAX_BUFFERED = 2**14
"""Bytes of requests that may wait to be handled before the transport is paused; twisted.web has the same number."""

BODY_PIECE = 2**14
"""Bytes of a request's body that are decoded in one turn. The worst case, chunks of one byte each, takes 10 ms."""

BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class DiscardedBody(io.BytesIO):
    """The body of a request, for a server that has no use for one."""

    def write(self, data: Any) -> int:
        return len(data)


@implementer(IHalfCloseableProtocol, IMessageInput, IFinishable)
class Channel(HTTPChannel):
    """A connection of a ``Site``; see the module."""

    transport: Any
    _networkProducer: Any
    abortTimeout: Any = None
    closing = False
    """No more answers: nothing that still arrives will be looked at."""
    input_ended = False
    """The client has ended its stream."""
    draining = False
    """The service stops: no more is read than has been."""
    _reading_paused = False
    _turn: IDelayedCall | None = None
    """When the next request is handled."""
    _linger: IDelayedCall | None = None

    def __init__(self) -> None:
        super().__init__()
        self.messages = 0
        """How many requests have come."""
        self._received = bytearray()
        """Arrived, and not handled yet."""

    @property
    def unfinished(self) -> int | None:
        """Which request has begun and not ended yet, counted from 0; nothing while one is being answered."""
        if self._handlingRequest or self._waitingForTransport or self.closing:
            return None
        return self.messages if self._received or self.requests else None

    @property
    def input_paused(self) -> bool:
        """See `IMessageInput`."""
        return self._reading_paused

    @property
    def owing(self) -> bool:
        """See `IFinishable`."""
        return not self.closing and (self._handlingRequest or self._turn is not None)

    # Input

    def dataReceived(self, data: bytes) -> None:
        if not self.closing and not self.draining:
            self._received += data
            if self._turn is None:
                self._handle()
            self._limit_reading()

    def readConnectionLost(self) -> None:
        self.input_ended = True
        if self.closing:
            self.transport.loseConnection()
        else:
            self._proceed()

    def _limit_reading(self) -> None:
        """Pause the transport while enough is buffered."""
        paused = len(self._received) > MAX_BUFFERED
        if paused != self._reading_paused and not self.input_ended and not self.closing:
            self._reading_paused = paused
            if paused:
                self._networkProducer.pauseProducing()
            else:
                self._networkProducer.resumeProducing()

    # Requests

    def _proceed(self) -> None:
        """Handle the next request, if one is there, in the next turn; close, if there will be none."""
        if self.closing or self._handlingRequest or self._turn is not None:
            return
        if self._received:
            if not self._waitingForTransport:
                self._turn = self.callLater(0, self._handle_in_turn)
        elif self.input_ended or self.draining:
            self.close()

    def _handle_in_turn(self) -> None:
        self._turn = None
        self._handle()
        self._limit_reading()

    def _handle(self) -> None:
        """Handle what has been received, up to the end of one request or one piece of a body."""
        while self._ready():
            if not self.line_mode:
                self._handle_body()
            elif not self._handle_line():
                break
        if (self.input_ended or self.draining) and self._turn is None and not self._busy():
            self.close()  # What is left is no whole request.

    def _busy(self) -> bool:
        return bool(self.closing or self._handlingRequest or self._waitingForTransport)

    def _ready(self) -> bool:
        return bool(self._received) and self._turn is None and not self._busy()

    def _handle_line(self) -> bool:
        """Handle a line of a request's head; return whether there was one."""
        end = self._received.find(self.delimiter, 0, self.MAX_LENGTH + len(self.delimiter))
        if end >= 0:
            line = bytes(self._received[:end])
            del self._received[: end + len(self.delimiter)]
            self.lineReceived(line)
        elif len(self._received) >= self.MAX_LENGTH + len(self.delimiter):
            self._respondToBadRequestAndDisconnect()
        return end >= 0

    def _handle_body(self) -> None:
        piece = bytes(self._received[:BODY_PIECE])
        del self._received[:BODY_PIECE]
        self.rawDataReceived(piece)
        self._proceed()

    def _finishRequestBody(self, data: bytes) -> None:
        self._received[:0] = data
        self.allContentReceived()

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a Content-Length of more digits than int() takes
            self._respondToBadRequestAndDisconnect()
            return False

    def allContentReceived(self) -> None:
        self.messages += 1
        super().allContentReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        if self.draining:
            return self._say_close(request)
        return bool(super().checkPersistence(request, version))

    def _say_close(self, request: Request) -> bool:
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def requestDone(self, request: Request) -> None:
        self.requests.remove(request)
        self._handlingRequest = False
        self.setLineMode()  # HTTPChannel is in raw mode while it answers
        if self.persistent:
            self._proceed()
        else:
            self.close()

    # Output

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        if self._waitingForTransport and streaming:
            producer.pauseProducing()

    def pauseProducing(self) -> None:
        """From the transport: it is full."""
        self._waitingForTransport = True
        if self._requestProducer is not None:
            self._requestProducer.pauseProducing()

    def resumeProducing(self) -> None:
        """From the transport: it has room."""
        self._waitingForTransport = False
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()
        self._proceed()

    # The end

    def finish(self) -> None:
        """The service stops: answer what has been asked, and close."""
        self.draining = True
        if self._handlingRequest:
            request = self.requests[0]
            if not request.startedWriting:
                self.persistent = self._say_close(request)
        elif self._turn is None and not self.closing and not self._waitingForTransport:
            self._handle()
        else:
            self._proceed()

    def close(self) -> None:
        """Deliver what has been written, then close; see the module's *closing first*."""
        if self.closing:
            return
        self.closing = True
        self._forget()
        self._networkProducer.unregisterProducer()
        if self.input_ended or not can_half_close(self.transport):
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()
            self._networkProducer.resumeProducing()

    def loseConnection(self) -> None:
        self.close()

    def _forget(self) -> None:
        """Drop what has not been handled."""
        self._received.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _respondToBadRequestAndDisconnect(self) -> None:
        if not self.closing:
            self.transport.write(BAD_REQUEST)
            self.close()

    def writeConnectionLost(self) -> None:
        self._linger = self.callLater(LINGER, self.transport.loseConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closing = True
        self._forget()
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self.stopProducing()
        super().connectionLost(reason)
