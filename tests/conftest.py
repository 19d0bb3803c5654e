"""What every test is held to: nothing logged as a failure, nothing left in the reactor."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import task
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import provider


@pytest.fixture(autouse=True)
def no_logged_failures() -> Iterator[None]:
    """Fail a test in which a failure is logged, an unhandled one of a Deferred among them."""
    failures: list[LogEvent] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            failures.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not [event["log_failure"].getTraceback() for event in failures]


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
