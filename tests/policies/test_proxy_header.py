"""The PROXY protocol: whose headers are believed, and what is refused before and after them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.policies.test_half_close import OneEnd, Peer, recording
from tests.wire import Wire, every_cut
from twistednet.policies.addresses import AddressRules, Networks
from twistednet.policies.limits import LimitedFactory, Limits
from twistednet.policies.proxy_header import HEADER_TIMEOUT, HalfClosingProxyFactory
from twistednet.protocols import ChargenFactory, EchoFactory, ReverseFactory

V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 2000\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x0f\xa0\x07\xd0"

BALANCER = IPv4Address("TCP", "127.0.0.1", 40000)


def clock() -> IReactorTime:
    """A clock that stands still."""
    return cast(IReactorTime, Clock())


class Unreachable(Factory[Protocol]):
    """Fails the test when a protocol is asked for."""

    noisy = False

    def buildProtocol(self, addr: Any) -> Protocol:
        raise AssertionError(addr)


class ProxiedTests(SynchronousTestCase):
    """`HalfClosingProxyFactory`."""

    def connect(self, factory: Any = None) -> Wire:
        """A connection that has brought nothing yet."""
        return Wire.to(HalfClosingProxyFactory(factory or recording(), reactor=clock()))

    def test_last_message(self) -> None:
        """A last message without an ending is answered after the peer's end, however the header and it were cut."""
        for header in (V1, V2):
            for cut in every_cut(header + b"ab\ncd"):
                wire = self.connect(ReverseFactory(reactor=clock()))
                wire.send(*filter(None, cut)).end()
                self.assertEqual((wire.received, wire.closed), (b"ba\ndc", True))

    def test_bytes(self) -> None:
        """A header may come byte by byte."""
        for header in (V1, V2, b"PROXY UNKNOWN\r\n"):
            wire = self.connect(EchoFactory())
            wire.send(*(bytes([byte]) for byte in header + b"hello")).end()
            self.assertEqual((wire.received, wire.closed), (b"hello", True))

    def test_addresses(self) -> None:
        """The addresses are those of the header."""
        v6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
        for header, source, destination in (
            (V1, IPv4Address("TCP", "192.0.2.1", 4000), IPv4Address("TCP", "192.0.2.2", 2000)),
            (V2, IPv4Address("TCP", "192.0.2.1", 4000), IPv4Address("TCP", "192.0.2.2", 2000)),
            (v6, IPv6Address("TCP", "2001:db8::1", 1), IPv6Address("TCP", "2001:db8::2", 65535)),
        ):
            wrapper = cast(Any, self.connect().send(header).protocol)
            self.assertEqual((wrapper.getPeer(), wrapper.getHost()), (source, destination))

    def test_closes_first(self) -> None:
        """A protocol that closes first ends its own stream only."""
        wire = self.connect().send(V1)
        cast(Any, wire.protocol).loseWriteConnection()
        wire.turn()
        self.assertEqual((wire.ended, wire.closed), (True, False))

    def test_no_header(self) -> None:
        """What is no header resets the connection; nobody inside sees any of it, and nothing is raised."""
        for junk in (
            b"x",
            b"GET / HTTP/1.0\r\n\r\n",
            b"PROX\r\n",
            b"PROXY\r\n",
            b"PROXYX TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n",
            b"PROXY TCP4 1.2.3.4 \x1b[2J 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 \xff\xfe 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2\0.3.4 1 1\r\n",
            b"PROXY TCP6 ::1%\x1b[2J ::1 1 1\r\n",
            b"PROXY " + b"x" * 200,
            V2[:12] + b"\x31" + V2[13:],
            V2[:13] + b"\xff" + V2[14:],
            V2[:14] + b"\0\1\0",
        ):
            wire = self.connect(Unreachable())
            for cut in pairwise([*range(0, len(junk), 7), len(junk)]):
                wire.arrive(junk[slice(*cut)])
            self.assertEqual((wire.received, wire.closed), (b"", True), junk)

    @settings(deadline=None)
    @given(
        st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", V1, V2, V2[:12]]), st.binary(max_size=80), st.integers(1, 99)
    )
    def test_junk(self, start: bytes, junk: bytes, size: int) -> None:
        """Nothing that is sent raises; at its end nothing is left open."""
        data = start + junk
        wire = self.connect(EchoFactory())
        for i in range(0, len(data), size):
            wire.arrive(data[i : i + size])
        self.assertTrue(wire.end().closed)

    def test_refused_once(self) -> None:
        """What comes after a bad header is not looked at, nor kept."""
        wire = self.connect(Unreachable())
        wrapper = cast(Any, wire.protocol)
        wire.abortConnection = lambda: None  # type: ignore[method-assign]
        wire.send(b"PROXY x\r\n", b"y" * 1000, V1)
        self.assertEqual(wrapper._parser.buffer, b"")

    def test_end_before_header(self) -> None:
        """A peer that ends before its header has ended is reset."""
        for start in (b"", b"PRO", V2[:15], V1[:-1]):
            wire = self.connect(Unreachable())
            if start:
                wire.send(start)
            self.assertTrue(wire.end().closed)

    def test_one_end(self) -> None:
        """A protocol that has one end is lost at the peer's."""
        wire = self.connect(recording(OneEnd)).send(V1 + b"all")
        protocol = cast(Any, wire.protocol).wrappedProtocol
        self.assertTrue(wire.end().closed)
        self.assertEqual(protocol.seen, [b"all", "lost"])

    def test_in_tls(self) -> None:
        """A header inside TLS: the end goes all the way through, in and out."""
        for header in (V1, V2):
            peer = Peer(HalfClosingProxyFactory(ReverseFactory(reactor=clock()), reactor=clock()))
            peer.write(header).write(b"ab\ncd").end().turn()
            self.assertEqual((peer.received, peer.ended, peer.wire.closed), (b"ba\ndc", True, True))

    def test_no_header_in_tls(self) -> None:
        """What is no header inside TLS resets the connection, though a producer is registered."""
        peer = Peer(HalfClosingProxyFactory(ChargenFactory(), reactor=clock()))
        self.assertTrue(peer.write(b"hello").turn().wire.closed)


class PausesFirst(Protocol):
    """Pauses as soon as it is connected."""

    def connectionMade(self) -> None:
        self.seen: list[bytes] = []
        cast(Any, self.transport).pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.seen.append(data)


class ClosesFirst(PausesFirst):
    """Closes as soon as it is connected."""

    def connectionMade(self) -> None:
        self.seen = []
        cast(Any, self.transport).loseConnection()


class DeliveryTests(SynchronousTestCase):
    """What comes in one piece with the header."""

    def connect(self, kind: type[Protocol]) -> tuple[Wire, Clock, Any]:
        """A connection whose header and next four bytes have come in one piece, and its protocol."""
        ticking = Clock()
        wire = Wire.to(HalfClosingProxyFactory(recording(kind), reactor=cast(IReactorTime, ticking)))
        wire.arrive(V2 + b"rest")
        return wire, ticking, cast(Any, wire.protocol).wrappedProtocol

    def test_paused(self) -> None:
        """A protocol that has paused gets it when it resumes, and what comes later after that."""
        wire, ticking, protocol = self.connect(PausesFirst)
        wire.arrive(b"more")
        self.assertEqual(protocol.seen, [])
        protocol.transport.resumeProducing()
        self.assertEqual(protocol.seen, [])
        ticking.advance(0)
        wire.turn()
        self.assertEqual(protocol.seen, [b"rest", b"more"])

    def test_paused_again(self) -> None:
        """A protocol that resumes and pauses in one turn is given nothing."""
        wire, ticking, protocol = self.connect(PausesFirst)
        protocol.transport.resumeProducing()
        protocol.transport.pauseProducing()
        ticking.advance(0)
        wire.turn()
        self.assertEqual(protocol.seen, [])
        protocol.transport.resumeProducing()
        ticking.advance(0)
        self.assertEqual(protocol.seen, [b"rest"])

    def test_lost_while_paused(self) -> None:
        """Of a connection that is lost meanwhile no timer is left."""
        wire, ticking, protocol = self.connect(PausesFirst)
        protocol.transport.resumeProducing()
        wire.reset()
        self.assertEqual((protocol.seen, ticking.getDelayedCalls()), ([], []))

    def test_closed(self) -> None:
        """A protocol that has closed is given nothing."""
        _, _, protocol = self.connect(ClosesFirst)
        self.assertEqual(protocol.seen, [])


class LimitedTests(SynchronousTestCase):
    """`HalfClosingProxyFactory` around a `LimitedFactory`."""

    def serve(self, *, rules: AddressRules | None = None, factory: Any = None, **limits: Any) -> None:
        """Serve `factory`, or echo."""
        self.clock = Clock()
        self.limited = LimitedFactory(
            factory or EchoFactory(), Limits(**limits), rules=rules, reactor=cast(IReactorTime, self.clock)
        )
        self.factory = HalfClosingProxyFactory(self.limited)

    def connect(self, *sent: bytes, address: Any = BALANCER) -> Wire:
        """A connection of the balancer's."""
        protocol = self.factory.buildProtocol(address)
        wire = Wire(protocol)
        protocol.makeConnection(wire)
        return wire.send(*sent)

    def refused(self) -> dict[str, int]:
        """What the counters say."""
        return dict(self.limited.counters.refused)

    def test_strangers(self) -> None:
        """Headers are believed from loopback and Unix sockets only; others are reset before they send any."""
        self.serve()
        for address in (
            BALANCER,
            IPv4Address("TCP", "127.0.0.2", 1),
            IPv6Address("TCP", "::1", 1),
            IPv6Address("TCP", "::ffff:127.0.0.1", 1),
            UNIXAddress(None),
        ):
            self.assertFalse(self.connect(V2, address=address).closed, address)
        with capturedLogs() as events:
            for host in ("192.0.2.1", "10.0.0.1"):
                self.assertTrue(self.connect(address=IPv4Address("TCP", host, 1)).closed)
        self.assertTrue(self.connect(address=IPv6Address("TCP", "2001:db8::1", 1)).closed)
        self.assertEqual(self.refused(), {"proxy-from": 3})
        (event,) = events
        self.assertEqual((event["client"], event["limit"]), ("TCP 192.0.2.1:1", "proxy-from"))

    def test_other_proxies(self) -> None:
        """With other balancers loopback is believed no more; they can be replaced at any time."""
        self.serve()
        self.factory.proxies = Networks.parse("192.0.2.0/24")
        self.assertTrue(self.connect().closed)
        self.assertFalse(self.connect(V1, address=IPv4Address("TCP", "192.0.2.1", 1)).closed)
        self.assertFalse(self.connect(V1, address=UNIXAddress(None)).closed)

    def test_per_host(self) -> None:
        """The limit for each host counts the clients, not the balancer, however the header is cut."""
        other = V1.replace(b"192.0.2.1 ", b"192.0.2.9 ")
        mapped = b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4000 2000\r\n"
        for header in (V1, V2, mapped):
            for cut in every_cut(header):
                self.serve(max_per_host=1)
                self.assertFalse(self.connect(*filter(None, cut)).closed)
                self.assertFalse(self.connect(other).closed)
                self.assertTrue(self.connect(*filter(None, cut)).closed)
                self.assertEqual(self.refused(), {"max-per-host": 1})

    def test_rules(self) -> None:
        """The address rules are applied to the client, and not to the balancer; nothing after the header is seen."""
        self.serve(rules=AddressRules(deny=Networks.parse("192.0.2.1")))
        with capturedLogs() as events:
            for header in (V1, V2):
                for cut in every_cut(header + b"hello"):
                    wire = self.connect(*filter(None, cut))
                    self.assertEqual((wire.closed, wire.received), (True, b""))
        self.assertEqual([event["client"] for event in events], ["TCP 192.0.2.1:4000"])
        self.assertEqual(self.connect(V1.replace(b"2.1 ", b"2.3 ") + b"hello").received, b"hello")
        self.assertEqual(set(self.refused()), {"deny"})
        self.serve(rules=AddressRules(allow=Networks.parse("192.0.2.0/24")))
        self.assertEqual(self.connect(V2 + b"hello").received, b"hello")

    def test_balancers_own(self) -> None:
        """The client of a connection of the balancer's own is the balancer."""
        local = V2[:12] + b"\x20\0\0\0"
        self.serve(rules=AddressRules(deny=Networks.parse("127.0.0.0/8")))
        for header in (local, b"PROXY UNKNOWN\r\n"):
            self.assertTrue(self.connect(header).closed)
            self.assertFalse(self.connect(header, address=UNIXAddress(None)).closed)
        self.assertEqual(self.refused(), {"deny": 2})

    def test_max_connections(self) -> None:
        """Connections that wait for their headers count towards the limit, and keep their places."""
        self.serve(max_connections=2)
        first, second = self.connect(), self.connect(V1)
        self.assertTrue(self.connect().closed)
        self.assertFalse(first.send(V1).closed)
        self.assertTrue(self.connect().closed)
        second.reset()
        waiting = self.connect()
        self.assertFalse(waiting.closed)
        waiting.reset()
        self.assertFalse(self.connect(V2).closed)
        self.assertEqual(self.refused(), {"max-connections": 2})

    def test_time_out(self) -> None:
        """A header that has not come in time, be it dripping, resets the connection; one that has stops the time."""
        self.serve()
        silent, dripping, complete = self.connect(), self.connect(b"PROX"), self.connect(V1)
        self.clock.advance(HEADER_TIMEOUT / 2)
        dripping.send(b"Y")
        self.assertEqual((silent.closed, dripping.closed), (False, False))
        with capturedLogs() as events:
            self.clock.advance(HEADER_TIMEOUT / 2)
        self.assertEqual((silent.closed, dripping.closed, complete.closed), (True, True, False))
        self.assertEqual(self.limited.counters.timed_out, {"proxy-header": 2})
        self.assertEqual([event["client"] for event in events], ["TCP 127.0.0.1:40000"])
        self.assertEqual((self.limited.waiting, self.clock.getDelayedCalls()), ({}, []))

    def test_no_time_out(self) -> None:
        """With 0 a header may take any time."""
        self.serve()
        self.factory.header_timeout = 0
        self.connect()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wrong_header(self) -> None:
        """What is no header is counted, and so is an end before the end of one."""
        self.serve()
        self.assertTrue(self.connect(b"GET / HTTP/1.1\r\n").closed)
        self.assertTrue(self.connect(b"PROXY ").end().closed)
        self.assertEqual(self.refused(), {"proxy-header": 2})
        self.assertEqual((self.limited.waiting, self.clock.getDelayedCalls()), ({}, []))

    def test_no_protocol(self) -> None:
        """A client for which the service has no protocol is reset, and counted."""

        class Refuses(Factory[Protocol]):
            noisy = False

            def buildProtocol(self, addr: Any) -> None:
                return None

        self.serve(factory=Refuses())
        self.assertTrue(self.connect(V1 + b"hello").closed)
        self.assertEqual(self.refused(), {"service": 1})
        self.assertTrue(Wire.to(HalfClosingProxyFactory(Refuses(), reactor=clock())).send(V1 + b"hello").closed)

    def test_two_headers(self) -> None:
        """Behind two balancers the second header names the client, if the first names one that is believed."""
        self.serve(rules=AddressRules(deny=Networks.parse("192.0.2.1")))
        inner = HalfClosingProxyFactory(self.limited, proxies=Networks.parse("::/0", "192.0.2.3"))
        self.factory = HalfClosingProxyFactory(inner)
        balancer = V1.replace(b"2.1 ", b"2.3 ")
        client = V1.replace(b"2.1 ", b"2.4 ")
        for first, second, closed in ((V1, client, True), (balancer, V1, True), (balancer, client, False)):
            wire = self.connect(first + second + b"hello")
            self.assertEqual((wire.closed, wire.received), (closed, b"" if closed else b"hello"))
            self.assertTrue(wire.end().closed)
        self.assertEqual(self.refused(), {"proxy-from": 1, "deny": 1})
        self.assertEqual((self.limited.waiting, self.clock.getDelayedCalls()), ({}, []))

    def test_drained(self) -> None:
        """A service that stops does not wait for headers."""
        self.serve()
        wire = self.connect()
        self.successResultOf(self.limited.drain(10))
        self.assertTrue(wire.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peer(self) -> None:
        """The protocol inside the limits sees the client's address."""
        self.serve(factory=recording())
        wire = self.connect(V1)
        (connection,) = self.limited.connections
        self.assertEqual(connection.protocol.transport.getPeer(), IPv4Address("TCP", "192.0.2.1", 4000))
        self.assertEqual(cast(Any, wire.protocol).logPrefix(), "Factory (PROXY)")
