"""``twistd greeter``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from twistednet.protocols.greeter import GOODBYE, GREETING, GreeterFactory
from twistednet.services.base import StreamServiceOptions, make_service


def _line(name: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        # What is not UTF-8 arrives as surrogates.
        if "\n" in text or text.encode(errors="ignore").decode() != text:
            raise usage.UsageError(f"--{name} {text!r}: not one line of UTF-8")
        return text

    return read


class Options(StreamServiceOptions):
    command = "greeter"
    default_port = 15000
    longdesc = "Answers whatever comes with a greeting and a goodbye, and closes."
    optParameters = [
        ["greeting", None, GREETING, "The greeting.", _line("greeting")],
        ["goodbye", None, GOODBYE, "The goodbye.", _line("goodbye")],
    ]


def makeService(options: Options, reactor: Any = None) -> IService:
    factory = GreeterFactory(greeting=options["greeting"], goodbye=options["goodbye"], reactor=reactor)
    return make_service(options, factory=factory, reactor=reactor)
