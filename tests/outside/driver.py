"""Run one test suite on one reactor, in this process, and write what came out as JSON, a line for each event.

``driver.py REACTOR FILE trial [--leave-out TEST]... [--] NAME...`` runs tests of trial's, and ``driver.py REACTOR FILE
pytest ARGUMENT...`` tests of pytest's. This file is run by its path, by the Python of the suite's environment, and so
imports nothing of the other files here. ``REACTOR`` is one of `REACTORS`.

The lines are ``{"begins": TEST}``, ``{"ends": TEST, "status": STATUS, "why": TEXT}`` and, as the last,
``{"complete": true}``. A test ends more than once if its clean-up fails too: the worst of its outcomes counts.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from twistednet.reactor import LoopReactor

PATIENCE = 60.0
"""Seconds after which one of trial's tests gives up, unless it says otherwise; two minutes in Twisted."""

REACTOR_PATIENCE = 10.0
"""The same for the tests of a `ReactorBuilder`, each of which has a reactor of its own and takes a moment."""

REACTORS = ("uvloop", "asyncio", "epoll", "stock-asyncio")
"""Ours on either loop, Twisted's default on Linux, and Twisted's own asyncio reactor."""

TWISTEDS = {
    "epoll": "twisted.internet.epollreactor.EPollReactor",
    "stock-asyncio": "twisted.internet.asyncioreactor.AsyncioSelectorReactor",
}


def on_uvloop(test: Any) -> LoopReactor:
    """A reactor for one test of a `ReactorBuilder`."""
    from twistednet.reactor import UvloopReactor

    return for_one_test(test, UvloopReactor())


def on_asyncio(test: Any) -> LoopReactor:
    """A reactor for one test of a `ReactorBuilder`."""
    from twistednet.reactor import AsyncioReactor

    return for_one_test(test, AsyncioReactor())


def for_one_test(test: Any, reactor: LoopReactor) -> LoopReactor:
    """`reactor`, whose loop is closed when `test` has ended."""

    def close() -> None:
        # What has been closed last takes the loop one more turn.
        reactor.loop.call_soon(reactor.loop.stop)
        reactor.loop.run_forever()
        reactor.loop.close()

    test.addCleanup(close)
    return reactor


def install(name: str) -> None:
    """Make the reactor called `name` the global one."""
    if name == "epoll":
        from twisted.internet import epollreactor

        epollreactor.install()
    elif name == "stock-asyncio":
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    else:
        from twistednet.reactor import install as install_ours

        install_ours(name)  # type: ignore[arg-type]


class Events:
    """Writes the events.

    :param file: where to.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, **event: object) -> None:
        """Write one, at once: the process may be killed at any time."""
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()


def run_trial(name: str, events: Events, left_out: set[str], names: list[str]) -> None:
    """Run the tests in the packages and modules called `names`, with all below them, except those `left_out`."""
    install(name)
    from twisted.internet.test import reactormixins
    from twisted.trial import reporter, runner, util

    builder = TWISTEDS.get(name, f"{__name__}.on_{name}")
    reactormixins.ReactorBuilder._reactors = [builder]
    util.DEFAULT_TIMEOUT_DURATION = PATIENCE
    reactormixins.DEFAULT_TIMEOUT_DURATION = REACTOR_PATIENCE  # type: ignore[attr-defined]
    suffix = f"_{builder.rpartition('.')[2]}Tests."

    def identity(test: Any) -> str:
        return str(test.id()).replace(suffix, ".")

    def text(why: Any) -> str:
        return str(getattr(why, "getTraceback", why.__str__)())

    class Recorder(reporter.VerboseTextReporter):
        def startTest(self, test: Any) -> None:
            super().startTest(test)
            events.write(begins=identity(test))

        def addSuccess(self, test: Any) -> None:
            super().addSuccess(test)
            events.write(ends=identity(test), status="passed", why="")

        def addFailure(self, test: Any, fail: Any) -> None:
            super().addFailure(test, fail)
            events.write(ends=identity(test), status="failed", why=text(self.failures[-1][1]))

        def addError(self, test: Any, error: Any) -> None:
            super().addError(test, error)
            events.write(ends=identity(test), status="failed", why=text(self.errors[-1][1]))

        def addSkip(self, test: Any, reason: Any) -> None:
            super().addSkip(test, reason)
            events.write(ends=identity(test), status="skipped", why=str(reason))

        def addExpectedFailure(self, test: Any, failure: Any, todo: Any = None) -> None:
            super().addExpectedFailure(test, failure, todo)
            events.write(ends=identity(test), status="skipped", why="an expected failure")

        def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
            super().addUnexpectedSuccess(test, todo)
            events.write(ends=identity(test), status="passed", why="")

    suite = runner.TestLoader().loadByNames(names, recurse=True)
    for test in each_test(suite):
        if identity(test) in left_out:
            test.skip = "left out on every reactor"
    runner.TrialRunner(Recorder, stream=sys.stdout, workingDirectory="trial").run(suite)


def each_test(suite: Any) -> Any:
    """The tests in `suite`."""
    try:
        inner = list(suite)
    except TypeError:
        yield suite
    else:
        for part in inner:
            yield from each_test(part)


def run_pytest(events: Events, arguments: list[str]) -> None:
    """Run the tests that `arguments` tell pytest of."""
    import pytest

    class Recorder:
        def pytest_runtest_logstart(self, nodeid: str) -> None:
            events.write(begins=nodeid)

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            # The outcome of pytest-rerunfailures, "rerun", is none.
            if report.outcome in ("passed", "skipped", "failed") and (report.when == "call" or not report.passed):
                why = "" if report.passed else f"{report.longreprtext}\n{essence(report.longrepr)}"
                events.write(ends=report.nodeid, status=report.outcome, why=why)

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                events.write(ends=report.nodeid, status="failed", why=report.longreprtext)

    pytest.main(arguments, plugins=[Recorder()])


def essence(longrepr: Any) -> str:
    """What pytest says of a failure in its summary, or of a skipped test."""
    if isinstance(longrepr, tuple):
        return str(longrepr[2])
    crash = getattr(longrepr, "reprcrash", None)
    return "" if crash is None else str(crash.message).partition("\n")[0]


def main(name: str, path: str, kind: str, *arguments: str) -> None:
    """Run what is to be run."""
    # This file may be in a folder whose other files are not to be found by the suite; the current folder is.
    sys.path[0:0] = [os.getcwd()]
    with Path(path).open("w", encoding="utf-8") as file:
        events = Events(file)
        if kind == "trial":
            left_out: set[str] = set()
            while arguments[:1] == ("--leave-out",):
                left_out.add(arguments[1])
                arguments = arguments[2:]
            run_trial(name, events, left_out, list(arguments))
        else:
            run_pytest(events, list(arguments))
        events.write(complete=True)
        # Neither threads that are left nor their clean-up are of interest.
        sys.stdout.flush()
        file.flush()
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
