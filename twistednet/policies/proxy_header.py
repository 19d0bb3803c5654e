"""The PROXY protocol: a balancer says, in a header in front of each connection, for which client it was made.

Theory of operation
===================

=================================  =====================================================================================
a connection                       what is done
=================================  =====================================================================================
comes                              It is reset unless it comes from one of `HalfClosingProxyFactory.proxies`, or by a
                                   Unix socket: any other peer could write a header with whatever address it likes. It
                                   is reset if there are ``max_connections`` already.
sends its header                   The wrapped factory's ``buildProtocol`` gets the client's address, and so applies the
                                   limit for each host and the address rules to the client. The protocol sees what
                                   follows the header. ``getPeer`` and ``getHost`` are the header's addresses.
sends something else, or its end   It is reset.
sends no header in time            It is reset.
=================================  =====================================================================================

A header without addresses (version 1's ``UNKNOWN``, version 2's ``LOCAL``) is what a balancer sends with connections of
its own, such as health checks: the client is the balancer. A header may come in any number of pieces.

Half-close works in both directions, as on a bare TCP connection.

Where the wrapped factory is a `LimitedFactory`, it counts and logs what is refused: ``proxy-from``, ``proxy-header``
and ``max-connections``, and the time-out ``proxy-header``.

Source: haproxy's ``proxy-protocol.txt``, versions 1 and 2. Its section 2 requires that only known addresses may send
the header.
"""

from __future__ import annotations

from functools import cached_property
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from twisted.python.failure import Failure
from zope.interface import providedBy

from twistednet.policies.addresses import LOOPBACK, Networks, client_host
from twistednet.policies.half_close import HalfClosingWrapper, has_both_ends, provides
from twistednet.policies.limits import LimitedFactory, Refused

HEADER_TIMEOUT = 10.0
"""Seconds for the header, and for the TLS handshake if there is one before it. The specification asks for a few, and at
least 3, so that a lost segment can be sent again."""

_V1_LONGEST = 105
"""The longest header of version 1, in bytes, its CR LF not counted."""

_V2_FIXED = 16
"""The length of the fixed part of a header of version 2, in bytes; Twisted's parser wants it in one piece."""


class _V1Parser(V1Parser):
    """Takes the shortest header too, which Twisted's doesn't, and none that is too long, which it does in one piece."""

    @classmethod
    def parse(cls, line: bytes) -> ProxyInfo:
        if len(line) > _V1_LONGEST:
            raise InvalidProxyHeader()
        return super().parse(line + b" " if line == b"PROXY UNKNOWN" else line)


def _check(address: Any) -> None:
    """See that `address`, an `IAddress` which Twisted's parser has taken as it came, is one; it may be logged.

    :raises ValueError: otherwise.
    """
    if isinstance(address, IPv4Address | IPv6Address):
        try:
            inet_pton(AF_INET if isinstance(address, IPv4Address) else AF_INET6, address.host)
        except OSError as error:
            raise ValueError(address.host) from error
        if not 0 <= address.port <= 65535:
            raise ValueError(address.port)


class HalfClosingProxied(HalfClosingWrapper, HAProxyProtocolWrapper):
    """A connection that begins with a PROXY header. Its protocol is made when the header has come.

    :param factory: the `HalfClosingProxyFactory`.
    :param address: where the connection comes from.
    """

    factory: Any
    wrappedProtocol: Any  # None before the header

    _begun = b""
    """Arrived, and too short to tell of which version it is."""
    _rest = b""
    """Arrived in one piece with the header, and not delivered yet as the protocol has paused."""
    _paused = False
    _deadline: IDelayedCall | None = None
    _resuming: IDelayedCall | None = None

    def __init__(self, factory: Any, address: IAddress | None) -> None:
        super().__init__(factory, cast(Any, None))
        self._address = address

    def logPrefix(self) -> str:
        # Asked for before there is a protocol.
        return str(self.factory.logPrefix())

    def makeConnection(self, transport: Any) -> None:
        wrapper: Any = type(self)
        self.__provides__ = provides(wrapper, providedBy(transport), True)
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        self.factory.waiting[self] = None
        if self.factory.header_timeout:
            self._deadline = self.factory.reactor.callLater(self.factory.header_timeout, self._timed_out)

    def _stop_waiting(self) -> None:
        self.factory.waiting.pop(self, None)
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    # The header

    def dataReceived(self, data: bytes) -> None:
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.dataReceived(data)
        elif not self.disconnecting:
            self._header_received(data)

    def _header_received(self, data: bytes) -> None:
        if self._parser is None:
            data = self._begun + data
            if data.startswith(V1Parser.PROXYSTR):
                self._parser = _V1Parser()
            elif data.startswith(V2Parser.PREFIX) and len(data) >= _V2_FIXED:
                self._parser = V2Parser()
            elif V1Parser.PROXYSTR.startswith(data) or V2Parser.PREFIX.startswith(data[: len(V2Parser.PREFIX)]):
                self._begun = data
                return
            else:
                self._refuse_header()
                return
        try:
            info, rest = self._parser.feed(data)
            if info is None:
                return
            for address in (info.source, info.destination):
                _check(address)
        except (InvalidProxyHeader, ValueError):
            self._refuse_header()
            return
        self._proxyInfo = info
        self._connect(info.source or self._address, cast(bytes, rest))

    def _connect(self, client: IAddress | None, rest: bytes) -> None:
        """Make the protocol for `client`, and deliver what came after the header."""
        self._stop_waiting()
        protocol = self.factory.wrappedFactory.buildProtocol(client)
        if protocol is None:
            self.abortConnection()
            return
        self.wrappedProtocol = protocol
        # Another such wrapper doesn't know yet which ends its protocol will have.
        both_ends = isinstance(protocol, HalfClosingProxied) or has_both_ends(protocol)
        wrapper: Any = type(self)
        self.__provides__ = provides(wrapper, providedBy(self.transport), both_ends)
        self._rest = rest
        protocol.makeConnection(self)
        self._deliver_rest()

    def _deliver_rest(self) -> None:
        if self._rest and not self._paused:
            rest, self._rest = self._rest, b""
            # What a protocol has closed delivers nothing more to it.
            if not (self.disconnecting or getattr(self.transport, "disconnecting", False)):
                self.wrappedProtocol.dataReceived(rest)

    def _refuse_header(self) -> None:
        self.factory.refuse("proxy-header", self._address)
        self.abortConnection()

    def _timed_out(self) -> None:
        self._deadline = None
        if self.factory.limited is not None:
            self.factory.limited.time_out("proxy-header", self._address)
        self.abortConnection()

    # The connection

    def pauseProducing(self) -> None:
        """Deliver nothing until `resumeProducing`."""
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on with what has arrived, and then with what arrives."""
        self._paused = False
        if not self._rest:
            self.transport.resumeProducing()
        elif self._resuming is None:
            # Not at once: whoever resumes a transport doesn't expect it to deliver before that has returned.
            self._resuming = self.factory.reactor.callLater(0, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._deliver_rest()
        if not (self._paused or self.wrappedProtocol is None):
            self.transport.resumeProducing()

    def abortConnection(self) -> None:
        """Reset the connection."""
        self.disconnecting = 1
        self._stop_waiting()
        self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        if self.wrappedProtocol is None:
            if not self.disconnecting:
                self._refuse_header()
        elif IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            super().readConnectionLost()
        else:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_waiting()
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        self._rest = self._begun = b""
        self.disconnecting = 1
        self.factory.unregisterProtocol(self)
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.connectionLost(reason)
            self.wrappedProtocol = None  # as Twisted does: nothing is to refer to itself


class HalfClosingProxyFactory(HAProxyWrappingFactory):
    """A factory of connections that begin with a PROXY header.

    :param wrapped: the factory of the protocols inside: a `LimitedFactory`, or any other.
    :param proxies: the balancers: headers from anywhere else are not believed, except over Unix sockets. The attribute
        may be replaced at any time.
    :param header_timeout: seconds that the header may take; 0 is any time.
    :param reactor: the clock of the time-out; when left out that of a `LimitedFactory`, or the global reactor.
    """

    protocol: Any = HalfClosingProxied
    noisy = False

    def __init__(
        self,
        wrapped: Any,
        *,
        proxies: Networks = LOOPBACK,
        header_timeout: float = HEADER_TIMEOUT,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(wrapped)
        self.proxies = proxies
        self.header_timeout = header_timeout
        self.limited: LimitedFactory | None = (
            wrapped if isinstance(wrapped, LimitedFactory) else getattr(wrapped, "limited", None)
        )
        """Counts and logs what is refused, and limits how many connections there may be."""
        self.waiting: dict[Any, None] = {} if self.limited is None else self.limited.waiting
        if reactor is not None:
            self.reactor = reactor

    @cached_property
    def reactor(self) -> IReactorTime:
        if self.limited is not None:
            return self.limited.reactor
        # Imported at the first use, so that making a factory installs no reactor.
        from twisted.internet import reactor

        return cast(IReactorTime, reactor)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        host = client_host(addr)
        if host is not None and host not in self.proxies:
            return self.refuse("proxy-from", addr)
        refused = None if self.limited is None else self.limited.refuse_beyond_limit(addr)
        return self.protocol(self, addr) if refused is None else refused

    def refuse(self, limit: str, addr: IAddress | None) -> Refused:
        """What refuses a connection from `addr`, for the reason that `limit` names."""
        return Refused() if self.limited is None else self.limited.refuse(limit, addr)
