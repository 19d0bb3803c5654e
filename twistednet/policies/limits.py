"""Limits on the connections of a stream service: how many, how long without progress, how long to finish.

Theory of operation
===================

`LimitedFactory` wraps any factory, and each of its connections any protocol. The wrapper counts the octets that pass,
and nothing else is done for each of them: no timer is touched. Once a second one sweep looks at every connection, and
holds what it sees against what it saw the last time:

=====================  ============================================================  =================================
time-out               what has not happened for so long                             what is done
=====================  ============================================================  =================================
``idle_timeout``       an octet came, or one that waited has left                     the connection is closed
``message_timeout``    a message that has begun has ended                             the connection is closed
``write_timeout``      an octet left, though some wait that the peer doesn't read     the connection is reset
=====================  ============================================================  =================================

So a connection is closed up to two sweeps later than the time-out says, and never earlier.

A connection beyond a limit is accepted and reset at once: left in the listen queue, it would keep others out. So is one
that the address rules refuse, and one for which the wrapped factory has no protocol.

Behind a balancer that sends PROXY headers (`twistednet.policies.proxy_header`), the client is known when the header
has come, and ``buildProtocol`` is called then, with the client's address. Until then the connection is in ``waiting``,
where it counts towards ``max_connections`` only.

To *drain* is to end in good order: connections on which nothing moves any more are closed as if their peers had ended
their streams, the others go on until nothing moves, and what is left at the end of the time is reset.

A message that has begun is known of protocols that have an attribute ``unfinished`` (`MessageProtocol` has): the
number of the message, or ``None``. One that has a method ``drain`` (`StreamProtocol` has) is drained by it, any other
by ``transport.loseConnection()``.

Sources: haproxy's ``maxconn`` and ``timeout client``; nginx's ``client_body_timeout``, which measures from the last
progress, and ``send_timeout``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from twistednet.policies.addresses import AddressRules, client_host, describe_client
from twistednet.policies.half_close import HalfClosingWrapper
from twistednet.policies.sparse_log import SparseLog
from twistednet.protocols.counters import Counters
from twistednet.reactor.stream import LoopStream

SWEEP = 1.0
"""Seconds between two looks at the connections."""

DRAIN_SWEEP = 0.1
"""The same while they are drained."""


def bytes_waiting(transport: Any) -> int:
    """How many octets wait in `transport`, and in what it is wrapped around, to be taken by the system.

    Twisted has no interface for that; a transport of a kind that is not known here is taken to keep nothing.
    """
    if isinstance(transport, LoopStream):
        return transport.bytes_waiting()
    if isinstance(transport, FileDescriptor):
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    if isinstance(transport, ProtocolWrapper):
        encrypting = transport._appSendBuffer if isinstance(transport, TLSMemoryBIOProtocol) else ()
        return sum(map(len, encrypting)) + bytes_waiting(transport.transport)
    return 0


@dataclass(frozen=True)
class Limits:
    """What `LimitedFactory` allows; 0 turns a limit off.

    :param max_connections: how many connections at once.
    :param max_per_host: how many of one address.
    :param idle_timeout: seconds; see the module.
    :param message_timeout: seconds; see the module.
    :param write_timeout: seconds; see the module.
    """

    max_connections: int = 0
    max_per_host: int = 0
    idle_timeout: float = 0.0
    message_timeout: float = 0.0
    write_timeout: float = 0.0

    @property
    def sweeps(self) -> bool:
        """Whether there is a time-out."""
        return bool(self.idle_timeout or self.message_timeout or self.write_timeout)


@dataclass(frozen=True)
class Drained:
    """How connections ended that were drained.

    :param idle: closed at once, as nothing moved on them.
    :param finished: closed when nothing moved on them any more.
    :param reset: reset at the end of the time.
    """

    idle: int
    finished: int
    reset: int


class Passage:
    """Counts the octets that pass between a transport and a protocol.

    It is an object by itself because every attribute of a `ProtocolWrapper` takes long to be found: Python can't
    remember where it was in an object that has a ``__getattr__``.

    :param transport: what is written to.
    :param protocol: what is delivered to.
    """

    __slots__ = ("protocol", "received", "sent", "transport")

    def __init__(self, transport: Any, protocol: Any) -> None:
        self.transport = transport
        self.protocol = protocol
        self.received = 0
        self.sent = 0

    def receive(self, data: bytes) -> None:
        """Count `data`, and deliver it."""
        self.received += len(data)
        self.protocol.dataReceived(data)

    def send(self, data: bytes) -> None:
        """Count `data`, and write it."""
        self.sent += len(data)
        self.transport.write(data)


class Limited(HalfClosingWrapper):
    """A connection under limits: the protocol of the transport, and the transport of the protocol."""

    factory: Any  # the LimitedFactory

    def __init__(self, factory: Any, protocol: IProtocol, host: str | None) -> None:
        super().__init__(factory, protocol)
        self.host = host
        self.counted = (0, 0, 0)
        """Octets received and sent, and messages, that the service's counters have already."""
        self.moved = 0
        """Octets that had come and left when the connection was last seen to make progress, at `progressed`."""
        self.progressed = 0.0
        self.left = 0
        """Octets that had left at `stalled`, while others waited."""
        self.stalled: float | None = None
        self.message: int | None = None
        """The message that had begun, at `began`."""
        self.began: float | None = None
        self.closing = False
        """A time-out was over."""
        self.ending = ""
        """How it is ended while the service stops."""

    def makeConnection(self, transport: Any) -> None:
        self.passage = passage = Passage(transport, self.wrappedProtocol)
        self.dataReceived = passage.receive  # type: ignore[method-assign]
        self.write = passage.send  # type: ignore[method-assign]
        super().makeConnection(transport)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        # What is written after the end is not sent, and not to be counted.
        self.write = self.transport.write  # type: ignore[method-assign]
        super().loseWriteConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.count()
        super().connectionLost(reason)
        self.passage.protocol = None  # as Twisted does with its own: nothing is to refer to itself

    # What the sweep sees

    def count(self) -> None:
        """Add to the service's counters what they don't have yet."""
        counters, (received, sent, messages) = self.factory.kept, self.counted
        came: int = getattr(self.wrappedProtocol, "messages", 0)
        counters.bytes_received += self.passage.received - received
        counters.bytes_sent += self.passage.sent - sent
        counters.messages += came - messages
        if (self.passage.received, self.passage.sent, came) != self.counted:
            self.counted = self.passage.received, self.passage.sent, came

    def _has_moved(self, waiting: int, now: float) -> bool:
        """Whether octets have come or left since this was last asked, where so many wait."""
        moved = self.passage.received + self.passage.sent - waiting
        if moved == self.moved:
            return False
        self.moved, self.progressed = moved, now
        return True

    def is_moving(self, now: float) -> bool:
        """Whether octets have come or left since this was last asked; or wait."""
        waiting = bytes_waiting(self.transport)
        return (
            self._has_moved(waiting, now)
            or bool(waiting)
            or getattr(self.wrappedProtocol, "unfinished", None) is not None
        )

    def overdue(self, limits: Limits, now: float) -> str:
        """Which time-out is over, if one is."""
        waiting = bytes_waiting(self.transport)
        left = self.passage.sent - waiting
        if not waiting:
            self.stalled = None
        elif self.stalled is None or left != self.left:
            self.left, self.stalled = left, now
        self._has_moved(waiting, now)
        message = getattr(self.wrappedProtocol, "unfinished", None)
        if message is None:
            self.began = None
        elif self.began is None or message != self.message:
            self.message, self.began = message, now
        for name, timeout, since in (
            ("write", limits.write_timeout, self.stalled),
            ("message", limits.message_timeout, self.began),
            ("idle", limits.idle_timeout, self.progressed),
        ):
            if timeout and since is not None and now - since >= timeout:
                return name
        return ""

    def drain(self, ending: str) -> None:
        """Close, when what is owed has been delivered; to be counted as `ending`."""
        self.ending = ending
        drain = getattr(self.wrappedProtocol, "drain", None)
        if drain is None:
            self.transport.loseConnection()
        else:
            drain()


class Refused(Protocol):
    """A connection that is refused: it is reset."""

    def connectionMade(self) -> None:
        cast(Any, self.transport).abortConnection()


class LimitedFactory(Factory[Any]):
    """Serves what another factory serves, under limits, and counts it.

    :param factory: the other.
    :param limits: what is allowed.
    :param rules: which hosts may connect; all when left out. The attribute may be replaced at any time.
    :param counters: what to count in.
    :param reactor: the clock; the global reactor when left out.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        factory: IProtocolFactory,
        limits: Limits,
        *,
        rules: AddressRules | None = None,
        counters: Counters | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        self.wrapped = factory
        self.limits = limits
        self.rules = rules
        self.kept = Counters() if counters is None else counters
        """The counters, as of the last sweep."""
        self.connections: dict[Limited, None] = {}
        self.waiting: dict[Any, None] = {}
        """Transports of connections whose PROXY header has not come."""
        self._hosts: Counter[str] = Counter()
        self._sweeping: IDelayedCall | None = None
        self._drained: Deferred[Drained] | None = None
        self._endings = Counter[str]()
        if reactor is not None:
            self.reactor = reactor

    @cached_property
    def reactor(self) -> IReactorTime:
        # Imported at the first use, so that making a factory installs no reactor.
        from twisted.internet import reactor

        return cast(IReactorTime, reactor)

    @cached_property
    def _sparse_log(self) -> SparseLog:
        return SparseLog(self.log, self.reactor)

    @property
    def counters(self) -> Counters:
        """What has been counted, up to now."""
        for connection in self.connections:
            connection.count()
        return self.kept

    def logPrefix(self) -> str:
        prefix: Any = getattr(self.wrapped, "logPrefix", None)
        return str(prefix()) if prefix is not None else type(self.wrapped).__name__

    def doStart(self) -> None:
        self.wrapped.doStart()

    def doStop(self) -> None:
        self.wrapped.doStop()

    # Connections

    def buildProtocol(self, addr: IAddress | None) -> Any:
        host = client_host(addr)
        if self.rules is not None and host is not None and (rule := self.rules.refusal(host)):
            return self.refuse(rule, addr)
        refused = self.refuse_beyond_limit(addr)
        if refused is not None:
            return refused
        most = self.limits.max_per_host
        if most and host is not None and self._hosts[host] >= most:
            return self.refuse("max-per-host", addr, most)
        protocol = self.wrapped.buildProtocol(addr)  # type: ignore[arg-type]
        return self.refuse("service", addr) if protocol is None else Limited(self, protocol, host)

    def refuse_beyond_limit(self, addr: IAddress | None) -> Refused | None:
        """What refuses a connection from `addr` if there are as many as there may be, whoever the client is."""
        most = self.limits.max_connections
        if most and len(self.connections) + len(self.waiting) >= most:
            return self.refuse("max-connections", addr, most)
        return None

    def refuse(self, limit: str, addr: IAddress | None, value: int | None = None) -> Refused:
        """What refuses a connection from `addr`; it is counted and logged.

        :param limit: why: the name of the option, or ``"service"`` if the wrapped factory has no protocol for it.
        :param value: the option's value, if that is a number.
        """
        self.kept.refused[limit] += 1
        reason = "{limit}" if value is None else "{limit} is {value}"
        line = f"connection refused: {reason}; it came from {{client}}"
        self._sparse_log.warn(line, client=describe_client(addr), limit=limit, value=value)
        return Refused()

    def time_out(self, name: str, addr: IAddress | None) -> None:
        """Count and log that a connection from `addr`, which has no protocol yet, is reset by the time-out `name`."""
        self.kept.timed_out[name] += 1
        self._sparse_log.warn(
            "connection reset: time-out {name}; it came from {client}", name=name, client=describe_client(addr)
        )

    def registerProtocol(self, connection: Limited) -> None:
        """A connection has been made."""
        self.kept.connections += 1
        self.connections[connection] = None
        if connection.host is not None:
            self._hosts[connection.host] += 1
        connection.progressed = self.reactor.seconds()
        if self._sweeping is None and self.limits.sweeps:
            self._sweeping = self.reactor.callLater(SWEEP, self._sweep)

    def unregisterProtocol(self, connection: Limited) -> None:
        """A connection is gone."""
        del self.connections[connection]
        self._endings[connection.ending or "finished"] += 1
        if connection.host is not None:
            self._hosts[connection.host] -= 1
            if not self._hosts[connection.host]:
                del self._hosts[connection.host]
        if not self.connections:
            self._stop_sweeping()
            self._tell_drained()

    def _stop_sweeping(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self) -> None:
        self._sweeping = self.reactor.callLater(SWEEP, self._sweep)
        now = self.reactor.seconds()
        for connection in list(self.connections):
            connection.count()
            if connection.closing:
                # It was told to close a sweep ago; TLS waits for the peer, or for a producer, without end.
                connection.transport.abortConnection()
            elif name := connection.overdue(self.limits, now):
                self.kept.timed_out[name] += 1
                self._sparse_log.warn(f"connection closed: nothing happened for the time that {name}-timeout allows")
                if name == "write":
                    connection.transport.abortConnection()
                else:
                    connection.closing = True
                    connection.transport.loseConnection()

    # The end

    def drain(self, seconds: float) -> Deferred[Drained]:
        """End all connections in good order; call it once, after the port has been closed.

        :param seconds: how long they may take; then they are reset.
        :return: fires when there is none left.
        """
        self._stop_sweeping()
        self._reset_waiting()
        drained = self._drained = Deferred()
        self._endings.clear()
        now = self.reactor.seconds()
        for connection in self.connections:
            connection.is_moving(now)
        if self.connections:
            self._sweeping = self.reactor.callLater(DRAIN_SWEEP, self._drain_sweep, now + seconds, "idle")
        else:
            self._tell_drained()
        return drained

    def _drain_sweep(self, deadline: float, ending: str) -> None:
        now = self.reactor.seconds()
        if now >= deadline:
            self._sweeping = None
            self.reset()
            return
        self._sweeping = self.reactor.callLater(
            min(DRAIN_SWEEP, deadline - now), self._drain_sweep, deadline, "finished"
        )
        for connection in list(self.connections):
            if not connection.ending and not connection.is_moving(now):
                connection.drain(ending)

    def reset(self) -> None:
        """End what is left at once."""
        self._reset_waiting()
        for connection in list(self.connections):
            connection.ending = "reset"
            connection.transport.abortConnection()

    def _reset_waiting(self) -> None:
        for transport in list(self.waiting):
            transport.abortConnection()

    def _tell_drained(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(Drained(**{ending: self._endings[ending] for ending in ("idle", "finished", "reset")}))
