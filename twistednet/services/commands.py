"""What the services that run commands share: their options, and the end of the children with the service.

A command's ``Options`` inherits `CommandOptions` too, and its ``makeService`` puts what `make_service` makes into a
`CommandService` with the runner that `make_runner` makes.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred

from twistednet.protocols.commands import KEEP, MAX_CHILDREN, MAX_OUTPUT, TIMEOUT, CommandRunner
from twistednet.protocols.counters import Counters
from twistednet.services.base import number, seconds
from twistednet.services.stopping import DrainingService


class CommandOptions:
    """Mixed in before the options of every service that runs commands: what those may take."""

    optParameters: Any = [
        [
            "max-children",
            None,
            MAX_CHILDREN,
            "How many commands run at once; the next wait their turn.",
            number("max-children", 1),
        ],
        [
            "keep",
            None,
            KEEP,
            "Seconds for which an answer is given again to those who ask for the same; 0: only those who wait for the "
            "same run share it.",
            seconds("keep"),
        ],
        ["max-output", None, MAX_OUTPUT, "Bytes after which a command's output is cut.", number("max-output", 1)],
        [
            "command-timeout",
            None,
            TIMEOUT,
            "Seconds after which a command is ended, and its output cut; 0: never.",
            seconds("command-timeout"),
        ],
    ]
    optFlags: Any = [
        ["no-share", "", "Run a command for each who asks, even for the same at the same time."],
        ["plain", "", "Take control characters and escape sequences out of what commands write."],
    ]


def make_runner(options: Any, counters: Counters, reactor: Any = None) -> CommandRunner:
    """The runner that `options`, of a service, describe, on the global reactor where `reactor` is left out."""
    return CommandRunner(
        max_children=options["max-children"],
        share=not options["no-share"],
        keep=options["keep"],
        max_output=options["max-output"],
        timeout=options["command-timeout"],
        plain=bool(options["plain"]),
        counters=counters,
        reactor=reactor,
    )


class CommandService(MultiService):
    """Services that use a runner, which is stopped when they have stopped: who is owed an answer has had it by then.

    :param runner: the runner.
    :param services: the services.
    """

    def __init__(self, runner: CommandRunner, services: DrainingService) -> None:
        super().__init__()
        self.runner = runner
        self._services = services
        services.setServiceParent(self)

    @property
    def counters(self) -> Counters:
        """What they have done, up to now."""
        return self._services.counters

    def startService(self) -> None:
        self.runner.start()
        super().startService()

    def stopService(self) -> Deferred[None]:
        stopping: Deferred[Any] = maybeDeferred(super().stopService)
        return stopping.addCallback(lambda _: self.runner.stop())
