"""Everything comes back as it came."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory
from twisted.internet.testing import FakeDatagramTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from tests.wire import OneWayWire, Wire, every_cut, pieces
from twistednet.protocols import EchoClient, EchoDatagramProtocol, EchoFactory


class EchoTests(SynchronousTestCase):
    """`Echo` and its factory."""

    def test_cut_at_every_position(self) -> None:
        """Any bytes come back, wherever they are cut."""
        stream = bytes(range(256))
        for first, second in every_cut(stream):
            wire = Wire.to(EchoFactory()).send(first, second).end()
            self.assertEqual((wire.received, wire.closed), (stream, True))

    @given(st.binary(max_size=500), st.lists(st.integers(0, 50)))
    def test_random_pieces(self, stream: bytes, sizes: list[int]) -> None:
        """Any bytes come back, however they are cut."""
        self.assertEqual(Wire.to(EchoFactory()).send(*pieces(stream, sizes)).end().received, stream)

    def test_never_reads(self) -> None:
        """A peer that sends and never reads fills no more than the transport's buffer and one arrival."""
        wire = Wire.to(EchoFactory())
        for _ in range(1000):
            wire.arrive(b"x" * 65536)
        self.assertEqual(len(wire.waiting), 2 * 65536)

    def test_reads_slowly(self) -> None:
        """A peer that reads in small steps gets everything, its last bytes after its own end included."""
        stream = bytes(range(256)) * 4096
        wire = Wire.to(EchoFactory())
        for piece in pieces(stream, [65536] * 20):
            wire.arrive(piece)
            wire.read(1000)
        wire.end()
        self.assertEqual((wire.received == stream, wire.closed), (True, True))

    def test_independent(self) -> None:
        """Two connections of one factory, and two factories, have nothing to do with each other."""
        factory = EchoFactory()
        wires = [Wire.to(factory), Wire.to(factory), Wire.to(EchoFactory())]
        for number, wire in enumerate(wires):
            wire.send(b"%d" % number)
        self.assertEqual([wire.received for wire in wires], [b"0", b"1", b"2"])


class EchoDatagramTests(SynchronousTestCase):
    """`EchoDatagramProtocol`."""

    def test_answer(self) -> None:
        """A datagram comes back unchanged: an empty one, and the longest."""
        protocol = EchoDatagramProtocol()
        protocol.transport = FakeDatagramTransport()
        sent = [b"", b"\x00\xff", b"x" * 65507]
        for datagram in sent:
            protocol.datagramReceived(datagram, ("192.0.2.1", 4000))
        self.assertEqual([packet for packet, _ in protocol.transport.written], sent)


class EchoClientTests(SynchronousTestCase):
    """`EchoClient`."""

    def setUp(self) -> None:
        self.wire = Wire.to(Factory.forProtocol(EchoClient))
        self.client = cast(EchoClient, self.wire.protocol)

    def test_ask(self) -> None:
        """An answer is there when it is as long as the question, and the next can be asked."""
        asked = self.client.ask(b"hello")
        self.wire.send(b"hel")
        self.assertNoResult(asked)
        self.assertEqual((self.client.owed, self.client.waiting), (2, True))
        self.wire.send(b"lo")
        self.assertEqual(self.successResultOf(asked), b"hello")
        self.assertFalse(self.client.waiting)
        asked = self.client.ask(b"x")
        self.wire.send(b"y")
        self.assertEqual(self.successResultOf(asked), b"y")

    def test_ask_nothing(self) -> None:
        """Nothing is answered by nothing, at once."""
        self.assertEqual(self.successResultOf(self.client.ask(b"")), b"")

    def test_closed_early(self) -> None:
        """A server that closes before it has answered in full leaves a short answer."""
        asked = self.client.ask(b"hello")
        self.wire.send(b"hel").end()
        self.assertEqual(self.successResultOf(asked), b"hel")

    def test_broken(self) -> None:
        """A connection that breaks fails what was asked."""
        asked = self.client.ask(b"hello")
        self.wire.reset()
        self.failureResultOf(asked, ConnectionLost)

    def test_stream(self) -> None:
        """Without a question, bytes stream both ways; the server's close ends it."""
        received: list[bytes] = []
        self.client.received = received.append
        self.client.send(b"hello")
        self.client.end()
        self.wire.send(b"hello")
        self.assertTrue(self.wire.ended)
        self.assertFalse(self.wire.closed)
        self.wire.end()
        self.assertEqual((received, self.wire.closed), ([b"hello"], True))

    def test_stream_without_half_close(self) -> None:
        """Where the end can't be said, the client closes when everything is back."""
        client = EchoClient()
        wire = OneWayWire(client)
        client.makeConnection(wire)
        client.send(b"hello")
        client.end()
        wire.send(b"hel")
        self.assertFalse(wire.closed)
        wire.send(b"lo")
        self.assertTrue(wire.closed)

    def test_stream_under_tls(self) -> None:
        """Under TLS, a server may drop at the end what it owes: that is awaited, and then the end is said."""
        directlyProvides(self.wire, ISSLTransport)
        self.client.send(b"hello")
        self.client.end()
        self.wire.send(b"hel")
        self.assertFalse(self.wire.ended)
        self.wire.send(b"lo")
        self.assertEqual((self.wire.ended, self.wire.closed), (True, False))

    def test_lost_while_idle(self) -> None:
        """The end of a connection of which nothing is asked is nobody's failure."""
        self.wire._lose(ConnectionDone())
        self.assertIsNone(self.successResultOf(self.client.finished()))
