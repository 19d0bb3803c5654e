"""``twistd repeat``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from twistednet.policies.limits import Limits
from twistednet.protocols.printable import describe
from twistednet.protocols.repeat import COPIES, RepeatFactory
from twistednet.services.base import StartError, StreamServiceOptions, make_service, number


class Options(StreamServiceOptions):
    command = "repeat"
    default_port = 2000
    longdesc = "Sends the first message of a client back, many times, and closes."
    optParameters = [["copies", "n", COPIES, "How many copies to send.", number("copies", 0)]]
    optFlags = [
        [
            "go-ahead",
            "g",
            "Send nothing until you say so: each Enter at this terminal, or line on standard input, releases the "
            "client that has waited longest.",
        ]
    ]

    def limits(self) -> Limits:
        # Who waits for the go-ahead may wait as long as the operator does.
        limits = super().limits()
        return replace(limits, idle_timeout=0.0) if self["go-ahead"] else limits


class GoAhead(LineOnlyReceiver):
    """The operator's standard input, each line of which releases a client of `factory`."""

    delimiter = b"\n"
    MAX_LENGTH = 2**20
    log = Logger()

    def __init__(self, factory: RepeatFactory) -> None:
        self.factory = factory

    def lineReceived(self, line: bytes) -> None:
        client = self.factory.go_ahead()
        if client is None:
            self.log.info("nobody waits for the go-ahead")
        else:
            self.log.info(
                "sending to {client}; {waiting} more waiting", client=describe(client), waiting=self.factory.waiting
            )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.log.info("no more go-ahead will come: standard input has ended")


class GoAheadService(Service):
    """Reads standard input while the service runs."""

    def __init__(self, factory: RepeatFactory, reactor: Any) -> None:
        self.factory = factory
        self.reactor = reactor

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        # Opened anew, since the non-blocking mode that Twisted sets is shared with whatever else has the terminal,
        # the log on standard output first of all; and now, since the user that twistd may become could not.
        try:
            self.stdin = os.open("/dev/stdin", os.O_RDONLY | os.O_NOCTTY)
        except OSError as error:
            # As in ListeningService: it is the user who is told.
            sys.stderr = sys.__stderr__
            raise StartError(f"twistd repeat: --go-ahead: can't read standard input: {error.strerror}") from error

    def startService(self) -> None:
        super().startService()
        stdout = os.open(os.devnull, os.O_WRONLY)
        stdio: Any = StandardIO  # zope.interface hides the signature from mypy
        self.stdio = stdio(GoAhead(self.factory), self.stdin, stdout, reactor=self.reactor)

    def stopService(self) -> None:
        super().stopService()
        self.stdio.loseConnection()


def makeService(options: Options, reactor: Any = None) -> IService:
    if reactor is None:
        from twisted.internet import reactor
    factory = RepeatFactory(copies=options["copies"], wait=bool(options["go-ahead"]), reactor=reactor)
    service = make_service(options, factory=factory, reactor=reactor)
    if factory.wait:
        GoAheadService(factory, reactor).setServiceParent(service)
    return service
