"""``twistd udpok``."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService

from twistednet.protocols.udpok import PREFIX, UdpOkProtocol
from twistednet.services.base import DatagramServiceOptions, ServiceOptions, make_service


class Options(DatagramServiceOptions, ServiceOptions):
    command = "udpok"
    default_port = 8888
    longdesc = "Answers each datagram with OK... followed by the datagram."


def makeService(options: Options, reactor: Any = None) -> IService:
    return make_service(options, datagram=UdpOkProtocol, reflections=(PREFIX,), reactor=reactor)
