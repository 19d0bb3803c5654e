"""What every twistd command shares, and the plugin file that lists them."""

from __future__ import annotations

import ast
import socket
import sys
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport
from twisted.logger import LogLevel, capturedLogs
from twisted.plugin import IPlugin, getPlugins
from twisted.python import usage
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.services.options import MemoryReactor, ServiceTestCase, behind_guard
from twistednet.policies.datagrams import GuardedDatagramProtocol
from twistednet.protocols.counters import Counters
from twistednet.protocols.udpok import UdpOkProtocol
from twistednet.services.base import (
    UDP_FLAG,
    DatagramServiceOptions,
    ListeningService,
    ServiceOptions,
    StartError,
    StreamServiceOptions,
    make_service,
    number,
    port_endpoints,
    reason,
)


class Transport(FakeDatagramTransport):
    """Knows where it listens."""

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", "127.0.0.1", 1)


class Options(DatagramServiceOptions, StreamServiceOptions):
    command = "example"
    default_port = 7
    longdesc = "An example."
    optFlags = [UDP_FLAG]


def parsed(*arguments: str) -> Options:
    """The options of `arguments`."""
    options = Options()
    options.parseOptions(arguments)
    return options


class NumberTests(SynchronousTestCase):
    """`number`."""

    def test_range(self) -> None:
        """Whole numbers in the range are read."""
        read = number("port", 0, 65535)
        self.assertEqual([read(value) for value in ("0", "7", "65535", "0080")], [0, 7, 65535, 80])

    def test_out_of_range(self) -> None:
        """Everything else is refused, in a line that says what is accepted."""
        read = number("port", 0, 65535)
        for value in ("65536", "-1", "", "x", "1.5", "1e3", " 1", "+1", "1_0", "\u0661"):
            error = self.assertRaises(usage.UsageError, read, value)
            self.assertEqual(str(error), f"--port {value}: not a whole number from 0 to 65535")

    def test_no_end(self) -> None:
        """A range may have no end."""
        read = number("clients", 1)
        self.assertEqual(read("1000000000000"), 1000000000000)
        error = self.assertRaises(usage.UsageError, read, "0")
        self.assertEqual(str(error), "--clients 0: not a whole number of 1 or more")


class OptionsTests(ServiceTestCase):
    """`ServiceOptions`."""

    def test_defaults(self) -> None:
        """The loopback interface, and the command's own port."""
        options = parsed()
        self.assertEqual(
            {name: options[name] for name in ("port", "interface", "listen", "udp")},
            {"port": None, "interface": "127.0.0.1", "listen": [], "udp": 0},
        )
        self.assertEqual(port_endpoints(options, datagram_only=False), ["tcp:7:interface=127.0.0.1"])

    def test_short(self) -> None:
        """Every option about where to listen has a letter."""
        options = parsed("-p", "80", "-i", "0.0.0.0", "-l", "tcp:81", "-l", "tcp:82", "-u")
        self.assertEqual(
            {name: options[name] for name in ("port", "interface", "listen", "udp")},
            {"port": 80, "interface": "0.0.0.0", "listen": ["tcp:81", "tcp:82"], "udp": 1},
        )

    def test_lists_are_their_own(self) -> None:
        """What one reads is not in the next."""
        parsed("--listen", "tcp:81")
        self.assertEqual(parsed()["listen"], [])

    def test_refused(self) -> None:
        """Each bad option is one line."""
        self.assert_refused(Options, "--port x: not a whole number from 0 to 65535", "--port", "x")
        self.assert_refused(Options, "--port 99999: not a whole number from 0 to 65535", "-p", "99999")
        self.assert_refused(Options, "option --bogus not recognized", "--bogus")
        self.assert_refused(Options, "option --listen requires argument", "--listen")
        self.assert_refused(Options, "2000: example takes options only", "2000", "3000")

    def test_subcommand(self) -> None:
        """twistd's options find the command's."""

        class Parent(usage.Options):
            subCommands = [["example", None, Options, "An example."]]

        parent = Parent()
        parent.parseOptions(["example", "--port", "80"])
        self.assertEqual((parent.subCommand, parent.subOptions["port"]), ("example", 80))
        self.assertRaises(StartError, Parent().parseOptions, ["example", "--port", "x"])

    def test_help(self) -> None:
        """The help text has a line for every option."""
        self.assert_help(Options, "--udp")


class DatagramExample(DatagramServiceOptions, ServiceOptions):
    command = "example"
    default_port = 7
    longdesc = "An example."
    optFlags = [UDP_FLAG]


class DatagramServiceOptionsTests(ServiceTestCase):
    """`DatagramServiceOptions`, and the guard that they describe."""

    def service(self, *arguments: str, **settings: Any) -> tuple[list[Any], MemoryReactor]:
        """What a service with `arguments` has its datagrams received by, and its reactor."""
        options, reactor = DatagramExample(), MemoryReactor()
        options.parseOptions(arguments)
        service = make_service(options, datagram=UdpOkProtocol, reactor=reactor, **settings)
        return [listening.target for listening in self.listening(service)], reactor

    def test_guarded(self) -> None:
        """Every UDP port has a guard of its own around a protocol of its own; a Unix socket has none."""
        targets, _ = self.service("-l", "udp:1", "-l", "udp6:1", "-l", "unixdgram:x")
        first, second, unix = targets
        self.assertIsNot(behind_guard(first), behind_guard(second))
        self.assertNotIsInstance(unix, GuardedDatagramProtocol)
        self.assertIsInstance(unix.protocol, UdpOkProtocol)
        self.assertIs(first.counters, unix.counters)

    def test_counters(self) -> None:
        """An embedder can have the counters."""
        counters = Counters()
        (guard,), _ = self.service("-l", "udp:1", counters=counters)
        guard.makeConnection(Transport())
        guard.datagramReceived(b"", ("192.0.2.1", 0))
        guard.doStop()
        self.assertEqual((counters.datagrams, counters.dropped), (1, {"port 0": 1}))

    def test_rate(self) -> None:
        """125 and 50 a second, or what the options say; what is taken for a reflection depends on the service."""
        for arguments, most in (
            ([], 125),
            (["--source-burst", "3"], 3),
            (["--source-rate", "7", "--source-burst", "1"], 1),
            (["--source-rate", "0"], 300),
        ):
            (guard,), reactor = self.service("-l", "udp:1", *arguments, reflections=(b"no: ",))
            guard.makeConnection(Transport())
            for datagram in [b"no: x"] + [b"x"] * 300:
                guard.datagramReceived(datagram, ("192.0.2.1", 5000))
            self.assertEqual(guard.transport.written, [(b"OK...x", ("192.0.2.1", 5000))] * most)
            reactor.advance(1 / 7)
            guard.datagramReceived(b"", ("192.0.2.1", 5000))
            self.assertEqual(len(guard.transport.written), most + 1)
            guard.doStop()

    def test_no_guard(self) -> None:
        """--no-guard lets everything through, and the log says that there is none."""
        with capturedLogs() as events:
            (target,), _ = self.service("-l", "udp:1", "--no-guard", reflections=(b"OK...",))
        [event] = events
        self.assertEqual((event["log_level"], event["name"]), (LogLevel.warn, "example"))
        self.assertIn("no guard", event["log_format"])
        target.makeConnection(Transport())
        for _ in range(300):
            target.datagramReceived(b"OK...", ("192.0.2.1", 7))
        self.assertEqual(len(target.transport.written), 300)
        self.assertEqual(target.counters.datagrams, 300)

    def test_no_guard_of_nothing(self) -> None:
        """Where there is nothing to guard, there is nothing to say."""
        with capturedLogs() as events:
            self.service("-l", "unixdgram:x", "--no-guard")
        self.assertEqual(events, [])

    def test_refused(self) -> None:
        """Each bad option is one line."""
        for option, least in (("source-rate", 0), ("source-burst", 1)):
            for value in ("x", "-1", "1.5", *(["0"] if least else [])):
                message = f"--{option} {value}: not a whole number of {least} or more"
                self.assert_refused(DatagramExample, message, f"--{option}", value)

    def test_help(self) -> None:
        """The help text has a line for every option."""
        self.assert_help(DatagramExample, "--udp")
        self.assertIn("[default: 50]", str(DatagramExample()))
        self.assertIn("[default: 125]", str(DatagramExample()))


class PortEndpointsTests(SynchronousTestCase):
    """`port_endpoints`."""

    def test_stream(self) -> None:
        """--port and --interface are a TCP endpoint; with --udp a UDP one too."""
        self.assertEqual(
            port_endpoints(parsed("-p", "80", "-i", "::1", "-u"), datagram_only=False),
            [r"tcp:80:interface=\:\:1", r"udp:80:interface=\:\:1"],
        )

    def test_datagram(self) -> None:
        """For a datagram service they are a UDP endpoint."""
        self.assertEqual(port_endpoints(parsed("-p", "80"), datagram_only=True), ["udp:80:interface=127.0.0.1"])

    def test_listen(self) -> None:
        """--listen replaces the default port, but not one that is given."""
        self.assertEqual(port_endpoints(parsed("-l", "unix:x"), datagram_only=False), [])
        self.assertEqual(
            port_endpoints(parsed("-l", "unix:x", "-p", "0"), datagram_only=False), ["tcp:0:interface=127.0.0.1"]
        )


class MakeServiceTests(ServiceTestCase):
    """`make_service`."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.factory: Factory[Any] = Factory()
        self.factory.noisy = False

    def assert_no_service(self, line: str, *arguments: str, **targets: Any) -> None:
        """`arguments` make no service, and `line` says why."""
        error = self.assertRaises(StartError, make_service, parsed(*arguments), reactor=self.reactor, **targets)
        self.assertEqual(error.code, f"twistd example: {line}")

    def test_streams_and_datagrams(self) -> None:
        """Each endpoint is listened on, in the order of the options; each datagram one has its own protocol."""
        options = parsed("-l", "tcp:81", "-l", "unixdgram:d", "-l", "unix:s", "-l", "udp6:82", "-p", "0", "-u")
        service = make_service(options, factory=self.factory, datagram=DatagramProtocol, reactor=self.reactor)
        self.assertEqual(
            self.descriptions(service),
            [
                "tcp:81",
                "unixdgram:d",
                "unix:s",
                "udp6:82",
                "tcp:0:interface=127.0.0.1",
                "udp:0:interface=127.0.0.1",
            ],
        )
        self.assertEqual(self.reactor.tcpServers, [])
        service.privilegedStartService()
        streams = [target for target in self.reactor.tcpServers if target[1] is not None]
        self.assertEqual(streams, [(81, self.factory, 50, ""), (0, self.factory, 50, "127.0.0.1")])
        self.assertEqual([server[:2] for server in self.reactor.unixServers[1:]], [("s", self.factory)])
        protocols = [self.reactor.unix_datagrams[0][1], *(udp[1] for udp in self.reactor.udp)]
        self.assertEqual(len(set(map(id, protocols))), 3)
        self.assertEqual([udp[::2] for udp in self.reactor.udp], [(82, "::"), (0, "127.0.0.1")])

    def test_bad_endpoint(self) -> None:
        """Whatever is wrong with an endpoint is one line."""
        self.assert_no_service(
            "--listen bogus:1: Unknown endpoint type: 'bogus'", "--listen", "bogus:1", factory=self.factory
        )
        self.assert_no_service(
            "--listen udp:x: not udp:PORT[:interface=ADDRESS]", "--listen", "udp:x", datagram=DatagramProtocol
        )

    def test_no_datagram_form(self) -> None:
        """A stream service can't be asked for datagrams."""
        self.assert_no_service(
            "--listen udp:81: example has no datagram form; try tcp:", "--listen", "udp:81", factory=self.factory
        )

    def test_no_stream_form(self) -> None:
        """A datagram service can't be asked for streams."""
        self.assert_no_service(
            "--listen tcp:81: example has no stream form; try udp:", "--listen", "tcp:81", datagram=DatagramProtocol
        )

    def test_global_reactor(self) -> None:
        """The global reactor is used when none is given."""
        from twisted.internet import reactor

        service = make_service(parsed(), factory=self.factory)
        [listening] = self.listening(service)
        self.assertIs(listening.endpoint._reactor, reactor)


class FakePort:
    """A port that remembers that it was stopped."""

    stopped = 0

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 4321)

    def stopListening(self) -> None:
        self.stopped += 1


class FakeEndpoint:
    """An endpoint that comes to `result` when it listens; its result may be a Deferred, or an error to raise."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.targets: list[Any] = []

    def listen(self, target: Any) -> Any:
        self.targets.append(target)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class ListeningServiceTests(SynchronousTestCase):
    """`ListeningService`."""

    def setUp(self) -> None:
        self.port = FakePort()
        # Where the user is told, which a test must not do.
        self.patch(sys, "stderr", StringIO())

    def service(self, result: Any) -> ListeningService:
        """The service of an endpoint that comes to `result`."""
        factory: Factory[Any] = Factory()
        self.endpoint = FakeEndpoint(result)
        return ListeningService("example", "fake:1", self.endpoint, factory, Clock())

    def test_listens_once(self) -> None:
        """It listens when the privileged part of the start is done, and not again after that, and says where."""
        service = self.service(self.port)
        with capturedLogs() as events:
            service.privilegedStartService()
            service.startService()
        self.assertEqual(self.endpoint.targets, [service.target])
        [event] = [event for event in events if event["log_namespace"].startswith("twistednet.")]
        self.assertEqual((event["log_level"], event["name"]), (LogLevel.info, "example"))
        self.assertEqual(event["address"], "TCP 127.0.0.1:4321")

    def test_without_privileges(self) -> None:
        """Started while its parent runs, without the privileged part, it listens too."""
        service = self.service(self.port)
        service.startService()
        self.assertEqual(self.endpoint.targets, [service.target])

    def test_stops(self) -> None:
        """Stopped, it stops the port, once; started again, it listens again."""
        service = self.service(self.port)
        service.startService()
        service.stopService()
        self.assertEqual((self.port.stopped, service.port, service.running), (1, None, 0))
        service.stopService()
        self.assertEqual(self.port.stopped, 1)
        service.startService()
        self.assertEqual(len(self.endpoint.targets), 2)

    def assert_fails_at_once(self, result: Any, why: str) -> None:
        """Where the endpoint comes to `result` the service does not start; the error and the log say `why`."""
        service = self.service(result)
        with capturedLogs() as events:
            error = self.assertRaises(StartError, service.privilegedStartService)
        self.assertEqual(error.code, f"twistd example: can't listen on fake:1: {why}")
        [event] = events
        self.assertEqual((event["log_level"], event["why"]), (LogLevel.critical, error.code))
        self.assertNotIn("log_failure", event)
        self.assertIs(sys.stderr, sys.__stderr__)

    def test_fails_at_once(self) -> None:
        """An endpoint that can't listen is one line."""
        taken = CannotListenError("127.0.0.1", 1, OSError(98, "Address already in use"))
        failed: Deferred[IListeningPort] = Deferred()
        failed.errback(Failure(taken))
        self.assert_fails_at_once(failed, "Address already in use")

    def test_raises(self) -> None:
        """So is one that raises an error."""
        self.assert_fails_at_once(OverflowError("port must be 0-65535"), "port must be 0-65535")

    def test_fails_later(self) -> None:
        """An endpoint that fails later is logged."""
        later: Deferred[IListeningPort] = Deferred()
        service = self.service(later)
        service.startService()
        with capturedLogs() as events:
            later.errback(ValueError("no"))
        [event] = events
        self.assertEqual(
            (event["log_level"], event["why"]),
            (LogLevel.critical, "twistd example: can't listen on fake:1: no"),
        )
        self.assertIsNone(service.stopService())

    def test_listens_later(self) -> None:
        """An endpoint that takes its time is stopped as any other."""
        later: Deferred[Any] = Deferred()
        service = self.service(later)
        service.startService()
        later.callback(self.port)
        service.stopService()
        self.assertEqual(self.port.stopped, 1)

    def test_listens_too_late(self) -> None:
        """A port that is there only after the service was stopped is stopped too."""
        later: Deferred[Any] = Deferred()
        service = self.service(later)
        service.startService()
        service.stopService()
        later.callback(self.port)
        self.assertEqual((self.port.stopped, service.port), (1, None))


class WordsTests(SynchronousTestCase):
    """`reason`."""

    def test_reason(self) -> None:
        """The system's words where there are some, else the error's."""
        for error, why in (
            (CannotListenError("", 1, OSError(98, "Address already in use")), "Address already in use"),
            (CannotListenError("", 1, socket.gaierror(-2, "Name or service not known")), "Name or service not known"),
            (CannotListenError("", 1, "no"), "no"),
            (FileNotFoundError(2, "No such file or directory", "/run"), "No such file or directory"),
            (ValueError("no"), "no"),
        ):
            self.assertEqual(reason(Failure(error)), why)


COMMANDS = [
    *("accumulator", "chargen", "daytime", "discard", "echo", "files", "greeter", "qotd"),
    *("repeat", "reverse", "support", "systat", "time", "udpok", "wps"),
]


class PluginTests(SynchronousTestCase):
    """The file that lists the commands for twistd."""

    def setUp(self) -> None:
        from twisted.plugins import twistednet_plugin

        self.plugin = twistednet_plugin

    def test_makers(self) -> None:
        """Each command is an `IServiceMaker` of its name whose module has that name, and options of that name."""
        makers: dict[str, Any] = {
            name: maker for name, maker in vars(self.plugin).items() if IServiceMaker.providedBy(maker)
        }
        self.assertEqual(sorted(makers), COMMANDS)
        for name, maker in makers.items():
            self.assertTrue(IPlugin.providedBy(maker))
            self.assertEqual(
                (maker.name, maker.tapname, maker.module),
                (f"twistednet {name}", name, f"twistednet.services.{name}"),
            )
            self.assertEqual(maker.options.command, name)
            self.assertRegex(maker.description, r"\A[A-Z][^\n]+\.\Z")

    def test_found(self) -> None:
        """twistd finds them."""
        found = {getattr(maker, "tapname", None): maker for maker in getPlugins(IServiceMaker)}
        self.assertIs(found["echo"], self.plugin.echo)

    def test_imports(self) -> None:
        """The file imports nothing but `ServiceMaker`: twistd loads it for every command there is."""
        file = self.plugin.__file__
        assert file is not None
        imports = [
            node
            for node in ast.walk(ast.parse(Path(file).read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = [ast.unparse(node) for node in imports]
        self.assertEqual(names, ["from twisted.application.service import ServiceMaker"])

    def test_every_service(self) -> None:
        """Every module of services with a makeService is in it."""
        import twistednet.services

        folder = Path(twistednet.services.__path__[0])
        names = {path.stem for path in folder.glob("*.py") if "\ndef makeService(" in path.read_text()}
        self.assertEqual(sorted(names), COMMANDS)
