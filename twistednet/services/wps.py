"""``twistd wps``."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from typing import Any

from twisted.application.service import IService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.python import usage

from twistednet.protocols.counters import Counters
from twistednet.protocols.printable import describe
from twistednet.protocols.wps import COMMANDS, CommandFactory
from twistednet.services.base import StartError, StreamServiceOptions, make_service
from twistednet.services.commands import CommandOptions, CommandService, make_runner


class Options(CommandOptions, StreamServiceOptions):
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


class RemoteCommandService(CommandService):
    """The service, which warns where strangers can have the commands run, and whoever is in between read along."""

    log = Logger()

    def startService(self) -> None:
        super().startService()
        for listening in [listening for services in self for listening in services]:
            if listening.port is not None and is_open(listening.description, listening.port.getHost()):
                self.log.warn(
                    "wps on {address} without TLS: whoever reaches it can run its commands, and read the answers",
                    address=describe(listening.port.getHost()),
                )


def is_open(description: str, address: Any) -> bool:
    """Whether the endpoint of `description` is on an `address` that other machines can reach, and not under TLS."""
    if re.match(r"(haproxy:)?(tls|ssl):", description) or not isinstance(address, IPv4Address | IPv6Address):
        return False
    return not ipaddress.ip_address(address.host).is_loopback


def makeService(options: Options, reactor: Any = None) -> IService:
    commands = options["commands"] or {name: argv for name, argv in COMMANDS.items() if os.access(argv[0], os.X_OK)}
    if not commands:
        raise StartError("twistd wps: this machine has neither w nor ps in /usr/bin; name a command with --command")
    counters = Counters()
    runner = make_runner(options, counters, reactor)
    try:
        factory = CommandFactory(commands=commands, runner=runner, reactor=reactor)
    except ValueError as error:
        raise StartError(f"twistd wps: --command: {error}") from error
    return RemoteCommandService(runner, make_service(options, factory=factory, counters=counters, reactor=reactor))
