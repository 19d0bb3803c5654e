"""A child process that does not outlive its parent, however that ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet import defer, error
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from twistednet.bench import tied

COMPLAINTS = 4096
"""How much of what it writes on standard error is kept, in bytes."""


class Child(ProcessProtocol):
    """A child process.

    `has_ended` tells whether it has, and `ended` fires when it does.
    """

    transport: IProcessTransport

    def __init__(self) -> None:
        self.ended: defer.Deferred[None] = defer.Deferred()
        self.has_ended = False
        self._complaints = b""

    def start(self, reactor: Any, command: Sequence[str]) -> None:
        """Start it. When the reactor stops, it is ended first; when this process is killed, the kernel ends it."""
        tied_command = [sys.executable, "-I", "-S", tied.__file__, str(os.getpid()), *command]
        reactor.spawnProcess(self, tied_command[0], tied_command, os.environ)
        trigger = reactor.addSystemEventTrigger("before", "shutdown", self.stop)

        def forget(_: None) -> None:
            try:
                reactor.removeSystemEventTrigger(trigger)
            except (KeyError, ValueError):  # it is being pulled, or has been
                pass

        self.ended.addCallback(forget)

    def stop(self) -> defer.Deferred[None]:
        """End it, whatever it is at. Fires when it has ended."""
        try:
            self.transport.signalProcess("KILL")
        except error.ProcessExitedAlready:
            pass
        stopped: defer.Deferred[None] = defer.Deferred()
        self.ended.addCallback(stopped.callback)
        return stopped

    @property
    def last_words(self) -> str:
        """The last line it has written on standard error."""
        *_, last = self._complaints.decode(errors="replace").splitlines() or [""]
        return last

    def errReceived(self, data: bytes) -> None:
        self._complaints = (self._complaints + data)[-COMPLAINTS:]

    def processEnded(self, reason: Failure) -> None:
        self.has_ended = True
        self.ended.callback(None)
