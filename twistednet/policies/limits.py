"""Limits on the connections of a stream service: how many, how long without progress, how long to finish.

Theory of operation
===================

`LimitedFactory` wraps any factory. Once a second a sweep compares how far each connection has come with how far it had
come at the previous sweep. Nothing is done for each message, and no timer is reset.

=====================  ============================================================  =================================
time-out               what has not happened for so long                             what is done
=====================  ============================================================  =================================
``idle_timeout``       an octet came, or the peer acknowledged one                   the connection is closed
``message_timeout``    a message that has begun has ended                            the connection is closed
``write_timeout``      the peer acknowledged an octet, though some wait for it       the connection is reset
=====================  ============================================================  =================================

So a connection is closed up to two sweeps later than the time-out says, and never earlier. If it is still there at the
next sweep, because its peer reads nothing or does not answer close_notify, it is reset. The clock of a message does
not run while the server itself has stopped reading. With many connections the sweep looks at `SLICE` of them at a time,
and spreads the slices over the second.

Who counts the octets
    On a TCP connection of our reactor, the kernel does (an `IOctetCounter`): the protocol is handed to the transport as
    if there were no limits, and what is left here is a `Connection`, which the sweep looks at.

    On any other transport (Unix sockets, TLS, PROXY, Twisted's reactors, transports in memory) a `Limited` is wrapped
    around the protocol, and counts what passes.

What the peer has acknowledged
    The kernel knows this of a TCP connection, also under TLS; what it has only taken into its own buffers is no measure
    of what a slow peer reads. See `twistednet.policies.transports` for other transports.

    A peer acknowledges in steps. When its receive buffer is full, it announces room again when a sixteenth of the
    buffer or one segment is free, whichever is more: 64 to 95 KB on loopback with default buffers, up to 400 KB in a
    buffer of 6 MB. The slowest rate that is never taken for none is one such step in each `write_timeout`: 1.6 KB/s for
    steps of 95 KB and 60 seconds.

A connection beyond a limit is accepted and reset at once: left in the listen queue, it would keep others out. So is one
that the address rules refuse, and one for which the wrapped factory has no protocol.

Behind a balancer that sends PROXY headers (`twistednet.policies.proxy_header`), the client is known when the header
has come, and ``buildProtocol`` is called then, with the client's address. Until then the connection is in ``waiting``,
where it counts towards ``max_connections`` only.

To *drain* the factory is to end its connections in good order. Connections that are owed nothing are finished at once,
the others when they are owed nothing any more, and what is left at the end of the time is reset. A protocol that is an
`IFinishable` (`StreamProtocol` is) is finished by its own method, any other by ``transport.loseConnection()``. Who then
stays connected, though nothing moves and nothing is owed to it, is closed after `QUIET` seconds.

Sources: haproxy's ``maxconn`` and ``timeout client``; nginx's ``client_body_timeout``, which measures from the last
progress, and ``send_timeout``; ``__tcp_select_window`` of Linux.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any, cast

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
from twisted.python.failure import Failure
from zope.interface import implementer

from twistednet.interfaces import IEndObserver, IFinishable, IMessageInput, IOctetCounter
from twistednet.policies.addresses import AddressRules, client_host, describe_client
from twistednet.policies.elapsed import elapsed_clock
from twistednet.policies.half_close import HalfClosingWrapper
from twistednet.policies.sparse_log import SparseLog
from twistednet.policies.transports import acknowledgement, release_producer
from twistednet.protocols.counters import Counters

SWEEP = 1.0
"""Seconds in which each connection is looked at once."""

SLICE = 250
"""How many connections are looked at in one turn of the loop: that takes about a millisecond."""

DRAIN_SWEEP = 0.1
"""Seconds between two looks at the connections while they are drained."""

QUIET = 0.3
"""Seconds after which a connection that has been finished, and on which nothing moves, is closed, if its peer doesn't
close it."""

TIMED_OUT = {
    "idle": "nothing has moved on it for {seconds:g} seconds (idle-timeout)",
    "message": "its message has not ended for {seconds:g} seconds (message-timeout)",
    "write": "its peer has acknowledged nothing for {seconds:g} seconds, though output waits (write-timeout)",
}
"""What the log says of each time-out."""


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

    :param idle: owed nothing when it began, and closed at once.
    :param finished: closed when they were owed nothing any more.
    :param reset: reset at the end of the time.
    """

    idle: int
    finished: int
    reset: int


@implementer(IEndObserver)
class Connection:
    """What is known of one connection.

    :param factory: whose it is.
    :param protocol: what is served.
    :param host: the peer's address, for ``max_per_host``.
    :param transport: what to close.
    :param counter: has ``octets()``, as an `IOctetCounter` has.
    """

    __slots__ = (
        "acknowledged",
        "begun",
        "closing",
        "counted",
        "counter",
        "ending",
        "factory",
        "host",
        "progressed",
        "protocol",
        "seen",
        "stalled",
        "transport",
        "waiting",
    )

    def __init__(
        self,
        factory: LimitedFactory,
        protocol: Any,
        host: str | None,
        transport: Any,
        counter: Any,
    ) -> None:
        self.factory = factory
        self.host = host
        self.transport = transport
        self.counter = counter
        while isinstance(protocol, ProtocolWrapper):
            protocol = protocol.wrappedProtocol
        self.protocol = protocol
        self.counted = (0, 0, 0)
        """Octets received and sent, and messages, that the service's counters have already."""
        self.acknowledged = 0
        """Changes whenever the peer has acknowledged something."""
        self.waiting = 0
        """Octets that the peer has not acknowledged."""
        self.seen = (0, 0)
        """Octets received, and `acknowledged`, at the last look of a sweep."""
        self.progressed = 0.0
        """When octets were last seen to have come or to have been acknowledged; in a drain, when the peer was last owed
        something."""
        self.stalled: float | None = None
        """Since when octets have waited and none was acknowledged."""
        self.begun: tuple[int, float] | None = None
        """The message that has begun, and when."""
        self.closing = False
        """It has been told to close."""
        self.ending = ""
        """How it ends, in a drain."""

    def transport_lost(self, received: int, written: int) -> None:
        """The connection has ended."""
        self._add(received, written)
        self.factory.connection_lost(self)
        # Nothing is to refer to itself, and a sweep may have this in its list.
        self.transport = self.protocol = self.counter = None

    def count(self) -> None:
        """Add to the service's counters what they don't have yet."""
        try:
            received, sent, self.acknowledged, self.waiting = self.counter.octets()
        except OSError:
            return  # Its socket is closed, and it will be told.
        self._add(received, sent)

    def _add(self, received: int, sent: int) -> None:
        before = self.counted
        received, sent = max(received, before[0]), max(sent, before[1])
        messages = self.protocol.messages if IMessageInput.providedBy(self.protocol) else 0
        if received != before[0] or sent != before[1] or messages != before[2]:
            counters = self.factory.kept
            counters.bytes_received += received - before[0]
            counters.bytes_sent += sent - before[1]
            counters.messages += messages - before[2]
            self.counted = received, sent, messages

    def look(self, now: float) -> bool:
        """Count, and note what has progressed at `now`.

        :return: whether octets have come or been acknowledged since the last look.
        """
        self.count()
        received, acknowledged = self.counted[0], self.acknowledged
        if not self.waiting:
            self.stalled = None
        elif self.stalled is None or acknowledged != self.seen[1]:
            self.stalled = now
        if received == self.seen[0] and acknowledged == self.seen[1]:
            return False
        self.seen = received, acknowledged
        self.progressed = now
        return True

    def restart(self, now: float) -> None:
        """Measure every time-out from `now`."""
        self.progressed = now
        self.stalled = self.begun = None

    def overdue(self, limits: Limits, now: float) -> str:
        """Look how far the connection has come, and say which time-out is over, if one is."""
        self.look(now)
        if IMessageInput.providedBy(self.protocol):
            message = self.protocol.unfinished
            if message is None:
                self.begun = None
            elif self.begun is None or message != self.begun[0] or self.protocol.input_paused:
                self.begun = message, now
        if limits.write_timeout and self.stalled is not None and now - self.stalled >= limits.write_timeout:
            return "write"
        if limits.message_timeout and self.begun is not None and now - self.begun[1] >= limits.message_timeout:
            return "message"
        if limits.idle_timeout and now - self.progressed >= limits.idle_timeout:
            return "idle"
        return ""

    def still_reads(self, limits: Limits, now: float) -> bool:
        """Whether the peer reads what waits for it, as fast as ``write_timeout`` asks for."""
        self.look(now)
        return bool(limits.write_timeout) and self.stalled is not None and now - self.stalled < limits.write_timeout

    # The end

    def is_busy(self, now: float) -> bool:
        """Whether octets have come or been acknowledged since the last look, or the peer is owed something."""
        return (
            self.look(now)
            or bool(self.waiting)
            or (IFinishable.providedBy(self.protocol) and self.protocol.owing)
            or (not self.ending and IMessageInput.providedBy(self.protocol) and self.protocol.unfinished is not None)
        )

    def drain(self, ending: str, now: float) -> None:
        """Look how far the connection has come, and take the next step to its end, if it is time for that.

        :param ending: what to count it as, if it is finished now.
        """
        if self.is_busy(now):
            self.progressed = now
        elif not self.ending:
            self.ending = ending
            self.progressed = now
            if IFinishable.providedBy(self.protocol):
                self.protocol.finish()
            else:
                self.transport.loseConnection()
        elif now - self.progressed >= QUIET:
            if self.closing:
                self.transport.abortConnection()
            else:
                self.closing = True
                self.transport.loseConnection()


class ByteCounter:
    """Counts the octets that pass between a transport and a protocol.

    ``__getattr__`` of a `ProtocolWrapper` defeats CPython's caching of attributes, so the counters are in an object of
    their own.

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

    def octets(self) -> tuple[int, int, int, int]:
        """See `IOctetCounter`."""
        acknowledged, waiting = acknowledgement(self.transport, self.sent)
        return self.received, self.sent, acknowledged, waiting


class Limited(HalfClosingWrapper):
    """A connection under limits.

    Where the transport counts by itself, this puts the protocol in its own place, and is gone. Elsewhere it stays
    between the two, and counts.
    """

    factory: Any  # the LimitedFactory

    def __init__(self, factory: Any, protocol: IProtocol, host: str | None) -> None:
        super().__init__(factory, protocol)
        self.host = host

    def makeConnection(self, transport: Any) -> None:
        protocol = self.wrappedProtocol
        if IOctetCounter.implementedBy(type(transport)) and transport.protocol is self:
            connection = Connection(self.factory, protocol, self.host, transport, transport)
            transport.protocol = protocol
            transport.observe_end(connection)
            self.factory.connection_made(connection)
            protocol.makeConnection(transport)
            return
        self.counter = counter = ByteCounter(transport, protocol)
        self.dataReceived = counter.receive  # type: ignore[method-assign]
        self.write = counter.send  # type: ignore[method-assign]
        self.connection = Connection(self.factory, protocol, self.host, transport, counter)
        super().makeConnection(transport)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        # What is written after the end is not sent, and not to be counted.
        self.write = self.transport.write  # type: ignore[method-assign]
        super().loseWriteConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.counter.protocol = None  # as Twisted does with its own: nothing is to refer to itself


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
    :param reactor: has the timers; the global reactor when left out.
    :param clock: measures how long something takes; see `elapsed_clock` when left out.
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
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.wrapped = factory
        self._limits = limits
        self.rules = rules
        self.kept = Counters() if counters is None else counters
        """The counters, as of the last sweep."""
        self.connections: dict[Connection, None] = {}
        self.waiting: dict[Any, None] = {}
        """Transports of connections whose PROXY header has not come."""
        self._hosts: Counter[str] = Counter()
        self._sweeping: IDelayedCall | None = None
        self._to_look_at: list[Connection] = []  # what is left of this round
        self._slices = 1  # in a round
        self._rounds = 0  # that have begun
        self._deadline = 0.0  # of a drain
        self._drained: Deferred[Drained] | None = None
        self._endings = Counter[str]()
        if reactor is not None:
            self.reactor = reactor
        self._clock = elapsed_clock(reactor) if clock is None else clock

    @cached_property
    def reactor(self) -> IReactorTime:
        # Imported at the first use, so that making a factory installs no reactor.
        from twisted.internet import reactor

        return cast(IReactorTime, reactor)

    @cached_property
    def _sparse_log(self) -> SparseLog:
        return SparseLog(self.log, self._clock)

    @property
    def limits(self) -> Limits:
        """What is allowed. Other limits hold from the moment they are set, for connections that are there as well: the
        next sweep judges them. Those over a new ``max_connections`` or ``max_per_host`` stay."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        if self._drained is not None:
            return
        if not limits.sweeps:
            self._stop_sweeping()
        elif self.connections and self._sweeping is None:
            # Nobody has looked at them so far.
            now = self._clock()
            for connection in self.connections:
                connection.restart(now)
            self._start_sweeping()

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
        most = self._limits.max_per_host
        if most and host is not None and self._hosts[host] >= most:
            return self.refuse("max-per-host", addr, most)
        protocol = self.wrapped.buildProtocol(addr)  # type: ignore[arg-type]
        return self.refuse("service", addr) if protocol is None else Limited(self, protocol, host)

    def refuse_beyond_limit(self, addr: IAddress | None) -> Refused | None:
        """What refuses a connection from `addr` if there are as many as there may be, whoever the client is."""
        most = self._limits.max_connections
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

    def registerProtocol(self, wrapper: Limited) -> None:
        """A connection that is wrapped has been made."""
        self.connection_made(wrapper.connection)

    def unregisterProtocol(self, wrapper: Limited) -> None:
        """A connection that is wrapped is gone."""
        wrapper.connection.transport_lost(wrapper.counter.received, wrapper.counter.sent)

    def connection_made(self, connection: Connection) -> None:
        """A connection has been made."""
        self.kept.connections += 1
        self.connections[connection] = None
        if connection.host is not None:
            self._hosts[connection.host] += 1
        connection.progressed = self._clock()
        if self._sweeping is None and self._limits.sweeps:
            self._start_sweeping()

    def connection_lost(self, connection: Connection) -> None:
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

    def _start_sweeping(self) -> None:
        self._sweeping = self.reactor.callLater(SWEEP, self._sweep)

    def _stop_sweeping(self) -> None:
        self._to_look_at.clear()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self) -> None:
        self._sweeping = self.reactor.callLater(SWEEP / self._begin_slice(), self._sweep)
        now = self._clock()
        for connection in self._slice():
            if connection.closing:
                # It was told to close a sweep ago. A slow reader may have what it is owed; otherwise, TLS waits for the
                # peer, or for a producer, without end.
                if not connection.still_reads(self._limits, now):
                    connection.transport.abortConnection()
            elif name := connection.overdue(self._limits, now):
                self._time_out(connection, name)

    def _begin_slice(self) -> int:
        """Begin a new round, if the last one is complete; return the number of slices in a round."""
        if not self._to_look_at:
            self._rounds += 1
            self._to_look_at = list(self.connections)
            self._slices = max(1, ceil(len(self._to_look_at) / SLICE))
        return self._slices

    def _slice(self) -> Iterator[Connection]:
        """The connections to look at now."""
        connections = self._to_look_at[-SLICE:]
        del self._to_look_at[-SLICE:]
        for connection in connections:
            if connection.transport is not None:  # otherwise it has ended since the round began
                yield connection

    def _time_out(self, connection: Connection, name: str) -> None:
        self.kept.timed_out[name] += 1
        self._sparse_log.warn(
            f"connection of {{peer}} {'reset' if name == 'write' else 'closed'}: {TIMED_OUT[name]}",
            peer=describe_client(connection.transport.getPeer()),
            seconds=getattr(self._limits, f"{name}_timeout"),
        )
        if name == "write":
            connection.transport.abortConnection()
        else:
            connection.closing = True
            if not connection.waiting:
                # Its producer writes nothing: it is the reading side of the protocol.
                release_producer(connection.transport)
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
        self._deadline = self._clock() + seconds
        self._rounds = 0
        self._endings.clear()
        if self.connections:
            self._drain_sweep()
        else:
            self._tell_drained()
        return drained

    def _drain_sweep(self) -> None:
        now = self._clock()
        if now >= self._deadline:
            self._sweeping = None
            self.reset()
            return
        pause = min(DRAIN_SWEEP / self._begin_slice(), self._deadline - now)
        self._sweeping = self.reactor.callLater(pause, self._drain_sweep)
        for connection in self._slice():
            if self._rounds == 1:
                connection.look(now)  # What moves is seen in the next round.
                connection.closing = False
            else:
                connection.drain("idle" if self._rounds == 2 else "finished", now)

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
