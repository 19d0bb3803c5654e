"""Commands: what every service that runs some does about how many, for how long, how much they write, and their end.

A stranger who can have a command run can have a hundred run, each of which costs a process and what it does. Four
rules follow, kept here once, in the `CommandRunner` that a service's factories share:

few
    No more than `MAX_CHILDREN` children are alive at once, whoever asks; the next wait their turn. Whoever would be
    one more than `MAX_WAITING` to wait is told so at once.
shared
    Those who ask for what is being run, or waits to be, get the answer of that one run, and so do those who ask
    within `KEEP` seconds of its end. What is in the answer, or why there is none, is the same for all.
bounded
    A run that writes more than `MAX_OUTPUT`, or lasts longer than `TIMEOUT`, is ended: whoever waits gets at once what
    it has written, cut, and a last line that says so. An answer is kept whole until then and written in one piece, so
    that back-pressure is the transport's business, and a slow reader never keeps a command alive.
ended
    A run that nobody wants any more is ended too. To end one is to send SIGTERM to all of it, and SIGKILL after `GRACE`
    seconds; it takes up one of the few places until it is gone.

All of it is a session: a child leads one of its own, and so a process group, which is signalled as a whole. The run is
over when the process that leads it has ended, whoever else still holds its output; what it leaves behind in its group
is killed then. A process that has made a session of its own, as daemons do, is not found any more: have none in the
table. A child has no terminal, an environment that is always the same, ``/dev/null`` for its standard input and
error, and no descriptor besides.

Sources: credentials(7) (sessions and groups), setsid(2), xinetd.conf(5) (``instances``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from math import inf
from signal import SIGKILL, SIGTERM
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, Any, TypeAlias, cast

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.internet.process import reapProcessHandlers
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twistednet.protocols.counters import Counters
from twistednet.protocols.flow import CHUNK
from twistednet.protocols.printable import plain_text

ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
"""The whole environment of every command."""

MAX_CHILDREN = 4
"""How many children are alive at once."""
MAX_WAITING = 4096
"""How many may wait for an answer at once."""
MAX_OUTPUT = 256 * 1024
"""How much a command may write, in bytes."""
TIMEOUT = 5.0
"""Seconds that a command may take."""
GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""
KEEP = 1.0
"""Seconds for which an answer is given again."""

PIPE_SIZE = 2**20
"""The most that a pipe holds, in bytes, unless a privileged process has made it larger; see pipe(7)."""


class ICommandReactor(IReactorFDSet, IReactorTime):
    """What a reactor has to have for commands; it must see the end of children too, as Twisted's do on POSIX."""


class CommandError(Exception):
    """There is no answer; the argument says why, in words for whoever asked."""


Argv: TypeAlias = tuple[str, ...]
Answer: TypeAlias = bytes | CommandError


@implementer(IReadDescriptor)
class Child:
    """A process that leads a session of its own: what it writes, and its end.

    It is not ``reactor.spawnProcess`` that starts it: that can start none in a session or a group of its own, so that
    what a command starts could not be ended with it, and to move a child afterwards is too late, for it has executed
    its program. `Popen` can, closes whatever descriptor is open, and raises what the child could not tell. The reactor
    reads the pipe, and Twisted's table of children, which it goes through at every SIGCHLD, tells of the end.

    :param reactor: reads.
    :param argv: the command, as an absolute path, and its arguments.
    :param environment: the whole environment.
    :param received: called with what it writes on its standard output, as it comes.
    :param ended: called once, when it has ended and what it had written has been received, with its exit status, or
        with the number of the signal it ended on, negated.
    :raises OSError: where it can't be run.
    """

    def __init__(
        self,
        reactor: ICommandReactor,
        argv: Sequence[str],
        environment: Mapping[str, str],
        received: Callable[[bytes], object],
        ended: Callable[[int], object],
    ) -> None:
        self._reactor = reactor
        self._received = received
        self._ended = ended
        self._process = Popen(
            argv, bufsize=0, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env=environment, start_new_session=True
        )
        self._output = cast("IO[bytes]", self._process.stdout)
        os.set_blocking(self.fileno(), False)
        reactor.addReader(self)
        reapProcessHandlers[self._process.pid] = cast(Any, self)

    def fileno(self) -> int:
        return self._output.fileno()

    def logPrefix(self) -> str:
        return "command"

    def doRead(self) -> None:
        self._read(CHUNK)

    def _read(self, size: int) -> None:
        try:
            data = os.read(self.fileno(), size)
        except BlockingIOError:
            return
        if data:
            self._received(data)
        else:
            self.stop_reading()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has seen the end of the output; the process may live on."""

    def stop_reading(self) -> None:
        """Leave what it still writes unread."""
        self._reactor.removeReader(self)

    def signal(self, number: int) -> None:
        """Send the signal `number` to it and to all that it has started."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            # All are gone, or are somebody else now (setuid).
            pass

    def reapProcess(self) -> None:
        """Some child has ended, says Twisted: see whether it is this one."""
        status = self._process.poll()
        if status is not None:
            del reapProcessHandlers[self._process.pid]
            # The number of a group is not given to another while one of its processes is left.
            self.signal(SIGKILL)
            self.stop_reading()
            # In a turn to come: a reactor that has this pipe in the list that it is going through now would take for
            # it whatever got its number.
            self._reactor.callLater(0, self._finish, status)

    def _finish(self, status: int) -> None:
        # Once: what has left the group may hold the other end, and write for ever.
        self._read(PIPE_SIZE)
        self._output.close()
        self._ended(status)


class CommandRunner:
    """Runs commands for whoever asks.

    :param max_children: how many children may be alive at once; at least 1.
    :param max_waiting: how many may wait for an answer at once.
    :param share: whether those who ask for the same get the answer of one run.
    :param keep: seconds for which that answer is given to those who ask later; 0: only those who wait share it.
    :param max_output: how much a command may write, in bytes.
    :param timeout: seconds that a command may take; 0: as long as it likes.
    :param plain: whether control characters and escape sequences are taken out of the answers; see `plain_text`.
    :param environment: the whole environment of the commands.
    :param counters: where the children are counted.
    :param reactor: runs them, and is the clock; the global reactor when left out.
    """

    log = Logger()
    child = Child
    """What starts a child."""

    def __init__(
        self,
        *,
        max_children: int = MAX_CHILDREN,
        max_waiting: int = MAX_WAITING,
        share: bool = True,
        keep: float = KEEP,
        max_output: int = MAX_OUTPUT,
        timeout: float = TIMEOUT,
        plain: bool = False,
        environment: Mapping[str, str] = ENVIRONMENT,
        counters: Counters | None = None,
        reactor: ICommandReactor | None = None,
    ) -> None:
        if reactor is not None:
            self.reactor = reactor
        self.max_children = max_children
        self.max_waiting = max_waiting
        self.share = share
        self.keep = keep if share else 0.0
        self.max_output = max_output
        self.timeout = timeout
        self.plain = plain
        self.environment = dict(environment)
        self.counters = Counters() if counters is None else counters
        self._queue: dict[Run, None] = {}  # in order
        self._alive: set[Run] = set()
        self._shared: dict[Argv, Run] = {}
        self._kept: dict[Argv, tuple[float, Answer]] = {}
        self._waiting = 0
        self._logged = -inf
        self._stopped = False

    @cached_property
    def reactor(self) -> ICommandReactor:
        # Imported at the first use, so that making a factory installs no reactor.
        from twisted.internet import reactor

        return cast(ICommandReactor, reactor)

    def run(self, argv: Sequence[str]) -> Deferred[bytes]:
        """Run ``argv[0]``, an absolute path, with the arguments `argv`, or take part in a run of the same.

        :return: fires with what it wrote; fails with `CommandError` where there is nothing to give. Who does not want
            it any more cancels it.
        """
        command = tuple(argv)
        if self._stopped:
            return fail(CommandError("the service is stopping"))
        until, answer = self._kept.get(command, (-inf, b""))
        if self.reactor.seconds() < until:
            return succeed(answer) if isinstance(answer, bytes) else fail(answer)
        if self._waiting >= self.max_waiting:
            return fail(CommandError("too many are waiting for an answer"))
        run = self._shared.get(command)
        if run is None:
            run = Run(self, command)
            self._queue[run] = None
            if self.share:
                self._shared[command] = run
        asked: Deferred[bytes] = Deferred(partial(self._leave, run))
        run.asked[asked] = None
        self._waiting += 1
        self._start_next()
        return asked

    def _leave(self, run: Run, asked: Deferred[bytes]) -> None:
        del run.asked[asked]
        self._waiting -= 1
        if not run.asked:
            run.end("nobody waits for its answer")

    def _start_next(self) -> None:
        while self._queue and len(self._alive) < self.max_children:
            run = next(iter(self._queue))
            del self._queue[run]
            if run.start():
                self._alive.add(run)
                run.gone.addCallback(self._gone, run)

    def settle(self, run: Run, answer: Answer, problem: str | None) -> None:
        """Give those who wait for `run` its `answer`; if there was a `problem`, the operator is told."""
        self._queue.pop(run, None)
        if self._shared.get(run.command) is run:
            del self._shared[run.command]
        if not run.asked:
            return
        now = self.reactor.seconds()
        if problem is not None and now >= self._logged + 1:
            # At most once a second: it is strangers who ask.
            self._logged = now
            self.log.warn("{command}: {problem}", command=run.command[0], problem=problem)
        self._kept = {command: kept for command, kept in self._kept.items() if now < kept[0]}
        if self.keep > 0:
            self._kept[run.command] = now + self.keep, answer
        asked, run.asked = run.asked, {}
        self._waiting -= len(asked)
        for deferred in asked:
            deferred.callback(answer) if isinstance(answer, bytes) else deferred.errback(answer)

    def _gone(self, _: None, run: Run) -> None:
        self._alive.remove(run)
        self._start_next()

    def stop(self) -> Deferred[None]:
        """End every run, and run nothing more until `start`.

        :return: fires when no child is left.
        """
        self._stopped = True
        for run in [*self._queue, *self._alive]:
            run.end("the service is stopping")
        return DeferredList([run.gone for run in self._alive]).addCallback(lambda _: None)

    def start(self) -> None:
        """Run commands again, after a `stop`."""
        self._stopped = False


class Run:
    """A run of a command: what it has written, and those who wait for that.

    It begins in the queue of its runner, and is *settled* when those have their answer, which can be before its child
    is gone.

    :param runner: whose it is.
    :param command: a path, and arguments.
    """

    def __init__(self, runner: CommandRunner, command: Argv) -> None:
        self.command = command
        self.asked: dict[Deferred[bytes], None] = {}
        self.gone: Deferred[None] = Deferred()
        self._runner = runner
        self._output = bytearray()
        self._child: Child | None = None
        self._timer: IDelayedCall | None = None
        self._settled = False

    def start(self) -> bool:
        """Start the child; whether that could be done."""
        runner = self._runner
        try:
            self._child = runner.child(runner.reactor, self.command, runner.environment, self._received, self._ended)
        except OSError as error:
            self._settle(CommandError("the command can't be run"), f"can't be run: {error.strerror}")
            return False
        runner.counters.children += 1
        if runner.timeout > 0:
            problem = f"the command was ended after {runner.timeout:g} seconds"
            self._timer = runner.reactor.callLater(runner.timeout, self.end, problem)
        return True

    def _received(self, data: bytes) -> None:
        if not self._settled:
            self._output += data
            if len(self._output) > self._runner.max_output:
                self.end(f"the output was cut after {self._runner.max_output} bytes")

    def _written(self) -> bytes:
        written = bytes(self._output[: self._runner.max_output])
        return plain_text(written) if self._runner.plain else written

    def end(self, problem: str) -> None:
        """End it, unless that has begun: settle with what there is, and a line with the `problem`."""
        if self._settled:
            return
        written = self._written()
        if written:
            line_end = b"" if written.endswith(b"\n") else b"\n"
            self._settle(b"%s%serror: %s\n" % (written, line_end, problem.encode()), problem)
        else:
            self._settle(CommandError(problem), problem)
        self._stop_timer()
        if self._child is not None:
            self._child.stop_reading()
            self._child.signal(SIGTERM)
            self._timer = self._runner.reactor.callLater(GRACE, self._child.signal, SIGKILL)

    def _ended(self, status: int) -> None:
        self._stop_timer()
        if self._output or status == 0:
            self._settle(self._written())
        else:
            problem = f"the command failed {f'with status {status}' if status > 0 else f'on signal {-status}'}"
            self._settle(CommandError(problem), problem)
        self.gone.callback(None)

    def _settle(self, answer: Answer, problem: str | None = None) -> None:
        if not self._settled:
            self._settled = True
            self._output.clear()
            self._runner.settle(self, answer, problem)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
