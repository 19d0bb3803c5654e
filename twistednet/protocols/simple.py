r"""The simple services of every Unix machine: discard, chargen, daytime, time, qotd, systat.

=======  ==========  ================================================================================
service  RFC         what goes over the wire
=======  ==========  ================================================================================
discard  863         everything is read, nothing answered; the server closes when the client does
chargen  864         lines of 72 printable ASCII characters and CR LF, each beginning one character
                     later than the one before, until the client closes; a datagram is answered by one
                     with a random number (0 to 512) of those characters
daytime  867         the server's local date and time and CR LF, then the server closes
time     868         the time as four bytes, most significant first: seconds since 1900-01-01 00:00 UTC,
                     modulo 2**32; then the server closes
qotd     865         a quotation of fewer than 512 characters, then the server closes
systat   866         the active users, one a line, then the server closes
=======  ==========  ================================================================================

::

    daytime   S: Fri Nov 20 08:08:09 2026 CRLF (close)
    time      S: EE A9 0E A9 (close)
    chargen   S:  !"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefg CRLF
                 !"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefgh CRLF ···

Over TCP the client asks by connecting, and what it sends is not looked at; over UDP any datagram asks, and the
answer is one datagram. There is no bad input. Over UDP, chargen, qotd, daytime and systat answer with more than
they were asked with, to whatever address the question bears: serve them to networks that you trust only.

Sources: the RFCs; seed 000 ("Ports for common services"), seed 002 §1.3 (well-known ports). The form of daytime is
that of C's ``ctime``, which most servers send and scanners know; the pattern of chargen is the one that RFC 864
describes, which begins with the space.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from twistednet.protocols.commands import CommandError, CommandRunner, ICommandReactor
from twistednet.protocols.datagram import AnsweringDatagramProtocol
from twistednet.protocols.flow import (
    RepeatingProducer,
    StreamClient,
    StreamFactory,
    StreamProtocol,
    can_half_close,
)
from twistednet.protocols.printable import printable

# discard


class Discard(StreamProtocol):
    """Reads, and does not answer: what a `StreamProtocol` does by itself."""


class DiscardFactory(StreamFactory[Discard]):
    """Serves `Discard`."""

    protocol = Discard


class DiscardDatagramProtocol(AnsweringDatagramProtocol):
    """Reads, and does not answer."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """There is nothing to do."""


class DiscardClient(StreamClient):
    """Sends, and expects nothing; closes when it has sent everything, where it can't end its stream alone."""

    def end(self) -> None:
        super().end()
        if not can_half_close(self.transport):
            self.close()


# chargen

_PRINTABLE = bytes(range(0x20, 0x7F))
CHARGEN = b"".join((_PRINTABLE * 2)[i : i + 72] + b"\r\n" for i in range(len(_PRINTABLE)))
"""The 95 lines of 72 characters after which the pattern repeats itself."""


class Chargen(StreamProtocol):
    """Sends `CHARGEN` again and again, as fast as the peer reads."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.produce(RepeatingProducer(self.transport, CHARGEN), streaming=False)


class ChargenFactory(StreamFactory[Chargen]):
    """Serves `Chargen`."""

    protocol = Chargen


class ChargenDatagramProtocol(AnsweringDatagramProtocol):
    """Answers with the first 0 to 512 characters of `CHARGEN`.

    :param length: chooses how many.
    """

    def __init__(self, *, length: Callable[[], int] = lambda: random.randint(0, 512)) -> None:
        self._length = length

    def answer(self, datagram: bytes) -> bytes:
        return CHARGEN[: self._length()]


# daytime, time, qotd: one announcement

EPOCH_1900 = 2_208_988_800
"""Seconds from 1900, where RFC 868 begins to count, to 1970, where Unix does."""

QUOTES = (
    "Be conservative in what you do, be liberal in what you accept from others.  -- RFC 793",
    "The network is the computer.  -- John Gage",
    "Premature optimization is the root of all evil.  -- Donald Knuth",
    "It is always possible to add another level of indirection.  -- RFC 1925",
    "Some things in life can never be fully appreciated nor understood unless experienced firsthand.  -- RFC 1925",
    "In protocol design, perfection has been reached not when there is nothing left to add, but when there is "
    "nothing left to take away.  -- RFC 1925",
    "We reject kings, presidents and voting. We believe in rough consensus and running code.  -- David Clark",
)
"""What is quoted where the operator has nothing better."""


def daytime(now: float) -> bytes:
    """The answer of daytime, at `now` in seconds since 1970."""
    return time.ctime(now).encode() + b"\r\n"


def time_1900(now: float) -> bytes:
    """The answer of time, at `now` in seconds since 1970."""
    return struct.pack("!I", (int(now) + EPOCH_1900) % 2**32)


def from_time_1900(answer: bytes, near: float) -> float:
    """What time it is, in seconds since 1970, by the answer of a time server.

    :param answer: four bytes.
    :param near: about what time it is: which of the periods of 2**32 seconds, 136 years, the answer is in.
    :raises ValueError: where it is not four bytes.
    """
    if len(answer) != 4:
        raise ValueError(f"{len(answer)} bytes, not four")
    (seconds,) = struct.unpack("!I", answer)
    ahead = (seconds - EPOCH_1900 - int(near) + 2**31) % 2**32 - 2**31
    return float(int(near) + ahead)


def quote_of_the_day(quotes: Sequence[str], now: float) -> bytes:
    """The answer of qotd, at `now` in seconds since 1970: each day's is the next of `quotes`."""
    return quotes[int(now // 86400) % len(quotes)].encode() + b"\r\n"


def check_quotes(quotes: Sequence[str]) -> Sequence[str]:
    """`quotes`, where each can be one.

    :raises ValueError: where there is none, or one of 512 bytes or more (RFC 865's limit) with its line ending.
    """
    if not quotes:
        raise ValueError("no quotation")
    for quote in quotes:
        if len(quote.encode()) + 2 >= 512:
            raise ValueError(f"a quotation of 512 bytes or more: {printable(quote[:40].encode())}…")
    return quotes


class Announcement(StreamProtocol):
    """Says one thing, and closes."""

    factory: AnnouncementFactory

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.write(self.factory.announce())
        self.close()


class AnnouncementFactory(StreamFactory[Announcement]):
    """Serves `Announcement`.

    :param announce: makes what is said, to each client anew.
    :param reactor: the clock; the global reactor when left out.
    """

    protocol = Announcement

    def __init__(self, announce: Callable[[], bytes], *, reactor: IReactorTime | None = None) -> None:
        super().__init__(reactor=reactor)
        self.announce = announce


class AnnouncementDatagramProtocol(AnsweringDatagramProtocol):
    """Answers any datagram with an announcement.

    :param announce: makes it.
    """

    def __init__(self, announce: Callable[[], bytes]) -> None:
        self.announce = announce

    def answer(self, datagram: bytes) -> bytes:
        return self.announce()


class DaytimeFactory(AnnouncementFactory):
    """Serves daytime.

    :param now: the clock on the wall: seconds since 1970.
    :param reactor: see `AnnouncementFactory`.
    """

    def __init__(self, *, now: Callable[[], float] = time.time, reactor: IReactorTime | None = None) -> None:
        super().__init__(lambda: daytime(now()), reactor=reactor)


class DaytimeDatagramProtocol(AnnouncementDatagramProtocol):
    """Answers any datagram with the date and time.

    :param now: see `DaytimeFactory`.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(lambda: daytime(now()))


class TimeFactory(AnnouncementFactory):
    """Serves time.

    :param now: see `DaytimeFactory`.
    :param reactor: see `AnnouncementFactory`.
    """

    def __init__(self, *, now: Callable[[], float] = time.time, reactor: IReactorTime | None = None) -> None:
        super().__init__(lambda: time_1900(now()), reactor=reactor)


class TimeDatagramProtocol(AnnouncementDatagramProtocol):
    """Answers any datagram with the time.

    :param now: see `DaytimeFactory`.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(lambda: time_1900(now()))


class QotdFactory(AnnouncementFactory):
    """Serves qotd.

    :param quotes: the quotations, one a day.
    :param now: see `DaytimeFactory`.
    :param reactor: see `AnnouncementFactory`.
    :raises ValueError: see `check_quotes`.
    """

    def __init__(
        self,
        *,
        quotes: Sequence[str] = QUOTES,
        now: Callable[[], float] = time.time,
        reactor: IReactorTime | None = None,
    ) -> None:
        check_quotes(quotes)
        super().__init__(lambda: quote_of_the_day(quotes, now()), reactor=reactor)


class QotdDatagramProtocol(AnnouncementDatagramProtocol):
    """Answers any datagram with the quotation of the day.

    :param quotes: see `QotdFactory`.
    :param now: see `DaytimeFactory`.
    """

    def __init__(self, *, quotes: Sequence[str] = QUOTES, now: Callable[[], float] = time.time) -> None:
        check_quotes(quotes)
        super().__init__(lambda: quote_of_the_day(quotes, now()))


# systat

SYSTAT_COMMAND = ("/usr/bin/w",)
"""Prints the active users, one a line below a heading, so that even nobody is an answer."""


class Systat(StreamProtocol):
    """Sends the output of a command, and closes."""

    factory: SystatFactory

    def connectionMade(self) -> None:
        super().connectionMade()
        self._asked = self.factory.runner.run(self.factory.command)
        self._asked.addCallbacks(self.transport.write, no_answer).addCallback(lambda _: self.close())

    @property
    def owing(self) -> bool:
        return not self.closing

    def end_of_input(self) -> None:
        """The client has nothing to say; it may have ended its stream long before the command ends."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._asked.cancel()


class SystatFactory(StreamFactory[Systat]):
    """Serves `Systat`.

    :param command: what prints the users: an absolute path, and arguments.
    :param runner: runs it, for other factories too; one of its own when left out.
    :param reactor: the clock, and what runs the commands of a runner of its own; the global reactor when left out.
    """

    protocol = Systat

    def __init__(
        self,
        *,
        command: Sequence[str] = SYSTAT_COMMAND,
        runner: CommandRunner | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(reactor=reactor)
        self.command = command
        self.runner = runner or CommandRunner(reactor=cast("ICommandReactor | None", reactor))


class SystatDatagramProtocol(AnsweringDatagramProtocol):
    """Answers any datagram with the output of a command.

    :param command: see `SystatFactory`.
    :param runner: see `SystatFactory`.
    """

    def __init__(self, *, command: Sequence[str] = SYSTAT_COMMAND, runner: CommandRunner | None = None) -> None:
        self._command = command
        self._runner = runner or CommandRunner()
        self._asked: set[Deferred[bytes]] = set()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        asked = self._runner.run(self._command)
        self._asked.add(asked)
        asked.addErrback(no_answer).addCallback(self._answered, asked, addr)

    def _answered(self, answer: bytes, asked: Deferred[bytes], addr: Any) -> None:
        self._asked.remove(asked)
        if self.transport is not None:
            self.reply(answer, addr)

    def stopProtocol(self) -> None:
        self.transport = None
        for asked in [*self._asked]:
            asked.cancel()


def no_answer(failure: Failure) -> bytes:
    """What is sent where there is no answer: nothing. RFC 866 has no word for what went wrong; the log has."""
    failure.trap(CommandError, CancelledError)
    return b""
