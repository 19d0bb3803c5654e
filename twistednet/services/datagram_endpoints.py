"""Endpoint strings for datagrams, which Twisted has none for: ``udp:``, ``udp6:`` and ``unixdgram:``.

They are written as Twisted's stream endpoint strings are, with the same quoting::

    udp:8888    udp:8888:interface=127.0.0.1    udp6:8888:interface=\\:\\:1    unixdgram:/run/udpok

On any reactor that watches descriptors, ours or Twisted's, the ports are those of `twistednet.reactor.datagram`.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from twisted.internet import defer
from twisted.internet.endpoints import _parse
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import DatagramProtocol

from twistednet.reactor.datagram import Port, UNIXDatagramPort


@dataclass(frozen=True)
class UDPEndpoint:
    """A UDP port.

    :param reactor: an `IReactorUDP`.
    :param port: 0 to 65535; 0 lets the system choose.
    :param interface: the address to bind to, IPv4 or IPv6.
    """

    reactor: Any
    port: int
    interface: str

    def listen(self, protocol: DatagramProtocol) -> defer.Deferred[Any]:
        """Bind `protocol`; fires with the port, an `IListeningPort`."""
        if isinstance(self.reactor, PosixReactorBase):
            return defer.execute(_start, Port(self.port, protocol, self.interface, reactor=self.reactor))
        return defer.maybeDeferred(self.reactor.listenUDP, self.port, protocol, interface=self.interface)


@dataclass(frozen=True)
class UNIXDatagramEndpoint:
    """A Unix datagram socket.

    :param reactor: an `IReactorUNIXDatagram`.
    :param address: its path; a socket that a server left behind there is replaced, any other file is an error.
    """

    reactor: Any
    address: str

    def listen(self, protocol: DatagramProtocol) -> defer.Deferred[Any]:
        """Bind `protocol`; fires with the port, an `IListeningPort`."""
        _remove_stale_socket(self.address)
        if isinstance(self.reactor, PosixReactorBase):
            return defer.execute(_start, UNIXDatagramPort(self.address, protocol, reactor=self.reactor))
        return defer.maybeDeferred(self.reactor.listenUNIXDatagram, self.address, protocol)


def _start(port: Port) -> Port:
    port.startListening()
    return port


DatagramEndpoint: TypeAlias = UDPEndpoint | UNIXDatagramEndpoint


def _remove_stale_socket(path: str) -> None:
    """Remove the socket at `path` if nobody reads from it."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass


def _udp(reactor: Any, port: str, interface: str = "") -> DatagramEndpoint:
    number = int(port)
    if not 0 <= number <= 65535:
        raise ValueError(port)
    return UDPEndpoint(reactor, number, interface)


def _udp6(reactor: Any, port: str, interface: str = "::") -> DatagramEndpoint:
    return _udp(reactor, port, interface)


def _unixdgram(reactor: Any, address: str) -> DatagramEndpoint:
    return UNIXDatagramEndpoint(reactor, address)


_kinds: dict[str, Callable[..., DatagramEndpoint]] = {"udp": _udp, "udp6": _udp6, "unixdgram": _unixdgram}

_forms = {
    "udp": "udp:PORT[:interface=ADDRESS]",
    "udp6": "udp6:PORT[:interface=ADDRESS]",
    "unixdgram": "unixdgram:PATH",
}


def is_datagram_string(description: str) -> bool:
    """Whether `description` is for `datagram_endpoint_from_string` rather than for Twisted."""
    return description.partition(":")[0] in _kinds


def datagram_endpoint_from_string(reactor: Any, description: str) -> DatagramEndpoint:
    """The endpoint that `description` describes.

    :raises ValueError: for anything that is not one of the three kinds.
    """
    kind = description.partition(":")[0]
    if kind not in _kinds:
        raise ValueError(f"not {', '.join(_forms.values())}")
    try:
        # Private, but the only parser of the strings' quoting there is, and unchanged since Twisted 10.2.
        (_, *arguments), keywords = _parse(description)
        return _kinds[kind](reactor, *arguments, **keywords)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: it ends in a backslash
        raise ValueError(f"not {_forms[kind]}") from error
