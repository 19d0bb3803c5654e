"""What every ``twistd`` command here shares: the options that say where to listen, and the service that does.

A command's module is a few lines over this: an ``Options`` that inherits `ServiceOptions` and adds the protocol's
own, and a ``makeService`` that hands a factory to `make_service`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from twistednet.protocols.printable import describe
from twistednet.reactor import install as install_reactor
from twistednet.services.datagram_endpoints import (
    datagram_endpoint_from_string,
    is_datagram_string,
)


class StartError(SystemExit, Exception):
    """The service can't start, for a reason that the user can mend; its argument is the one line that says so.

    An ``Exception``, so that ``twistd`` removes its pid file and tells the process it was started from; a
    ``SystemExit``, so that what the user sees is the line, and status 1, instead of a traceback.
    """


def number(name: str, least: int, most: int | None = None) -> Callable[[str], int]:
    """What reads the value of the option `name`: a whole number from `least` to `most`.

    :raises usage.UsageError: by the result, for anything else.
    """
    accepted = f"a whole number of {least} or more" if most is None else f"a whole number from {least} to {most}"

    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit()) or int(value) < least or (most is not None and int(value) > most):
            raise usage.UsageError(f"--{name} {value}: not {accepted}")
        return int(value)

    return read


UDP_FLAG = ["udp", "u", "Serve UDP too, on the same interface and port (with port 0, on one of its own)."]
"""The row of ``optFlags`` for a stream service that has a datagram form."""


class ServiceOptions(usage.Options):
    """The options that every service has.

    A subclass names its `command` and its `default_port`.
    """

    command: str
    default_port: int
    parent: usage.Options | None = None
    optParameters = [
        ["port", "p", None, "The port to listen on; 0 lets the system choose.", number("port", 0, 65535)],
        [
            "interface",
            "i",
            "127.0.0.1",
            "The address to listen on with --port: this machine's loopback unless told otherwise; "
            "0.0.0.0 or :: is every address.",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        # Docstrings are wrapped with their indentation otherwise.
        self.docs = {option: " ".join(doc.split()) for option, doc in self.docs.items() if doc}
        # For --help only: a port that was not given stays None, and gives way to --listen.
        self.defaults["port"] = self.default_port

    def opt_listen(self, endpoint: str) -> None:
        """An endpoint to listen on, instead of the default port; may be repeated. Streams: tcp: tcp6: tls: unix:
        systemd: haproxy: as Twisted has them. Datagrams: udp:PORT[:interface=ADDRESS], udp6: and unixdgram:PATH."""
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            if self.parent is None:
                raise
            # Under twistd, which would print its whole help before the one line that matters.
            raise StartError(f"twistd {self.command}: {error} (see twistd {self.command} --help)") from error
        if self.parent is not None and "twisted.internet.reactor" not in sys.modules:
            # Under twistd, and nobody has named a reactor: twistd imports one right after this.
            install_reactor()

    def getSynopsis(self) -> str:
        return f"Usage: twistd [twistd's options] {self.command} [options]"

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"{arguments[0]}: {self.command} takes options only")


Target: TypeAlias = IProtocolFactory | DatagramProtocol


class ListeningService(Service):
    """Listens on one endpoint, and says where.

    :param name: the service's name, for the log.
    :param description: the endpoint, as the user would write it.
    :param endpoint: has ``listen(target)``.
    :param target: a factory, or a datagram protocol.
    """

    log = Logger()

    def __init__(self, name: str, description: str, endpoint: Any, target: Target) -> None:
        self.service_name = name
        self.description = description
        self.endpoint = endpoint
        self.target = target
        self.port: IListeningPort | None = None
        self._started = False

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._started = True
        # Twisted's endpoints fail at once, if they do; those of other plugins may fail later.
        failed_at_once: list[Failure] = []
        starting = True
        listening = maybeDeferred(self.endpoint.listen, self.target).addCallback(self._listening)
        listening.addErrback(lambda failure: failed_at_once.append(failure) if starting else self._failed(failure))
        starting = False
        if failed_at_once:
            self._failed(failed_at_once[0])
            # The log has it; the user is told too, for whom twistd has turned sys.stderr into the log.
            sys.stderr = sys.__stderr__
            raise StartError(self._why_not(failed_at_once[0]))

    def startService(self) -> None:
        super().startService()
        if not self._started:
            self.privilegedStartService()

    def _why_not(self, failure: Failure) -> str:
        return f"twistd {self.service_name}: can't listen on {self.description}: {reason(failure)}"

    def _failed(self, failure: Failure) -> None:
        self.log.critical("{why}", why=self._why_not(failure))

    def _listening(self, port: IListeningPort) -> Any:
        if not self._started:
            return port.stopListening()
        self.port = port
        self.log.info("{name} listening on {address}", name=self.service_name, address=describe(port.getHost()))
        return None

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self._started = False
        if self.port is None:
            return None
        port, self.port = self.port, None
        return port.stopListening()


def reason(failure: Failure) -> str:
    """Why it could not listen, in a few words."""
    error: object = failure.value
    if isinstance(error, CannotListenError):
        error = error.socketError
    return str(getattr(error, "strerror", None) or error)


def make_service(
    options: ServiceOptions,
    *,
    factory: IProtocolFactory | None = None,
    datagram: Callable[[], DatagramProtocol] | None = None,
    reactor: Any = None,
) -> MultiService:
    """The service that `options` describe.

    :param factory: serves the streams; left out by a datagram service.
    :param datagram: makes a protocol for each datagram endpoint; left out by a service without a datagram form.
    :param reactor: the global one when left out.
    :raises StartError: for an endpoint that the service can't use.
    """
    if reactor is None:
        from twisted.internet import reactor
    service = MultiService()
    for description in options["listen"] + port_endpoints(options, datagram_only=factory is None):
        try:
            if is_datagram_string(description):
                endpoint: Any = datagram_endpoint_from_string(reactor, description)
                target: Target | None = datagram() if datagram is not None else None
            else:
                endpoint = serverFromString(reactor, description)
                target = factory
        except Exception as error:  # whatever the parsers of Twisted and of its plugins make of a wrong string
            raise StartError(f"twistd {options.command}: --listen {description}: {error}") from error
        if target is None:
            kind, other = ("datagram", "tcp:") if datagram is None else ("stream", "udp:")
            raise StartError(
                f"twistd {options.command}: --listen {description}: {options.command} has no {kind} form; try {other}"
            )
        ListeningService(options.command, description, endpoint, target).setServiceParent(service)
    return service


def port_endpoints(options: ServiceOptions, *, datagram_only: bool) -> list[str]:
    """The endpoint strings that ``--port``, ``--interface`` and ``--udp`` stand for."""
    port = options["port"]
    if port is None:
        if options["listen"]:
            return []
        port = options.default_port
    where = f"{port}:interface={quoteStringArgument(options['interface'])}"
    if datagram_only:
        return [f"udp:{where}"]
    return [f"tcp:{where}"] + ([f"udp:{where}"] if options.get("udp") else [])
