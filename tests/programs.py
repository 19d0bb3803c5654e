"""Starting programs for the tests.

`Popen` and `run` replace subprocess's: the child gets the default action for every signal, though the tests may run in
the background of a script, where SIGINT is ignored, and it is killed when the tests end, even if they are killed. A
launcher, which has no threads, forks the child, prepares it, and has the tests adopt it.

`Console` starts ``twistd`` or ``twistednet``. Their imports take half a second of a processor, and the tests start a
thousand of them, so the launcher has imported everything, and its child goes on without an exec. That child is a
process as any other, with its own descriptors, environment, working directory, signals and exit status; only the start
of the interpreter is left out. With ``pytest --fresh``, or in a test that has the ``fresh`` fixture, it is not.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

PATIENCE = 30.0
"""Seconds after which a test gives up waiting."""

SCRIPTS = Path(sys.executable).parent
"""Where ``twistd`` and ``twistednet`` are."""

FRESH = False
"""Whether each `Console` gets an interpreter of its own."""

FOLDER: list[Path] = []
"""The working directory of a child for which none is named: one where `tests.guard` looks."""

HERE = Path(__file__).parent

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
LIBC: Any = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Have this process killed when `parent`, its parent, ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)


def default_signals() -> None:
    """Restore the default action of every signal, and block none."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent has ended: of daemons, and of what the launcher forks."""
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Popen(subprocess.Popen[Any]):
    """A child with default signals, killed when the tests end.

    :param listening: a socket that it gets as systemd would pass it, by the name of ``stream``.
    """

    fresh = True
    """Whether it is to be executed, and not what the launcher has imported."""

    _call = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]

    def __init__(self, arguments: Sequence[object], *, listening: socket.socket | None = None, **options: Any) -> None:
        self._listening = listening
        words = [os.fspath(word) for word in arguments]  # type: ignore[call-overload]
        if FOLDER:
            options.setdefault("cwd", FOLDER[0])
        super().__init__(words, **options)

    def _execute_child(self, *arguments: Any) -> None:
        """Have the launcher fork, in place of a fork here."""
        call = self._call.bind(self, *arguments).arguments
        pipes = [call[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        try:
            passed = {number: number for number in call["pass_fds"]}
            environment = dict(os.environ if call["env"] is None else call["env"])
            if self._listening is not None:
                passed[3] = self._listening.fileno()
                environment.update(LISTEN_FDS="1", LISTEN_FDNAMES="stream")
            request = {
                "arguments": call["args"],
                "folder": os.fspath(call["cwd"] or os.getcwd()),
                "environment": environment,
                "session": call["start_new_session"],
                "numbers": [0, 1, 2, *passed],
                "fresh": self.fresh,
            }
            standard = [pipe if pipe != -1 else number for number, pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
            self.pid = launcher().fork(request, [*standard, *passed.values()])
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


class Console(Popen):
    """``twistd`` or ``twistednet``, with its arguments."""

    def __init__(self, program: str, *arguments: object, **options: Any) -> None:
        # Twisted looks once, when it is imported, for the sockets that systemd has passed.
        self.fresh = FRESH or "listening" in options
        super().__init__([str(SCRIPTS / program), *map(str, arguments)], **options)


def run(arguments: Sequence[object], *, timeout: float = PATIENCE, **options: Any) -> subprocess.CompletedProcess[Any]:
    """As `subprocess.run`, with a `Popen`."""
    return completed(Popen, arguments, timeout=timeout, **options)


def run_console(*arguments: object, timeout: float = PATIENCE, **options: Any) -> subprocess.CompletedProcess[Any]:
    """The same with a `Console`."""
    return completed(Console, *arguments, timeout=timeout, **options)


def completed(
    make: type[Popen], *arguments: Any, timeout: float, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run the program that `make` starts to its end."""
    given = options.pop("input", None)
    if given is not None:
        options["stdin"] = subprocess.PIPE
    if options.pop("capture_output", False):
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with make(*arguments, **options) as process:
        try:
            output, errors = process.communicate(given, timeout)
        except BaseException:
            process.kill()
            raise
    done: subprocess.CompletedProcess[Any] = subprocess.CompletedProcess(
        process.args, process.returncode, output, errors
    )
    if check:
        done.check_returncode()
    return done


# The launcher


class Launcher:
    """The tests' end of the launcher."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(HERE.parent)}
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    HERE / "launcher.py",
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        self._socket.settimeout(PATIENCE)

    def fork(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Start what `request` says, with `descriptors`, which it gets by its "numbers"; its process id."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            return int(self._socket.recv(100))

    def stop(self) -> None:
        """End it."""
        self._socket.close()
        self._process.wait(PATIENCE)


_launcher: list[Launcher] = []
_starting = threading.Lock()


def launcher() -> Launcher:
    """The launcher of these tests, started when it is first needed."""
    with _starting:
        if not _launcher:
            adopt_orphans()
            _launcher.append(Launcher())
        return _launcher[0]


def stop_launcher() -> None:
    """End the launcher, if there is one."""
    while _launcher:
        _launcher.pop().stop()


# The end of a run


class Guard:
    """Kills what is left in `folder` when `stop` is called, or this process ends in whatever way."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-ES", HERE / "guard.py", os.path.realpath(folder)],
            cwd="/",
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def stop(self) -> None:
        """Have it do its work."""
        self._process.communicate()


def descendants(word: str) -> list[psutil.Process]:
    """The living descendants of this process, adopted ones among them, that have `word` in their command line."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(word in argument for argument in process.cmdline()):
                found.append(process)
        except psutil.Error:  # it has ended
            pass
    return found
