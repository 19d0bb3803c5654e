"""Processes that do what a test tells them to."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure


class Process:
    """A process that writes and ends when it is told to."""

    def __init__(self, protocol: Any, executable: str, args: list[str], env: dict[str, str], fds: dict[int, Any]):
        self.protocol = protocol
        self.executable = executable
        self.args = args
        self.env = env
        self.fds = fds
        self.state = "producing"
        self.signals: list[str] = []
        self.ended = False

    def write(self, data: bytes) -> None:
        """Output."""
        self.protocol.childDataReceived(1, data)

    def end(self, status: int = 0, signal: int | None = None) -> None:
        """Exit."""
        self.ended = True
        error = ProcessTerminated(status or None, signal) if status or signal else ProcessDone(0)
        self.protocol.processEnded(Failure(error))

    def signalProcess(self, signal: str) -> None:
        if self.ended:
            raise ProcessExitedAlready
        self.signals.append(signal)

    def pauseProducing(self) -> None:
        self.state = "paused"

    def resumeProducing(self) -> None:
        self.state = "producing"


class ProcessReactor(Clock):
    """Starts `Process`, or fails to."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.error: OSError | None = None

    def spawnProcess(
        self,
        protocol: Any,
        executable: str,
        args: Sequence[str],
        env: Mapping[str, str],
        childFDs: Mapping[int, Any],  # noqa: N803  (as the reactor has it)
    ) -> Process:
        if self.error is not None:
            raise self.error
        assert stat.S_ISCHR(os.fstat(childFDs[0]).st_mode)
        process = Process(protocol, executable, list(args), dict(env), dict(childFDs))
        self.processes.append(process)
        protocol.makeConnection(process)
        return process
