"""Twisted's own tests of reactors, on one reactor: ``python -m tests.reactor.gate NAME`` writes as JSON what came out.

``NAME`` is uvloop, asyncio, or epoll (Twisted's default on Linux, which the others are held against). With ``quick``
after it, only the tests that wait little are run: those of `QUICK`, without `EXCEPTIONS`.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from typing import Any
from unittest import TestSuite

from twisted.internet.test import reactormixins
from twisted.trial import reporter, runner

from tests.reactor.test_twisted import EXCEPTIONS, QUICK
from twistednet.reactor import AsyncioReactor, LoopReactor, UvloopReactor

PATIENCE = 8.0
"""Seconds after which a test gives up; two minutes in Twisted."""

REACTORS = {
    "uvloop": "tests.reactor.gate.on_uvloop",
    "asyncio": "tests.reactor.gate.on_asyncio",
    "epoll": "twisted.internet.epollreactor.EPollReactor",
}


def on_uvloop(test: Any) -> LoopReactor:
    """A reactor for one test."""
    return for_one_test(test, UvloopReactor())


def on_asyncio(test: Any) -> LoopReactor:
    """A reactor for one test."""
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


def cases(suite: Any) -> Iterator[Any]:
    """The tests of `suite`."""
    for part in suite:
        if isinstance(part, TestSuite):
            yield from cases(part)
        else:
            yield part


def run(name: str, *, quick: bool) -> dict[str, Any]:
    """Run them all, or the `quick` ones; how many succeeded, which were skipped, and how each of the others failed."""
    reactormixins.ReactorBuilder._reactors = [REACTORS[name]]
    setattr(reactormixins, "DEFAULT_TIMEOUT_DURATION", PATIENCE)  # noqa: B010 (mypy holds it for private)
    package = "twisted.internet.test"
    names = [f"{package}.test_{module}" for module in QUICK] if quick else [package]
    suite: Any = runner.TestLoader().loadByNames(names, recurse=True)
    trial = runner.TrialRunner(reporter.Reporter, stream=io.StringIO(), workingDirectory="trial")
    suffix = f"_{REACTORS[name].rpartition('.')[2]}Tests."

    if quick:
        suite = TestSuite(test for test in cases(suite) if test.id().replace(suffix, ".") not in EXCEPTIONS)
    result: Any = trial.run(suite)

    def by_name(outcomes: Any) -> dict[str, str]:
        return {test.id().replace(suffix, "."): getattr(why, "getTraceback", why.__str__)() for test, why in outcomes}

    return {
        "successes": result.successes,
        "skipped": by_name(result.skips),
        "failed": by_name(result.failures) | by_name(result.errors),
    }


if __name__ == "__main__":
    # By the name under which Twisted's tests import it.
    from tests.reactor import gate

    json.dump(gate.run(sys.argv[1], quick="quick" in sys.argv[2:]), sys.stdout)
