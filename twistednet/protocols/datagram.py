"""Datagrams: what every datagram protocol here does about size, and errors, and lost answers.

A datagram is a message: it is answered by one datagram, or by none. An answer that would not fit in one datagram
is not sent at all, and neither is one that the socket does not take (a full buffer, a peer without an address, a
network that cannot be reached); both are counted in `dropped`, and by their reason where there are `Counters` for
it. Nothing a peer sends raises an exception.

Sources: RFC 768 (length), RFC 791 (an IPv4 packet has 65,535 bytes, 28 of them headers).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, MessageLengthError, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import DatagramProtocol

from twistednet.protocols.counters import Counters

MAX_DATAGRAM = 65507
"""The longest datagram that UDP over IPv4 carries, in bytes."""

RECEIVE_SIZE = MAX_DATAGRAM + 1
"""How much of a datagram is received: one that is too long is then seen to be."""


class WholeDatagramProtocol(DatagramProtocol):
    """Receives datagrams whole, where Twisted's default would cut them at 8,192 bytes without a word."""

    noisy = False
    transport: Any  # IUDPTransport or IUNIXDatagramTransport

    def startProtocol(self) -> None:
        self.transport.maxPacketSize = RECEIVE_SIZE


class AnsweringDatagramProtocol(WholeDatagramProtocol):
    """A server protocol that answers each datagram with one, or none."""

    dropped = 0
    """How many datagrams were not answered for want of room or of a way back."""
    counters: Counters | None = None
    """Counts those too, where somebody has set it."""

    def answer(self, datagram: bytes) -> bytes:
        """The answer to `datagram`."""
        raise NotImplementedError

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if len(datagram) > MAX_DATAGRAM:
            self._drop("too long")
        else:
            self.reply(self.answer(datagram), addr)

    def reply(self, answer: bytes, addr: Any) -> None:
        """Send `answer` to `addr`, or count it as dropped."""
        if len(answer) > MAX_DATAGRAM:
            self._drop("answer too long")
            return
        try:
            self.transport.write(answer, addr)
        except (OSError, OverflowError, TypeError, MessageLengthError):
            # TypeError: a Unix peer that is bound to no address.
            self._drop("not sent")

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        if self.counters is not None:
            self.counters.dropped[reason] += 1


class DatagramClient(WholeDatagramProtocol):
    """A client that sends a datagram and waits for the answer, one at a time.

    :param clock: the clock of the time-outs.
    :param address: where to send to; ``None`` where the transport is connected.
    """

    def __init__(self, clock: IReactorTime, address: Any = None) -> None:
        self._clock = clock
        self._address = address
        self._asked: Deferred[bytes] | None = None
        self._timer: IDelayedCall | None = None

    def ask(self, datagram: bytes, *, timeout: float, retries: int = 0) -> Deferred[bytes]:
        """Send `datagram` and wait for one.

        :param timeout: seconds to wait for an answer to each sending.
        :param retries: how many times to send again where none came.
        :return: fires with the datagram that came; fails with `TimeoutError`, or with `ConnectionRefusedError`
            where the peer's machine says that nobody listens.
        """
        asked = self._asked = Deferred()
        self._send(datagram, timeout, retries)
        return asked

    def _send(self, datagram: bytes, timeout: float, retries: int) -> None:
        if retries < 0:
            self._ended(TimeoutError())
            return
        self._timer = self._clock.callLater(timeout, self._send, datagram, timeout, retries - 1)
        try:
            if self._address is None:
                self.transport.write(datagram)
            else:
                self.transport.write(datagram, self._address)
        except (OSError, MessageLengthError) as error:
            self._ended(error)

    def _ended(self, result: bytes | Exception) -> None:
        asked, self._asked = self._asked, None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if asked is not None:
            asked.callback(result) if isinstance(result, bytes) else asked.errback(result)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._ended(datagram)

    def connectionRefused(self) -> None:
        self._ended(ConnectionRefusedError())

    def stopProtocol(self) -> None:
        # Twisted's epoll reactor closes a connected port where the kernel reports that its peer refused a datagram.
        self._ended(ConnectionRefusedError())
