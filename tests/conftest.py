"""What every test is held to: nothing logged as a failure, nothing left in the reactor."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import pytest_twisted
from twisted.internet import task
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import provider

from tests import programs
from tests.services import running
from twistednet.reactor import install

# How long an example takes says nothing where several tests run at once.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

REACTORS = {"uvloop": "twistednet", "asyncio": "twistednet-asyncio", "epoll": "epoll"}
"""What can be tested on, and the name it has for twistd."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the reactor be named."""
    parser.addoption(
        "--on",
        choices=list(REACTORS),
        help="the reactor for the tests and for each twistd they start (default: Twisted's for the tests, and for a "
        "twistd whichever it chooses)",
    )
    parser.addoption(
        "--fresh",
        action="store_true",
        help="start an interpreter for each twistd and twistednet, in place of forking one that has imported them",
    )


def pytest_xdist_auto_num_workers() -> int:
    """How many processes the tests run in: one more than there are processors, as the tests often wait."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Install the reactor that was named, before pytest-twisted installs its own."""
    if hasattr(config, "workerinput"):
        programs.die_with(os.getppid())  # a worker of pytest-xdist ends with its controller
    # Ignored in the background of a script, which a test run is not to notice.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    programs.FRESH = config.getoption("--fresh")
    name = config.getoption("--on")
    if name is None:
        return
    running.REACTOR.append(f"--reactor={REACTORS[name]}")
    if name != "epoll":
        install(name)
        # pytest-twisted takes a reactor that is there, if it is of the kind that it was told.
        config.option.reactor = "asyncio"


@pytest.fixture(autouse=True, scope="session")
def no_processes_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a run that leaves a process behind; an aborted run leaves none, as `programs.Guard` sees to."""
    programs.FOLDER.append(tmp_path_factory.getbasetemp())
    guard = programs.Guard(programs.FOLDER[0])
    yield
    programs.stop_launcher()
    for _ in range(100):
        left = [process for process in programs.descendants("") if process.pid != guard.pid]
        if not left:
            break
        time.sleep(0.05)
    guard.stop()
    assert not left, left


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each program that the test starts run in an interpreter of its own."""
    monkeypatch.setattr(programs, "FRESH", True)


@pytest.fixture(autouse=True, scope="module")
def earlier_objects() -> None:
    """Let the collections after each test pass over what was there before its module: that takes 0.1 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def expected_failures() -> list[Failure]:
    """The failures that have been logged; a test that asks for this looks at them itself."""
    return []


@pytest.fixture(autouse=True)
def no_logged_failures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which a failure is logged, an unhandled one of a Deferred among them."""
    expected = "expected_failures" in request.fixturenames
    failures: list[Failure] = request.getfixturevalue("expected_failures") if expected else []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        # twisted.python.log.err has it under the second name.
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None:
            failures.append(failure)

    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert expected or not [failure.getTraceback() for failure in failures]


@pytest_twisted.async_yield_fixture()
async def live_reactor() -> Any:
    """The running reactor, for live tests; in the end it must be as it was: no socket, no timer left."""
    from twisted.internet import reactor

    net: Any = reactor
    before = set(net.getReaders()) | set(net.getWriters())
    yield net
    for _ in range(100):
        left = (set(net.getReaders()) | set(net.getWriters())) - before
        calls = net.getDelayedCalls()
        if not left and not calls:
            break
        await task.deferLater(net, 0.01, lambda: None)
    assert not left, left
    assert not calls, calls
