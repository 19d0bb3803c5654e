"""``twistd wps``: its options and its service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from twisted.internet.address import IPv4Address
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher

from tests.services.options import MemoryReactor, ServiceTestCase
from tests.services.test_commands import COMMAND_OPTIONS
from twistednet.protocols.wps import CommandFactory
from twistednet.services import wps
from twistednet.services.base import StartError
from twistednet.services.wps import Options, makeService

TABLE: Mapping[str, Sequence[str]] = {"ps": ("/bin/sh",), "w": ("/nowhere/w",)}


class WpsServiceTests(ServiceTestCase):
    """`Options` and `makeService`."""

    def setUp(self) -> None:
        # What this machine has is not what is tested.
        self.patch(wps, "COMMANDS", TABLE)

    def factory(self, *arguments: str) -> CommandFactory:
        """The factory that `arguments` make."""
        self.reactor, options = MemoryReactor(), Options()
        options.parseOptions(arguments)
        makeService(options, self.reactor).privilegedStartService()
        factory = self.reactor.tcpServers[0][1]
        self.assertIsInstance(factory, CommandFactory)
        return cast(CommandFactory, factory)

    def test_defaults(self) -> None:
        """A `CommandFactory` on the textbook's port; of w and ps, those that there are."""
        factory = self.factory()
        self.assertEqual(self.reactor.tcpServers, [(8888, factory, 50, "127.0.0.1")])
        self.assertEqual(factory.commands, {"ps": ["/bin/sh"]})
        self.assertIs(factory.reactor, self.reactor)

    def test_neither(self) -> None:
        """Where there is neither, and no --command, the service does not start."""
        self.patch(wps, "COMMANDS", {"w": ("/nowhere/w",)})
        error = self.assertRaises(StartError, makeService, Options(), MemoryReactor())
        self.assertEqual(
            error.code, "twistd wps: this machine has neither w nor ps in /usr/bin; name a command with --command"
        )

    def test_commands(self) -> None:
        """--command replaces w and ps by its own table, quoted as for a shell; the last of a name counts."""
        factory = self.factory(
            "--command",
            "list=/bin/sh",
            "-c",
            "say=/bin/sh -c 'two words' \"it's\" a\\ b ''",
            "--command=list=/bin/sh x=y",
        )
        self.assertEqual(
            factory.commands,
            {"list": ["/bin/sh", "x=y"], "say": ["/bin/sh", "-c", "two words", "it's", "a b", ""]},
        )

    def test_tables_are_their_own(self) -> None:
        """The commands of one are not in the next."""
        self.factory("--command", "list=/bin/sh")
        self.assertEqual(self.factory().commands, {"ps": ["/bin/sh"]})

    def test_refused(self) -> None:
        """A bad row is one line."""
        for row, why in (
            ("w", "not NAME=/absolute/path [ARGUMENT...]"),
            ("=/bin/sh", "not NAME=/absolute/path [ARGUMENT...]"),
            ("w=", "not NAME=/absolute/path [ARGUMENT...]"),
            ("w=sh", "not NAME=/absolute/path [ARGUMENT...]"),
            ("w=./sh", "not NAME=/absolute/path [ARGUMENT...]"),
            ("w=/bin/sh 'x", "No closing quotation"),
            ("w=/nowhere/w", "/nowhere/w is not a program that can be run"),
            ("w=/", "/ is not a program that can be run"),
            ("w=/etc/passwd", "/etc/passwd is not a program that can be run"),
        ):
            self.assert_refused(Options, f"--command {row}: {why}", "--command", row)

    def test_bad_name(self) -> None:
        """A name that could not be sent is one line."""
        for name in (" w", "w\n", "\x1b"):
            options = Options()
            options.parseOptions(["--command", f"{name}=/bin/sh"])
            error = self.assertRaises(StartError, makeService, options, MemoryReactor())
            self.assertEqual(error.code, f"twistd wps: --command: {name!r} can't be the name of a command")

    def test_help(self) -> None:
        """The help text is complete."""
        self.assert_help(Options, "--command", *COMMAND_OPTIONS)

    def warnings(self, *arguments: str) -> list[str | None]:
        """What the service that `arguments` make warns of when it starts."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        reactor, options = MemoryReactor(), Options()
        options.parseOptions(arguments)
        service = makeService(options, reactor)
        globalLogPublisher.addObserver(observer)
        try:
            service.privilegedStartService()
            service.startService()
        finally:
            globalLogPublisher.removeObserver(observer)
        return [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]

    def test_open(self) -> None:
        """It warns where it is open to others, without TLS: once for each address."""
        why = "without TLS: whoever reaches it can run its commands, and read the answers"
        for arguments, where in (
            ([], []),
            (["--interface", "0.0.0.0"], ["TCP 0.0.0.0:8888"]),
            (["--interface", "::"], ["TCP [::]:8888"]),
            (["--interface", "192.0.2.1", "--port", "0"], ["TCP 192.0.2.1:0"]),
            (["--listen", "tcp:81:interface=127.0.0.1", "--listen", "tcp:82"], ["TCP 0.0.0.0:82"]),
            (["--listen", "haproxy:tcp:81"], ["TCP 0.0.0.0:81"]),
            (["--listen", "unix:/nowhere/s"], []),
        ):
            self.assertEqual(self.warnings(*arguments), [f"wps on {address} {why}" for address in where])

    def test_under_tls(self) -> None:
        """Under TLS, whatever is around it, it does not warn."""
        address = IPv4Address("TCP", "192.0.2.1", 443)
        for description in ("tls:443:certKey=x", "ssl:443", "haproxy:tls:443"):
            self.assertFalse(wps.is_open(description, address))
        for description in ("tcp:443", "tcp:443:interface=tls", "systemd:domain=INET:index=0"):
            self.assertTrue(wps.is_open(description, address))
