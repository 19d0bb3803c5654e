"""The guard that goes around a datagram protocol."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from twistednet.policies import datagrams
from twistednet.policies.addresses import AddressRules, Networks
from twistednet.policies.datagrams import (
    OWN_PORTS,
    CountingDatagramProtocol,
    FilteredDatagramProtocol,
    GuardedDatagramProtocol,
    network_of,
)
from twistednet.protocols.counters import Counters
from twistednet.protocols.udpok import UdpOkProtocol

PEER = ("192.0.2.1", 40000)


class Recorder(DatagramProtocol):
    """Keeps what it gets; not one of ours."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def startProtocol(self) -> None:
        self.events.append("started")

    def stopProtocol(self) -> None:
        self.events.append("stopped")

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.events.append((datagram, addr))

    def connectionRefused(self) -> None:
        self.events.append("refused")


class Transport(FakeDatagramTransport):
    """Knows where it listens."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", "127.0.0.1", self.port)


class NetworkTests(SynchronousTestCase):
    """`network_of`."""

    def test_one_network(self) -> None:
        """A /24 is one network, mapped into IPv6 or not, and so is a /64."""
        for one, other in (
            ("192.0.2.0", "192.0.2.255"),
            ("192.0.2.7", "::ffff:192.0.2.8"),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
            ("fe80::1", "fe80::2%eth0"),
        ):
            self.assertEqual(network_of(one), network_of(other))

    def test_different(self) -> None:
        """Neighbours are different ones, and IPv4's none of IPv6's."""
        hosts = [
            "192.0.2.1",
            "192.0.3.1",
            "192.1.2.1",
            "193.0.2.1",
            "2001:db8::1",
            "2001:db8:0:1::1",
            "c000:200::",
            "::1",
        ]
        self.assertEqual(len({network_of(host) for host in hosts}), len(hosts))

    def test_no_host(self) -> None:
        """What no single host has for an address is in no network."""
        for host in (
            *("224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "0.0.0.0", "0.1.2.3"),
            *("::", "ff02::1", "ffff::1", "::ffff:224.0.0.1", "::ffff:255.255.255.255", "::ffff:0.0.0.0"),
        ):
            self.assertIsNone(network_of(host), host)
        for host in ("1.0.0.0", "223.255.255.255", "127.0.0.1", "::1", "fe80::1"):
            self.assertIsNotNone(network_of(host), host)


class GuardTestCase(SynchronousTestCase):
    """A guard on port 8888, around a protocol that keeps what it gets."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.own_ports: Counter[int] = Counter()

    def guard(self, protocol: Any = None, port: int = 8888, **settings: Any) -> GuardedDatagramProtocol:
        """A guard that listens."""
        guard = GuardedDatagramProtocol(
            Recorder() if protocol is None else protocol,
            clock=cast(IReactorTime, self.clock),
            own_ports=self.own_ports,
            **settings,
        )
        guard.makeConnection(Transport(port))
        return guard

    def passes(self, guard: GuardedDatagramProtocol, datagram: bytes = b"x", addr: Any = PEER) -> bool:
        """Whether `guard` lets it through; what it counts says the same."""
        events = cast(Recorder, guard.protocol).events
        before, came, dropped = len(events), guard.counters.datagrams, guard.counters.dropped.total()
        guard.datagramReceived(datagram, addr)
        passed = events[before:] == [(datagram, addr)]
        self.assertEqual(len(events) - before, passed)
        self.assertEqual(guard.counters.datagrams - came, 1)
        self.assertEqual(guard.counters.dropped.total() - dropped, not passed)
        return passed


class AddressTests(GuardTestCase):
    """Who is dropped for what the address is, or for what the datagram is."""

    def assert_drops(self, reason: str, datagram: bytes = b"x", addr: Any = PEER, **settings: Any) -> None:
        """It is dropped, for `reason`."""
        guard = self.guard(**settings)
        self.assertFalse(self.passes(guard, datagram, addr))
        self.assertEqual(guard.counters.dropped, {reason: 1})

    def test_passes(self) -> None:
        """Clients are let through, over IPv4 and IPv6, empty datagrams and the longest too."""
        guard = self.guard(reflections=[b"OK..."])
        for addr in (PEER, ("127.0.0.1", 1024), ("2001:db8::1", 65535), ("::ffff:192.0.2.1", 5000), ("::1", 5000)):
            for datagram in (b"", b"OK..", b" OK...", bytes(65507)):
                self.assertTrue(self.passes(guard, datagram, addr))

    def test_privileged(self) -> None:
        """Services do not ask."""
        for port in (1, 7, 19, 53, 123, 1023):
            self.assert_drops("privileged port", addr=("192.0.2.1", port))

    def test_port_0(self) -> None:
        """Nobody can be answered there."""
        self.assert_drops("port 0", addr=("192.0.2.1", 0))

    def test_no_host(self) -> None:
        """No answer goes to a group."""
        for host in ("224.0.0.251", "255.255.255.255", "ff02::fb", "0.0.0.0"):
            for rate in (0, 50):
                self.assert_drops("no host", addr=(host, 5000), source_rate=rate)

    def test_reflection(self) -> None:
        """What one of the same kind has answered is not answered."""
        for datagram in (b"OK...", b"OK...OK...", b"OK...x", b"no: x"):
            self.assert_drops("reflection", datagram, reflections=(b"OK...", b"no: "))

    def test_own_ports(self) -> None:
        """Ports that are listened on do not talk to each other, from whatever address, until they are closed."""
        one, other = self.guard(), self.guard(port=2000)
        again = self.guard(port=2000)
        for guard in (one, other, again):
            for port in (2000, 8888):
                self.assertFalse(self.passes(guard, addr=("192.0.2.1", port)))
                self.assertFalse(self.passes(guard, addr=("::1", port)))
        self.assertEqual(one.counters.dropped, {"own port": 4})
        other.doStop()
        self.assertFalse(self.passes(one, addr=("192.0.2.1", 2000)))
        again.doStop()
        self.assertTrue(self.passes(one, addr=("192.0.2.1", 2000)))

    def test_ports_of_the_process(self) -> None:
        """The ports are those of the process where nothing else is said."""
        guard = GuardedDatagramProtocol(Recorder(), clock=cast(IReactorTime, self.clock))
        guard.makeConnection(Transport(7777))
        self.assertEqual(OWN_PORTS[7777], 1)
        guard.doStop()
        self.assertNotIn(7777, OWN_PORTS)


class RateTests(GuardTestCase):
    """The token bucket of each network."""

    def test_burst(self) -> None:
        """So many at once, and then as many as the rate allows, however long the silence before."""
        guard = self.guard(source_rate=4, source_burst=3)
        for silence in (0, 1, 1000):
            self.clock.advance(silence)
            self.assertEqual([self.passes(guard) for _ in range(5)], [True, True, True, False, False])
        self.clock.advance(0.25)
        self.assertEqual([self.passes(guard) for _ in range(2)], [True, False])
        self.assertEqual(set(guard.counters.dropped), {"source rate"})

    def test_default(self) -> None:
        """125 at once, then 50 a second."""
        guard = self.guard()
        self.assertEqual(sum(self.passes(guard) for _ in range(200)), 125)
        self.clock.advance(1)
        self.assertEqual(sum(self.passes(guard) for _ in range(200)), 50)

    def test_network(self) -> None:
        """The hosts of a network share a bucket; others have their own."""
        guard = self.guard(source_rate=1, source_burst=2)
        self.assertTrue(self.passes(guard, addr=("192.0.2.1", 5000)))
        self.assertTrue(self.passes(guard, addr=("::ffff:192.0.2.200", 6000)))
        self.assertFalse(self.passes(guard, addr=("192.0.2.3", 7000)))
        self.assertTrue(self.passes(guard, addr=("192.0.3.3", 7000)))
        self.assertTrue(self.passes(guard, addr=("2001:db8::1", 7000)))

    def test_dropped_for_another_reason(self) -> None:
        """What is dropped before costs the network nothing."""
        guard = self.guard(source_rate=1, source_burst=1)
        for _ in range(5):
            self.assertFalse(self.passes(guard, addr=("192.0.2.1", 53)))
        self.assertTrue(self.passes(guard))

    def test_off(self) -> None:
        """A rate of 0 is any rate."""
        guard = self.guard(source_rate=0, source_burst=1)
        self.assertTrue(all(self.passes(guard) for _ in range(1000)))

    def test_clock_set_back(self) -> None:
        """A clock that is set back by a day does not shut anybody out for a day."""
        guard = self.guard(source_rate=4, source_burst=3)
        self.assertEqual([self.passes(guard) for _ in range(4)], [True, True, True, False])
        self.clock.rightNow -= 86400
        self.assertEqual([self.passes(guard) for _ in range(4)], [True, True, True, False])

    @given(
        rate=st.sampled_from([1, 2, 16, 64]),
        burst=st.integers(1, 5),
        # In 1/64 s: exact as floating-point numbers, as the intervals are.
        arrivals=st.lists(
            st.tuples(st.integers(0, 100), st.sampled_from(["192.0.2", "192.0.3", "10.0.0"])), max_size=60
        ),
    )
    def test_model(self, rate: int, burst: int, arrivals: list[tuple[int, str]]) -> None:
        """It lets through what a plain bucket, counted in tokens, lets through."""
        self.setUp()
        guard = self.guard(source_rate=rate, source_burst=burst)
        tokens: dict[str, float] = {}
        for pause, network in arrivals:
            self.clock.advance(pause / 64)
            tokens = {each: min(burst, left + pause / 64 * rate) for each, left in tokens.items()}
            left = tokens.setdefault(network, burst)
            self.assertEqual(self.passes(guard, addr=(f"{network}.1", 5000)), left >= 1)
            if left >= 1:
                tokens[network] = left - 1


class TableTests(GuardTestCase):
    """What is remembered of networks."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(datagrams, "MAX_NETWORKS", 100)

    def size(self, guard: GuardedDatagramProtocol) -> int:
        """How many networks are remembered."""
        self.assertEqual(sorted(guard._full), sorted(guard._order))
        return len(guard._full)

    def test_forgets(self) -> None:
        """A network whose bucket is full again makes room for others; there are never many more than are in use."""
        guard = self.guard(source_rate=4, source_burst=3)
        for i in range(2000):
            self.assertTrue(self.passes(guard, addr=(f"10.{i // 256}.{i % 256}.1", 5000)))
            self.clock.advance(0.025)  # a bucket is full again after 0.25 s: ten are not
            self.assertLess(self.size(guard), 25)

    def test_does_not_forget_early(self) -> None:
        """One that has sent too much is remembered while others come."""
        guard = self.guard(source_rate=4, source_burst=3)
        while self.passes(guard):
            pass
        for i in range(90):
            self.assertTrue(self.passes(guard, addr=(f"10.0.{i}.1", 5000)))
            self.assertFalse(self.passes(guard))

    def test_full(self) -> None:
        """With the table full, those who are in it are served as before, and all newcomers share one bucket."""
        guard = self.guard(source_rate=1, source_burst=10)
        known = [(f"10.0.{i}.1", 5000) for i in range(100)]
        self.assertTrue(all(self.passes(guard, addr=addr) for addr in known))
        strangers = [(f"10.1.{i}.1", 5000) for i in range(200)]
        self.assertEqual(sum(self.passes(guard, addr=addr) for addr in strangers), 10)
        self.assertEqual(self.size(guard), 101)
        self.assertTrue(all(self.passes(guard, addr=addr) for addr in known for _ in range(9)))
        # And when there is silence again, they have buckets of their own.
        self.clock.advance(20)
        self.assertTrue(all(self.passes(guard, addr=addr) for addr in strangers[:60] for _ in range(10)))


class LogTests(GuardTestCase):
    """What the log says."""

    def test_once_a_second(self) -> None:
        """A line for each reason, at once, and then one a second, with how many there were."""
        guard = self.guard()
        with capturedLogs() as events:
            for _ in range(1000):
                guard.datagramReceived(b"\x1b[2J", ("192.0.2.1", 0))
            guard.datagramReceived(b"\x1b[2J", ("2001:db8::1", 7))
            self.clock.advance(0.9)
            guard.datagramReceived(b"\x1b[2J", ("192.0.2.1", 0))
            self.clock.advance(0.1)
            guard.datagramReceived(b"\x1b[2J", ("192.0.2.9", 0))
        self.assertEqual(
            [(event["log_level"], event["here"], event["count"], event["reason"], event["there"]) for event in events],
            [
                (LogLevel.warn, "UDP 127.0.0.1:8888", 1, "port 0", "UDP 192.0.2.1:0"),
                (LogLevel.warn, "UDP 127.0.0.1:8888", 1, "privileged port", "UDP [2001:db8::1]:7"),
                (LogLevel.warn, "UDP 127.0.0.1:8888", 1001, "port 0", "UDP 192.0.2.9:0"),
            ],
        )
        self.assertEqual(guard.counters.dropped, {"port 0": 1002, "privileged port": 1})

    def test_clock_set_back(self) -> None:
        """A clock that is set back does not silence the log."""
        guard = self.guard()
        with capturedLogs() as events:
            guard.datagramReceived(b"", ("192.0.2.1", 0))
            self.clock.rightNow -= 86400
            guard.datagramReceived(b"", ("192.0.2.1", 0))
        self.assertEqual(len(events), 2)


class WrappingTests(GuardTestCase):
    """What is behind a guard notices nothing of it."""

    def test_events(self) -> None:
        """Start, datagrams, refusals and stop are passed on, and the transport is the real one."""
        recorder = Recorder()
        for wrapper in (self.guard(recorder), CountingDatagramProtocol(recorder)):
            recorder.events.clear()
            if wrapper.transport is None:
                wrapper.makeConnection(Transport(8888))
                self.assertEqual(recorder.events.pop(0), "started")
            self.assertIs(recorder.transport, wrapper.transport)
            wrapper.datagramReceived(b"x", PEER)
            wrapper.connectionRefused()
            wrapper.doStop()
            self.assertEqual(recorder.events, [(b"x", PEER), "refused", "stopped"])
            self.assertIsNone(recorder.transport)
            self.assertEqual(wrapper.counters.datagrams, 1)

    def test_counts_what_the_protocol_drops(self) -> None:
        """What one of our protocols does not answer is counted beside what the guard has dropped."""
        counters = Counters()
        guard = self.guard(UdpOkProtocol(), counters=counters, reflections=(b"OK...",))
        for datagram in (b"x" * 65503, b"x" * 65508, b"OK...", b"hello"):
            guard.datagramReceived(datagram, PEER)
        self.assertEqual(guard.transport.written, [(b"OK...hello", PEER)])
        self.assertEqual(guard.transport.maxPacketSize, 65508)
        self.assertEqual(counters.datagrams, 4)
        self.assertEqual(counters.dropped, {"answer too long": 1, "too long": 1, "reflection": 1})

    def test_ipv6(self) -> None:
        """It can listen on IPv6."""

        class IPv6(Transport):
            def getHost(self) -> Any:
                return IPv6Address("UDP", "::1", self.port)

        guard = GuardedDatagramProtocol(Recorder(), clock=cast(IReactorTime, self.clock), own_ports=self.own_ports)
        guard.makeConnection(IPv6(8888))
        self.assertTrue(self.passes(guard, addr=("::1", 5000)))
        self.assertFalse(self.passes(guard, addr=("::1", 8888)))


class RulesTests(GuardTestCase):
    """Address rules, with and without the guard."""

    def both(self, rules: AddressRules | None) -> list[FilteredDatagramProtocol]:
        """The guard, and what there is without it."""
        filtered = FilteredDatagramProtocol(Recorder(), clock=cast(IReactorTime, self.clock), rules=rules)
        filtered.makeConnection(Transport(8889))
        return [self.guard(rules=rules), filtered]

    def test_deny(self) -> None:
        """What comes from a network that is denied, mapped into IPv6 or not, is dropped and counted."""
        for filtered in self.both(AddressRules(deny=Networks.parse("192.0.2.0/24", "2001:db8::/32"))):
            hosts = ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db9::1", "192.0.3.1", "::ffff:192.0.3.1")
            for host in hosts:
                filtered.datagramReceived(host.encode(), (host, 40000))
            recorder = cast(Recorder, filtered.protocol)
            self.assertEqual([event[0].decode() for event in recorder.events[1:]], [*hosts[3:]])
            self.assertEqual((filtered.counters.datagrams, filtered.counters.dropped), (6, {"deny": 3}))

    def test_allow(self) -> None:
        """What is allowed is passed on, and nothing else; lists can be replaced."""
        for filtered in self.both(AddressRules(allow=Networks.parse("192.0.2.1"))):
            for host in ("192.0.2.1", "192.0.2.2", "::1"):
                filtered.datagramReceived(b"x", (host, 40000))
            filtered.rules = None
            filtered.datagramReceived(b"x", ("192.0.2.2", 40000))
            recorder = cast(Recorder, filtered.protocol)
            self.assertEqual([event[1][0] for event in recorder.events[1:]], ["192.0.2.1", "192.0.2.2"])
            self.assertEqual(filtered.counters.dropped, {"allow": 2})

    def test_one_line_a_second(self) -> None:
        """However many are dropped, one line a second says so, and names a source."""
        for filtered in self.both(AddressRules(deny=Networks.parse("::/0", "192.0.2.1"))):
            with capturedLogs() as events:
                for _ in range(5):
                    filtered.datagramReceived(b"x", PEER)
                self.clock.advance(1)
                filtered.datagramReceived(b"x", ("::ffff:192.0.2.1", 40001))
            self.assertEqual(
                [(event["count"], event["reason"], event["there"]) for event in events],
                [(1, "deny", "UDP 192.0.2.1:40000"), (5, "deny", "UDP 192.0.2.1:40001")],
            )

    def test_before_the_guard(self) -> None:
        """What is denied takes no token of its network's."""
        guard = self.guard(rules=AddressRules(deny=Networks.parse("192.0.2.1")), source_burst=1)
        for _ in range(5):
            guard.datagramReceived(b"x", PEER)
        guard.datagramReceived(b"x", ("192.0.2.2", 40000))
        self.assertEqual(guard.counters.dropped, {"deny": 5})
