"""What the tests of every service's options and service need."""

from __future__ import annotations

from typing import Any, cast

from twisted.application.service import IService, IServiceCollection
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from twistednet.policies.datagrams import GuardedDatagramProtocol
from twistednet.services.base import (
    DatagramServiceOptions,
    ListeningService,
    ServiceOptions,
    StartError,
    StreamServiceOptions,
)


class MemoryReactor(MemoryReactorClock):
    """A reactor in memory that remembers datagram sockets too, and of a factory under limits the factory."""

    def __init__(self) -> None:
        super().__init__()
        self.udp: list[tuple[int, DatagramProtocol, str]] = []
        self.unix_datagrams: list[tuple[str, DatagramProtocol]] = []

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """As `IReactorTCP` has it; the port is where it was asked to be."""
        listening = super().listenTCP(port, getattr(factory, "wrapped", factory), backlog, interface)
        if interface:
            listening.getHost = lambda: (IPv6Address if ":" in interface else IPv4Address)("TCP", interface, port)
        return listening

    def listenUNIX(self, address: Any, factory: Any, *how: Any, **more: Any) -> Any:
        """As `IReactorUNIX` has it."""
        return super().listenUNIX(address, getattr(factory, "wrapped", factory), *how, **more)

    def listenUDP(self, port: int, protocol: DatagramProtocol, interface: str = "") -> Any:
        """As `IReactorUDP` has it."""
        self.udp.append((port, protocol, interface))
        return super().listenTCP(port, None, interface=interface)

    def listenUNIXDatagram(self, address: str, protocol: DatagramProtocol) -> Any:
        """As `IReactorUNIXDatagram` has it."""
        self.unix_datagrams.append((address, protocol))
        return super().listenUNIX(address.encode(), None)


def behind_guard(protocol: DatagramProtocol) -> Any:
    """What the guard that `protocol` is guards."""
    assert isinstance(protocol, GuardedDatagramProtocol), protocol
    return protocol.protocol


class ServiceTestCase(SynchronousTestCase):
    """Options as they are given to ``twistd``, and the services that they make."""

    def under_twistd(self, options: ServiceOptions) -> ServiceOptions:
        """`options` as a command of ``twistd``."""
        options.parent = usage.Options()
        return options

    def assert_refused(self, make: type[ServiceOptions], message: str, *arguments: str) -> None:
        """`arguments` raise `UsageError`, or under twistd a one-line `StartError`."""
        wrong = self.assertRaises(usage.UsageError, make().parseOptions, arguments)
        self.assertEqual(str(wrong), message)
        exits = self.assertRaises(StartError, self.under_twistd(make()).parseOptions, arguments)
        command = make.command
        self.assertEqual(exits.code, f"twistd {command}: {message} (see twistd {command} --help)")

    def assert_help(self, make: type[ServiceOptions], *own: str) -> None:
        """The help text has the common options and its `own`, and no doubled spaces in what it says of them."""
        text = str(make())
        self.assertTrue(text.startswith(f"Usage: twistd [twistd's options] {make.command} [options]\nOptions:\n"))
        options, _, about = text.partition("Options:\n")[2].partition("\n\n")
        lines = options.splitlines()
        # Each begins with the option, in a column of its own; what follows is what it says.
        column = min(line.index("Display this help") for line in lines if "--help " in line)
        named = [line[:column].split() for line in lines if line[:column].strip()]
        limits = (
            {f"--{row[0]}" for row in cast(Any, StreamServiceOptions.optParameters)}
            if issubclass(make, StreamServiceOptions)
            else ()
        )
        datagram = ("--source-rate", "--source-burst", "--no-guard") if issubclass(make, DatagramServiceOptions) else ()
        self.assertEqual(
            {option.rstrip("=") for names in named for option in names if option.startswith("--")},
            {"--help", "--interface", "--listen", "--log-json", "--port", "--version", *limits, *datagram, *own},
        )
        said = " ".join(line[column:] for line in lines)
        self.assertNotIn("  ", said)
        self.assertIn(f"[default: {make.default_port}]", said)
        self.assertIn("[default: 127.0.0.1]", said)
        self.assertEqual(" ".join(about.split()), vars(make)["longdesc"])

    def descriptions(self, service: IService) -> list[str]:
        """The endpoints of `service`, as the user would write them."""
        return [listening.description for listening in self.listening(service)]

    def listening(self, service: IService) -> list[ListeningService]:
        """The listening services of which `service` is made, or what it is made of."""
        if isinstance(service, ListeningService):
            return [service]
        parts = IServiceCollection(service) if IServiceCollection.providedBy(service) else ()
        return [listening for part in parts for listening in self.listening(part)]
