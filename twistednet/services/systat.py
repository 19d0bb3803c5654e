"""``twistd systat``."""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import IService

from twistednet.protocols.simple import SYSTAT_COMMAND, SystatDatagramProtocol, SystatFactory
from twistednet.services.base import UDP_FLAG, ServiceOptions, StartError, make_service


class Options(ServiceOptions):
    command = "systat"
    default_port = 11
    longdesc = "Tells who is logged in, as w shows it (RFC 866)."
    optFlags = [UDP_FLAG]


def makeService(options: Options, reactor: Any = None) -> IService:
    if reactor is None:
        from twisted.internet import reactor
    if not os.access(SYSTAT_COMMAND[0], os.X_OK):
        raise StartError(f"twistd systat: this machine has no {SYSTAT_COMMAND[0]}")
    return make_service(
        options,
        factory=SystatFactory(reactor=reactor),
        datagram=lambda: SystatDatagramProtocol(reactor),
        reactor=reactor,
    )
