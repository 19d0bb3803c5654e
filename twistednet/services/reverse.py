"""``twistd reverse``."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from twistednet.protocols.reverse import ReverseFactory, units
from twistednet.services.base import StreamServiceOptions, make_service


def _unit(value: str) -> str:
    if value not in units:
        raise usage.UsageError(f"--unit {value}: not one of {', '.join(units)}")
    return value


class Options(StreamServiceOptions):
    command = "reverse"
    default_port = 12345
    longdesc = "Sends each line back reversed. A client that sends no line endings is answered when it pauses."
    optParameters = [
        [
            "unit",
            None,
            "character",
            "What is put in reverse order: character (as a reader sees them, where a line is UTF-8) or byte.",
            _unit,
        ]
    ]


def makeService(options: Options, reactor: Any = None) -> IService:
    return make_service(options, factory=ReverseFactory(unit=options["unit"], reactor=reactor), reactor=reactor)
