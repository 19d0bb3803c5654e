"""``OK...`` and what was sent."""

from __future__ import annotations

from twisted.internet.testing import FakeDatagramTransport
from twisted.trial.unittest import SynchronousTestCase

from twistednet.protocols import UdpOkProtocol


class UdpOkTests(SynchronousTestCase):
    """`UdpOkProtocol`."""

    def setUp(self) -> None:
        self.protocol = UdpOkProtocol()
        self.protocol.transport = FakeDatagramTransport()

    def ask(self, datagram: bytes) -> list[bytes]:
        """What is sent in answer to `datagram`."""
        self.protocol.transport.written.clear()
        self.protocol.datagramReceived(datagram, ("192.0.2.1", 4000))
        return [packet for packet, _ in self.protocol.transport.written]

    def test_answer(self) -> None:
        """Any datagram is answered, an empty one included."""
        for datagram in (b"hello", b"", b"\x00\xff\n"):
            self.assertEqual(self.ask(datagram), [b"OK..." + datagram])

    def test_longest(self) -> None:
        """65,502 bytes are answered; one more would not fit in a datagram: it is counted, and dropped."""
        self.assertEqual(self.ask(b"x" * 65502), [b"OK..." + b"x" * 65502])
        self.assertEqual(self.ask(b"x" * 65503), [])
        self.assertEqual(self.protocol.dropped, 1)
