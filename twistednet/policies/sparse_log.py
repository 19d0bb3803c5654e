"""Log lines that a stranger can cause, no more than one a second of each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel

INTERVAL = 1.0
"""Seconds between two lines of a kind."""


class SparseLog:
    """Logs a line unless one of its kind was logged a moment ago; the next one says how many were left out.

    :param log: where to.
    :param clock: measures seconds.
    """

    def __init__(self, log: Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def warn(self, line: str, **values: Any) -> None:
        """Log `line`, a format string and its kind at the same time, with `values`."""
        now = self._clock()
        last, left_out = self._kinds.get(line, (now - INTERVAL, 0))
        if now - last < INTERVAL:
            self._kinds[line] = last, left_out + 1
            return
        self._kinds[line] = now, 0
        if left_out:
            line += " (and {left_out} more since the last such line)"
        self._log.emit(LogLevel.warn, line, left_out=left_out, **values)
