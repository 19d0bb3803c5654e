"""Twisted's own tests of reactors: none fails here that does not fail on Twisted's default reactor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes out on each reactor; all of them run at the same time."""
    running = {}
    try:
        for name in ("uvloop", "asyncio", "epoll"):
            folder = tmp_path_factory.mktemp(name)
            with (folder / "outcome").open("wb") as output, (folder / "errors").open("wb") as errors:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.reactor.gate", name],
                    cwd=folder,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                )
            running[name] = folder, process
        for folder, process in running.values():
            assert process.wait(PATIENCE) == 0, (folder / "errors").read_text()
        return {name: json.loads((folder / "outcome").read_text()) for name, (folder, _) in running.items()}
    finally:
        for _, process in running.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize("name", ["uvloop", "asyncio"])
def test_as_on_epoll(outcomes: dict[str, Any], name: str) -> None:
    """What succeeds on Twisted's default reactor succeeds here, with the exceptions listed."""
    here, stock = outcomes[name], outcomes["epoll"]
    failed = {test: why for test, why in here["failed"].items() if test not in stock["failed"]}
    unexpected = {test: why for test, why in failed.items() if test not in EXCEPTIONS}
    assert not unexpected, "\n".join(unexpected.values())
    # They have run, and nothing is skipped that runs there.
    assert here["successes"] > 850
    assert here["skipped"].keys() <= stock["skipped"].keys()


def test_few_exceptions() -> None:
    """The exceptions stay few."""
    assert len(EXCEPTIONS) <= 10
