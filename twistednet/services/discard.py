"""``twistd discard``."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from twistednet.protocols.simple import DiscardDatagramProtocol, DiscardFactory
from twistednet.services.base import UDP_FLAG, DatagramServiceOptions, StreamServiceOptions, make_service


class Options(DatagramServiceOptions, StreamServiceOptions):
    command = "discard"
    default_port = 9
    longdesc = "Reads everything, and answers nothing (RFC 863)."
    optFlags = [UDP_FLAG]


def makeService(options: Options, reactor: Any = None) -> IService:
    return make_service(options, factory=DiscardFactory(), datagram=DiscardDatagramProtocol, reactor=reactor)
