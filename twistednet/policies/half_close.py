"""Half-close and back-pressure for what wraps a connection: TLS, and the header of the PROXY protocol.

Twisted's wrappers have one end for both directions. These have two, so that any factory can be wrapped in them, ours
or not, and a protocol that is an `IHalfCloseableProtocol` is told of the end of input, and can end its output, as on
a bare TCP connection. One that is not sees what it sees under Twisted's.

TLS
    close_notify ends one direction, as FIN does on a TCP connection. The peer's is told as ``readConnectionLost``,
    and everything can still be answered; ours is what ``loseWriteConnection`` sends, after all that was written and
    once no producer is registered, and everything can still be received. The TCP connection underneath is never
    half-closed, and is closed by ``loseConnection``.

    A FIN without close_notify is a truncation: nobody can know what was cut off. The reason of ``connectionLost`` is
    `ConnectionLost`, and what had been answered before is delivered.

    A protocol that has paused its transport is not given what is already there to be decrypted, the end of it
    included, until it resumes.

PROXY
    Both ends are passed on. The header may come in any number of pieces; whatever is not one resets the connection,
    as does the end of input before the end of it.

Wrapping by hand::

    TLSMemoryBIOFactory(options, False, EchoFactory())      # Twisted's
    HalfClosingTLSFactory(options, False, EchoFactory())    # ours

``twistednet.services.stream_endpoints`` makes endpoints of strings that do so.

Sources: RFC 8446 §6.1 (up to TLS 1.2, a peer had to discard what it still had to send: RFC 5246 §7.2.1);
haproxy's ``proxy-protocol.txt``, versions 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, _NullAggregator
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer, providedBy
from zope.interface.declarations import Provides

from twistednet.protocols.flow import can_half_close


def _has_both_ends(protocol: Any) -> bool:
    """Whether `protocol` is an `IHalfCloseableProtocol`, or wraps one and is going to be."""
    if isinstance(protocol, HalfClosingWrapper | HalfClosingTLS):
        return _has_both_ends(protocol.wrappedProtocol)
    return bool(IHalfCloseableProtocol.providedBy(protocol))


@cache
def _provides(wrapper: Any, provided: Any, both_ends: bool) -> Any:
    """What declares that an instance of `wrapper` provides what is `provided` by a transport.

    :param both_ends: whether what is wrapped has two ends: what wraps a protocol that has one has one.
    """
    return Provides(wrapper, provided, *[IHalfCloseableProtocol] * both_ends)


class HalfClosingWrapper(ProtocolWrapper):
    """A `ProtocolWrapper` that passes on both ends of a connection; of itself it does nothing."""

    transport: Any
    wrappedProtocol: Any

    def makeConnection(self, transport: Any) -> None:
        # Not Twisted's, which makes the declaration of what a connection provides anew for each: that takes as long as
        # all the rest of a short connection.
        wrapper: Any = type(self)
        self.__provides__ = _provides(wrapper, providedBy(transport), _has_both_ends(self.wrappedProtocol))
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        self.wrappedProtocol.makeConnection(self)

    def readConnectionLost(self) -> None:
        """The peer has ended its stream."""
        self.wrappedProtocol.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Our stream has ended, and all of it has been sent."""
        self.wrappedProtocol.writeConnectionLost()

    def loseWriteConnection(self) -> None:
        """End our stream; where what is wrapped can't be half-closed, close."""
        if can_half_close(self.transport):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()


# TLS


@implementer(IPullProducer)
class _Emptying:
    """Calls when all that `transport` was given has left it, unless the connection breaks before."""

    _registered = False

    def __init__(self, transport: Any, call: Callable[[], object]) -> None:
        self._transport = transport
        self._call = call
        # A pull producer is asked for more at once, and then each time that nothing is left.
        transport.registerProducer(self, False)
        self._registered = True

    def resumeProducing(self) -> None:
        if self._registered:
            self._registered = False
            self._transport.unregisterProducer()
            self._call()

    def stopProducing(self) -> None:
        """The connection is gone."""


class HalfClosingTLS(BufferingTLSTransport):
    """A TLS connection whose directions can be ended one by one, and which is read no faster than its protocol wants.

    See the module's *TLS*.
    """

    factory: HalfClosingTLSFactory
    transport: Any
    wrappedProtocol: Any
    _peer_ended = False
    """The peer's close_notify has come."""
    _ending = False
    """Ours is to be sent."""
    _ended = False
    """Ours has been sent."""
    _paused = False
    _holding = False
    """What has arrived may not all have been delivered, for the protocol has paused."""
    _resuming: IDelayedCall | None = None

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            alsoProvides(self, IHalfCloseableProtocol)

    # Input

    def _flushReceiveBIO(self) -> None:
        # Twisted's, but for the pause and the end.
        receive = self._tlsConnection.recv
        while not (self._paused or self._peer_ended or self._lostTLSConnection):
            try:
                data = receive(2**15)
            except WantReadError:
                break
            except ZeroReturnError:
                self._end_of_input()
            except Error:
                self._tlsShutdownFinished(Failure())
            else:
                if not self._aborted:
                    self.wrappedProtocol.dataReceived(data)
        if self._paused:
            self._pause_transport()
            self._holding = True
        elif self._holding:
            self._holding = False
        if not self._lostTLSConnection:
            self._flushSendBIO()

    def _end_of_input(self) -> None:
        """The peer's close_notify has come."""
        self._peer_ended = True
        # What comes after it is not read, and OpenSSL would keep it all.
        self.dataReceived = _ignore  # type: ignore[method-assign]
        if self.disconnecting:
            # Of that the protocol wants to hear no more; what it has still to write is written.
            if not self._appSendBuffer and self._producer is None:
                self._close()
        elif IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.readConnectionLost()
        else:
            self._aggregator.flush()
            self._close()

    def _close(self) -> None:
        self._shutdownTLS()
        self._tlsShutdownFinished(None)

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        super()._tlsShutdownFinished(reason)
        producer, self._producer = self._producer, None
        if producer is not None:
            # The transport would wait for it, and it waits for us.
            self.transport.unregisterProducer()
            producer.stopProducing()

    def readConnectionLost(self) -> None:
        """The peer has ended the TCP connection's stream: after close_notify that is no news, else a truncation."""
        if not (self._peer_ended or self._lostTLSConnection):
            self._aggregator.flush()
            self._paused = False
            self._tlsConnection.bio_shutdown()
            self._flushReceiveBIO()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        self._paused = False
        super().connectionLost(reason)

    def pauseProducing(self) -> None:
        """Deliver nothing until `resumeProducing`."""
        self._paused = True
        self._pause_transport()

    def _pause_transport(self) -> None:
        # What waits for the handshake to be written waits for the peer's part in it to be read.
        if self._handshakeDone and not self._appSendBuffer:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on with what has arrived, and then with what arrives."""
        self._paused = False
        if not self._holding:
            self.transport.resumeProducing()
        elif self._resuming is None:
            # Not at once: whoever resumes a transport doesn't expect it to deliver before that has returned.
            self._resuming = self.factory._clock.callLater(0, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        if not self._paused and not self._lostTLSConnection:
            self._flushReceiveBIO()
            if not self._holding:
                self.transport.resumeProducing()

    # Output

    def loseWriteConnection(self) -> None:
        """Send close_notify after all that was written, and once no producer is registered; go on receiving."""
        if not self._ending and not self.disconnecting:
            self._aggregator.flush()
            self._ending = True
            self._end_output()

    def _end_output(self) -> None:
        if not self._ending or self._ended or self.disconnecting or self._lostTLSConnection:
            return
        if not self._handshakeDone or self._appSendBuffer or self._producer is not None:
            return  # It will be tried again when that has changed.
        self._ended = True
        self._aggregator.close()
        self._aggregator = _NullAggregator()
        self.write = self._aggregator.write  # type: ignore[method-assign]
        with suppress(Error):
            self._tlsConnection.shutdown()
        self._flushSendBIO()
        _Emptying(self.transport, self._output_ended)

    def _output_ended(self) -> None:
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.writeConnectionLost()

    def writeConnectionLost(self) -> None:
        """Nobody ends the stream underneath."""

    def _checkHandshakeStatus(self) -> None:
        super()._checkHandshakeStatus()
        self._end_output()

    def _unbufferPendingWrites(self) -> None:
        super()._unbufferPendingWrites()
        self._end_output()

    def unregisterProducer(self) -> None:
        self._aggregator.flush()
        super().unregisterProducer()
        self._end_output()

    def loseConnection(self) -> None:
        super().loseConnection()
        if self._ended:
            # Twisted waits for the peer's close_notify; after our end, it is the protocol that has waited for it.
            self.transport.loseConnection()


def _ignore(data: bytes) -> None:
    """Do nothing."""


class HalfClosingTLSFactory(TLSMemoryBIOFactory):
    """A `TLSMemoryBIOFactory` whose connections are `HalfClosingTLS`."""

    protocol = HalfClosingTLS


# PROXY


class _V1Parser(V1Parser):
    """Takes the shortest header too, which Twisted's doesn't, and none that is too long, which it does in one piece."""

    @classmethod
    def parse(cls, line: bytes) -> ProxyInfo:
        if len(line) > _V1_LONGEST:
            raise InvalidProxyHeader()
        return super().parse(line + b" " if line == b"PROXY UNKNOWN" else line)


class HalfClosingProxied(HalfClosingWrapper, HAProxyProtocolWrapper):
    """A connection through a balancer, which says in a PROXY header for whom it was made.

    See the module's *PROXY*.
    """

    _begun = b""
    """Arrived, and too short to tell of which version it is."""

    def dataReceived(self, data: bytes) -> None:
        if self._proxyInfo is not None:
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
                self._refuse()
                return
        try:
            info, rest = self._parser.feed(data)
            if info is None:
                return
            for address in (info.source, info.destination):
                _check(address)
        except (InvalidProxyHeader, ValueError):
            self._refuse()
            return
        self._proxyInfo = info
        if rest:
            self.wrappedProtocol.dataReceived(rest)

    def _refuse(self) -> None:
        self.disconnecting = 1
        self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        if self._proxyInfo is None:
            self._refuse()
        else:
            super().readConnectionLost()


_V1_LONGEST = 105
"""The longest header of version 1, in bytes, its CR LF not counted."""

_V2_FIXED = 16
"""The length of the fixed part of a header of version 2, in bytes; Twisted's parser wants it in one piece."""


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


class HalfClosingProxyFactory(HAProxyWrappingFactory):
    """A factory of connections that begin with a PROXY header.

    :param wrapped: the factory of the protocols inside.
    """

    protocol: Any = HalfClosingProxied
    noisy = False
