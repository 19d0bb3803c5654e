"""``twistd qotd``."""

from __future__ import annotations

import re
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from twistednet.protocols.simple import QUOTES, QotdDatagramProtocol, QotdFactory, check_quotes
from twistednet.services.base import UDP_FLAG, DatagramServiceOptions, StreamServiceOptions, make_service


class Options(DatagramServiceOptions, StreamServiceOptions):
    command = "qotd"
    default_port = 17
    longdesc = "Tells the quotation of the day (RFC 865)."
    optFlags = [UDP_FLAG]

    def __init__(self) -> None:
        super().__init__()
        self["quotes"] = QUOTES

    def opt_quotes(self, path: str) -> None:
        """A file with quotations, UTF-8, each of fewer than 512 bytes, with a line that is only % between two, as
        fortune has them. [default: a few of our own]"""
        try:
            with open(path, encoding="utf-8-sig") as file:
                quotes = [quote.strip() for quote in re.split(r"^%$", file.read(), flags=re.MULTILINE)]
            self["quotes"] = check_quotes([quote.replace("\n", "\r\n") for quote in quotes if quote])
        except OSError as error:
            raise usage.UsageError(f"--quotes {path}: {error.strerror}") from error
        except ValueError as error:
            raise usage.UsageError(f"--quotes {path}: {error}") from error


def makeService(options: Options, reactor: Any = None) -> IService:
    quotes = options["quotes"]
    return make_service(
        options,
        factory=QotdFactory(quotes=quotes, reactor=reactor),
        datagram=lambda: QotdDatagramProtocol(quotes=quotes),
        reactor=reactor,
    )
