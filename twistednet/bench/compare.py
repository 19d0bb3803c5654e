"""Servers of several makes under the same load, one after another, in several rounds."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

from twisted.internet import error, task
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from twistednet.bench.child import Child
from twistednet.bench.measure import Result, Settings, measure, no_progress
from twistednet.bench.servers import WORKLOADS, Server, Workload

HOST = "127.0.0.1"

START_WITHIN = 20.0
"""Seconds that a server may take until it listens."""


class CompareError(Exception):
    """A server has not started, or has failed under load: one line that says which, and how."""


class ServerProcess(Child):
    """A running server."""

    def __init__(self, server: Server, port: int, cores: Sequence[int] = ()) -> None:
        super().__init__()
        self.server = server
        self.port = port
        self.cores = cores

    def connectionMade(self) -> None:
        if self.cores and self.transport.pid is not None:
            os.sched_setaffinity(self.transport.pid, self.cores)
        self.transport.closeStdin()

    async def listening(self, reactor: Any) -> None:
        """Wait until it takes connections.

        :raises CompareError: where it ends instead, or takes too long.
        """
        give_up = reactor.seconds() + START_WITHIN
        while not self.has_ended and reactor.seconds() < give_up:
            try:
                probe = await connectProtocol(TCP4ClientEndpoint(reactor, HOST, self.port), Protocol())
            except error.ConnectError:
                await task.deferLater(reactor, 0.05, lambda: None)
            else:
                probe.transport.abortConnection()
                return
        raise CompareError(f"{self.server.title}: {self.last_words or 'it does not listen'}")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, as yet."""
    with socket.create_server((HOST, 0)) as found:
        port: int = found.getsockname()[1]
        return port


def divide_cores(cores: Sequence[int]) -> tuple[list[int], list[int]]:
    """One core for the server, and the others for the load; nothing for either where there is only one."""
    first, *others = sorted(cores)
    return ([first], others) if others else ([], [])


async def run_once(
    reactor: Any, server: Server, settings: Settings, progress: Callable[[int], object] = no_progress
) -> Result:
    """Start `server`, measure it, and stop it.

    :raises CompareError: where it does not start, or fails.
    """
    server_cores, load_cores = divide_cores(sorted(os.sched_getaffinity(0)))
    port = free_port()
    process = ServerProcess(server, port, server_cores)
    process.start(reactor, server.command(port))
    try:
        await process.listening(reactor)
        return await measure(reactor, HOST, port, settings, cores=load_cores, progress=progress)
    except CompareError:
        raise
    except Exception as failure:
        raise CompareError(f"{server.title}: {str(failure) or type(failure).__name__}") from failure
    finally:
        await process.stop()


async def compare(
    reactor: Any,
    workload_name: str,
    settings: Settings,
    rounds: int,
    names: Sequence[str],
    *,
    progress: Callable[..., object] = no_progress,
) -> dict[str, Any]:
    """Measure each of the workload's servers named, `rounds` times; all of them once, then all of them again.

    :param workload_name: one of `WORKLOADS`; its protocol and TLS take the place of those in `settings`.
    :param progress: called several times a second with the messages answered so far, and ``what`` is being measured.
    :return: what JSON has of it.
    :raises CompareError: where one does not start or fails, or none of them can be had.
    """
    workload = WORKLOADS[workload_name]
    settings = replace(settings, protocol=workload.protocol, tls=workload.tls)
    servers = workload.servers
    left_out = {servers[name].title: why for name in names if (why := servers[name].missing())}
    present = [name for name in servers if name in names and servers[name].title not in left_out]
    if not present:
        raise CompareError("; ".join(f"{title}: {why}" for title, why in left_out.items()))
    seen: dict[str, list[Result]] = {name: [] for name in present}
    for n in range(rounds):
        for name in present:
            show = partial(progress, what=f"round {n + 1} of {rounds}: {servers[name].title}")
            show(0)
            seen[name].append(await run_once(reactor, servers[name], settings, show))
    return {
        "workload": workload_name,
        **circumstances(settings, rounds),
        "reference": servers[reference(workload, seen)].title,
        "left_out": left_out,
        "servers": summaries(workload, seen),
    }


def reference(workload: Workload, names: Iterable[str]) -> str:
    """Which of them the others are compared with: the workload's reference, or else the first."""
    known = list(names)
    return workload.reference if workload.reference in known else known[0]


def summaries(workload: Workload, seen: dict[str, list[Result]]) -> list[dict[str, Any]]:
    """What is said of each server: its rounds, their medians and range, and its ratio to the reference.

    ``unclear`` says that the rate differs less from that of the reference than the rounds of either differ from each
    other.
    """
    of_rounds = {name: [result.messages_per_second for result in results] for name, results in seen.items()}
    rates = {name: median(each) for name, each in of_rounds.items()}
    spread = {name: max(each) - min(each) for name, each in of_rounds.items()}
    other = reference(workload, seen)
    return [
        {
            "name": name,
            "title": workload.servers[name].title,
            "rounds": [
                {
                    "messages_per_second": result.messages_per_second,
                    "latency_us": result.latency_us,
                    "busy": result.busy,
                    "generator_limited": result.generator_limited,
                }
                for result in results
            ],
            "median": {
                "messages_per_second": rates[name],
                **{key: median(result.latency_us[key] for result in results) for key in ("p50", "p90", "p99", "p99.9")},
            },
            "least": min(of_rounds[name]),
            "most": max(of_rounds[name]),
            "ratio": round(rates[name] / rates[other], 3),
            "unclear": name != other and abs(rates[name] - rates[other]) < max(spread[name], spread[other]),
            "generator_limited": any(result.generator_limited for result in results),
        }
        for name, results in seen.items()
    ]


def circumstances(settings: Settings, rounds: int) -> dict[str, Any]:
    """When, where and with what it was measured."""
    server_cores, load_cores = divide_cores(sorted(os.sched_getaffinity(0)))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.release()}",
        },
        "versions": {
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            **{name: found for name in ("twistednet", "twisted", "uvloop") if (found := version_of(name))},
        },
        "settings": {
            "connections": settings.connections,
            "size": settings.size,
            "burst": settings.burst,
            "duration": settings.duration,
            "processes": settings.processes,
            "rounds": rounds,
        },
        "pinned": {"server": server_cores, "load": load_cores} if server_cores else None,
    }


def version_of(package: str) -> str:
    """Its version, or nothing where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def processor() -> str:
    """The processor's name, where the system says it."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.machine()
