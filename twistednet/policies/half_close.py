"""Half-close and back-pressure for what wraps a connection: TLS, and any other wrapper that is made of the one here.

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

Wrapping by hand::

    TLSMemoryBIOFactory(options, False, EchoFactory())      # Twisted's
    HalfClosingTLSFactory(options, False, EchoFactory())    # ours

``twistednet.services.stream_endpoints`` makes endpoints of strings that do so.

Source: RFC 8446 §6.1 (up to TLS 1.2, a peer had to discard what it still had to send: RFC 5246 §7.2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, _NullAggregator
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer, providedBy
from zope.interface.declarations import Provides

from twistednet.protocols.flow import can_half_close


def has_both_ends(protocol: Any) -> bool:
    """Whether `protocol` is an `IHalfCloseableProtocol`, or wraps one and is going to be."""
    if isinstance(protocol, HalfClosingWrapper | HalfClosingTLS):
        return has_both_ends(protocol.wrappedProtocol)
    return bool(IHalfCloseableProtocol.providedBy(protocol))


@cache
def provides(wrapper: Any, provided: Any, both_ends: bool) -> Any:
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
        self.__provides__ = provides(wrapper, providedBy(transport), has_both_ends(self.wrappedProtocol))
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

    def buildProtocol(self, addr: IAddress | None) -> Any:
        # Twisted's wraps None, and fails later. A port closes a connection for which it gets None.
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else self.protocol(self, protocol)
