"""UDP ports: Twisted's own, reading and answering without detours.

The loops have datagram transports too, but a plain loop around ``recvfrom`` and ``sendto`` is faster than either:
asyncio wakes up for every datagram, and uvloop converts every address twice.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import udp
from twisted.python import log

DATAGRAMS_PER_TURN = 32
"""How many datagrams are read before others have their turn, as in libuv. Twisted limits only their bytes, and so
reads empty ones without end."""


class Port(udp.Port):
    """A UDP port that reads and answers fast."""

    _peer: Any = None
    """The address of the datagram that was received last."""

    def doRead(self) -> None:
        receive, size, received = self.socket.recvfrom, self.maxPacketSize, self.protocol.datagramReceived
        try:
            for _ in range(DATAGRAMS_PER_TURN):
                data, peer = receive(size)
                # Of an IPv6 address, Twisted passes on the host and the port only.
                self._peer = peer = peer if len(peer) == 2 else peer[:2]
                try:
                    received(data, peer)
                except BaseException:
                    log.err()
        except (BlockingIOError, InterruptedError):
            pass
        except ConnectionRefusedError:
            if self._connectedAddr:
                self.protocol.connectionRefused()

    def write(self, datagram: bytes, addr: tuple[str, int] | None = None) -> Any:
        if addr is self._peer and addr is not None and not self._connectedAddr:
            # An answer: the address is the system's own, and need not be checked.
            try:
                return self.socket.sendto(datagram, addr)
            except OSError:
                pass  # Twisted's own meets it again, and says what it means.
        return super().write(datagram, addr)


class MulticastPort(Port, udp.MulticastPort):
    """A multicast port that reads and answers fast."""
