"""What every ``twistd`` command here shares: the options that say where to listen, and the service that does.

A command's module is a few lines over this: an ``Options`` that inherits `ServiceOptions` and adds the protocol's
own, and a ``makeService`` that hands a factory to `make_service`.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any, TypeAlias

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from twistednet.policies.accepting import accept_patiently
from twistednet.policies.addresses import LOOPBACK, AddressRules, Networks, parse_network
from twistednet.policies.datagrams import (
    OWN_PORTS,
    SOURCE_BURST,
    SOURCE_RATE,
    CountingDatagramProtocol,
    FilteredDatagramProtocol,
    GuardedDatagramProtocol,
)
from twistednet.policies.limits import LimitedFactory, Limits
from twistednet.protocols.counters import Counters
from twistednet.protocols.printable import describe, printable
from twistednet.reactor import install as install_reactor
from twistednet.services.datagram_endpoints import (
    DatagramEndpoint,
    UDPEndpoint,
    datagram_endpoint_from_string,
    is_datagram_string,
)
from twistednet.services.operating import log_as_json, warn_of_privileges
from twistednet.services.stopping import DrainingService, Signals
from twistednet.services.stream_endpoints import stream_endpoint_from_string


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


def seconds(name: str) -> Callable[[str], float]:
    """What reads the value of the option `name`: a time in seconds, from 0 on.

    :raises usage.UsageError: by the result, for anything else.
    """

    def read(value: str) -> float:
        try:
            time = float(value)
        except ValueError:
            time = -1.0
        if not 0 <= time < float("inf"):
            raise usage.UsageError(f"--{name} {value}: not a number of seconds, 0 or more")
        return time

    return read


def read_network(name: str, value: str) -> IPv4Network | IPv6Network:
    """The network that is the `value` of the option `name`.

    :raises usage.UsageError: for anything else.
    """
    try:
        return parse_network(value)
    except ValueError as error:
        raise usage.UsageError(f"--{name} {printable(value.encode(errors='surrogateescape'))}: {error}") from error


RESERVE = 50
"""Descriptors that are left for other things than connections: ports, files, the commands of wps."""


def most_connections(descriptors: int = 1) -> int:
    """How many connections the limit on descriptors allows.

    :param descriptors: how many each of them needs.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if limit == resource.RLIM_INFINITY else max(1, (limit - min(RESERVE, limit // 2)) // descriptors)


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
        ["log-json", None, None, "A file to log to as well, one object of JSON a line; - is standard output."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["allow"] = []
        self["deny"] = []
        # Docstrings are wrapped with their indentation otherwise.
        self.docs = {option: " ".join(doc.split()) for option, doc in self.docs.items() if doc}
        # For --help only: a port that was not given stays None, and gives way to --listen.
        self.defaults["port"] = self.default_port

    def opt_listen(self, endpoint: str) -> None:
        """An endpoint to listen on, instead of the default port; may be repeated. Streams: tcp: tcp6: tls: unix:
        systemd: haproxy: as Twisted has them. Datagrams: udp:PORT[:interface=ADDRESS], udp6: and unixdgram:PATH."""
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def opt_allow(self, network: str) -> None:
        """Accept clients from this network only, such as 192.0.2.0/24 or 2001:db8::/32; may be repeated.
        Unix sockets are not concerned."""
        self["allow"].append(read_network("allow", network))

    def opt_deny(self, network: str) -> None:
        """Refuse clients from this network, even if --allow names them; may be repeated. Connections are reset, and
        datagrams are dropped."""
        self["deny"].append(read_network("deny", network))

    def rules(self) -> AddressRules | None:
        """Which hosts may use the service; ``None`` for all."""
        if not (self["allow"] or self["deny"]):
            return None
        return AddressRules(allow=Networks(self["allow"]), deny=Networks(self["deny"]))

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


class StreamServiceOptions(ServiceOptions):
    """The options that every service of streams has besides: what its connections may take. 0 turns a limit off.

    A subclass says how many `descriptors` a connection needs, where that is not the one of its socket.
    """

    descriptors = 1
    optParameters = [
        [
            "max-connections",
            None,
            None,
            "How many connections at once; those beyond are reset. [default: what the limit on descriptors allows]",
            number("max-connections", 0),
        ],
        ["max-per-host", None, 0, "How many of them from one address.", number("max-per-host", 0)],
        [
            "idle-timeout",
            None,
            300.0,
            "Close a connection on which nothing has moved for so many seconds.",
            seconds("idle-timeout"),
        ],
        [
            "message-timeout",
            None,
            60.0,
            "Close one whose message has not ended so many seconds after it began.",
            seconds("message-timeout"),
        ],
        [
            "write-timeout",
            None,
            60.0,
            "Reset one whose peer has read nothing for so many seconds, though output waits.",
            seconds("write-timeout"),
        ],
        ["drain", None, 10.0, "Seconds that connections may take to finish when the service stops.", seconds("drain")],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["proxy-from"] = []

    def opt_proxy_from(self, network: str) -> None:
        """Believe the PROXY headers of balancers in this network; may be repeated. It is for haproxy: endpoints, which
        reset connections from elsewhere. Unix sockets are always believed. [default: 127.0.0.0/8 and ::1]"""
        self["proxy-from"].append(read_network("proxy-from", network))

    def proxies(self) -> Networks:
        """Whose PROXY headers are believed."""
        return Networks(self["proxy-from"]) if self["proxy-from"] else LOOPBACK

    def limits(self) -> Limits:
        """What the connections may take."""
        most = self["max-connections"]
        return Limits(
            max_connections=most_connections(self.descriptors) if most is None else most,
            max_per_host=self["max-per-host"],
            idle_timeout=self["idle-timeout"],
            message_timeout=self["message-timeout"],
            write_timeout=self["write-timeout"],
        )


DEFAULT_PORTS = (2000, 8888, 9999)
"""The ports of our own datagram services, echo, udpok and support, by default; those of the others are below 1024."""


class DatagramServiceOptions:
    """Mixed in before the options of every service with a datagram form: what it guards itself against."""

    optParameters: Any = [
        [
            "source-rate",
            None,
            SOURCE_RATE,
            "UDP: how many datagrams a second to take from one network (IPv4 /24, IPv6 /64); 0 is any number.",
            number("source-rate", 0),
        ],
        [
            "source-burst",
            None,
            SOURCE_BURST,
            "UDP: how many datagrams to take from one network at once.",
            number("source-burst", 1),
        ],
    ]
    optFlags: Any = [
        ["no-guard", None, "UDP: answer everybody: --source-rate is ignored, and so is what else tells forged sources."]
    ]


# Another of our services, in a process or on a machine of its own, is likely to be at one of these.
OWN_PORTS.update(DEFAULT_PORTS)


Target: TypeAlias = IProtocolFactory | DatagramProtocol


class ListeningService(Service):
    """Listens on one endpoint, and says where.

    :param name: the service's name, for the log.
    :param description: the endpoint, as the user would write it.
    :param endpoint: has ``listen(target)``.
    :param target: a factory, or a datagram protocol.
    :param reactor: the clock.
    """

    log = Logger()

    def __init__(self, name: str, description: str, endpoint: Any, target: Target, reactor: Any) -> None:
        self.service_name = name
        self.description = description
        self.endpoint = endpoint
        self.target = target
        self.reactor = reactor
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
        accept_patiently(port, self.reactor)
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
    reflections: tuple[bytes, ...] = (),
    counters: Counters | None = None,
    reactor: Any = None,
) -> DrainingService:
    """The service that `options` describe.

    :param factory: serves the streams; left out by a datagram service.
    :param datagram: makes a protocol for each datagram endpoint; left out by a service without a datagram form.
    :param reflections: see `GuardedDatagramProtocol`.
    :param counters: count what the service does.
    :param reactor: the global one when left out.
    :raises StartError: for an endpoint that the service can't use, or a file that it can't log to.
    """
    if reactor is None:
        from twisted.internet import reactor
    log_to(options)
    counters = Counters() if counters is None else counters
    service = DrainingService(options.command, counters, options.rules())
    proxies = LOOPBACK
    if factory is not None:
        assert isinstance(options, StreamServiceOptions)
        factory = LimitedFactory(factory, options.limits(), counters=counters, reactor=reactor)
        service.drain_at_stop(factory, options["drain"])
        service.apply_rules_in(factory)
        proxies = options.proxies()
    if options.parent is not None:
        reactor.callWhenRunning(Signals(reactor, service).install)
        reactor.callWhenRunning(warn_of_privileges, options.command)
    for description in options["listen"] + port_endpoints(options, datagram_only=factory is None):
        try:
            if is_datagram_string(description):
                endpoint: Any = datagram_endpoint_from_string(reactor, description)
                target: Target | None = None
                if datagram is not None:
                    target = guarded(datagram(), endpoint, options, reactor, reflections, counters)
                    if isinstance(target, FilteredDatagramProtocol):
                        service.apply_rules_in(target)
            else:
                endpoint = stream_endpoint_from_string(reactor, description, proxies=proxies)
                target = factory
        except Exception as error:  # whatever the parsers of Twisted and of its plugins make of a wrong string
            raise StartError(f"twistd {options.command}: --listen {description}: {error}") from error
        if target is None:
            kind, other = ("datagram", "tcp:") if datagram is None else ("stream", "udp:")
            raise StartError(
                f"twistd {options.command}: --listen {description}: {options.command} has no {kind} form; try {other}"
            )
        ListeningService(options.command, description, endpoint, target, reactor).setServiceParent(service)
    return service


def log_to(options: ServiceOptions) -> None:
    """Log as JSON too, where `options` say so.

    :raises StartError: where the file can't be written.
    """
    path = options["log-json"]
    if path is None:
        return
    try:
        if path == "-" and options.parent is not None and not options.parent.get("nodaemon"):
            raise OSError(0, "a daemon has no standard output")
        log_as_json(path)
    except OSError as error:
        raise StartError(f"twistd {options.command}: --log-json {path}: {error.strerror}") from error


def guarded(
    protocol: DatagramProtocol,
    endpoint: DatagramEndpoint,
    options: ServiceOptions,
    reactor: Any,
    reflections: tuple[bytes, ...],
    counters: Counters,
) -> DatagramProtocol:
    """`protocol`, with what `options` have around it at `endpoint`; over Unix sockets nobody can forge an address."""
    if isinstance(endpoint, UDPEndpoint):
        if not options.get("no-guard"):
            return GuardedDatagramProtocol(
                protocol,
                clock=reactor,
                source_rate=options.get("source-rate", SOURCE_RATE),
                source_burst=options.get("source-burst", SOURCE_BURST),
                reflections=reflections,
                counters=counters,
            )
        ListeningService.log.warn(
            "{name}: no guard over UDP: who forges an address can have answers sent there, without end",
            name=options.command,
        )
        return FilteredDatagramProtocol(protocol, clock=reactor, counters=counters)
    return CountingDatagramProtocol(protocol, counters=counters)


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
