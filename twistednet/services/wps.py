"""``twistd wps``."""

from __future__ import annotations

import os
import shlex
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from twistednet.protocols.wps import COMMANDS, CommandFactory
from twistednet.services.base import ServiceOptions, StartError, make_service


class Options(ServiceOptions):
    command = "wps"
    default_port = 8888
    longdesc = (
        "Runs the command that a client names, sends its output, and closes. "
        "Only the commands in the operator's table can be named: w and ps, or those given with --command."
    )

    def __init__(self) -> None:
        super().__init__()
        self["commands"] = {}

    def opt_command(self, row: str) -> None:
        """A command that clients can name, as one argument: 'NAME=/absolute/path [ARGUMENT...]', quoted as for a
        shell (which is not what runs it); may be repeated. The first one replaces w and ps."""
        name, _, line = row.partition("=")
        try:
            argv = shlex.split(line)
        except ValueError as error:
            raise usage.UsageError(f"--command {row}: {error}") from error
        if not name or not argv or not os.path.isabs(argv[0]):
            raise usage.UsageError(f"--command {row}: not NAME=/absolute/path [ARGUMENT...]")
        if not (os.path.isfile(argv[0]) and os.access(argv[0], os.X_OK)):
            raise usage.UsageError(f"--command {row}: {argv[0]} is not a program that can be run")
        self["commands"][name] = argv

    opt_c = opt_command


def makeService(options: Options, reactor: Any = None) -> IService:
    commands = options["commands"] or {name: argv for name, argv in COMMANDS.items() if os.access(argv[0], os.X_OK)}
    if not commands:
        raise StartError("twistd wps: this machine has neither w nor ps in /usr/bin; name a command with --command")
    try:
        factory = CommandFactory(commands=commands, reactor=reactor)
    except ValueError as error:
        raise StartError(f"twistd wps: --command: {error}") from error
    return make_service(options, factory=factory, reactor=reactor)
