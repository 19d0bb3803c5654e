"""The timers of our reactors, and a time of day that is set."""

from __future__ import annotations

import time

import pytest

from twistednet.reactor import AsyncioReactor, loop


@pytest.mark.parametrize("step", [3600.0, -3600.0], ids=["forward", "back"])
def test_time_of_day_is_set(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """Timers come when they were asked for, though the time of day has been set meanwhile."""
    reactor = AsyncioReactor()
    came: list[str] = []
    try:
        reactor.callLater(0.05, came.append, "soon")
        late = reactor.callLater(60, came.append, "late")
        monkeypatch.setattr(loop, "time", lambda: time.time() + step)
        after = reactor.callLater(0.05, came.append, "after")
        assert abs(reactor.seconds() - time.time() - step) < 1
        assert 59 < late.getTime() - reactor.seconds() < 61
        time.sleep(0.06)
        reactor.runUntilCurrent()
        assert came == ["soon", "after"]
        assert not after.active()
        late.cancel()
    finally:
        reactor.disconnectAll()
        reactor.loop.close()
