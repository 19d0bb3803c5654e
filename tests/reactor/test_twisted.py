"""Twisted's own tests of reactors: none fails here that does not fail on Twisted's default reactor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import programs

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0

NO_PREFIX = "looks for the protocol's log prefix in dataReceived, which the loop calls itself"
NOTHING_WAITS = "expects that nothing is sent before the next turn, so that 1,000 bytes make a full buffer"

EXCEPTIONS = {
    "twisted.internet.test.test_tcp.TCP4ClientTestsBuilder.test_logPrefix": NO_PREFIX,
    "twisted.internet.test.test_tcp.TCP6ClientTestsBuilder.test_logPrefix": NO_PREFIX,
    "twisted.internet.test.test_tls.SSLClientTestsMixin.test_logPrefix": NO_PREFIX,
    "twisted.internet.test.test_tls.StartTLSClientTestsMixin.test_logPrefix": NO_PREFIX,
    "twisted.internet.test.test_unix.UNIXTestsBuilder.test_logPrefix": NO_PREFIX,
    "twisted.internet.test.test_unix.UNIXTestsBuilder.test_avoidLeakingFileDescriptors": (
        "looks for a line in the log for a descriptor that nobody wants; here the system closes it, without a word"
    ),
    "twisted.internet.test.test_unix.UNIXAdoptStreamConnectionTestsBuilder.test_streamingProducer": NOTHING_WAITS,
    "twisted.internet.test.test_fdset.ReactorFDSetTestsBuilder.test_lostFileDescriptor": (
        "a closed descriptor can't be noticed with epoll; skipped on Twisted's reactors, by the names of their classes"
    ),
}
"""The tests that can't apply here, and why."""


QUICK = ("base", "core", "fdset", "newtls", "socket", "tcp", "threads", "time", "tls", "udp", "unix")
"""The modules that are run quickly, each by what it is about."""


def outcomes(folder: Path, *how: str) -> dict[str, Any]:
    """What comes out on each reactor; all of them run at the same time."""
    running = {}
    try:
        for name in ("uvloop", "asyncio", "epoll"):
            (folder / name).mkdir()
            with (folder / name / "outcome").open("wb") as output, (folder / name / "errors").open("wb") as errors:
                running[name] = programs.Popen(
                    [sys.executable, "-m", "tests.reactor.gate", name, *how],
                    cwd=folder / name,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                )
        for name, process in running.items():
            assert process.wait(PATIENCE) == 0, (folder / name / "errors").read_text()
        return {name: json.loads((folder / name / "outcome").read_text()) for name in running}
    finally:
        for process in running.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("how", "successes"),
    [pytest.param(["quick"], 300, id="quick"), pytest.param([], 850, id="all", marks=pytest.mark.slow)],
)
def test_as_on_epoll(tmp_path: Path, how: list[str], successes: int) -> None:
    """What succeeds on Twisted's default reactor succeeds here, with the exceptions listed."""
    found = outcomes(tmp_path, *how)
    stock = found.pop("epoll")
    for name, here in found.items():
        failed = {test: why for test, why in here["failed"].items() if test not in stock["failed"]}
        unexpected = {test: why for test, why in failed.items() if test not in EXCEPTIONS}
        assert not unexpected, f"on {name}:\n" + "\n".join(unexpected.values())
        # They have run, and nothing is skipped that runs there.
        assert here["successes"] > successes, name
        assert here["skipped"].keys() <= stock["skipped"].keys(), name
