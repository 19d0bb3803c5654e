"""Standard input and output: as a stream beside a connection, and as a terminal to ask questions at."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, TimeoutError
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from twistednet.cli.client import Call
from twistednet.protocols.flow import StreamClient
from twistednet.protocols.framing import IdleTimer


@implementer(IHalfCloseableProtocol)
class _Standard(Protocol):
    """The two as one transport; what they have been given is written before `close` has fired."""

    transport: StandardIO
    _unread = False  # nobody reads standard output

    def __init__(self) -> None:
        self._closed: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        raise NotImplementedError

    def writeConnectionLost(self) -> None:
        self._unread = True

    def close(self) -> Deferred[None]:
        """Write what there is to write; fires when that is done."""
        self.transport.loseConnection()
        if self._unread:
            # Twisted's StandardIO waits for its writer, which is no more.
            cast(Any, self.transport).connectionLost(Failure(ConnectionDone()))
        return self._closed

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        for fd in (0, 1):
            # They may be the terminal, which others go on using.
            os.set_blocking(fd, True)
        self._closed.callback(None)


@implementer(IPushProducer)
class _Stream(_Standard):
    """Copies standard input to `client`, and what it receives to standard output.

    Each is read as fast as the other side of it is: neither is kept here.
    """

    def __init__(self, call: Call, client: StreamClient) -> None:
        super().__init__()
        self.client = client
        self.sent = hashlib.blake2b()
        self.received = hashlib.blake2b()
        self.failure: Exception | None = None
        self._ended = False
        self._finished = False
        self._paused = False
        self._timer = IdleTimer(call.reactor, call.timeout, self._idle)

    def connectionMade(self) -> None:
        self.client.received = self._answered
        self.client.transport.registerProducer(self.transport, True)
        self.transport.registerProducer(self, True)
        self.client.finished().addCallbacks(self._finish, self._fail)
        self._timer.mark()

    def dataReceived(self, data: bytes) -> None:
        self._timer.mark()
        self.sent.update(data)
        self.client.send(data)

    def readConnectionLost(self) -> None:
        if self._finished:
            return
        self._timer.mark()
        self._ended = True
        self.client.transport.unregisterProducer()
        self.client.end()

    def _answered(self, data: bytes) -> None:
        self._timer.mark()
        self.received.update(data)
        self.transport.write(data)

    def _idle(self) -> None:
        if not (self.client.waiting or self._ended):
            return
        if self._paused:
            self._timer.mark()  # it is our own reader who is slow
        else:
            self._fail(Failure(TimeoutError()))

    def pauseProducing(self) -> None:
        self._paused = True
        self.client.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self.client.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.client.transport.abortConnection()

    def _fail(self, failure: Failure) -> None:
        if self.failure is None:
            self.failure = cast(Exception, failure.value)
            self.client.transport.abortConnection()
            self._finish(None)

    def _finish(self, _: None) -> None:
        self._finished = True
        self._timer.cancel()
        self.transport.unregisterProducer()
        self.close()

    def writeConnectionLost(self) -> None:
        super().writeConnectionLost()
        self._fail(Failure(BrokenPipeError()))


async def stream(call: Call, client: StreamClient) -> tuple[bytes, bytes]:
    """Copy standard input to `client` and its answers to standard output until both have ended.

    :return: a digest of what was sent, and one of what was received.
    """
    streams = _Stream(call, client)
    StandardIO(streams, reactor=call.reactor)
    await streams._closed
    if streams.failure is not None:
        raise streams.failure
    return streams.sent.digest(), streams.received.digest()


class Terminal(LineReceiver, _Standard):
    """Standard input, line by line, with questions on standard output where a person sits at it."""

    delimiter = b"\n"
    MAX_LENGTH = 2**20

    def __init__(self) -> None:
        super().__init__()
        self.interactive = sys.stdin.isatty()
        self._asked: Deferred[bytes | None] | None = None
        self._ended = False

    def connectionMade(self) -> None:
        self.pauseProducing()

    def ask(self, question: str) -> Deferred[bytes | None]:
        """The next line, without its ending; ``None`` at the end of the input.

        :param question: shown before it where a person sits at the terminal.
        """
        if self.interactive:
            self.transport.write(question.encode())
        asked = self._asked = Deferred()
        if self._unread:
            self._answer(Failure(BrokenPipeError()))
        elif self._ended:
            self._answer(None)
        else:
            self.resumeProducing()
        return asked

    def say(self, line: bytes) -> None:
        """Write `line` to standard output, and end it."""
        self.transport.write(line + b"\n")

    def lineReceived(self, line: bytes) -> None:
        self.pauseProducing()
        self._answer(line)

    def readConnectionLost(self) -> None:
        self._ended = True
        # The last line may have no ending.
        self._answer(self.clearLineBuffer() or None)

    def writeConnectionLost(self) -> None:
        super().writeConnectionLost()
        self._answer(Failure(BrokenPipeError()))

    def _answer(self, line: bytes | Failure | None) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.callback(line)


def open_terminal(call: Call) -> Terminal:
    """Standard input and output as a `Terminal`."""
    terminal = Terminal()
    StandardIO(terminal, reactor=call.reactor)
    return terminal
