"""Run a command that the kernel ends as soon as its parent has ended: ``python tied.py PARENT-PID COMMAND...``.

The command takes the place of this process, so its process id is the one that the parent knows. Linux only. The module
imports nothing of the package: `twistednet.bench.child` runs it as a file, which starts faster.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From ``linux/prctl.h``."""


def main() -> None:
    """Replace this process with the command."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == int(parent):  # otherwise it ended before the line above
        os.execvp(command[0], command)


if __name__ == "__main__":
    main()
