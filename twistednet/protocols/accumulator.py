r"""Accumulator: the letters of all clients, in one string.

=================  ===================================================================================
the client sends   the server
=================  ===================================================================================
a letter           appends it to the string that all clients share, and sends the whole string so far
LF, CR             sends it back: it is no letter, but ends the client's line, and so the answer's
LF, no letter      sends it back and closes: the client has left. (No letter since the LF before, or
since the last     since the beginning.)
the end of its     closes, once everything is answered
stream
=================  ===================================================================================

A letter is a Unicode character in UTF-8; a byte that is no part of one is a letter by itself. Each letter is
answered at once, with no line ending: the answers to a stream are a function of its bytes alone, however they are
cut. (Only a stream that stays broken off inside a character for the pause of `twistednet.protocols.framing` has
the bytes of its first half taken as letters.)

Two clients, the string empty at first::

    A: a LF     S: a LF
    A: b LF     S: ab LF
    B: uv LF    S: abuabuv LF
    A: LF       S: LF (close)

Bad input: a letter for which the string has no room is answered with ``error: …`` in the string's place, and not
appended.

Sources: seed 002 §6.1, whose server takes ``recv(1)`` for a letter, and whose clients end by sending nothing.
"""

from __future__ import annotations

import codecs
from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from twistednet.protocols.flow import CHUNK, StreamFactory, StreamProtocol
from twistednet.protocols.framing import MESSAGE_GAP, IdleTimer, LineClient
from twistednet.protocols.printable import printable

MAX_TEXT = 2**20
"""The longest shared string, in bytes."""


class TextFull(Exception):
    """The string has no room for the letter."""


class ISharedText(Interface):
    """The string that all clients of an accumulator append to."""

    value: bytes = Attribute("The whole string so far.")

    def append(letter: bytes) -> bytes:  # noqa: N805  (an Interface's methods have no self)
        """Append `letter`.

        :return: the whole string so far.
        :raises TextFull: where it has no room; it stays as it was.
        """


@implementer(ISharedText)
class SharedText:
    """The string, kept in memory.

    :param max_length: how long it may get, in bytes.
    """

    def __init__(self, *, max_length: int = MAX_TEXT) -> None:
        self.max_length = max_length
        self.value = b""

    def append(self, letter: bytes) -> bytes:
        if len(self.value) + len(letter) > self.max_length:
            raise TextFull(f"the text has reached its {self.max_length} bytes")
        self.value += letter
        return self.value


class Accumulator(StreamProtocol):
    """Appends each letter to the shared string, and answers with the whole."""

    factory: AccumulatorFactory
    paused = False

    def __init__(self) -> None:
        # Bytes that are not UTF-8 become lone surrogates, and bytes again on their way to the string.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._waiting: deque[str] = deque()
        self._line_is_empty = True
        self._next_turn: IDelayedCall | None = None

    @property
    def producer(self) -> Accumulator:
        return self

    def connectionMade(self) -> None:
        super().connectionMade()
        self._gap = IdleTimer(self.factory.reactor, self.factory.message_gap, self._broken_off)
        self.factory.client_came()

    def dataReceived(self, data: bytes) -> None:
        if self.closing:
            return
        self._waiting.extend(self._decoder.decode(data))
        if self._decoder.getstate()[0]:
            self._gap.mark()
        else:
            self._gap.cancel()
        self._answer()

    @property
    def owing(self) -> bool:
        return bool(self._waiting)

    def _broken_off(self) -> None:
        self._waiting.extend(self._decoder.decode(b"", final=True))
        self._answer()

    def end_of_input(self) -> None:
        self._gap.cancel()
        self._broken_off()

    def _answer(self) -> None:
        if self._waiting and not self.paused and not self.closing and self._next_turn is None:
            self._answer_some()
            if self._waiting:
                # Other connections have their turn first.
                self.transport.pauseProducing()
                self._next_turn = self.factory.reactor.callLater(0, self._begin_turn)
        if (self.input_ended or self.finishing) and not self._waiting:
            self.close()

    def _begin_turn(self) -> None:
        self._next_turn = None
        if not self.paused:
            self.resumeProducing()

    def _answer_some(self) -> None:
        """Answer until all is, or there is as much as the transport takes before it pauses us."""
        answers: list[bytes] = []
        size = 0
        left = False
        while self._waiting and size < CHUNK and not left:
            letter = self._waiting.popleft()
            if letter == "\n":
                left = self._line_is_empty
                self._line_is_empty = True
                answer = b"\n"
            elif letter == "\r":
                answer = b"\r"
            else:
                self._line_is_empty = False
                answer = self._append(letter.encode("utf-8", "surrogateescape"))
            answers.append(answer)
            size += len(answer)
        self.transport.write(b"".join(answers))
        if left:
            self.close()

    def _append(self, letter: bytes) -> bytes:
        try:
            return self.factory.text.append(letter)
        except TextFull as full:
            return b"error: " + str(full).encode()

    def pauseProducing(self) -> None:
        self.paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        self._answer()
        if not self.paused and not self.input_ended and self._next_turn is None:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.paused = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._gap.cancel()
        self._waiting.clear()
        if self._next_turn is not None:
            self._next_turn.cancel()
        self.factory.client_left()


class AccumulatorFactory(StreamFactory[Accumulator]):
    """Serves `Accumulator`, and logs the final value whenever the last client has left.

    :param text: the string; one of its own when left out.
    :param clients: how many clients to serve in all; any number when left out. More are turned away.
    :param message_gap: seconds after which a character that is not completed is taken as bytes; 0: never.
    :param reactor: the clock; the global reactor when left out.
    """

    protocol = Accumulator
    log = Logger()

    def __init__(
        self,
        *,
        text: ISharedText | None = None,
        clients: int | None = None,
        message_gap: float = MESSAGE_GAP,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(reactor=reactor)
        self.text = SharedText() if text is None else text
        self.message_gap = message_gap
        self.finished: Deferred[bytes] = Deferred()
        """Fires with the final value when `clients` clients have come and gone."""
        self._clients = clients
        self._came = 0
        self._left = 0

    def buildProtocol(self, addr: IAddress | None) -> Accumulator | None:
        if self._came == self._clients:
            return None
        return super().buildProtocol(addr)

    def client_came(self) -> None:
        self._came += 1

    def client_left(self) -> None:
        self._left += 1
        if self._left == self._came:
            self.log.info("the final value of v is {value}", value=printable(self.text.value, 200))
        if self._left == self._clients:
            self.finished.callback(self.text.value)


class LettersClient(LineClient):
    """Sends letters, and receives the whole string for each."""

    def add(self, letter: bytes) -> Deferred[bytes]:
        """Send one letter.

        :return: fires with the whole string so far, or with the server's ``error: …``; fails with the reason when
            the connection ends before that.
        """
        return self.ask(letter)
