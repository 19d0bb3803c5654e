"""``twistd daytime``."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from twistednet.protocols.simple import DaytimeDatagramProtocol, DaytimeFactory
from twistednet.services.base import UDP_FLAG, DatagramServiceOptions, StreamServiceOptions, make_service


class Options(DatagramServiceOptions, StreamServiceOptions):
    command = "daytime"
    default_port = 13
    longdesc = "Tells the date and the time, in words (RFC 867)."
    optFlags = [UDP_FLAG]


def makeService(options: Options, reactor: Any = None) -> IService:
    return make_service(
        options, factory=DaytimeFactory(reactor=reactor), datagram=DaytimeDatagramProtocol, reactor=reactor
    )
