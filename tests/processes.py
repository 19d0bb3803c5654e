"""Children that do what a test tells them to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import psutil
from twisted.internet.task import Clock

from twistednet.protocols.commands import Child, CommandRunner, ICommandReactor


class Process:
    """A child that writes and ends when it is told to."""

    def __init__(
        self,
        reactor: ProcessReactor,
        argv: Sequence[str],
        environment: Mapping[str, str],
        received: Callable[[bytes], object],
        ended: Callable[[int], object],
    ) -> None:
        if reactor.error is not None:
            raise reactor.error
        self.argv = list(argv)
        self.environment = environment
        self.signals: list[int] = []
        self.reading = True
        self.end = ended
        """Exit, with a status, or on a signal, negated."""
        self._received = received
        reactor.processes.append(self)

    def write(self, data: bytes) -> None:
        """Output."""
        if self.reading:
            self._received(data)

    def stop_reading(self) -> None:
        """As `Child` has it."""
        self.reading = False

    def signal(self, number: int) -> None:
        """As `Child` has it."""
        self.signals.append(number)


class ProcessReactor(Clock):
    """A clock for those who start a `Process`, or fail to."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.error: OSError | None = None


class ProcessRunner(CommandRunner):
    """Runs each command as a `Process`."""

    child = cast("type[Child]", Process)

    def __init__(self, reactor: ProcessReactor, **options: Any) -> None:
        super().__init__(reactor=cast(ICommandReactor, reactor), **options)


def living(group: int) -> list[psutil.Process]:
    """The processes of `group`, those left out that have ended and that nobody has asked about."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found
