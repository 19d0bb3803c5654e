"""Limits on connections: how many, how long without progress, how long to finish."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.wire import OneWayWire, Wire
from twistednet.policies import limits as module
from twistednet.policies.limits import Drained, LimitedFactory, Limits, bytes_waiting
from twistednet.protocols.counters import Counters
from twistednet.protocols.echo import EchoFactory
from twistednet.protocols.reverse import ReverseFactory

HOST = IPv4Address("TCP", "192.0.2.1", 50000)


class Silent(Protocol):
    """Has one end, and says nothing."""


class LimitedTests(SynchronousTestCase):
    """`LimitedFactory` around factories of ours and others."""

    def setUp(self) -> None:
        self.clock = Clock()
        # A wire is not among the transports that are known.
        self.patch(module, "bytes_waiting", lambda wire: len(wire.waiting))

    def serve(self, factory: Any = None, **limits: float) -> LimitedFactory:
        """`factory`, or echo, under `limits`."""
        self.factory = LimitedFactory(factory or EchoFactory(), Limits(**limits), reactor=self.clock)  # type: ignore[arg-type]
        return self.factory

    def connect(self, address: Any = HOST, wire: type[OneWayWire] = Wire) -> Any:
        """A connection from `address`."""
        protocol = self.factory.buildProtocol(address)
        made = wire(protocol)
        protocol.makeConnection(made)
        return made

    def timed_out(self) -> dict[str, int]:
        """What the counters say."""
        return dict(self.factory.counters.timed_out)


class ManyTests(LimitedTests):
    """How many connections there may be."""

    def test_max_connections(self) -> None:
        """Those beyond are reset, and counted; when one has gone there is room for another."""
        self.serve(max_connections=2)
        first, second = self.connect(), self.connect()
        with capturedLogs() as events:
            third = self.connect()
        self.assertEqual([first.closed, second.closed, third.closed], [False, False, True])
        (event,) = events
        self.assertEqual((event["log_level"], event["limit"], event["value"]), (LogLevel.warn, "max-connections", 2))
        first.reset()
        self.assertFalse(self.connect().closed)
        counters = self.factory.counters
        self.assertEqual((counters.connections, counters.refused), (3, {"max-connections": 1}))

    def test_max_per_host(self) -> None:
        """An address has so many; others are not concerned, and Unix sockets have no addresses."""
        self.serve(max_per_host=1)
        first = self.connect()
        self.assertTrue(self.connect().closed)
        self.assertFalse(self.connect(IPv4Address("TCP", "192.0.2.2", 50000)).closed)
        for _ in range(2):
            self.assertFalse(self.connect(UNIXAddress(None)).closed)
        first.reset()
        self.assertFalse(self.connect().closed)
        self.assertEqual(self.factory.counters.refused, {"max-per-host": 1})

    def test_one_line_a_second(self) -> None:
        """However many are refused, one line a second says so, and of how many."""
        self.serve(max_connections=1)
        self.connect()
        with capturedLogs() as events:
            for _ in range(100):
                self.connect()
            self.clock.advance(1)
            self.connect()
        self.assertEqual([event["left_out"] for event in events], [0, 99])

    def test_nobody_serves(self) -> None:
        """What the factory doesn't serve is not served, and not counted."""

        class Refuses(Factory[Protocol]):
            def buildProtocol(self, addr: Any) -> None:
                return None

        self.assertIsNone(self.serve(Refuses()).buildProtocol(HOST))
        self.assertEqual(self.factory.counters, Counters())

    def test_no_timer_without_time_out(self) -> None:
        """Where no time-out is set, none is running."""
        self.serve(max_connections=5)
        self.connect().send(b"hello")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TimeOutTests(LimitedTests):
    """How long connections may go without progress."""

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass, a tenth at a time."""
        self.clock.pump([0.1] * round(10 * seconds))

    def test_idle(self) -> None:
        """A connection on which nothing moves is closed; any octet is a beginning anew."""
        self.serve(idle_timeout=10)
        wire = self.connect()
        self.pass_time(9)
        wire.send(b"x")
        self.pass_time(9.5)
        self.assertFalse(wire.closed)
        self.pass_time(2)
        wire.turn()
        self.assertTrue(wire.closed)
        self.assertEqual((wire.received, self.timed_out()), (b"x", {"idle": 1}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reading_is_progress(self) -> None:
        """A peer that reads what waits for it is not idle, though it sends nothing."""
        self.serve(idle_timeout=5, write_timeout=5)
        wire = self.connect()
        wire.arrive(b"x" * 60000)
        for _ in range(10):
            self.pass_time(4)
            wire.read(100)
        self.assertFalse(wire.closed)

    def test_does_not_close(self) -> None:
        """A connection that doesn't close when it is told to is reset."""
        self.serve(idle_timeout=5)
        wire = self.connect()
        self.pass_time(5.5)
        self.assertTrue(wire.disconnecting)
        self.assertFalse(wire.closed)
        self.pass_time(1)
        self.assertTrue(wire.closed)
        self.assertEqual(self.timed_out(), {"idle": 1})

    def test_write(self) -> None:
        """A peer that doesn't read is reset, and so is one that goes on sending to one that has stopped."""
        self.serve(write_timeout=5)
        wire = self.connect()
        wire.arrive(b"x" * 1000)
        for _ in range(15):
            self.pass_time(0.5)
            if not wire.closed:
                wire.arrive(b"y")
        self.assertTrue(wire.closed)
        self.assertEqual(wire.received, b"")
        self.assertEqual(self.timed_out(), {"write": 1})

    def test_write_of_who_has_read(self) -> None:
        """Nothing waits for a peer that has read everything: it may be silent as long as it likes."""
        self.serve(write_timeout=5)
        wire = self.connect().send(b"hello")
        self.pass_time(60)
        self.assertFalse(wire.closed)

    def test_message(self) -> None:
        """A message that doesn't end is cut, however many octets of it come; one after another is fine."""
        self.serve(ReverseFactory(reactor=self.clock), message_timeout=5, idle_timeout=100)
        dripping, good = self.connect().send(b"\n"), self.connect().send(b"\n")
        for _ in range(75):
            self.pass_time(0.1)
            if not dripping.closed:
                dripping.send(b"x")
            good.send(b"ab\nc")
        self.assertEqual((dripping.closed, good.closed, dripping.received), (True, False, b"\n"))
        self.assertEqual(self.timed_out(), {"message": 1})

    def test_off(self) -> None:
        """0 is no time-out."""
        self.serve(ReverseFactory(reactor=self.clock), idle_timeout=100)
        wire = self.connect().send(b"\nx")
        wire.arrive(b"a\n")
        self.pass_time(90)
        self.assertFalse(wire.closed)


class KeptTests(LimitedTests):
    """What is kept of the protocol and of the transport."""

    def test_half_close(self) -> None:
        """The end of input is passed on, and loses nothing."""
        self.serve(idle_timeout=300)
        wire = self.connect()
        for _ in range(10):
            wire.arrive(b"x" * 60000)
        wire.end()
        self.assertEqual((len(wire.received), wire.closed), (600000, True))

    def test_one_end(self) -> None:
        """A protocol that has one end is not told of half-close: its connection is closed, as Twisted does."""
        self.serve(Factory.forProtocol(Silent))
        wire = self.connect()
        self.assertFalse(IHalfCloseableProtocol.providedBy(wire.protocol))
        self.assertTrue(wire.end().closed)

    def test_interfaces(self) -> None:
        """The protocol's transport provides what the transport does."""
        self.serve()
        wire = self.connect()
        self.assertTrue(ITransport.providedBy(wire.protocol.wrappedProtocol.transport))

    def test_counters(self) -> None:
        """Octets and messages are counted, those of open connections too, each once."""
        self.serve(ReverseFactory(reactor=self.clock), idle_timeout=300)
        wire, gone = self.connect(), self.connect()
        wire.send(b"ab\n", b"cd\nx")
        gone.send(b"12345\n").reset()
        for _ in range(3):
            counters = self.factory.counters
            self.assertEqual(
                (counters.connections, counters.bytes_received, counters.bytes_sent, counters.messages), (2, 13, 12, 3)
            )
            self.clock.advance(1)

    def test_write_sequence(self) -> None:
        """What a protocol writes in pieces is counted as well."""
        self.serve(Factory.forProtocol(Silent))
        wire = self.connect()
        wire.protocol.wrappedProtocol.transport.writeSequence([b"hel", b"lo"])
        self.assertEqual((wire.read(), self.factory.counters.bytes_sent), (b"hello", 5))

    def test_names(self) -> None:
        """The log names the factory that is served."""
        self.assertEqual(LimitedFactory(EchoFactory(), Limits()).logPrefix(), "EchoFactory")

    def test_start_and_stop(self) -> None:
        """The factory is told of the first port and of the last."""
        served: Factory[Any] = Factory()
        served.noisy = False
        factory = self.serve(served)
        factory.doStart()
        self.assertEqual(served.numPorts, 1)
        factory.doStop()
        self.assertEqual(served.numPorts, 0)


class DrainTests(LimitedTests):
    """The end of a service."""

    def drain(self, seconds: float = 10) -> Deferred[Drained]:
        """Drain for `seconds`."""
        return self.factory.drain(seconds)

    def test_nobody(self) -> None:
        """Without connections it is over at once."""
        self.serve(idle_timeout=5)
        self.assertEqual(self.successResultOf(self.drain()), Drained(0, 0, 0))

    def test_idle_and_busy(self) -> None:
        """Idle ones are closed at once, others when they have delivered what they owe, and the rest are reset."""
        self.serve(idle_timeout=300)
        idle, slow, stuck = self.connect(), self.connect(), self.connect()
        slow.arrive(b"x" * 1000)
        stuck.arrive(b"y" * 1000)
        drained = self.drain()
        self.clock.pump([0.1] * 2)
        idle.read()
        self.assertEqual([idle.ended, slow.ended, stuck.ended], [True, False, False])
        idle.end()
        for _ in range(10):
            slow.read(100)
            self.clock.advance(0.1)
        self.clock.pump([0.1] * 3)
        slow.read()
        self.assertEqual((slow.received, slow.ended), (b"x" * 1000, True))
        slow.end()
        self.assertNoResult(drained)
        self.clock.pump([0.1] * 100)
        self.assertEqual(self.successResultOf(drained), Drained(idle=1, finished=1, reset=1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_message_under_way(self) -> None:
        """A message that has begun may end, and is answered."""
        self.serve(ReverseFactory(reactor=self.clock))
        wire = self.connect().send(b"\nab")
        drained = self.drain()
        self.clock.pump([0.1] * 10)
        wire.send(b"c\n")
        self.clock.pump([0.1] * 3)
        wire.read()
        self.assertEqual((wire.received, wire.ended), (b"\ncba\n", True))
        wire.end()
        self.assertEqual(self.successResultOf(drained), Drained(idle=0, finished=1, reset=0))

    def test_others(self) -> None:
        """A protocol that can't be drained is closed as Twisted closes."""
        self.serve(Factory.forProtocol(Silent))
        wire = self.connect()
        drained = self.drain()
        self.clock.advance(0.1)
        wire.read()
        self.assertTrue(wire.closed)
        self.assertEqual(self.successResultOf(drained), Drained(idle=1, finished=0, reset=0))

    def test_second_signal(self) -> None:
        """All are reset where it is asked for."""
        self.serve()
        wires = [self.connect(), self.connect()]
        drained = self.drain()
        self.factory.reset()
        self.assertEqual(self.successResultOf(drained), Drained(idle=0, finished=0, reset=2))
        self.assertTrue(all(wire.closed for wire in wires))


class BytesWaitingTests(SynchronousTestCase):
    """`bytes_waiting`; the live tests of limits see it on real transports."""

    def test_unknown(self) -> None:
        """A transport that is not known keeps nothing, whatever is around it."""
        wrapper = ProtocolWrapper(WrappingFactory(Factory()), Silent())
        wrapper.transport = object()  # type: ignore[assignment]
        self.assertEqual(bytes_waiting(wrapper), 0)

    def test_global_reactor(self) -> None:
        """Without a reactor, the global one is the clock."""
        from twisted.internet import reactor

        self.assertIs(LimitedFactory(EchoFactory(), Limits()).reactor, reactor)
