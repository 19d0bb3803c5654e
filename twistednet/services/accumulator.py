"""``twistd accumulator``."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from twisted.application.service import IService
from twisted.internet.error import ReactorNotRunning

from twistednet.protocols.accumulator import MAX_TEXT, AccumulatorFactory, SharedText
from twistednet.protocols.printable import printable
from twistednet.services.base import StreamServiceOptions, make_service, number


class Options(StreamServiceOptions):
    command = "accumulator"
    default_port = 2000
    longdesc = (
        "Appends each letter that a client sends to one string shared by all, and answers with the whole string so "
        "far. A client leaves by an empty line, or by closing; when the last one has left, the string is logged."
    )
    optParameters = [
        ["max-length", "m", MAX_TEXT, "How long the string may get, in bytes.", number("max-length", 1)],
        [
            "clients",
            "n",
            None,
            "Serve this many clients, print the final value and stop. [default: serve for ever]",
            number("clients", 1),
        ],
    ]


def makeService(options: Options, reactor: Any = None) -> IService:
    if reactor is None:
        from twisted.internet import reactor
    factory = AccumulatorFactory(
        text=SharedText(max_length=options["max-length"]), clients=options["clients"], reactor=reactor
    )

    def stop(value: bytes) -> None:
        # To the terminal, as the textbook's server does: twistd has turned sys.stdout into its log.
        print("the final value of v is", printable(value), file=sys.__stdout__, flush=True)
        with suppress(ReactorNotRunning):  # it is being stopped already
            reactor.stop()

    factory.finished.addCallback(stop)
    return make_service(options, factory=factory, reactor=reactor)
