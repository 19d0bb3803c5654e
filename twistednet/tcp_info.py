"""What the kernel knows about the octets of a socket; Linux only.

``TCP_INFO`` (``struct tcp_info`` of ``linux/tcp.h``) counts the octets received, and those that the peer has
acknowledged, since Linux 4.2. A FIN counts as an octet there. ``SIOCOUTQ`` says how much of what was written the peer
has not taken: of a TCP socket, the octets not acknowledged; of a Unix socket, the memory that they take.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from struct import Struct

AVAILABLE = sys.platform == "linux"
"""Whether the kernel counts."""

_TCP_INFO = getattr(socket, "TCP_INFO", 11)
# tcpi_state, tcpi_unacked (packets), tcpi_bytes_acked, tcpi_bytes_received, tcpi_notsent_bytes
_LAYOUT = Struct("=B23xI92xQQ8xI")
_LENGTH = _LAYOUT.size
_unpack = _LAYOUT.unpack
_FIN_RECEIVED = frozenset((6, 8, 9, 11))  # TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING


def tcp_counters(tcp_socket: socket.socket) -> tuple[int, int, int, bool]:
    """How far a TCP connection has come, FINs included.

    :return: the octets received; those that the peer has acknowledged; those that it has not; and whether the state of
        the connection shows that the peer's FIN is among those received. (That of a connection that has ended doesn't.)
    :raises OSError: where the socket has been closed.
    """
    info = tcp_socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LENGTH)
    state, packets, acknowledged, received, unsent = _unpack(info)
    # The second call is spared where nothing is on its way, as on most connections most of the time.
    waiting = unacknowledged(tcp_socket) if packets or unsent else 0
    return received, acknowledged, waiting, state in _FIN_RECEIVED


def unacknowledged(any_socket: socket.socket) -> int:
    """How much the system has taken that the peer has not.

    :raises OSError: where the socket has been closed.
    """
    return int.from_bytes(fcntl.ioctl(any_socket, termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
