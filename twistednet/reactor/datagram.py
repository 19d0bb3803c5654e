"""Datagram ports: Twisted's own, reading and answering without detours, and not closed by an error.

The loops have datagram transports too, but a plain loop around ``recvfrom`` and ``sendto`` is faster than either:
asyncio wakes up for every datagram, and uvloop converts every address twice.

What is different from Twisted's own ports
    - At most `DATAGRAMS_PER_TURN` datagrams are read in one turn of the reactor, empty ones or not.
    - Twisted closes a port for good when the system fails to read from it, be it that there was no memory for a moment.
      Here it reads on after `PAUSE`, from the same socket: one with a port below 1024 could not be bound again where
      the privileges for that have been dropped. Should it fail again before a datagram has come, it is closed, and
      another one is bound to the same address, as often as that takes. Options that were set on the socket by then are
      lost. The log says so, once a second at most.

A port that is connected, as clients' are, is closed by an error, as ever.
"""

from __future__ import annotations

import os
import socket
from math import inf
from typing import Any

from twisted.internet import udp, unix
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python import log
from twisted.python.failure import Failure

DATAGRAMS_PER_TURN = 32
"""How many datagrams are read before others have their turn, as in libuv. Twisted limits only their bytes, and so
reads empty ones without end."""

PAUSE = 0.1
"""Seconds after which a port that has failed is tried again."""

LOG_INTERVAL = 1.0
"""Seconds between two log lines about failures of the same port."""


class Port(udp.Port):
    """A UDP port that reads and answers fast, and goes on after an error."""

    log = Logger()
    reactor: Any
    fileno: Any
    _peer: Any = None
    """The address of the datagram that was received last."""
    _failures = 0
    """How often it has failed since a datagram came, or none was left."""
    _retry: IDelayedCall | None = None
    _said = -inf
    """When the log said last that it has failed."""

    def doRead(self) -> None:
        receive, size, received = self.socket.recvfrom, self.maxPacketSize, self.protocol.datagramReceived
        ipv6 = self.addressFamily == socket.AF_INET6
        try:
            for _ in range(DATAGRAMS_PER_TURN):
                data, peer = receive(size)
                # Of an IPv6 address, Twisted passes on the host and the port only.
                self._peer = peer = peer[:2] if ipv6 else peer
                try:
                    received(data, peer)
                except BaseException:
                    log.err()
        except (BlockingIOError, InterruptedError):
            pass
        except ConnectionRefusedError:
            if self._connectedAddr:
                self.protocol.connectionRefused()
        except OSError as error:
            if not self.connected:
                return  # The protocol has closed the port, and with it the socket.
            if self._connectedAddr:
                raise
            self._failed(error)
            return
        self._failures = 0

    def connectionLost(self, reason: Failure | None = None) -> None:
        if reason is not None and reason.check(ConnectionDone) and not self._connectedAddr:
            # Twisted's epoll reactor has seen an error of the socket's, and not asked which.
            self._failed(OSError(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "error on the socket"))
            return
        if self._retry is not None:
            self._retry.cancel()
        super().connectionLost(reason)

    def _failed(self, error: OSError) -> None:
        """Read no more for a moment, because of `error`."""
        self._failures += 1
        self.stopReading()
        now = self.reactor.seconds()
        if not 0 <= now - self._said < LOG_INTERVAL:
            self._said = now
            self.log.error(
                "{name} has failed: {error}; it is read from again in {pause} s",
                name=self._name,
                error=error.strerror,
                pause=PAUSE,
            )
        self._retry = self.reactor.callLater(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._retry = None
        if self._failures > 1:
            try:
                self._bind_again()
            except OSError as error:
                self._failed(error)
                return
        self.startReading()

    @property
    def _name(self) -> str:
        return f"UDP port {self._realPortNumber}"

    @property
    def _address(self) -> Any:
        return self.interface, self._realPortNumber

    def _bind_again(self) -> None:
        """Take another socket, at the same address."""
        self.socket.close()
        another = self.createInternetSocket()
        try:
            another.bind(self._address)
        except OSError:
            another.close()
            raise
        self.socket = another
        self.fileno = another.fileno

    def write(self, datagram: bytes, addr: tuple[str, int] | None = None) -> Any:
        if addr is self._peer and addr is not None and not self._connectedAddr:
            # An answer: the address is the system's own, and need not be checked.
            try:
                return self.socket.sendto(datagram, addr)
            except OSError:
                pass  # Twisted's own meets it again, and says what it means.
        return super().write(datagram, addr)


class MulticastPort(Port, udp.MulticastPort):
    """A multicast port that reads and answers fast, and goes on after an error."""

    def _bind_again(self) -> None:
        """The groups that it has joined are the socket's: there is no other."""


class UNIXDatagramPort(Port, unix.DatagramPort):
    """A Unix datagram socket, at a path, that reads and answers fast, and goes on after an error."""

    @property
    def _name(self) -> str:
        return f"the datagram socket {self.port!r}"

    @property
    def _address(self) -> Any:
        return self.port

    def _bind_again(self) -> None:
        if os.path.exists(self.port):
            os.unlink(self.port)
        super()._bind_again()
        os.chmod(self.port, self.mode)
