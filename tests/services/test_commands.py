"""What the services that run commands share: their options, and their end."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from tests.processes import ProcessReactor, ProcessRunner
from tests.services.options import MemoryReactor, ServiceTestCase, behind_guard
from twistednet.protocols.commands import CommandError
from twistednet.protocols.counters import Counters
from twistednet.services import systat, wps
from twistednet.services.commands import CommandService, make_runner
from twistednet.services.stopping import DrainingService

COMMAND_OPTIONS = ["--command-timeout", "--keep", "--max-children", "--max-output", "--no-share", "--plain"]


class CommandOptionsTests(ServiceTestCase):
    """`CommandOptions` and the runner that they make."""

    MODULES: ClassVar[tuple[Any, ...]] = (wps, systat)

    def setUp(self) -> None:
        # What this machine has is not what is tested.
        self.patch(systat, "SYSTAT_COMMAND", ("/bin/sh",))

    def made(self, module: Any, *arguments: str) -> tuple[Any, ...]:
        """What the runner of the service of `module` was made with."""
        options = module.Options()
        options.parseOptions([*(["--command", "list=/bin/sh"] if module is wps else []), *arguments])
        reactor = MemoryReactor()
        service = module.makeService(options, reactor)
        runner = service.runner
        service.privilegedStartService()
        served: Any = reactor.tcpServers[0][1]
        self.assertIs(served.runner, runner)
        self.assertIs(runner.reactor, reactor)
        return (
            runner.max_children,
            runner.share,
            runner.keep,
            runner.max_output,
            runner.timeout,
            runner.plain,
        )

    def test_defaults(self) -> None:
        """What is not said is as the runner has it."""
        for module in self.MODULES:
            self.assertEqual(self.made(module), (4, True, 1.0, 262144, 5.0, False))

    def test_all(self) -> None:
        """Each option is the runner's."""
        for module in self.MODULES:
            self.assertEqual(
                self.made(
                    module,
                    *("--max-children", "9", "--keep", "2.5", "--max-output=7", "--command-timeout", "0.5", "--plain"),
                ),
                (9, True, 2.5, 7, 0.5, True),
            )
            self.assertEqual(self.made(module, "--no-share", "--keep", "0"), (4, False, 0.0, 262144, 5.0, False))

    def test_shared_by_both_forms(self) -> None:
        """Systat's streams and datagrams share a runner, and so the children there may be."""
        options, reactor = systat.Options(), MemoryReactor()
        options.parseOptions(["--udp"])
        systat.makeService(options, reactor).privilegedStartService()
        stream: Any = reactor.tcpServers[0][1]
        datagram: Any = behind_guard(reactor.udp[0][1])
        self.assertIs(datagram._runner, stream.runner)

    def test_refused(self) -> None:
        """A bad value is one line."""
        for module in self.MODULES:
            for option, value, why in (
                ("max-children", "0", "a whole number of 1 or more"),
                ("max-output", "0", "a whole number of 1 or more"),
                ("max-output", "1e3", "a whole number of 1 or more"),
                ("keep", "-1", "a number of seconds, 0 or more"),
                ("keep", "nan", "a number of seconds, 0 or more"),
                ("command-timeout", "inf", "a number of seconds, 0 or more"),
                ("command-timeout", "soon", "a number of seconds, 0 or more"),
            ):
                self.assert_refused(module.Options, f"--{option} {value}: not {why}", f"--{option}={value}")

    def test_global_reactor(self) -> None:
        """The global reactor runs the commands when none is given."""
        from twisted.internet import reactor

        self.assertIs(make_runner(systat.Options(), Counters()).reactor, reactor)


class SlowService(Service):
    """A service that stops when it is let."""

    def __init__(self) -> None:
        self.let: Deferred[None] = Deferred()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self.let


class CommandServiceTests(ServiceTestCase):
    """`CommandService`."""

    def test_stop(self) -> None:
        """What it serves stops first, with its answers; then the commands are ended, and it has stopped."""
        reactor = ProcessReactor()
        runner, slow, services = ProcessRunner(reactor), SlowService(), DrainingService("example", Counters())
        slow.setServiceParent(services)
        service = CommandService(runner, services)
        service.startService()
        self.assertTrue(slow.running)
        asked = runner.run(["/usr/bin/w"])
        stopped = service.stopService()
        (process,) = reactor.processes
        self.assertEqual(process.signals, [])
        slow.let.callback(None)
        self.assertEqual(process.signals, [15])
        self.failureResultOf(asked, CommandError)
        self.assertNoResult(stopped)
        process.end(-15)
        self.successResultOf(stopped)

    def test_start_again(self) -> None:
        """It runs commands when it has been started again."""
        reactor = ProcessReactor()
        runner = ProcessRunner(reactor)
        service = CommandService(runner, DrainingService("example", Counters()))
        service.startService()
        self.successResultOf(service.stopService())
        self.failureResultOf(runner.run(["/usr/bin/w"]), CommandError)
        service.startService()
        self.assertNoResult(runner.run(["/usr/bin/w"]))
