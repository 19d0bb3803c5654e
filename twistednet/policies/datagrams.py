"""Datagrams from whoever claims to be there: which of them a protocol gets to see.

Over UDP anybody can write any source address on a datagram, and have the answer sent there: to a victim, or to
another service that answers in its turn, and so on without end. `GuardedDatagramProtocol` goes around a protocol and
drops what is likely to be such, before the protocol sees it.

Theory of operation
===================

===========================  ======================================================================================
dropped is                   because
===========================  ======================================================================================
what the rules refuse        the operator wants it so (`AddressRules`)
a source port below 1024     the services that answer by themselves live there (echo, chargen, DNS, NTP); clients
                             do not
the source port 0            it can't be answered
a source port of our own     two of our services would answer each other
a source that is no host     an answer to a multicast or broadcast address goes to many, one to 0.0.0.0 or ``::``
                             to nobody
a reflection                 it begins as our own answers do: somebody sends them back
more than the source's rate  a victim whose address is forged gets no more than that, and a loop that none of the
                             above has seen ends at the first datagram that is dropped
===========================  ======================================================================================

The rate is a token bucket for each network, as a forger has all the addresses of one: an IPv4 /24, alone or mapped
into IPv6, and an IPv6 /64. Instead of its tokens a bucket keeps one time, *when it will be full again*: each datagram
puts that off by one interval, and a datagram that finds it more than ``burst - 1`` intervals ahead is dropped (the
generic cell rate algorithm, ITU-T I.371). A bucket that is full is as good as none. So whenever a new network comes,
the two that have been looked at longest ago are forgotten if they are full: the table has few more entries than there
are buckets in use. Should `MAX_NETWORKS` be in use nevertheless, all new networks share one bucket.

A directed broadcast address of a network of this machine's needs no rule: the system drops what claims to come from
there, and does not send there. That of another network can't be told from a host.

What is written by the protocol goes straight to the transport.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from functools import lru_cache
from math import inf
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import AbstractDatagramProtocol, DatagramProtocol
from twisted.logger import Logger

from twistednet.policies.addresses import AddressRules, describe_client
from twistednet.protocols.counters import Counters
from twistednet.protocols.datagram import AnsweringDatagramProtocol
from twistednet.protocols.printable import describe

SOURCE_RATE = 50
"""Datagrams a second from one network."""

SOURCE_BURST = 125
"""Datagrams from one network that may come at once."""

PRIVILEGED_PORTS = 1024
"""Ports below this one are those of services."""

MAX_NETWORKS = 65536
"""How many networks have a bucket of their own: about 10 MB of them."""

LOG_INTERVAL = 1.0
"""Seconds between two lines that give the same reason."""

ROUNDING = 1e-4
"""Seconds by which a sum of intervals may be off: a time of day has a resolution of a quarter of a microsecond."""

_OTHERS = b"others"
"""The bucket of all networks for which there is no room; no network is six bytes long."""

_MAPPED = bytes(10) + b"\xff\xff"
"""What an IPv4 address begins with as an IPv6 one (RFC 4291 section 2.5.5.2)."""


@lru_cache(maxsize=4096)
def network_of(host: str) -> bytes | None:
    """The network that `host` is in: the first 3 bytes of an IPv4 address, the first 8 of an IPv6 one.

    :param host: an address in digits, as the system gives it.
    :return: ``None`` where it is the address of no single host: multicast, broadcast and the rest of 224.0.0.0/3,
        0.0.0.0/8, ``::`` and ff00::/8.
    """
    if ":" in host:
        address = inet_pton(AF_INET6, host.partition("%")[0])
        if not address.startswith(_MAPPED):
            return None if address[0] == 0xFF or not any(address) else address[:8]
        address = address[12:]
    else:
        address = inet_pton(AF_INET, host)
    return address[:3] if 0 < address[0] < 224 else None


class CountingDatagramProtocol(DatagramProtocol):
    """Passes everything on to a protocol, and counts.

    :param protocol: what the datagrams are for.
    :param counters: counts the datagrams, and those that the protocol does not answer, if it is one of ours.
    """

    noisy = False
    transport: Any  # IUDPTransport or IUNIXDatagramTransport

    def __init__(self, protocol: AbstractDatagramProtocol, *, counters: Counters | None = None) -> None:
        self.protocol = protocol
        self.counters = Counters() if counters is None else counters
        if isinstance(protocol, AnsweringDatagramProtocol):
            protocol.counters = self.counters

    def startProtocol(self) -> None:
        self.protocol.makeConnection(self.transport)

    def stopProtocol(self) -> None:
        self.protocol.doStop()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.counters.datagrams += 1
        self.protocol.datagramReceived(datagram, addr)

    def connectionRefused(self) -> None:
        self.protocol.connectionRefused()  # type: ignore[attr-defined]  # only a connected transport calls it


OWN_PORTS: Final[Counter[int]] = Counter()
"""The UDP ports that are listened on behind a guard in this process, and at how many addresses each."""


class FilteredDatagramProtocol(CountingDatagramProtocol):
    """Passes on to a protocol what comes from hosts that the rules accept. It is for UDP, over IPv4 and IPv6.

    :param protocol: what the datagrams are for: any datagram protocol, ours or not.
    :param clock: the clock of the log.
    :param rules: whose datagrams to accept; all when left out. The attribute may be replaced at any time.
    :param counters: see `CountingDatagramProtocol`.
    """

    log = Logger()

    def __init__(
        self,
        protocol: AbstractDatagramProtocol,
        *,
        clock: IReactorTime,
        rules: AddressRules | None = None,
        counters: Counters | None = None,
    ) -> None:
        super().__init__(protocol, counters=counters)
        self.rules = rules
        self._seconds = clock.seconds
        self._said: dict[str, float] = {}
        """When each reason was logged last."""
        self._unsaid: Counter[str] = Counter()
        """How many datagrams have been dropped since then."""

    def startProtocol(self) -> None:
        self._here = describe(self.transport.getHost())
        super().startProtocol()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.counters.datagrams += 1
        if self.rules is not None and (rule := self.rules.refusal(addr[0])):
            self._drop(rule, addr)
            return
        self.protocol.datagramReceived(datagram, addr)

    def _drop(self, reason: str, addr: tuple[str, int]) -> None:
        """Count a datagram that is dropped, and say so where the reason has not been given for a while."""
        self.counters.dropped[reason] += 1
        self._unsaid[reason] += 1
        now = self._seconds()
        if 0 <= now - self._said.get(reason, -inf) < LOG_INTERVAL:
            return
        self._said[reason] = now
        self.log.warn(
            "{here} dropped datagrams: {count}, {reason}; the last came from {there}",
            here=self._here,
            count=self._unsaid.pop(reason),
            reason=reason,
            there=describe_client((IPv6Address if ":" in addr[0] else IPv4Address)("UDP", *addr)),
        )


class GuardedDatagramProtocol(FilteredDatagramProtocol):
    """Passes on to a protocol what it can answer without harm. It is for UDP, over IPv4 and IPv6.

    :param protocol: what the datagrams are for: any datagram protocol, ours or not.
    :param source_rate: datagrams a second that one network may send, in the long run; 0 for any number.
    :param source_burst: datagrams that it may send at once, after a silence; at least 1.
    :param reflections: what a datagram that comes from a service like this one begins with.
    :param rules: see `FilteredDatagramProtocol`.
    :param own_ports: the ports of all services that may not talk to each other, of which this becomes one as long as
        it listens; those of the process when left out.
    :param clock: the clock of the rate, and of the log.
    :param counters: see `CountingDatagramProtocol`.
    """

    def __init__(
        self,
        protocol: AbstractDatagramProtocol,
        *,
        clock: IReactorTime,
        source_rate: float = SOURCE_RATE,
        source_burst: int = SOURCE_BURST,
        reflections: Iterable[bytes] = (),
        rules: AddressRules | None = None,
        own_ports: Counter[int] = OWN_PORTS,
        counters: Counters | None = None,
    ) -> None:
        super().__init__(protocol, clock=clock, rules=rules, counters=counters)
        self._interval = 1 / source_rate if source_rate else 0.0
        self._most = (source_burst - 1) * self._interval + ROUNDING
        self._reflections = tuple(reflections)
        self._own_ports = own_ports
        self._full: dict[bytes, float] = {}
        """When the bucket of each network will be full again."""
        self._order: deque[bytes] = deque()
        """The networks; the one that was looked at longest ago comes first."""

    def startProtocol(self) -> None:
        self._port = self.transport.getHost().port
        self._own_ports[self._port] += 1
        super().startProtocol()

    def stopProtocol(self) -> None:
        self._own_ports[self._port] -= 1
        if not self._own_ports[self._port]:
            del self._own_ports[self._port]
        super().stopProtocol()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.counters.datagrams += 1
        host, port = addr
        if self.rules is not None and (rule := self.rules.refusal(host)):
            self._drop(rule, addr)
            return
        if port < PRIVILEGED_PORTS:
            self._drop("privileged port" if port else "port 0", addr)
            return
        if port in self._own_ports:
            self._drop("own port", addr)
            return
        if self._reflections and datagram.startswith(self._reflections):
            self._drop("reflection", addr)
            return
        network = network_of(host)
        if network is None:
            self._drop("no host", addr)
            return
        if self._interval:
            now = self._seconds()
            full = self._full.get(network)
            if full is None:
                network = self._make_room(network, now)
                full = self._full.get(network, now)
            if full < now or full - now > self._most + 2 * self._interval:
                full = now  # (that far ahead is a bucket only where the clock has been set back)
            elif full - now > self._most:
                self._drop("source rate", addr)
                return
            self._full[network] = full + self._interval
        self.protocol.datagramReceived(datagram, addr)

    def _make_room(self, network: bytes, now: float) -> bytes:
        """The bucket for `network`, which has none yet."""
        for _ in range(min(2, len(self._order))):
            oldest = self._order.popleft()
            if self._full[oldest] > now:
                self._order.append(oldest)
            else:
                del self._full[oldest]
        if len(self._order) >= MAX_NETWORKS:
            network = _OTHERS
        if network not in self._full:
            self._order.append(network)
        return network
