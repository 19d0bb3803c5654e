"""What runs commands: how many, for whom, how long, and their end."""

from __future__ import annotations

import os
import signal
from typing import Any, cast

import psutil
import pytest
import pytest_twisted
from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.process import reapAllProcesses
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import Process, ProcessReactor, ProcessRunner, living
from twistednet.protocols.commands import ENVIRONMENT, Child, CommandError, CommandRunner

PS = ["/usr/bin/ps"]
W = ["/usr/bin/w", "-h"]


class CommandRunnerTests(SynchronousTestCase):
    """`CommandRunner`, whose children do what they are told."""

    def setUp(self) -> None:
        self.reactor = ProcessReactor()
        self.processes = self.reactor.processes
        self.runner = ProcessRunner(self.reactor)
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def logged(self) -> list[str | None]:
        """What has been logged."""
        return [formatEvent(event) for event in self.events]

    def assert_error(self, asked: Deferred[bytes], why: str) -> None:
        """There was no answer, and `why`."""
        self.assertEqual(str(self.failureResultOf(asked, CommandError).value), why)

    def alone(self, asked: Deferred[bytes]) -> Process:
        """The one child there is, for whom `asked` waits."""
        self.assertNoResult(asked)
        (process,) = self.processes
        return process

    def test_answer(self) -> None:
        """The answer is all that the command has written, when it has ended; it is counted."""
        asked = self.runner.run(W)
        process = self.alone(asked)
        self.assertEqual((process.argv, process.environment), (W, ENVIRONMENT))
        process.write(b"one\n")
        process.write(b"two")
        self.assertNoResult(asked)
        process.end(0)
        self.assertEqual(self.successResultOf(asked), b"one\ntwo")
        self.assertEqual((self.runner.counters.children, process.signals, self.logged()), (1, [], []))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_silence(self) -> None:
        """A command that writes nothing and succeeds has an empty answer."""
        asked = self.runner.run(W)
        self.alone(asked).end(0)
        self.assertEqual(self.successResultOf(asked), b"")

    def test_failures(self) -> None:
        """One that fails in silence has none; what one wrote before it failed is its answer."""
        for status, how in ((3, "with status 3"), (-9, "on signal 9")):
            runner = ProcessRunner(self.reactor, keep=0.0)
            asked = runner.run(W)
            self.processes[-1].end(status)
            self.assert_error(asked, f"the command failed {how}")
            asked = runner.run(W)
            self.processes[-1].write(b"half\n")
            self.processes[-1].end(status)
            self.assertEqual(self.successResultOf(asked), b"half\n")

    def test_can_not_be_run(self) -> None:
        """Those who ask for one that can't be run are told so, and the operator why; the next in turn is tried."""
        runner = ProcessRunner(self.reactor, max_children=1)
        first, second, third = runner.run(PS), runner.run(W), runner.run([*W, "-s"])
        self.reactor.error = PermissionError(13, "Permission denied")
        self.alone(first).end(0)
        self.assertEqual(self.successResultOf(first), b"")
        for asked in (second, third):
            self.assert_error(asked, "the command can't be run")
        self.assertEqual(self.logged(), ["/usr/bin/w: can't be run: Permission denied"])
        self.assertEqual(runner.counters.children, 1)

    def test_logged_once_a_second(self) -> None:
        """However often strangers ask for what fails, there is a line a second."""
        runner = ProcessRunner(self.reactor, keep=0.0)
        for _ in range(30):
            asked = runner.run(W)
            self.processes[-1].end(1)
            self.assert_error(asked, "the command failed with status 1")
            self.reactor.advance(0.1)
        self.assertEqual(self.logged(), ["/usr/bin/w: the command failed with status 1"] * 3)

    def test_few_at_once(self) -> None:
        """Four run at once, the next in their turn, each when one before it is gone."""
        asked = [self.runner.run(["/bin/echo", str(n)]) for n in range(7)]
        self.assertEqual([process.argv[1] for process in self.processes], ["0", "1", "2", "3"])
        self.processes[2].end(0)
        self.processes[0].end(0)
        self.assertEqual([process.argv[1] for process in self.processes[4:]], ["4", "5"])
        for n in (1, 3, 4, 5, 6):
            self.processes[n].write(b"%d" % n)
            self.processes[n].end(0)
        self.assertEqual([self.successResultOf(one) for one in asked], [b"", b"1", b"", b"3", b"4", b"5", b"6"])

    def test_shared(self) -> None:
        """Those who ask for the same while it runs, or waits to, get the answer of one run, or why there is none."""
        runner = ProcessRunner(self.reactor, max_children=1)
        first, second = ([runner.run(argv) for _ in range(300)] for argv in (PS, W))
        self.assertEqual(len(self.processes), 1)
        self.processes[0].write(b"PID\n")
        self.processes[0].end(0)
        self.assertEqual([self.successResultOf(asked) for asked in first], [b"PID\n"] * 300)
        self.processes[1].end(1)
        for asked in second:
            self.assert_error(asked, "the command failed with status 1")
        self.assertEqual(len(self.processes), 2)

    def test_kept(self) -> None:
        """An answer, or why there is none, is given again for a second."""
        for status in (0, 1):
            self.processes.clear()
            command = [*W, str(status)]
            first = self.runner.run(command)
            self.alone(first).end(status)
            self.reactor.advance(0.999)
            results = [first, self.runner.run(command)]
            if status:
                for asked in results:
                    self.assert_error(asked, "the command failed with status 1")
            else:
                self.assertEqual([self.successResultOf(asked) for asked in results], [b"", b""])
            self.reactor.advance(0.001)
            later = self.runner.run(command)
            self.assertNoResult(later)
            self.processes[1].end(0)
            self.assertEqual(self.successResultOf(later), b"")

    def test_arguments_matter(self) -> None:
        """The same program with other arguments is not the same."""
        self.runner.run(W)
        self.runner.run([*W, "-s"])
        self.assertEqual(len(self.processes), 2)

    def test_not_kept(self) -> None:
        """With `keep` 0 those who ask later have a run of their own."""
        runner = ProcessRunner(self.reactor, keep=0.0)
        asked = [runner.run(W), runner.run(W)]
        self.processes[0].end(0)
        for one in asked:
            self.successResultOf(one)
        self.assertNoResult(runner.run(W))
        self.assertEqual(len(self.processes), 2)

    def test_not_shared(self) -> None:
        """Without `share` each who asks has a run, and no answer is given again."""
        runner = ProcessRunner(self.reactor, share=False)
        asked = [runner.run(W) for _ in range(6)]
        self.assertEqual(len(self.processes), 4)
        for n in range(6):
            self.processes[n].write(b"%d" % n)
            self.processes[n].end(0)
        self.assertEqual([self.successResultOf(one) for one in asked], [b"%d" % n for n in range(6)])
        self.assertNoResult(runner.run(W))

    def test_too_many_waiting(self) -> None:
        """Whoever would be one more than may wait is told so at once, until somebody has an answer or has left."""
        for share in (True, False):
            self.processes.clear()
            runner = ProcessRunner(self.reactor, share=share, keep=0.0, max_waiting=10)
            asked = [runner.run(W) for _ in range(10)]
            self.assert_error(runner.run(W), "too many are waiting for an answer")
            asked[-1].cancel()
            self.failureResultOf(asked.pop(), CancelledError)
            asked.append(runner.run(W))
            self.assert_error(runner.run(W), "too many are waiting for an answer")
            self.processes[0].end(0)
            self.successResultOf(asked[0])
            self.assertNoResult(runner.run(W))

    def test_cut(self) -> None:
        """One that writes too much is ended, and its output cut, with a line that says so; at once."""
        asked = self.runner.run(W)
        process = self.alone(asked)
        for _ in range(4):
            process.write(b"x" * 65536)
        self.assertNoResult(asked)
        self.assertEqual(process.signals, [])
        process.write(b"y")
        self.assertEqual(
            self.successResultOf(asked), b"x" * 262144 + b"\nerror: the output was cut after 262144 bytes\n"
        )
        self.assertEqual((process.signals, process.reading), ([signal.SIGTERM], False))
        self.assertEqual(self.logged(), ["/usr/bin/w: the output was cut after 262144 bytes"])
        process.end(-signal.SIGTERM)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cut_after_a_line(self) -> None:
        """The line that says so is a line by itself, and there is no empty one before it."""
        runner = ProcessRunner(self.reactor, max_output=4)
        asked = runner.run(W)
        self.alone(asked).write(b"one\ntwo\n")
        self.assertEqual(self.successResultOf(asked), b"one\nerror: the output was cut after 4 bytes\n")

    def test_cut_at_the_end(self) -> None:
        """What is received of a child that has ended counts as well."""
        runner = ProcessRunner(self.reactor, max_output=4)
        asked = runner.run(W)
        process = self.alone(asked)
        process.write(b"12345")
        process.write(b"6")
        process.end(0)
        self.assertEqual(self.successResultOf(asked), b"1234\nerror: the output was cut after 4 bytes\n")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_time_out(self) -> None:
        """One that does not end is sent SIGTERM after five seconds, and those who wait get what there is and a line."""
        asked = self.runner.run(W)
        process = self.alone(asked)
        process.write(b"so far")
        self.reactor.advance(4.999)
        self.assertEqual(process.signals, [])
        self.assertNoResult(asked)
        self.reactor.advance(0.001)
        self.assertEqual(self.successResultOf(asked), b"so far\nerror: the command was ended after 5 seconds\n")
        self.assertEqual(process.signals, [signal.SIGTERM])
        self.reactor.advance(0.999)
        process.write(b"late")
        process.end(0)
        self.reactor.advance(10)
        self.assertEqual(process.signals, [signal.SIGTERM])

    def test_time_out_ignored(self) -> None:
        """One that ignores that is killed a second later; until it is gone its place is taken."""
        runner = ProcessRunner(self.reactor, max_children=1, timeout=0.5)
        asked, other = runner.run(W), runner.run(PS)
        process = self.alone(asked)
        self.reactor.advance(0.5)
        self.assert_error(asked, "the command was ended after 0.5 seconds")
        self.reactor.advance(0.999)
        self.assertEqual(process.signals, [signal.SIGTERM])
        self.reactor.advance(0.001)
        self.assertEqual(process.signals, [signal.SIGTERM, signal.SIGKILL])
        self.assertEqual(len(self.processes), 1)
        process.end(-signal.SIGKILL)
        self.assertEqual(len(self.processes), 2)
        self.processes[1].end(0)
        self.assertEqual(self.successResultOf(other), b"")

    def test_no_time_out(self) -> None:
        """With `timeout` 0 a command takes as long as it likes."""
        runner = ProcessRunner(self.reactor, timeout=0.0)
        asked = runner.run(W)
        self.reactor.advance(86400)
        self.alone(asked).end(0)
        self.assertEqual(self.successResultOf(asked), b"")

    def test_who_waits_does_not_time_out(self) -> None:
        """The time is that of the command, not of the queue."""
        runner = ProcessRunner(self.reactor, max_children=1)
        first, second = runner.run(PS), runner.run(W)
        self.reactor.advance(4)
        self.processes[0].end(0)
        self.successResultOf(first)
        self.reactor.advance(4)
        self.processes[1].end(0)
        self.assertEqual(self.successResultOf(second), b"")

    def test_all_leave(self) -> None:
        """A run is ended when the last who wants it leaves, and not before; nobody shares it from then on."""
        one, two = self.runner.run(W), self.runner.run(W)
        process = self.processes[0]
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.assertEqual(process.signals, [])
        two.cancel()
        self.failureResultOf(two, CancelledError)
        self.assertEqual(process.signals, [signal.SIGTERM])
        three = self.runner.run(W)
        process.end(-signal.SIGTERM)
        self.assertNoResult(three)
        self.processes[1].write(b"new")
        self.processes[1].end(0)
        self.assertEqual((self.successResultOf(three), self.logged()), (b"new", []))

    def test_leaves_the_queue(self) -> None:
        """What nobody wants any more when its turn comes is not run."""
        runner = ProcessRunner(self.reactor, max_children=1)
        first, second = runner.run(PS), runner.run(W)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.processes[0].end(0)
        self.successResultOf(first)
        self.assertEqual(len(self.processes), 1)

    def test_leaves_after_the_answer(self) -> None:
        """Who has an answer can leave without harm."""
        asked = self.runner.run(W)
        process = self.alone(asked)
        process.end(0)
        asked.cancel()
        self.assertEqual((self.successResultOf(asked), process.signals), (b"", []))

    def test_plain(self) -> None:
        """With `plain` what a terminal would obey is taken out, and all else is as it was."""
        for plain, answer in ((False, b"\x1b[31mred\x1b[0m\n"), (True, b"red\n")):
            asked = ProcessRunner(self.reactor, plain=plain).run(W)
            self.processes[-1].write(b"\x1b[31mred\x1b[0m\n")
            self.processes[-1].end(0)
            self.assertEqual(self.successResultOf(asked), answer)

    def test_stop(self) -> None:
        """To stop is to end all that runs and waits, to wait until it is gone, and to run nothing more."""
        runner = ProcessRunner(self.reactor, max_children=2)
        asked = [runner.run(["/bin/echo", str(n)]) for n in range(3)]
        self.processes[0].write(b"half\n")
        stopped, again = runner.stop(), runner.stop()
        self.assertEqual(self.successResultOf(asked[0]), b"half\nerror: the service is stopping\n")
        for one in [*asked[1:], runner.run(W), runner.run(["/bin/echo", "0"])]:
            self.assert_error(one, "the service is stopping")
        self.assertEqual([process.signals for process in self.processes], [[signal.SIGTERM]] * 2)
        self.processes[0].end(-signal.SIGTERM)
        self.assertNoResult(stopped)
        self.reactor.advance(1)
        self.assertEqual(self.processes[1].signals, [signal.SIGTERM, signal.SIGKILL])
        self.processes[1].end(-signal.SIGKILL)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertIsNone(self.successResultOf(again))
        self.assertEqual(len(self.processes), 2)

    def test_start_again(self) -> None:
        """One that was stopped can be started again."""
        self.successResultOf(self.runner.stop())
        self.runner.start()
        asked = self.runner.run(W)
        self.alone(asked).end(0)
        self.assertEqual(self.successResultOf(asked), b"")


# Real children

PATIENCE = 1000
"""How often a test looks, a hundredth of a second apart, before it gives up."""


async def gone(reactor: Any, group: int) -> None:
    """Wait until nothing lives in `group`."""
    for _ in range(PATIENCE):
        if not living(group):
            return
        await task.deferLater(reactor, 0.01, lambda: None)
    raise AssertionError(living(group))


def shell(script: str) -> list[str]:
    """The command that runs `script`."""
    return ["/bin/sh", "-c", script]


@pytest_twisted.ensureDeferred
async def test_session(live_reactor: Any) -> None:
    """A child leads a session and a process group, and has three descriptors, whatever is open here."""
    assert CommandRunner().reactor is live_reactor
    inherited = os.dup(0)
    os.set_inheritable(inherited, True)
    try:
        runner = CommandRunner()
        ids = (await runner.run(["/bin/ps", "-o", "pid=,pgid=,sid=,tty=", "--no-headers"])).split()
        assert any(pid == pgid == sid and tty == b"?" for pid, pgid, sid, tty in zip(*[iter(ids)] * 4, strict=True))
        # The last is the one that ls reads the folder by.
        assert await runner.run(["/bin/ls", "/proc/self/fd"]) == b"0\n1\n2\n3\n"
        assert await runner.run(["/usr/bin/readlink", "/proc/self/fd/0", "/proc/self/fd/2"]) == b"/dev/null\n" * 2
    finally:
        os.close(inherited)


@pytest_twisted.ensureDeferred
async def test_real_answers(live_reactor: Any) -> None:
    """Output and status are as the child has them, and a pipe's whole content is read after the child's end."""
    runner = CommandRunner(reactor=live_reactor)
    assert await runner.run(["/bin/echo", "$HOME;id", "*"]) == b"$HOME;id *\n"
    assert await runner.run(["/usr/bin/env"]) == b"PATH=/usr/bin:/bin\nLC_ALL=C.UTF-8\n"
    assert await runner.run(["/usr/bin/head", "-c", "262144", "/dev/zero"]) == bytes(262144)
    for argv, why in (
        (["/bin/false"], "the command failed with status 1"),
        (shell("kill -9 $$"), "the command failed on signal 9"),
        (["/nowhere/w"], "the command can't be run"),
        (["/etc/passwd"], "the command can't be run"),
    ):
        with pytest.raises(CommandError, match=why):
            await runner.run(argv)


@pytest_twisted.ensureDeferred
async def test_one_after_another(live_reactor: Any) -> None:
    """Outputs larger than a pipe are whole, one run right after the other, whoever else runs on."""
    runner = CommandRunner(reactor=live_reactor, max_children=2, share=False)
    sleeper = runner.run(["/bin/sleep", "86395"])
    asked = [runner.run(["/usr/bin/head", "-c", "200000", "/dev/zero"]) for _ in range(50)]
    assert {len(await one) for one in asked} == {200_000}
    sleeper.cancel()
    with pytest.raises(CancelledError):
        await sleeper
    await runner.stop()


@pytest_twisted.ensureDeferred
async def test_leftovers(live_reactor: Any) -> None:
    """A run is over when its process is; what that leaves behind, holding its output, is killed."""
    runner = CommandRunner(reactor=live_reactor)
    group = int(await runner.run(shell("trap '' TERM; sleep 86398 & echo $$")))
    await gone(live_reactor, group)


@pytest_twisted.ensureDeferred
async def test_closed_output(live_reactor: Any) -> None:
    """One that closes its output and lives on is ended in time, and all that it has started."""
    runner = CommandRunner(reactor=live_reactor, timeout=0.2)
    answer = await runner.run(shell("echo $$; exec >&-; sleep 86397 & sleep 86397; :"))
    group, line = answer.splitlines()
    assert line == b"error: the command was ended after 0.2 seconds"
    await gone(live_reactor, int(group))
    await runner.stop()


@pytest_twisted.ensureDeferred
async def test_writes_for_ever(live_reactor: Any) -> None:
    """One that writes for ever, and ignores SIGTERM, is cut, and killed a second later."""
    runner = CommandRunner(reactor=live_reactor, max_output=100_000)
    answer = await runner.run(shell("trap '' TERM; echo $$; yes"))
    assert len(answer) == 100_000 + len(b"error: the output was cut after 100000 bytes\n") + (
        answer[99_999:100_000] != b"\n"
    )
    group = int(answer.split(b"\n", 1)[0])
    assert living(group)
    await runner.stop()
    await gone(live_reactor, group)


@pytest_twisted.ensureDeferred
async def test_nothing_left_to_signal(live_reactor: Any) -> None:
    """A run can be ended when its process has ended, and nobody has noticed yet."""
    others = {*psutil.Process().children()}
    runner = CommandRunner(reactor=live_reactor)
    asked = runner.run(["/bin/true"])
    (child,) = {*psutil.Process().children()} - others
    while child.status() != psutil.STATUS_ZOMBIE:
        pass
    asked.cancel()
    with pytest.raises(CancelledError):
        await asked
    await runner.stop()
    assert {*psutil.Process().children()} == others


@pytest_twisted.ensureDeferred
async def test_end_in_a_turn_of_its_own(live_reactor: Any) -> None:
    """Where the reactor learns of the end, nothing is closed and nothing started yet."""
    others = {*psutil.Process().children()}
    runner = CommandRunner(reactor=live_reactor, max_children=1)
    asked, other = runner.run(["/bin/true"]), runner.run(["/bin/echo"])
    (child,) = {*psutil.Process().children()} - others
    while child.status() != psutil.STATUS_ZOMBIE:
        pass
    before = os.listdir("/proc/self/fd")
    reapAllProcesses()
    assert {*psutil.Process().children()} == others
    assert os.listdir("/proc/self/fd") == before
    assert (await asked, await other) == (b"", b"\n")


@pytest_twisted.ensureDeferred
async def test_nothing_to_read(live_reactor: Any) -> None:
    """A reader that is called though there is nothing to read reads nothing, and goes on."""
    received: list[bytes] = []
    ended: Deferred[int] = Deferred()
    child = Child(live_reactor, ["/bin/sh", "-c", "sleep 0.1; echo done"], {}, received.append, ended.callback)
    child.doRead()
    assert received == []
    assert await ended == 0
    assert received == [b"done\n"]
