"""Charts, drawn by matplotlib where that is installed: ``pip install 'twistednet[bench]'``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twistednet.bench import report
from twistednet.bench.measure import Result

SUFFIXES = (".svg", ".png")


class ChartError(Exception):
    """No chart can be drawn: one line that says why."""


def check(path: Path) -> None:
    """See that a chart can be drawn into a file of that name.

    :raises ChartError: otherwise.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ChartError(f"not a file named {' or '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise ChartError("there is no such folder")
    if find_spec("matplotlib") is None:
        raise ChartError("needs matplotlib: pip install 'twistednet[bench]'")


def draw_run(path: Path, result: Result, title: str) -> None:
    """Draw throughput and latency over the time of a run.

    :raises OSError: where the file can't be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    throughput, latency = figure.subplots(2, 1, sharex=True)
    at = [interval.at for interval in result.over_time]
    rates = [interval.messages_per_second for interval in result.over_time]
    throughput.plot(at, rates)
    throughput.set_title(title)
    throughput.set_ylabel("messages per second")
    throughput.set_ylim(0, 1.1 * max(rates, default=0) or 1)
    throughput.yaxis.set_major_formatter("{x:,.0f}")
    for name, values in (
        ("p99", [interval.p99_us for interval in result.over_time]),
        ("p50", [interval.p50_us for interval in result.over_time]),
    ):
        latency.plot(at, [float("nan") if value is None else value for value in values], label=name)
    latency.set_ylabel("latency in µs")
    latency.set_xlabel("seconds")
    latency.set_ylim(bottom=0)
    latency.yaxis.set_major_formatter("{x:,.0f}")
    latency.legend()
    figure.savefig(path)


def draw_comparison(path: Path, compared: dict[str, Any]) -> None:
    """Draw the medians of a comparison as bars, with the least and the most of the rounds.

    :raises OSError: where the file can't be written.
    """
    from matplotlib.figure import Figure

    servers = compared["servers"][::-1]
    rates = [server["median"]["messages_per_second"] for server in servers]
    rounds = [[each["messages_per_second"] for each in server["rounds"]] for server in servers]
    spread = [
        [rate - min(each) for rate, each in zip(rates, rounds, strict=True)],
        [max(each) - rate for rate, each in zip(rates, rounds, strict=True)],
    ]
    figure = Figure(figsize=(9, 1.5 + 0.4 * len(servers)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([server["title"] for server in servers], rates, xerr=spread, capsize=3)
    axes.bar_label(bars, [f"{server['ratio']:.2f}" for server in servers], padding=4, label_type="center")
    axes.set_title(report.subject(compared) + ", one core")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("messages per second, and the ratio to " + compared["reference"])
    figure.savefig(path)
