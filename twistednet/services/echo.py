"""``twistd echo``."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from twistednet.protocols.echo import EchoDatagramProtocol, EchoFactory
from twistednet.services.base import UDP_FLAG, DatagramServiceOptions, StreamServiceOptions, make_service


class Options(DatagramServiceOptions, StreamServiceOptions):
    command = "echo"
    default_port = 2000
    longdesc = "Sends back everything it receives (RFC 862)."
    optFlags = [UDP_FLAG]


def makeService(options: Options, reactor: Any = None) -> IService:
    return make_service(options, factory=EchoFactory(), datagram=EchoDatagramProtocol, reactor=reactor)
