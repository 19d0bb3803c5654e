"""The process that `tests.programs.Console` has fork for it: ``launcher.py SOCKET PARENT``.

A request is a JSON object with three descriptors; the answer is the process id of a new child of PARENT, the tests.
The launcher forks twice, and the tests adopt the grandchild when the one in between has ended.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from twisted.application import reactors, service
from twisted.plugin import getPlugins

from tests.programs import SCRIPTS, default_signals, die_with


def launch(descriptor: int, tests: int) -> None:
    """Serve requests until the tests close their end. Returns in each child, for which everything is prepared."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    with socket.socket(fileno=descriptor) as requests:
        while True:
            data, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 3)
            if not data:
                os._exit(0)
            parent = os.fork()
            if parent:
                for received in descriptors:
                    os.close(received)
                os.waitpid(parent, 0)
            elif os.fork():
                os._exit(0)
            else:
                become(json.loads(data), descriptors, tests)
                requests.send(str(os.getpid()).encode())
                break
    # What else was open is the launcher's.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def become(request: dict[str, Any], descriptors: Sequence[int], tests: int) -> None:
    """Turn this process, whose parent has just ended, into a child of the tests that runs `request`."""
    while os.getppid() != tests:
        os.sched_yield()
    default_signals()
    die_with(tests)
    # As the interpreter sets them when it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if request["session"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        new = open(number, "w" if number else "r", encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = request["arguments"]
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


def main() -> NoReturn:
    """Run a launcher."""
    preload()
    launch(*map(int, sys.argv[1:]))
    if Path(sys.argv[0]).name == "twistd":
        from twisted.scripts.twistd import run as program
    else:
        from twistednet.cli.main import main as program
    sys.exit(program())


if __name__ == "__main__":
    main()
