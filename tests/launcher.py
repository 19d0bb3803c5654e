"""The process that `tests.programs.Popen` has fork for it: ``launcher.py SOCKET PARENT``.

A request is a JSON object with descriptors; the answer is the process id of a new child of PARENT, the tests. The
launcher forks twice, and the tests adopt the grandchild when the one in between has ended.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from twisted.application import reactors, service
from twisted.plugin import getPlugins

from tests.programs import SCRIPTS, default_signals, die_with


def launch(descriptor: int, tests: int) -> None:
    """Serve requests until the tests close their end. Returns in each child that is to go on in this interpreter."""
    die_with(tests)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    with socket.socket(fileno=descriptor) as requests:
        while True:
            data, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 100)
            if not data:
                os._exit(0)
            child = os.fork()
            if child:
                for received in descriptors:
                    os.close(received)
                os.waitpid(child, 0)
                continue
            child = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == child:
                os.sched_yield()
            die_with(tests)
            requests.send(str(os.getpid()).encode())
            break
    request = json.loads(data)
    default_signals()
    if request["session"]:
        os.setsid()
    os.chdir(request["folder"])
    place(descriptors, request["numbers"])
    if "LISTEN_FDS" in request["environment"]:  # they are for this process, and none that it starts
        request["environment"]["LISTEN_PID"] = str(os.getpid())
    if request["fresh"]:
        os.execvpe(request["arguments"][0], request["arguments"], request["environment"])
    start_afresh()
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]


def place(descriptors: Sequence[int], numbers: Sequence[int]) -> None:
    """Give `descriptors` these `numbers`, and close everything else."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, max(numbers) + 1) for descriptor in descriptors]
    for descriptor, number in zip(high, numbers, strict=True):
        os.dup2(descriptor, number)
    for before, after in pairwise([*sorted(numbers), os.sysconf("SC_OPEN_MAX")]):
        if before + 1 < after:  # os.closerange(0, 0) would close everything
            os.closerange(before + 1, after)


def start_afresh() -> None:
    """Set what an interpreter sets when it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        new = open(number, "w" if number else "r", encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.path[0] = str(SCRIPTS)


def preload() -> None:
    """Import what the programs import, but no reactor: which one is installed is theirs to choose."""
    from twisted.internet import epollreactor  # noqa: F401
    from twisted.scripts import twistd  # noqa: F401

    from twistednet import reactor  # noqa: F401
    from twistednet.cli.main import MODULES

    list(reactors.getReactorTypes())
    commands: Any = getPlugins(service.IServiceMaker)
    for command in commands:
        if command.module.startswith("twistednet."):
            import_module(command.module)
    for name in set(MODULES.values()):
        import_module(f"twistednet.cli.{name}")
    assert "twisted.internet.reactor" not in sys.modules
    gc.collect()
    gc.freeze()


def leave(code: object) -> NoReturn:
    """End as the interpreter does, except that it doesn't take everything apart.

    That would write to all the memory which is shared with the launcher, and so copy it.
    """
    status = code if isinstance(code, int) else int(code is not None)
    if status and status is not code:
        print(code, file=sys.stderr)  # noqa: T201
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()  # whatever is logged when a Deferred is forgotten
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(status)
    os._exit(status)


def main() -> NoReturn:
    """Run a launcher."""
    preload()
    launch(*map(int, sys.argv[1:]))
    if Path(sys.argv[0]).name == "twistd":
        from twisted.scripts.twistd import run as program
    else:
        from twistednet.cli.main import main as program
    try:
        sys.exit(program())
    except SystemExit as end:
        leave(end.code)


if __name__ == "__main__":
    main()
