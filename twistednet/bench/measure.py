"""A run: several generators at once, and what they have seen together."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

from hdrh.histogram import HdrHistogram
from twisted.internet import defer, error
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from twistednet.bench.child import Child
from twistednet.bench.generator import BUSY, Load, Tally

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}

LONGEST = 3_600_000_000
"""The longest latency that is told from longer ones, in microseconds: an hour."""


class BenchError(Exception):
    """The run failed: one line that says why."""


# What is measured


@dataclass(frozen=True)
class Settings:
    """What a run is to be: `connections` in all, divided among as many `processes`; the rest as a `Load` has it."""

    protocol: str = "echo"
    udp: bool = False
    connections: int = 50
    size: int = 64
    burst: int = 1
    duration: float = 5.0
    processes: int = 1
    timeout: float = 10.0
    tls: bool = False

    def loads(self, addresses: list[tuple[int, tuple[Any, ...]]], cores: Sequence[int] = ()) -> list[Load]:
        """What each generator does; none has less than one connection."""
        processes = min(self.processes, self.connections)
        each, more = divmod(self.connections, processes)
        loads: list[Load] = []
        first = 0
        for n in range(processes):
            connections = each + (n < more)
            loads.append(
                Load(
                    addresses=addresses,
                    protocol=self.protocol,
                    udp=self.udp,
                    connections=connections,
                    first=first,
                    size=self.size,
                    burst=self.burst,
                    duration=self.duration,
                    timeout=self.timeout,
                    cores=list(cores),
                    tls=self.tls,
                )
            )
            first += connections
        return loads


# What comes of it


def histogram(latencies: Sequence[tuple[int, int]]) -> HdrHistogram:
    """An HDR histogram of pairs: so many microseconds, so many times."""
    result = HdrHistogram(1, LONGEST, 3)
    for microseconds, times in latencies:
        result.record_value(max(1, min(microseconds, LONGEST)), times)
    return result


def percentiles(latencies: HdrHistogram) -> dict[str, float]:
    """The least, the mean, some percentiles and the most, in microseconds, by name."""
    if not latencies.get_total_count():
        return {}
    # A percentile is the upper end of the range of values that count as equal, and may be above the most seen.
    most = latencies.get_max_value()
    shown = {name: min(latencies.get_value_at_percentile(at), most) for name, at in PERCENTILES.items()}
    return {
        "min": latencies.get_min_value(),
        "mean": round(latencies.get_mean_value(), 1),
        **shown,
        "max": most,
    }


@dataclass(frozen=True)
class Interval:
    """A part of a run.

    :param at: when it ended, in seconds from the beginning.
    :param p50_us: latencies in microseconds; nothing where nothing was answered.
    """

    at: float
    messages_per_second: float
    p50_us: float | None
    p99_us: float | None


@dataclass(frozen=True)
class Result:
    """What a run has shown.

    :param seconds: how long it took.
    :param messages: how many were answered.
    :param bytes_per_second: sent, which is about what was received.
    :param latency_us: of bursts, in microseconds, as `percentiles` has it.
    :param sent_again: datagrams that were not answered in time.
    :param late: answers to datagrams that had been sent again, and answered, already.
    :param busy: for each generator, the share of the time in which it ran or waited for a core.
    """

    settings: Settings
    seconds: float
    messages: int
    messages_per_second: float
    bytes_per_second: float
    latency_us: dict[str, float]
    sent_again: int
    late: int
    busy: list[float]
    over_time: list[Interval]

    @property
    def generator_limited(self) -> bool:
        """Whether a generator, and not the server, was the limit."""
        return any(share > BUSY for share in self.busy)

    def as_json(self) -> dict[str, Any]:
        """The result as JSON has it."""
        values = asdict(self)
        return {**values.pop("settings"), **values, "generator_limited": self.generator_limited}


def result(settings: Settings, tallies: Sequence[Tally], interval: float) -> Result:
    """What several generators have seen together, in intervals of so many seconds."""
    seconds = max(tally.seconds for tally in tallies)
    parts = [
        [pair for part in parts for pair in part]
        for parts in zip_longest(*(tally.latencies for tally in tallies), fillvalue=[])
    ]
    over_time: list[Interval] = []
    whole = histogram([])
    for n, part in enumerate(parts):
        start, end = n * interval, min((n + 1) * interval, seconds)
        messages = sum(times for _, times in part) * settings.burst
        latencies = histogram(part)
        whole.add(latencies)
        if end - start > interval / 10:  # what is left in the end may be too short to say anything
            known = percentiles(latencies)
            over_time.append(
                Interval(round(end, 3), round(messages / (end - start), 1), known.get("p50"), known.get("p99"))
            )
    messages = sum(times for part in parts for _, times in part) * settings.burst
    rate = messages / seconds
    return Result(
        settings=settings,
        seconds=round(seconds, 3),
        messages=messages,
        messages_per_second=round(rate, 1),
        bytes_per_second=round(rate * settings.size, 1),
        latency_us=percentiles(whole),
        sent_again=sum(tally.sent_again for tally in tallies),
        late=sum(tally.late for tally in tallies),
        busy=[round(tally.busy, 3) for tally in tallies],
        over_time=over_time,
    )


# Doing it


class GeneratorProcess(Child):
    """A generator, as its parent sees it; `report` gets the bursts it has seen so far."""

    def __init__(self, load: Load, report: Callable[[int], object]) -> None:
        super().__init__()
        self.load = load
        self.report = report
        self.ready: defer.Deferred[None] = defer.Deferred()
        self.done: defer.Deferred[Tally] = defer.Deferred()
        self._lines = bytearray()

    def connectionMade(self) -> None:
        self._tell(json.dumps(asdict(self.load)))

    def begin(self) -> None:
        """Start the load."""
        self._tell("go")

    def _tell(self, line: str) -> None:
        self.transport.writeToChild(0, line.encode() + b"\n")

    def stop(self) -> defer.Deferred[None]:
        for unheard in (self.ready, self.done):
            unheard.addErrback(lambda _: None)
        return super().stop()

    def outReceived(self, data: bytes) -> None:
        self._lines += data
        *lines, self._lines = self._lines.split(b"\n")
        for line in lines:
            self._heard(json.loads(line))

    def _heard(self, said: dict[str, Any]) -> None:
        if "ready" in said:
            self.ready.callback(None)
        elif "bursts" in said:
            self.report(said["bursts"])
        elif "failed" in said:
            self._fail(failure(said["failed"], said["message"]))
        else:
            self.done.callback(Tally(**said))

    def _fail(self, reason: Exception) -> None:
        for waiting in (self.ready, self.done):
            if not waiting.called:
                waiting.errback(Failure(reason))

    def processEnded(self, reason: Failure) -> None:
        self._fail(BenchError(f"a load generator has ended: {self.last_words or reason.getErrorMessage()}"))
        super().processEnded(reason)


def failure(kind: str, message: str) -> Exception:
    """What a generator's failure is called here."""
    if kind == "refused":
        return error.ConnectionRefusedError()
    if kind == "timed out":
        return error.TimeoutError()
    return BenchError(message)


def no_progress(*_: object) -> None:
    """Show nothing."""


async def measure(
    reactor: Any,
    host: str,
    port: int,
    settings: Settings,
    *,
    cores: Sequence[int] = (),
    progress: Callable[[int], object] = no_progress,
) -> Result:
    """Put the load on the server at `host` and `port`, and see how it does.

    :param cores: which the generators may use; none for all.
    :param progress: called several times a second with the number of messages answered so far.
    :raises BenchError: where the server answers wrongly, or closes, or nothing came back.
    :raises error.ConnectionRefusedError: where nobody listens.
    :raises error.TimeoutError: where there is no connection, or no answer at all, for ``settings.timeout``.
    :raises socket.gaierror: where there is no such name.
    """
    kind = socket.SOCK_DGRAM if settings.udp else socket.SOCK_STREAM
    resolving = deferToThread(socket.getaddrinfo, host, port, type=kind)
    found = await resolving.addTimeout(settings.timeout, reactor)
    loads = settings.loads([(int(family), address) for family, _, _, _, address in found], cores)
    bursts = [0] * len(loads)

    def report(n: int, so_far: int) -> None:
        bursts[n] = so_far
        progress(sum(bursts) * settings.burst)

    generators = [GeneratorProcess(load, partial(report, n)) for n, load in enumerate(loads)]
    for generator in generators:
        generator.start(reactor, [sys.executable, "-P", "-m", "twistednet.bench.generator"])
    try:
        await all_of([generator.ready for generator in generators])
        for generator in generators:
            generator.begin()
        tallies = await all_of([generator.done for generator in generators])
    finally:
        await defer.gatherResults([generator.stop() for generator in generators])
    seen = result(settings, tallies, loads[0].interval)
    if not seen.messages:
        raise BenchError("nothing came back")
    return seen


async def all_of(awaited: Sequence[defer.Deferred[Any]]) -> list[Any]:
    """The results of all, or the first failure."""
    try:
        return list(await defer.gatherResults(awaited, consumeErrors=True))
    except defer.FirstError as first:
        first.subFailure.raiseException()
        raise
