"""The remote command."""

from __future__ import annotations

from typing import Any, cast

import pytest_twisted
from twisted.internet import endpoints, task
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests import programs
from tests.processes import Process, ProcessReactor, ProcessRunner
from tests.wire import Wire, every_cut, pieces
from twistednet.protocols import CommandClient, CommandFactory

TABLE = {"w": ["/usr/bin/w", "-h"], "ps": ["/usr/bin/ps"]}
NO_SUCH = b"error: no such command; there are: ps, w\n"


class CommandTests(SynchronousTestCase):
    """`Command` and its factory."""

    def setUp(self) -> None:
        self.reactor = ProcessReactor()
        runner = ProcessRunner(self.reactor, keep=0.0)
        self.factory = CommandFactory(commands=TABLE, runner=runner, reactor=cast(IReactorTime, self.reactor))

    def connect(self) -> Wire:
        """A new connection."""
        return Wire.to(self.factory)

    def ask(self, question: bytes) -> tuple[Wire, Process]:
        """A connection that has asked for a command, and the process."""
        wire = self.connect().send(question)
        (process,) = self.reactor.processes
        return wire, process

    def test_all_output_then_close(self) -> None:
        """All of the output is sent, the last line included, and the connection closed."""
        wire, process = self.ask(b"w\n")
        process.write(b"one\n")
        process.write(b"two\nlast")
        wire.turn()
        self.assertEqual((wire.received, wire.ended), (b"", False))
        process.end(0)
        wire.turn()
        self.assertEqual((wire.received, wire.ended), (b"one\ntwo\nlast", True))
        self.assertTrue(wire.end().closed)

    def test_what_is_run(self) -> None:
        """The operator's words are run, in an environment of two variables."""
        _, process = self.ask(b"w\r\n")
        self.assertEqual(process.argv, ["/usr/bin/w", "-h"])
        self.assertEqual(process.environment, {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})

    def test_the_textbook(self) -> None:
        """The textbook's client sends no line ending, and is answered after a pause."""
        wire = self.connect().send(b"ps")
        self.assertEqual(self.reactor.processes, [])
        self.reactor.advance(0.25)
        (process,) = self.reactor.processes
        process.write(b"PID\n")
        process.end(0)
        wire.turn()
        self.assertEqual((wire.received, wire.ended), (b"PID\n", True))

    def test_cut_at_every_position(self) -> None:
        """The name is the same wherever it is cut, and what comes after it is not looked at."""
        for first, second in every_cut(b"ps\r\nw\nls\n" + b"x" * 20000):
            self.reactor.processes.clear()
            wire = self.connect().send(first, second)
            (process,) = self.reactor.processes
            self.assertEqual(process.argv, ["/usr/bin/ps"])
            wire.reset()
            process.end(-15)
            if len(first) > 30:
                break

    def test_half_close(self) -> None:
        """A client that ends its stream after its question gets the whole answer."""
        for question in (b"w", b"w\n"):
            self.reactor.processes.clear()
            wire, process = self.ask(question) if question.endswith(b"\n") else (self.connect().send(question), None)
            wire.end()
            process = process or self.reactor.processes[0]
            self.assertFalse(wire.closed)
            process.write(b"answer\n")
            process.end(0)
            wire.turn()
            self.assertEqual((wire.received, wire.closed), (b"answer\n", True))

    def test_nothing_asked(self) -> None:
        """A client that asks nothing is let go."""
        self.assertTrue(self.connect().end().closed)
        self.assertEqual(self.reactor.processes, [])

    def test_no_such_command(self) -> None:
        """Any other name gets one line that names the commands there are; nothing is run."""
        for name in (b"ls", b">v", b"ps;id", b"W", b" w", b"w ", b"", b"w\0", b"ps -e", b"../w", b"\xff"):
            wire = self.connect().send(name + b"\n")
            self.assertEqual((wire.received, wire.ended), (NO_SUCH, True), name)
        self.assertEqual(self.reactor.processes, [])

    def test_error_line_is_whole(self) -> None:
        """The line ends as the question did, and in LF where that had no ending."""
        self.assertEqual(self.connect().send(b"ls\r\n").received, NO_SUCH.replace(b"\n", b"\r\n"))
        self.assertEqual(self.connect().send(b"ls").end().received, NO_SUCH)

    def test_junk(self) -> None:
        """A megabyte without a line ending gets one error line, however it is cut."""
        wire = self.connect().send(*pieces(b"x" * 1_000_000, [1, 65536, 65536, 3]))
        self.assertEqual((wire.received, wire.ended), (b"error: a message is longer than 16384 bytes\n", True))
        self.assertEqual(self.reactor.processes, [])

    def test_slow_reader(self) -> None:
        """A client that does not read keeps no command alive; it gets the answer as it reads, whole."""
        wire, process = self.ask(b"w\n")
        process.write(b"x" * 200_000)
        process.end(0)
        wire.arrive(b"more of no interest\n")
        while wire.waiting:
            self.assertFalse(wire.ended)
            wire.read(1000)
        self.assertEqual((wire.received, wire.ended), (b"x" * 200_000, True))

    def test_many_clients(self) -> None:
        """Clients that ask for the same at once, each in its manner, share a run; one that leaves changes nothing."""
        wires = [self.connect().send(question) for question in (b"w\n", b"w\r\n", b"w\n")]
        wires.append(self.connect().send(b"w").end())
        (process,) = self.reactor.processes
        wires.pop().reset()
        process.write(b"one\n")
        process.end(0)
        for wire in wires:
            wire.turn()
            self.assertEqual((wire.received, wire.ended), (b"one\n", True))

    def test_cut(self) -> None:
        """An output that is too long is cut, with a line that says so."""
        wire, process = self.ask(b"w\n")
        process.write(b"x\n" * 200_000)
        wire.turn()
        self.assertEqual(wire.received[262_140:], b"x\nx\nerror: the output was cut after 262144 bytes\n")
        self.assertTrue(wire.ended)
        process.end(-15)

    def test_many_questions_at_once(self) -> None:
        """Of messages that arrive together the first is answered."""
        wire, process = self.ask(b"w\nps\nw\n" * 100)
        process.end(0)
        wire.turn()
        self.assertEqual((wire.received, wire.ended), (b"", True))

    def test_client_leaves(self) -> None:
        """The command of a client that leaves is ended."""
        wire, process = self.ask(b"w\n")
        wire.reset()
        self.assertEqual(process.signals, [15])
        process.write(b"late\n")
        process.end(-15)
        self.assertEqual(wire.received, b"")

    def test_client_leaves_after_the_end(self) -> None:
        """A command that has ended is not ended again."""
        wire, process = self.ask(b"w\n")
        process.end(0)
        wire.reset()
        self.assertEqual(process.signals, [])

    def test_fails_in_silence(self) -> None:
        """A command that fails without a word gets an error line."""
        for status, how in ((3, b"with status 3"), (-9, b"on signal 9")):
            self.reactor.processes.clear()
            wire, process = self.ask(b"w\n")
            process.end(status)
            wire.turn()
            self.assertEqual((wire.received, wire.ended), (b"error: the command failed %s\n" % how, True))

    def test_fails_with_output(self) -> None:
        """What a command wrote before it failed is its answer."""
        wire, process = self.ask(b"w\n")
        process.write(b"half\n")
        process.end(1)
        wire.turn()
        self.assertEqual((wire.received, wire.ended), (b"half\n", True))

    def test_can_not_be_run(self) -> None:
        """A command that is not there any more gets an error line, and the operator is told."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.reactor.error = FileNotFoundError(2, "No such file or directory")
        wire = self.connect().send(b"w\n")
        self.assertEqual((wire.received, wire.ended), (b"error: the command can't be run\n", True))
        self.assertIn("/usr/bin/w: can't be run: No such file or directory", [formatEvent(event) for event in events])
        self.assertTrue(wire.end().closed)

    def test_path_alone(self) -> None:
        """A path alone is a command without arguments."""
        factory = CommandFactory(commands={"w": "/usr/bin/w"}, runner=ProcessRunner(self.reactor))
        Wire.to(factory).send(b"w\n")
        self.assertEqual(self.reactor.processes[0].argv, ["/usr/bin/w"])

    def test_tables_that_are_wrong(self) -> None:
        """A name that can't be asked for, or a path that is not absolute, is an error."""
        tables: list[dict[str, list[str]]] = [{"": ["/bin/w"]}, {"a\nb": ["/bin/w"]}, {"w ": ["/bin/w"]}]
        tables += [{"w": ["w"]}, {"w": []}]
        for table in tables:
            self.assertRaises(ValueError, CommandFactory, commands=table)


class CommandClientTests(SynchronousTestCase):
    """`CommandClient`."""

    def setUp(self) -> None:
        self.wire = Wire.to(Factory.forProtocol(CommandClient))
        self.client = cast(CommandClient, self.wire.protocol)

    def test_run(self) -> None:
        """The output is all that comes until the server closes."""
        output = self.client.run(b"w")
        self.wire.send(b"one\n", b"two\n")
        self.assertNoResult(output)
        self.wire.end()
        self.assertEqual(self.successResultOf(output), b"one\ntwo\n")
        self.assertEqual(self.wire.received, b"w\n")

    def test_broken(self) -> None:
        """A connection that breaks fails the run, whatever has come."""
        output = self.client.run(b"w")
        self.wire.send(b"one\n").reset()
        self.failureResultOf(output, ConnectionLost)


@pytest_twisted.ensureDeferred
async def test_real_commands(live_reactor: Any) -> None:
    """Real commands run without a shell, and a large output arrives whole."""
    commands = {"echo": ["/bin/echo", "$HOME;id", "*"], "many": ["/usr/bin/seq", "30000"]}
    factory = CommandFactory(commands=commands, reactor=live_reactor)
    port = await endpoints.serverFromString(live_reactor, "tcp:0:interface=127.0.0.1").listen(factory)
    client_endpoint = endpoints.TCP4ClientEndpoint(live_reactor, "127.0.0.1", port.getHost().port)
    try:
        for name, answer in ((b"echo", b"$HOME;id *\n"), (b"many", b"".join(b"%d\n" % n for n in range(1, 30001)))):
            client = cast(CommandClient, await client_endpoint.connect(Factory.forProtocol(CommandClient)))
            assert await client.run(name) == answer
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_real_client_leaves(live_reactor: Any) -> None:
    """A client that leaves takes the command with it, and nothing is logged as a failure."""
    marker = "86399"  # seconds, in the command line of nothing else
    factory = CommandFactory(commands={"wait": ["/bin/sleep", marker]}, reactor=live_reactor)
    port = await endpoints.serverFromString(live_reactor, "tcp:0:interface=127.0.0.1").listen(factory)
    client_endpoint = endpoints.TCP4ClientEndpoint(live_reactor, "127.0.0.1", port.getHost().port)

    async def until(count: int) -> None:
        for _ in range(500):
            if len(programs.descendants(marker)) == count:
                return
            await task.deferLater(live_reactor, 0.01, lambda: None)
        raise AssertionError(f"{len(programs.descendants(marker))} commands run, not {count}")

    try:
        client = cast(CommandClient, await client_endpoint.connect(Factory.forProtocol(CommandClient)))
        client.send(b"wait\n")
        await until(1)
        client.transport.abortConnection()
        await until(0)
    finally:
        await port.stopListening()
