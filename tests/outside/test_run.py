"""What runs the suites, and the first of them: Twisted's own tests of reactors."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.outside.compare import Outcome, Run, exceptions, problems
from tests.outside.run import run
from tests.outside.suites import REACTORS, SUITES, Suite

INTERNET = next(suite for suite in SUITES if suite.name == "twisted.internet")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that others may look into, which pytest's own are not."""
    made = Path(tempfile.mkdtemp(prefix="outside-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Run:
    """What comes out on Twisted's default reactor."""
    return run(INTERNET, INTERNET.reference, folder, python=sys.executable)


@pytest.mark.parametrize("reactor", REACTORS)
def test_as_on_epoll(folder: Path, reference: Run, reactor: str) -> None:
    """What passes on Twisted's default reactor passes here, with the exceptions listed."""
    ran = run(INTERNET, reactor, folder, python=sys.executable)
    wrong = problems(ran, reference, exceptions(INTERNET.name, reactor))
    assert not wrong, "\n".join([*wrong, ran.log.read_text()[-20_000:]])
    assert ran.count("passed") > 850


ENDLESS = """
import os, subprocess, sys, time

def test_passes():
    assert os.environ["COLOUR"] == "red"

def test_fails():
    assert os.geteuid() == 0

def test_never_ends():
    child = "import time; time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", child, "outlives its parent"], start_new_session=True)
    time.sleep(600)
"""


def test_limit(folder: Path) -> None:
    """A run that takes too long is ended, with all that it has started; what came out until then is known."""
    file = folder / "test_endless.py"
    file.write_text(ENDLESS)
    suite = Suite(
        "endless", "pytest", ("-p", "no:cacheprovider", str(file)), (), environment=(("COLOUR", "red"),), limit=4
    )
    ran = run(suite, "epoll", folder, python=sys.executable)
    outcomes = {test.rpartition("::")[2]: outcome for test, outcome in ran.outcomes.items()}
    assert outcomes["test_passes"] == Outcome("passed")
    assert (outcomes["test_fails"].status, outcomes["test_fails"].essence[:7]) == ("failed", "assert ")
    assert (ran.complete, ran.running.rpartition("::")[2]) == (False, "test_never_ends")
    assert 4 <= ran.seconds < 10
    for process in psutil.process_iter(["cmdline"]):
        assert "outlives its parent" not in (process.info["cmdline"] or [])
