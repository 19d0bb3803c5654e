r"""Support: the automated support line of an internet provider, that asks until it knows what to advise.

A conversation is: the greeting and the first question; then an answer, and the question that it leads to; and so
on to advice, or to the number of a ticket where a human has to act. What is asked and advised is data, a
`Dialogue`. Each option of a question is a line: two spaces, its number, a full stop, a space, the option.

====================  ==========================================================================================
the customer says     the reply
====================  ==========================================================================================
an option's number    what that option leads to
words                 what that option leads to whose keyword is among them; a keyword of more words goes before
                      one of fewer, a keyword after *not* or *no* does not count, and two options are none
``help``              how to answer, and the question again
``back``              the question before; at the first one, that it is the first
``quit``              a goodbye, and the conversation is over
anything else         that it was not understood, and the question again; the twentieth time a goodbye, and the
                      conversation is over
====================  ==========================================================================================

Neither case nor punctuation matters, and *y* and *yeah* are *yes*, as *nope* is *no*.

Over TCP a connection is a conversation. The greeting and the first question come at connect; nothing has been asked
by then, so their lines end in LF. After that a message (see `twistednet.protocols.framing`) is an answer, and the
lines of its reply end as it did; where it had no ending, LF stands between them. After advice, ticket or goodbye
the server closes, and so it does when the client's stream has ended and every answer in it has its reply::

    S: Hello…LF What is wrong?LF   1. nothing works, on any deviceLF…
    C: it's ONLY one device!LF                S: How is that device connected?LF   1. by Wi-FiLF   2. by cableLF
    C: 2LF                                    S: …
    C: quitLF                                 S: Goodbye…LF (close)

Over UDP a peer's address is a conversation: its first datagram, whatever it says, is replied to with the greeting
and the first question, and each after that is an answer. Every reply is one datagram of less than 1,200 bytes, whose
lines end in LF. Datagrams get lost, and repeated, so a client may number its own:

.. code-block:: abnf

    datagram = ["#" 1*9DIGIT [SP]] answer        ; "#0" opens the conversation, its answers count from there
    reply    = ["#" 1*9DIGIT [SP state] LF] 1*line
    state    = "end" / "busy"                    ; the conversation is over / could not begin

=================  =============================================================================================
a datagram         is
=================  =============================================================================================
numbered, as the   sent again: the same reply, and nothing else happens
last one
numbered, as the   an answer. (So is any number after a datagram without one.)
next one
``#0`` after the   the opening of a new conversation
end of one
any other number   late: the last reply again, under its own number, by which the client sees what it is
without a number   sent again where it is identical to the one before and comes within a second of that; else an
                   answer, or after the end of a conversation, the opening of a new one
=================  =============================================================================================

::

    C: #0          S: #0 LF Hello…
    C: #1 yes      S: #1 LF …       (lost)
    C: #1 yes      S: #1 LF …       (the same)
    C: #2 quit     S: #2 end LF Goodbye…

Ten minutes of silence end a conversation. There are 1,000 at most: to another address the reply is one line, that
all lines are busy. Who forges addresses can have it so; and the opening is longer than what asks for it, so a forged
one sends its victim several hundred bytes for one. So the service does not listen on UDP unless it is told to.

Bad input: there is none but a message over TCP that is too long, which has framing's one line for an answer. Bytes
that are not UTF-8 are not understood.

Sources: seed 004 §8.4, exercises 1 (over TCP) and 2 (over UDP).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twistednet.protocols.datagram import AnsweringDatagramProtocol, DatagramClient
from twistednet.protocols.dialogue import (
    BESIDE_COMMANDS,
    COMMANDS,
    FIRST,
    HELP,
    NEVER_UNDERSTOOD,
    NOT_UNDERSTOOD,
    Dialogue,
    words,
)
from twistednet.protocols.flow import StreamClient, can_half_close
from twistednet.protocols.framing import MESSAGE_GAP, IdleTimer, MessageFactory, MessageProtocol

REPEAT_WINDOW = 1.0
"""Seconds within which an identical datagram without a number is one sent again, not an answer given twice."""

EXPIRY = 600.0
"""Seconds of silence after which a conversation over UDP is forgotten."""

MAX_CONVERSATIONS = 1000
"""How many conversations there are at once over UDP."""

MAX_NOT_UNDERSTOOD = 20
"""How many answers may not be understood before the conversation ends: who talks to the line may be no person."""

# Conversations

BUSY = ("All our lines are busy. Please try again in a few minutes.",)


def random_ticket() -> str:
    """A ticket number: eight digits at random, so that nobody can guess another's."""
    return str(secrets.randbelow(90_000_000) + 10_000_000)


class Conversation:
    """What is said to one customer: it depends on nothing but the dialogue and what the customer has said.

    Each ticket is logged, with the names of the questions that led to it; what the customer wrote is not.

    :param dialogue: what is asked and advised.
    :param new_ticket: makes the number of a ticket.
    """

    log = Logger()
    over = False
    """No more answers: there was advice, a ticket or a goodbye."""

    def __init__(self, dialogue: Dialogue, new_ticket: Callable[[], str]) -> None:
        self._dialogue = dialogue
        self._new_ticket = new_ticket
        self._asked = [dialogue.questions[dialogue.start]]
        self._not_understood = 0

    def open(self) -> list[str]:
        """The lines to begin with."""
        return self._ask(*self._dialogue.greeting, "")

    def answer(self, message: str) -> list[str]:
        """The lines of the reply to `message`."""
        if message.strip() == "?":
            return self._ask(*HELP)
        command = COMMANDS.get(tuple(word for word in words(message) if word not in BESIDE_COMMANDS))
        if command == "help":
            return self._ask(*HELP)
        if command == "quit":
            return self._leave()
        if command == "back":
            if len(self._asked) == 1:
                return self._ask(*FIRST)
            self._asked.pop()
            return self._ask()
        answer = self._asked[-1].understand(message)
        if answer is not None:
            return self._go(answer.leads_to)
        self._not_understood += 1
        if self._not_understood == MAX_NOT_UNDERSTOOD:
            return self._leave(*NEVER_UNDERSTOOD)
        return self._ask(*NOT_UNDERSTOOD)

    def _ask(self, *before: str) -> list[str]:
        return [*before, *self._asked[-1].lines]

    def _leave(self, *before: str) -> list[str]:
        self.over = True
        return [*before, *self._dialogue.goodbye]

    def _go(self, name: str) -> list[str]:
        question = self._dialogue.questions.get(name)
        if question is not None:
            self._asked.append(question)
            return self._ask()
        self.over = True
        ending = self._dialogue.endings[name]
        if not ending.needs_ticket:
            return list(ending.text)
        ticket = self._new_ticket()
        path = " > ".join([*(question.name for question in self._asked), name])
        self.log.info("ticket {ticket}: {path}", ticket=ticket, path=path)
        return [line.replace("{ticket}", ticket) for line in ending.text]


# Streams


class Support(MessageProtocol):
    """A conversation with whoever has connected."""

    factory: SupportFactory

    def connectionMade(self) -> None:
        super().connectionMade()
        self._conversation = Conversation(self.factory.dialogue, self.factory.new_ticket)
        self.delimiter = b"\n"
        self._say(self._conversation.open())

    def lineReceived(self, line: bytes) -> None:
        self._say(self._conversation.answer(line.decode(errors="replace")))
        if self._conversation.over:
            self.close()

    def _say(self, lines: list[str]) -> None:
        reply = [line.encode() for line in lines]
        self.send_lines(reply if self.delimiter else [b"\n".join(reply)])


class SupportFactory(MessageFactory[Support]):
    """Serves `Support`.

    :param dialogue: what is asked and advised.
    :param new_ticket: makes the number of a ticket.
    :param message_gap: see `MessageFactory`.
    :param reactor: see `MessageFactory`.
    """

    protocol = Support

    def __init__(
        self,
        dialogue: Dialogue,
        *,
        new_ticket: Callable[[], str] = random_ticket,
        message_gap: float = MESSAGE_GAP,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(message_gap=message_gap, reactor=reactor)
        self.dialogue = dialogue
        self.new_ticket = new_ticket


class SupportClient(StreamClient):
    """Answers the questions, and receives what is said, until the server closes."""

    waiting = True
    """The greeting is still to come; after that, the reply to what was sent last."""

    def send(self, data: bytes) -> None:
        self.waiting = True
        super().send(data)

    def end(self) -> None:
        if not can_half_close(self.transport):
            self.send(b"quit\n")
        super().end()

    def dataReceived(self, data: bytes) -> None:
        self.waiting = False
        super().dataReceived(data)


# Datagrams

_NUMBERED = re.compile(rb"#(\d{1,9})(?:\s|\Z)")
_REPLY = re.compile(rb"#(\d{1,9})(?: (end|busy))?\n")


def _number_and_rest(datagram: bytes) -> tuple[int | None, bytes]:
    numbered = _NUMBERED.match(datagram)
    return (int(numbered[1]), datagram[numbered.end() :]) if numbered else (None, datagram)


def _header(number: int | None, state: bytes) -> bytes:
    return b"" if number is None else b"#%d%b\n" % (number, state and b" " + state)


def _body(lines: list[str] | tuple[str, ...]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


@dataclass
class _Caller:
    """A peer address, its conversation, and the last datagram from it and its reply."""

    new_conversation: Callable[[], Conversation]
    conversation: Conversation | None = None
    datagram: bytes = b""
    number: int | None = None
    heard: float = 0.0
    reply: bytes = b""

    def hear(self, datagram: bytes, now: float) -> bytes:
        """The reply to `datagram`."""
        number, answer = _number_and_rest(datagram)
        again = self.conversation is not None and self._is_sent_again(datagram, number, now, self.conversation.over)
        self.heard = now
        if again:
            return self.reply
        if self.conversation is None or self.conversation.over:
            self.conversation = self.new_conversation()
            lines = self.conversation.open()
        else:
            lines = self.conversation.answer(answer.decode(errors="replace"))
        self.datagram, self.number = datagram, number
        self.reply = _header(number, b"end" if self.conversation.over else b"") + _body(lines)
        return self.reply

    def _is_sent_again(self, datagram: bytes, number: int | None, now: float, over: bool) -> bool:
        """Whether `datagram` is the last one, or a late one, rather than the next."""
        if number is None:
            return datagram == self.datagram and now - self.heard <= REPEAT_WINDOW
        if over:
            return number != 0 or self.number == 0
        return self.number is not None and number != self.number + 1


class SupportDatagramProtocol(AnsweringDatagramProtocol):
    """A conversation with each address that a datagram comes from.

    :param dialogue: what is asked and advised.
    :param new_ticket: makes the number of a ticket.
    :param max_conversations: how many there are at once.
    :param clock: the clock of their expiry.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        *,
        clock: IReactorTime,
        new_ticket: Callable[[], str] = random_ticket,
        max_conversations: int = MAX_CONVERSATIONS,
    ) -> None:
        self._clock = clock
        self._new_conversation = lambda: Conversation(dialogue, new_ticket)
        self._max_conversations = max_conversations
        self._callers: dict[Any, _Caller] = {}  # who was heard longest ago comes first
        # An arrival sweeps out who has expired; where none comes for so long, everyone has.
        self._silence = IdleTimer(clock, EXPIRY, self._callers.clear)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        now = self._clock.seconds()
        self._sweep(now)
        caller = self._callers.pop(addr, None)
        if caller is None:
            if len(self._callers) >= self._max_conversations:
                self.reply(_header(_number_and_rest(datagram)[0], b"busy") + _body(BUSY), addr)
                return
            caller = _Caller(self._new_conversation)
        self._callers[addr] = caller
        self._silence.mark()
        self.reply(caller.hear(datagram, now), addr)

    def _sweep(self, now: float) -> None:
        while self._callers:
            addr, caller = next(iter(self._callers.items()))
            if now - caller.heard < EXPIRY:
                return
            del self._callers[addr]

    def stopProtocol(self) -> None:
        self._silence.cancel()
        self._callers.clear()


class SupportDatagramClient(DatagramClient):
    """Answers the questions, each datagram with its number, and takes no late reply for the one to the last."""

    state = ""
    """What the last reply said of the conversation: that it is at its ``end``, all lines are ``busy``, or nothing."""
    _number = -1

    def say(self, answer: bytes = b"", *, timeout: float, retries: int = 0) -> Deferred[bytes]:
        """Open the conversation, or answer; one at a time.

        :param answer: what to say, in a conversation that has been opened.
        :param timeout: see `DatagramClient.ask`; so are `retries` and how it fails.
        :return: fires with the lines of the reply.
        """
        self._number += 1
        return self.ask(b"#%d %b" % (self._number, answer), timeout=timeout, retries=retries)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        reply = _REPLY.match(datagram)
        if reply and int(reply[1]) == self._number:
            self.state = (reply[2] or b"").decode()
            super().datagramReceived(datagram[reply.end() :], addr)
