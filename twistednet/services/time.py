"""``twistd time``."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from twistednet.protocols.simple import TimeDatagramProtocol, TimeFactory
from twistednet.services.base import UDP_FLAG, DatagramServiceOptions, StreamServiceOptions, make_service


class Options(DatagramServiceOptions, StreamServiceOptions):
    command = "time"
    default_port = 37
    longdesc = "Tells the time, as four bytes: seconds since 1900 (RFC 868)."
    optFlags = [UDP_FLAG]


def makeService(options: Options, reactor: Any = None) -> IService:
    return make_service(options, factory=TimeFactory(reactor=reactor), datagram=TimeDatagramProtocol, reactor=reactor)
