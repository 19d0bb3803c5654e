"""Kills what an aborted test run has left: ``guard.py FOLDER`` waits for the end of its standard input, which only the
run holds open, and then kills every process whose working directory is FOLDER or below it."""

from __future__ import annotations

import os
import signal
import sys
import time

SECONDS = 0.5
"""How long it looks after the last that it has found, which may have started another."""


def processes_in(folder: str) -> list[int]:
    """The processes that work in `folder` or below it, except this one."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"{os.readlink(f'/proc/{name}/cwd')}/".startswith(f"{folder}/") and int(name) != os.getpid():
                found.append(int(name))
        except OSError:  # it has ended, or belongs to somebody else
            pass
    return found


def main(folder: str) -> None:
    """Wait, and kill."""
    sys.stdin.read()
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        for process in processes_in(folder):
            give_up = time.monotonic() + SECONDS
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
