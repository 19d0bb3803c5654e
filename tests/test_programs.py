"""How the tests start programs: with the signals that a shell gives them, and so that none outlives the tests."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import programs
from tests.guard import processes_in
from tests.programs import PATIENCE

ABORTED = """
import subprocess, sys, time
from pathlib import Path
from tests import programs

programs.FOLDER.append(Path(sys.argv[1]))
programs.Guard(programs.FOLDER[0])
programs.Popen(["/bin/sleep", "1000"])
programs.Popen(["/bin/sh", "-c", "trap '' TERM HUP; setsid /bin/sleep 1000 & setsid /bin/sleep 1000 & wait"])
programs.Console("twistd", "--nodaemon", "echo", "--port", "0", stdout=subprocess.DEVNULL)
while len(programs.descendants("1000")) < 4:
    time.sleep(0.01)
print("started", flush=True)
sys.stdin.read()
"""
"""Tests that start a program, one whose children leave its session, and a server."""


def test_signals() -> None:
    """No signal is ignored or blocked, though the tests ignore some."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    try:
        done = programs.run(["/bin/grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"], capture_output=True)
    finally:
        signal.signal(signal.SIGQUIT, before)
    assert {int(line.split()[1], 16) for line in done.stdout.splitlines()} == {0}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_aborted(tmp_path: Path, how: signal.Signals) -> None:
    """Tests that are ended by a signal leave no process behind."""
    with programs.Popen(
        [sys.executable, "-c", ABORTED, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as tests:
        assert tests.stdout is not None
        assert tests.stdout.readline() == b"started\n"
        assert len(processes_in(str(tmp_path.resolve()))) >= 5
        tests.send_signal(how)
        give_up = time.monotonic() + PATIENCE
        while left := processes_in(str(tmp_path.resolve())):
            assert time.monotonic() < give_up, left
            time.sleep(0.05)
