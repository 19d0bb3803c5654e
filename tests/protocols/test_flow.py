"""Half-close, back-pressure, closing first."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.wire import OneWayWire, Wire
from twistednet.protocols.flow import LINGER, StreamClient, StreamFactory, StreamProtocol, set_no_delay


class Goodbye(StreamProtocol):
    """Answers whatever comes first, and closes."""

    def dataReceived(self, data: bytes) -> None:
        if not self.closing:
            self.transport.write(b"goodbye " + data)
            self.close()


class GoodbyeFactory(StreamFactory[Goodbye]):
    protocol = Goodbye


class StreamProtocolTests(SynchronousTestCase):
    """`StreamProtocol` and `StreamFactory`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = GoodbyeFactory(reactor=cast(IReactorTime, self.clock))

    def test_no_delay(self) -> None:
        """TCP_NODELAY is set on a TCP connection."""
        self.assertTrue(Wire.to(self.factory).no_delay)

    def test_no_delay_is_for_tcp(self) -> None:
        """On a Unix socket, where it is an error, TCP_NODELAY is not set; nor where there is no such thing."""
        protocol = self.factory.buildProtocol(None)
        assert protocol is not None
        wire = Wire(protocol)
        wire.peerAddr = UNIXAddress(b"")
        protocol.makeConnection(wire)
        self.assertFalse(hasattr(wire, "no_delay"))
        set_no_delay(cast(ITCPTransport, StringTransport()))

    def test_owing(self) -> None:
        """A protocol that answers at once owes nothing."""
        wire = Wire.to(self.factory)
        self.assertFalse(cast(StreamProtocol, wire.protocol).owing)

    def test_back_pressure(self) -> None:
        """A peer that does not read is not read from, until it does."""
        wire = Wire.to(self.factory)
        wire.protocol.dataReceived = wire.write  # type: ignore[method-assign]
        wire.arrive(b"x" * 65537)
        wire.arrive(b"y")
        self.assertEqual(len(wire.waiting), 65537)
        self.assertEqual(wire.producerState, "paused")
        wire.turn()
        self.assertEqual(wire.received, b"x" * 65537 + b"y")

    def test_half_close_without_question(self) -> None:
        """The end of the peer's stream closes the connection when nothing is owed."""
        self.assertTrue(Wire.to(self.factory).end().closed)

    def test_half_close_delivers(self) -> None:
        """What was written before the end of the peer's stream is delivered before the connection is closed."""
        wire = Wire.to(self.factory)
        wire.write(b"owed")
        wire.end()
        self.assertEqual(wire.received, b"owed")
        self.assertTrue(wire.closed)

    def test_close_first_half_closes(self) -> None:
        """A protocol that closes first ends its own stream and discards what still comes."""
        wire = Wire.to(self.factory).send(b"you")
        self.assertEqual((wire.ended, wire.closed), (True, False))
        wire.send(b"more", b"and more")
        self.assertEqual(wire.received, b"goodbye you")
        self.assertTrue(wire.end().closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_first_lingers(self) -> None:
        """A peer that does not end its stream after its last answer is closed under, when it has had it."""
        wire = Wire.to(self.factory)
        wire.arrive(b"you")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        wire.read()
        self.clock.advance(LINGER - 0.1)
        self.assertFalse(wire.closed)
        self.clock.advance(0.1)
        self.assertTrue(wire.closed)

    def test_close_twice(self) -> None:
        """Closing again does nothing."""
        wire = Wire.to(self.factory).send(b"you")
        cast(Goodbye, wire.protocol).close()
        self.assertTrue(wire.end().closed)
        self.assertEqual(wire.writes, [b"goodbye you"])

    def test_peer_leaves_while_lingering(self) -> None:
        """A peer that resets the connection while we wait for it leaves no timer."""
        wire = Wire.to(self.factory).send(b"you")
        wire.reset()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_half_close(self) -> None:
        """Where a connection can't be half-closed, closing closes it, after what was written."""
        protocol = self.factory.buildProtocol(None)
        assert protocol is not None
        wire = OneWayWire(protocol)
        protocol.makeConnection(wire)
        wire.arrive(b"you")
        self.assertTrue(wire.disconnecting)
        wire.turn()
        self.assertEqual(wire.received, b"goodbye you")
        self.assertTrue(wire.closed)

    def test_global_reactor(self) -> None:
        """A factory that was given no reactor uses the global one, and finds it only when it needs it."""
        from twisted.internet import reactor

        factory = GoodbyeFactory()
        self.assertNotIn("reactor", vars(factory))
        self.assertIs(cast(Any, factory.reactor), reactor)


class StreamClientTests(SynchronousTestCase):
    """`StreamClient`."""

    def connect(self) -> tuple[StreamClient, Wire]:
        """A client, and its connection."""
        factory: Factory[Any] = Factory.forProtocol(StreamClient)
        wire = Wire.to(factory)
        return cast(StreamClient, wire.protocol), wire

    def test_exchange(self) -> None:
        """Bytes go out, the stream ends, and the answer is there when the server has closed."""
        client, wire = self.connect()
        client.send(b"question")
        self.assertFalse(client.waiting)
        client.end()
        wire.send(b"ans", b"wer")
        self.assertTrue(wire.ended)
        finished = client.finished()
        self.assertNoResult(finished)
        wire.end()
        self.assertIsNone(self.successResultOf(finished))
        self.assertEqual((wire.received, client.answer), (b"question", b"answer"))

    def test_broken(self) -> None:
        """A connection that breaks fails what waits for its end, before or after."""
        client, wire = self.connect()
        finished = client.finished()
        wire.reset()
        self.failureResultOf(finished, ConnectionLost)
        self.failureResultOf(client.finished(), ConnectionLost)

    def test_close(self) -> None:
        """The client may close, once what it sent is delivered."""
        client, wire = self.connect()
        client.send(b"question")
        client.close()
        wire.turn()
        self.assertEqual((wire.received, wire.closed), (b"question", True))
        self.assertIsNone(self.successResultOf(client.finished()))

    def test_end_where_it_cannot(self) -> None:
        """Where the connection can't be half-closed, it stays open for the answer."""
        client = StreamClient()
        wire = OneWayWire(client)
        client.makeConnection(wire)
        client.end()
        wire.send(b"answer")
        self.assertEqual((client.answer, wire.ended), (b"answer", False))
        wire._lose(ConnectionDone())
