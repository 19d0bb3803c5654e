"""Children that end with their parent."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.services.running import PATIENCE
from twistednet.bench import tied


def run_tied(parent: int, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command by way of `tied`."""
    return subprocess.run(
        [sys.executable, "-I", "-S", tied.__file__, str(parent), *command], capture_output=True, timeout=PATIENCE
    )


def test_command() -> None:
    """The command runs in the same process, with its own arguments and exit status."""
    code = "import os, sys; print(sys.argv[1:], os.getppid()); sys.exit(3)"
    done = run_tied(os.getpid(), sys.executable, "-c", code, "a b", "--c")
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout.decode() == f"['a b', '--c'] {os.getpid()}\n"


def test_parent_has_ended() -> None:
    """The command does not run if the parent has ended already."""
    done = run_tied(os.getppid(), sys.executable, "-c", "print('runs')")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
