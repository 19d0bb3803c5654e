"""``twistd udpok``: its options and its service."""

from __future__ import annotations

from tests.services.options import MemoryReactor, ServiceTestCase, behind_guard
from twistednet.protocols.udpok import UdpOkProtocol
from twistednet.services.base import StartError
from twistednet.services.udpok import Options, makeService


class UdpOkServiceTests(ServiceTestCase):
    """`Options` and `makeService`."""

    def test_defaults(self) -> None:
        """A `UdpOkProtocol` on the textbook's port, on the loopback interface, and no stream."""
        reactor, options = MemoryReactor(), Options()
        options.parseOptions([])
        service = makeService(options, reactor)
        self.assertEqual(self.descriptions(service), ["udp:8888:interface=127.0.0.1"])
        service.privilegedStartService()
        [(port, protocol, interface)] = reactor.udp
        self.assertEqual((port, interface), (8888, "127.0.0.1"))
        self.assertIsInstance(behind_guard(protocol), UdpOkProtocol)

    def test_no_streams(self) -> None:
        """There is no stream form."""
        options = Options()
        options.parseOptions(["--listen", "tcp:0"])
        error = self.assertRaises(StartError, makeService, options, MemoryReactor())
        self.assertEqual(error.code, "twistd udpok: --listen tcp:0: udpok has no stream form; try udp:")

    def test_refused(self) -> None:
        """A bad option is one line."""
        self.assert_refused(Options, "option --udp not recognized", "--udp")
        self.assert_refused(Options, "--port x: not a whole number from 0 to 65535", "--port", "x")

    def test_help(self) -> None:
        """The help text is complete."""
        self.assert_help(Options)
