"""The clock for how long something takes."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from twisted.internet.interfaces import IReactorCore, IReactorTime


def elapsed_clock(reactor: IReactorTime | None) -> Callable[[], float]:
    """What to measure durations with, in seconds.

    :param reactor: has the timers. A reactor tells the time of day, which can be set: ``time.monotonic`` takes its
        place, as it does where there is none. What is only a clock, as `twisted.internet.task.Clock`, measures itself.
    """
    return monotonic if reactor is None or IReactorCore.providedBy(reactor) else reactor.seconds
