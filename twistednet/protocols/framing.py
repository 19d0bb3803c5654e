r"""Framing: what is a message, decided once for every text protocol.

.. code-block:: abnf

    stream  = *message [last]
    message = *16384OCTET ending    ; any octet but LF, and not ending in CR
    ending  = LF / CRLF
    last    = 1*16384OCTET          ; ended by the end of the stream, or by a pause

An answer is framed as its question was: CR LF for CR LF, LF for LF, nothing for a message that had no ending::

    C: stressed LF      S: desserts LF
    C: stressed CRLF    S: desserts CRLF
    C: stressed         S: desserts            (after a pause, or after the end of C's stream)

The textbooks' clients send no line ending at all and wait for their answer. So what has arrived without one is
taken for a message after a pause of `MESSAGE_GAP` seconds, until the connection has once sent a line ending: from
then on only line endings count.

Bad input: a message longer than ``MAX_LENGTH`` (of `LineReceiver`; 16,384 bytes) is answered by one line,
``error: …``, and the connection closed once the messages before it are answered. An error is always a whole line:
where its question had no ending, it ends in LF.

Sources: seed 004 figures 8.8 and 8.10, seed 002 §5 ("It's just one big byte stream"); LF beside CR LF as in
RFC 9112 §2.2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from operator import length_hint
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from twistednet.interfaces import IMessageInput
from twistednet.protocols.flow import CHUNK, IStreamTransport, StreamFactory, StreamProtocol, set_no_delay

MESSAGE_GAP = 0.25
"""Seconds of silence that end a message of a client that sends no line endings."""

TURN = 65536
"""How much of a connection's input is taken in one turn of the loop, in bytes, and how much is answered (`CHUNK`): one
that sends many messages at once leaves their turn to the others. Twisted reads as many at a time; uvloop four times
that."""


class IdleTimer:
    """Calls once when nothing has been marked for a while.

    Marking is one assignment: a timer reset for each arrival would cost more than many an answer.

    :param clock: the clock.
    :param seconds: how long is a while; 0 turns the timer off.
    :param call: what is called; the next `mark` after it starts the timer anew.
    """

    def __init__(self, clock: IReactorTime, seconds: float, call: Callable[[], object]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._call = call
        self._marked = 0.0
        self._pending: IDelayedCall | None = None

    def mark(self) -> None:
        """Something has happened now."""
        if self._seconds > 0:
            self._marked = self._clock.seconds()
            if self._pending is None:
                self._pending = self._clock.callLater(self._seconds, self._check)

    def cancel(self) -> None:
        """Forget what was marked."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _check(self) -> None:
        self._pending = None
        # No longer than a whole pause, if the clock has been set back meanwhile.
        left = min(self._marked + self._seconds - self._clock.seconds(), self._seconds)
        if left > 0:
            self._pending = self._clock.callLater(left, self._check)
        else:
            self._call()


@implementer(IPushProducer, IMessageInput)
class MessageProtocol(StreamProtocol, LineReceiver):
    """A `LineReceiver` in time linear in its input, however that is cut, that frames its answers as the questions.

    A subclass implements ``lineReceived(message)``, or `messages_received` where many are answered faster than
    each, answers with ``sendLine``, and closes with `close`. ``MAX_LENGTH`` is the longest message, in bytes, as
    the base class has it. There is no raw mode: ``setRawMode`` raises.
    """

    factory: MessageFactory[Any]

    def __init__(self) -> None:
        self.messages = 0
        """How many messages have come."""
        self.delimiter = b""
        """The ending of the message that is being answered, and so of its answer."""
        # Arrived and not yet answered: messages with their common ending, in order. Only a pause leaves any here.
        self._waiting: deque[tuple[Iterator[bytes], bytes]] = deque()
        self._begun = bytearray()  # the message whose ending has not arrived
        self._unread = b""  # arrived, and for the next turn of the loop
        self._held = False  # the peer doesn't read
        self._next_turn: IDelayedCall | None = None
        self._answers: list[bytes] = []  # to be written together
        self._answers_size = 0
        self._answering = False
        self._sends_endings = False
        self._after_answers: Callable[[], object] | None = None  # nothing is read after it is set

    @property
    def producer(self) -> MessageProtocol:
        return self

    def connectionMade(self) -> None:
        super().connectionMade()
        self._gap = IdleTimer(self.factory.reactor, self.factory.message_gap, self._gap_ended)

    # Input

    @property
    def unfinished(self) -> int | None:
        """Which message has begun and not ended yet, counted from 0; nothing between messages."""
        return self.messages if self._begun else None

    @property
    def input_paused(self) -> bool:
        """Whether this doesn't read: the peer doesn't read either, or what has been read is still to be taken."""
        return self.paused or self._held or bool(self._unread)

    @property
    def owing(self) -> bool:
        return not self.closing and bool(self._waiting or self._unread)

    def dataReceived(self, data: bytes) -> None:
        if self.closing or self._after_answers is not None:
            return
        if self._unread:
            self._unread += data
        elif len(data) > TURN:
            self._unread = data
            self._take_part()
        else:
            self._take(data)

    def _take_part(self) -> None:
        """Take as much of what has arrived as one turn of the loop may."""
        data, self._unread = self._unread[:TURN], self._unread[TURN:]
        self._take(data)
        if self._unread:
            self._end_turn()

    def _take(self, data: bytes) -> None:
        if b"\n" in data:
            self._sends_endings = True
            self._gap.cancel()
            if self._begun:
                data = bytes(self._begun + data)
                self._begun.clear()
            self._split(data)
        else:
            self._begun += data
            if not self._sends_endings:
                self._gap.mark()
        # One more byte may be the CR of an ending.
        excess = len(self._begun) - self.MAX_LENGTH
        if self._after_answers is None and (excess > 1 or (excess == 1 and not self._begun.endswith(b"\r"))):
            self._exceed(bytes(self._begun))
        self._answer()

    def _split(self, data: bytes) -> None:
        """Queue the messages in `data`; its last line, not ended yet, has begun."""
        ending = b"\r\n" if data.count(b"\r\n") == data.count(b"\n") else b"\n"
        messages = data.split(ending)
        self._begun += messages.pop()
        self.messages += len(messages)
        mixed = ending == b"\n" and b"\r\n" in data
        if self._may_exceed(data) and max(map(len, messages)) > self.MAX_LENGTH:
            self._shorten(messages, mixed)
        if mixed:
            for ends_in_cr, run in groupby(messages, key=_ends_in_cr):
                if ends_in_cr:
                    self._waiting.append((iter([message[:-1] for message in run]), b"\r\n"))
                else:
                    self._waiting.append((iter(list(run)), b"\n"))
        elif messages:
            self._waiting.append((iter(messages), ending))

    def _may_exceed(self, data: bytes) -> bool:
        """Whether a message in `data` may be too long, without a look at each: in many, that takes half the time."""
        # If one is, there is no LF in the half of it that begins at a multiple of that.
        half = self.MAX_LENGTH // 2 or 1
        return len(data) > self.MAX_LENGTH and any(
            data.find(b"\n", start, start + half) < 0 for start in range(0, len(data), half)
        )

    def _shorten(self, messages: list[bytes], mixed: bool) -> None:
        """Drop the first message that is too long, and all after it."""
        for i, message in enumerate(messages):
            if len(message) - (mixed and _ends_in_cr(message)) > self.MAX_LENGTH:
                del messages[i:]
                self._exceed(message)
                return

    def _exceed(self, message: bytes) -> None:
        self._after_answers = partial(self.lineLengthExceeded, message)
        self._gap.cancel()

    def _gap_ended(self) -> None:
        self._end_message()
        self._answer()

    def _end_message(self) -> None:
        if len(self._begun) > self.MAX_LENGTH:
            # By a CR, which no LF has followed.
            self._exceed(bytes(self._begun))
        elif self._begun:
            self.messages += 1
            self._waiting.append((iter([bytes(self._begun)]), b""))
        self._begun.clear()

    def end_of_input(self) -> None:
        if self._unread:
            return  # It has not come to its end: the turn that takes the last of it comes back here.
        self._gap.cancel()
        if self._after_answers is None:
            self._end_message()
            self._after_answers = self._after_answers or self.input_answered
        self._answer()

    def input_answered(self) -> None:
        """Every message of a peer that will send no more has been given to ``lineReceived``: close.

        For a protocol that answers later than that to override.
        """
        self.close()

    def setRawMode(self) -> None:
        raise NotImplementedError("a message protocol has no raw mode")

    # Answers

    def _answer(self) -> None:
        if self._answering:
            return
        self._answering = True
        try:
            while self._waiting and not self.paused and not self.closing:
                messages, self.delimiter = self._waiting[0]
                self.messages_received(messages)
                if not length_hint(messages):
                    self._waiting.popleft()
            if self._after_answers is not None and not self._waiting and not self.closing:
                self._after_answers()
        finally:
            self._answering = False
            self._write_answers()

    def messages_received(self, messages: Iterator[bytes]) -> None:
        """Answer messages, at least one, that arrived together and end alike: by default, ``lineReceived`` with each.

        Messages that are not taken from the iterator before it returns because the peer does not read, or others
        are to have their turn (``self.paused``), are kept until then.
        """
        for message in messages:
            self.lineReceived(message)
            if self.paused or self.closing:
                return

    def sendLine(self, line: bytes) -> None:
        """Answer with `line`, framed as the question was."""
        self.send_lines((line,))

    def send_lines(self, lines: Iterable[bytes]) -> None:
        """Answer with each of `lines`, framed as the question was."""
        answer = self.delimiter.join([*lines, b""])
        self._answers.append(answer)
        self._answers_size += len(answer)
        if self._answers_size >= CHUNK:
            self._write_answers()
            self._end_turn()
        elif not self._answering:
            self._write_answers()

    def _write_answers(self) -> None:
        answers = b"".join(self._answers)
        self._answers.clear()
        self._answers_size = 0
        if answers:
            self.transport.write(answers)

    def close(self) -> None:
        self._write_answers()
        super().close()

    def refuse(self, reason: str) -> None:
        """Answer with one line, ``error: `` and `reason`, and close."""
        self.delimiter = self.delimiter or b"\n"
        self.sendLine(b"error: " + reason.encode())
        self.close()

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(f"a message is longer than {self.MAX_LENGTH} bytes")

    # Flow

    def pauseProducing(self) -> None:
        self._held = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._held = False
        if self._next_turn is None:
            self._go_on()

    def _end_turn(self) -> None:
        """This connection has had its share of a turn of the loop: go on in the next."""
        if self._next_turn is None and not self.closing:
            super().pauseProducing()
            self._next_turn = self.factory.reactor.callLater(0, self._begin_turn)

    def _begin_turn(self) -> None:
        self._next_turn = None
        if not self._held:
            self._go_on()

    def _go_on(self) -> None:
        """Answer what has arrived, and read on when that is done."""
        self.paused = False
        self._answer()
        if self.closing or self._after_answers is not None:
            self._unread = b""
        elif self._unread and not self.paused:
            self._take_part()
        if self._unread or self.paused:
            return
        if not (self.input_ended or self.finishing):
            self.transport.resumeProducing()
        elif self._after_answers is None:
            self.end_of_input()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._gap.cancel()
        self._waiting.clear()
        if self._next_turn is not None:
            self._next_turn.cancel()


class OneMessageProtocol(MessageProtocol):
    """Answers the first message of a connection, at its own pace, and closes; the rest is not looked at.

    A subclass implements `answer_message`, and writes to its transport, or hands it a producer with `produce`.
    """

    answering = False
    """The message has come; from then on, of the input only its end is of interest."""

    def lineReceived(self, line: bytes) -> None:
        if not self.answering:
            self.answering = True
            self.answer_message(line)

    def answer_message(self, message: bytes) -> None:
        """Begin to answer the connection's one message. The answer ends with `close`, then or later."""
        raise NotImplementedError

    def produce(self, producer: IPullProducer | IPushProducer, *, streaming: bool) -> None:
        self.paused = self._held = False
        super().produce(producer, streaming=streaming)

    @property
    def unfinished(self) -> int | None:
        """See `IMessageInput`; nothing once the one message has come, since what follows it is no message."""
        return None if self.answering else super().unfinished

    @property
    def owing(self) -> bool:
        return not self.closing and (self.answering or super().owing)

    def lineLengthExceeded(self, line: bytes) -> None:
        if not self.answering:
            super().lineLengthExceeded(line)

    def input_answered(self) -> None:
        if not self.answering:
            self.close()


def _ends_in_cr(message: bytes) -> bool:
    return message.endswith(b"\r")


_P = TypeVar("_P", bound=MessageProtocol)


class MessageFactory(StreamFactory[_P]):
    """A factory of `MessageProtocol`.

    :param message_gap: seconds of silence that end a message of a client that sends no line endings; 0: none do.
    :param reactor: the clock of the pause; the global reactor when left out.
    """

    def __init__(
        self,
        *,
        message_gap: float = MESSAGE_GAP,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(reactor=reactor)
        self.message_gap = message_gap


class LineClient(LineReceiver):
    """A client that sends a line and waits for one; LF ends both."""

    delimiter = b"\n"
    MAX_LENGTH = 2**26
    transport: IStreamTransport

    def __init__(self) -> None:
        self._asked: Deferred[bytes] | None = None
        self._lost: Failure | None = None

    def connectionMade(self) -> None:
        set_no_delay(self.transport)

    def ask(self, line: bytes) -> Deferred[bytes]:
        """Send `line`, and wait for one; one at a time.

        :return: fires with the line that came, without its ending; fails with the reason when the connection has
            ended before that.
        """
        if self._lost is not None:
            return fail(self._lost)
        asked = self._asked = Deferred()
        self.sendLine(line)
        return asked

    def lineReceived(self, line: bytes) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.callback(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = reason
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.errback(reason)
