"""``twistd reverse``: its options and its service."""

from __future__ import annotations

from typing import cast

from tests.services.options import MemoryReactor, ServiceTestCase
from twistednet.protocols.reverse import ReverseFactory
from twistednet.services.reverse import Options, makeService


class ReverseServiceTests(ServiceTestCase):
    """`Options` and `makeService`."""

    def factory(self, *arguments: str) -> tuple[int, ReverseFactory]:
        """The port and the factory that `arguments` make."""
        reactor, options = MemoryReactor(), Options()
        options.parseOptions(arguments)
        makeService(options, reactor).privilegedStartService()
        [(port, factory, _, interface)] = reactor.tcpServers
        self.assertEqual(interface, "127.0.0.1")
        self.assertIs(cast(ReverseFactory, factory).reactor, reactor)
        return port, cast(ReverseFactory, factory)

    def test_defaults(self) -> None:
        """A `ReverseFactory` on the textbook's port, by characters."""
        port, factory = self.factory()
        self.assertEqual((port, factory.unit), (12345, "character"))
        self.assertIsInstance(factory, ReverseFactory)

    def test_unit(self) -> None:
        """--unit is the factory's."""
        self.assertEqual(self.factory("--unit", "byte")[1].unit, "byte")
        self.assertEqual(self.factory("--unit=character")[1].unit, "character")

    def test_refused(self) -> None:
        """A bad option is one line."""
        self.assert_refused(Options, "--unit word: not one of character, byte", "--unit", "word")
        self.assert_refused(Options, "option --udp not recognized", "--udp")

    def test_help(self) -> None:
        """The help text is complete."""
        self.assert_help(Options, "--unit")
