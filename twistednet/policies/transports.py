"""What Twisted's own transports don't tell: how much they hold, and how much the peer has acknowledged.

A transport of a kind that is not known here is taken to hold nothing; one whose class implements `IOutputPending` is
asked. This is the only module that looks into Twisted's transports for it.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import singledispatch
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol

from twistednet import tcp_info
from twistednet.interfaces import IOutputPending


def bytes_waiting(transport: Any) -> int:
    """How many octets `transport`, and what it is wrapped around, hold until the system takes them."""
    if IOutputPending.implementedBy(type(transport)):
        waiting: int = transport.bytes_waiting()
        return waiting
    return _waiting_in(transport)


@singledispatch
def _waiting_in(_transport: Any) -> int:
    return 0


@_waiting_in.register
def _(transport: FileDescriptor) -> int:
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen


@_waiting_in.register
def _(transport: ProtocolWrapper) -> int:
    return bytes_waiting(transport.transport)


@_waiting_in.register
def _(transport: TLSMemoryBIOProtocol) -> int:
    # What waits for the handshake is not held up by a peer that doesn't read, and may never be sent.
    encrypting = transport._appSendBuffer if transport._handshakeDone else ()
    return sum(map(len, encrypting)) + bytes_waiting(transport.transport)


@singledispatch
def release_producer(_transport: Any) -> None:
    """Unregister the producer of `transport`, where it would keep ``loseConnection`` from closing.

    Twisted's TLS waits for any producer, its TCP connections only for one that has more to write.
    """


@release_producer.register
def _(transport: ProtocolWrapper) -> None:
    release_producer(transport.transport)


@release_producer.register
def _(transport: TLSMemoryBIOProtocol) -> None:
    transport.unregisterProducer()


def socket_beneath(transport: Any) -> socket.socket | None:
    """The socket of `transport`, through whatever is wrapped around it; ``None`` where there is none."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    try:
        handle = transport.getHandle()
    except AttributeError:  # It has none, or it is no longer connected.
        return None
    return handle if isinstance(handle, socket.socket) else None


def acknowledgement(transport: Any, written: int) -> tuple[int, int]:
    """What the peer of `transport` has acknowledged.

    - Of a TCP connection, the kernel knows that.
    - A Unix socket doesn't count, but knows how much memory is taken by what the peer has not read. So the first number
      changes, too, when more is written than before, until the socket's buffer is full.
    - Elsewhere, and on systems other than Linux, what the system has taken counts as acknowledged.

    :param written: how many octets were written to it.
    :return: a number that changes whenever the peer has acknowledged something, and how many octets it has not
        acknowledged.
    """
    waiting = bytes_waiting(transport)
    beneath = socket_beneath(transport) if tcp_info.AVAILABLE else None
    if beneath is not None:
        with suppress(OSError):  # It may have been closed just now.
            if beneath.family in (socket.AF_INET, socket.AF_INET6):
                _, acknowledged, on_its_way, _ = tcp_info.tcp_counters(beneath)
                return acknowledged, waiting + on_its_way
            unread = tcp_info.unacknowledged(beneath)
            return written - waiting - unread, waiting + unread
    return written - waiting, waiting
