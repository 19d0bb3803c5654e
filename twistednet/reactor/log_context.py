"""The prefix that names a connection in the log lines that its protocol writes."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any


class LogContext(dict[str, Any]):
    """A default context for Twisted's log, which names the connection that is being read from.

    Twisted's reactors set the context around every call of ``dataReceived``, which costs as much as the rest of an
    echo. This looks for the connection on the stack instead, when a line is logged.

    :param callers: the code of the methods that call protocols; their ``self`` has a method ``logPrefix``.
    """

    def __init__(self, *callers: CodeType) -> None:
        super().__init__(system="-")
        self._callers = callers

    def __getitem__(self, key: str) -> Any:
        return self._system() if key == "system" else super().__getitem__(key)

    def copy(self) -> dict[str, Any]:
        return {**dict.copy(self), "system": self._system()}

    def _system(self) -> str:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code not in self._callers:
            frame = frame.f_back
        if frame is None:
            return "-"
        prefix: str = frame.f_locals["self"].logPrefix()
        return prefix
