"""``twistd echo``: its options and its service."""

from __future__ import annotations

from tests.services.options import MemoryReactor, ServiceTestCase, behind_guard
from twistednet.protocols.echo import EchoDatagramProtocol, EchoFactory
from twistednet.services.echo import Options, makeService


class EchoServiceTests(ServiceTestCase):
    """`Options` and `makeService`."""

    def test_defaults(self) -> None:
        """An `EchoFactory` on the textbook's port, on the loopback interface."""
        reactor, options = MemoryReactor(), Options()
        options.parseOptions([])
        makeService(options, reactor).privilegedStartService()
        [(port, factory, _, interface)] = reactor.tcpServers
        self.assertEqual((port, interface), (2000, "127.0.0.1"))
        self.assertIsInstance(factory, EchoFactory)
        self.assertEqual(reactor.udp, [])

    def test_udp(self) -> None:
        """With --udp an `EchoDatagramProtocol` too."""
        reactor, options = MemoryReactor(), Options()
        options.parseOptions(["--udp", "--port", "7", "--interface", "0.0.0.0"])
        makeService(options, reactor).privilegedStartService()
        [(port, protocol, interface)] = reactor.udp
        self.assertEqual((port, interface), (7, "0.0.0.0"))
        self.assertIsInstance(behind_guard(protocol), EchoDatagramProtocol)
        self.assertEqual(reactor.tcpServers[0][::3], (7, "0.0.0.0"))

    def test_refused(self) -> None:
        """A bad option is one line."""
        self.assert_refused(Options, "--port -1: not a whole number from 0 to 65535", "--port", "-1")
        self.assert_refused(Options, "option --udp must not have an argument", "--udp=1")

    def test_help(self) -> None:
        """The help text is complete."""
        self.assert_help(Options, "--udp")
