"""``twistd systat``."""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import IService

from twistednet.protocols.counters import Counters
from twistednet.protocols.simple import SYSTAT_COMMAND, SystatDatagramProtocol, SystatFactory
from twistednet.services.base import UDP_FLAG, DatagramServiceOptions, StartError, StreamServiceOptions, make_service
from twistednet.services.commands import CommandOptions, CommandService, make_runner


class Options(CommandOptions, DatagramServiceOptions, StreamServiceOptions):
    command = "systat"
    default_port = 11
    longdesc = "Tells who is logged in, as w shows it (RFC 866)."
    optFlags = [UDP_FLAG]


def makeService(options: Options, reactor: Any = None) -> IService:
    if not os.access(SYSTAT_COMMAND[0], os.X_OK):
        raise StartError(f"twistd systat: this machine has no {SYSTAT_COMMAND[0]}")
    counters = Counters()
    runner = make_runner(options, counters, reactor)
    services = make_service(
        options,
        factory=SystatFactory(runner=runner, reactor=reactor),
        datagram=lambda: SystatDatagramProtocol(runner=runner),
        counters=counters,
        reactor=reactor,
    )
    return CommandService(runner, services)
