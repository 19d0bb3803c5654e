"""``twistd chargen``."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from twistednet.protocols.simple import ChargenDatagramProtocol, ChargenFactory
from twistednet.services.base import UDP_FLAG, DatagramServiceOptions, StreamServiceOptions, make_service


class Options(DatagramServiceOptions, StreamServiceOptions):
    command = "chargen"
    default_port = 19
    longdesc = "Sends lines of characters without end, as fast as they are read (RFC 864)."
    optFlags = [UDP_FLAG]


def makeService(options: Options, reactor: Any = None) -> IService:
    return make_service(options, factory=ChargenFactory(), datagram=ChargenDatagramProtocol, reactor=reactor)
