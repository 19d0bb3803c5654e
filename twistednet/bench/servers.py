"""The workloads, and the servers that are compared under each: programs that listen on a port of 127.0.0.1."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from twistednet.bench.applications import APPLICATIONS

PYTHON = [sys.executable, "-P"]  # what is in the working directory is not imported


@dataclass(frozen=True)
class Server:
    """A server to compare.

    :param title: what it is, in a table.
    :param command: what starts it on a port.
    :param missing: why it can't be started here, or nothing.
    """

    title: str
    command: Callable[[int], Sequence[str]]
    missing: Callable[[], str] = lambda: ""


def twistd_echo(reactor: str) -> Callable[[int], Sequence[str]]:
    """Our echo as a user starts it, on a reactor named as ``twistd --help-reactors`` has it."""
    twistd = [*PYTHON, "-c", "from twisted.scripts.twistd import run; run()"]
    options = ["--nodaemon", "--pidfile=", "--logfile=/dev/null", "--no_save", f"--reactor={reactor}"]
    return lambda port: [*twistd, *options, "echo", "--port", str(port), "--interface", "127.0.0.1"]


def model(name: str) -> Callable[[int], Sequence[str]]:
    """One of `twistednet.bench.models`."""
    return lambda port: [*PYTHON, "-m", "twistednet.bench.models", name, str(port)]


def application(workload: str, reactor: str) -> Callable[[int], Sequence[str]]:
    """One of `twistednet.bench.applications`, on a reactor named as ``twistd --help-reactors`` has it, or ``bare``."""
    return lambda port: [*PYTHON, "-m", "twistednet.bench.applications", workload, reactor, str(port)]


def no_module(name: str) -> Callable[[], str]:
    """Why there is no module of that name."""
    return lambda: "" if find_spec(name) else f"{name} is not installed"


ECHO_SERVERS = {
    "ours": Server("twistd echo, our reactor", twistd_echo("twistednet")),
    "ours-asyncio": Server("twistd echo, our reactor on asyncio", twistd_echo("twistednet-asyncio")),
    "ours-epoll": Server("twistd echo, epoll reactor", twistd_echo("epoll")),
    "wire": Server("twisted.protocols.wire.Echo, epoll reactor", model("wire")),
    "asyncio": Server("asyncio protocol", model("asyncio")),
    "streams": Server("asyncio streams", model("streams")),
    "uvloop": Server("uvloop, a bare protocol", model("uvloop"), no_module("uvloop")),
    "threads": Server("a thread per client", model("threads")),
    "forks": Server("a process per client", model("forks")),
    "select": Server("a select loop", model("select")),
}
"""By the name on the command line, in the order of the table."""


@dataclass(frozen=True)
class Workload:
    """What is asked and answered, and by whom.

    :param title: what it is, in the heading of a table.
    :param servers: by the name on the command line, in the order of the table.
    :param reference: the server that the others are compared with; the first, where it is not among them.
    :param protocol: and what follows, as in `twistednet.bench.applications.Application`.
    """

    title: str
    servers: Mapping[str, Server]
    reference: str
    protocol: str = "echo"
    tls: bool = False
    largest: int | None = None


def of_application(name: str) -> Workload:
    """A workload whose servers are the same Twisted application on three reactors, and its bare protocol, if any."""
    measured = APPLICATIONS[name]
    servers = {
        "ours": Server("our reactor", application(name, "twistednet")),
        "ours-asyncio": Server("our reactor on asyncio", application(name, "twistednet-asyncio")),
        "epoll": Server("Twisted's epoll reactor", application(name, "epoll")),
    }
    if measured.bare is not None:
        servers["uvloop"] = Server("uvloop, a bare protocol", application(name, "bare"), no_module("uvloop"))
    return Workload(measured.title, servers, "epoll", measured.protocol, measured.tls, measured.largest)


WORKLOADS = {
    "echo": Workload("echo", ECHO_SERVERS, reference="wire"),
    **{name: of_application(name) for name in APPLICATIONS},
}
"""By the name on the command line."""
