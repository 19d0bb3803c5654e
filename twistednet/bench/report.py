"""A page from a comparison: ``python -m twistednet.bench.report FILE.json [CHART] > docs/performance.md``.

The file is what ``twistednet bench --compare --json`` has printed; the chart, what its ``--plot`` has drawn, as the
page should refer to it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twistednet.bench.servers import WORKLOADS

CLOSED_LOOP = """\
Each connection sends a message, waits for the answer, and sends the next (a closed loop), so the latencies are those of
the service under this load, and not those of users who arrive whenever they like. Absolute figures vary from machine to
machine and hour to hour; the ratios hold.
"""


def subject(compared: dict[str, Any]) -> str:
    """What was asked, and over how many connections."""
    settings, workload = compared["settings"], WORKLOADS[compared["workload"]]
    sizes = [] if workload.largest == 0 else [f"messages of {settings['size']:,} bytes"]
    bursts = [f"bursts of {settings['burst']}"] if settings["burst"] > 1 else []
    return ", ".join([workload.title, f"{settings['connections']} connections", *sizes, *bursts])


def page(compared: dict[str, Any], chart: str = "") -> str:
    """The page, in Markdown."""
    settings, machine, versions = compared["settings"], compared["machine"], compared["versions"]
    heading = subject(compared)
    pinned = "the server on one core, the load on the others" if compared["pinned"] else "server and load on one core"
    lines = [
        "# Performance",
        "",
        f"{heading[0].upper()}{heading[1:]}: {pinned}; medians of {settings['rounds']} interleaved rounds of "
        f"{settings['duration']:g} seconds.",
        "",
        f"| server | messages/s | least and most | against {compared['reference']} | p50 µs | p99 µs | p99.9 µs |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for server in compared["servers"]:
        median = server["median"]
        limited = " \\*" if server["generator_limited"] else ""
        unclear = " ?" if server["unclear"] else ""
        lines.append(
            f"| {server['title']} | {median['messages_per_second']:,.0f}{limited} "
            f"| {server['least']:,.0f} to {server['most']:,.0f} | {server['ratio']:.2f}{unclear} "
            f"| {median['p50']:,.0f} | {median['p99']:,.0f} | {median['p99.9']:,.0f} |"
        )
    lines.append("")
    if any(server["generator_limited"] for server in compared["servers"]):
        lines += ["\\* Here the load generator was the limit in at least one round: the server may be faster.", ""]
    if any(server["unclear"] for server in compared["servers"]):
        lines += [
            "? Too noisy for this ratio: the rounds of one of the two servers differ by more than the two servers do.",
            "",
        ]
    lines += [f"Left out: {title} ({why})." for title, why in compared["left_out"].items()]
    lines += [""] * bool(compared["left_out"])
    if chart:
        lines += [f"![Messages per second]({chart})", ""]
    lines += [
        CLOSED_LOOP,
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}; {compared['date'][:10]}.",
        "",
        f"To measure it again: `{command(compared)}`.",
        "",
    ]
    return "\n".join(lines)


def command(compared: dict[str, Any]) -> str:
    """The command that measures the same."""
    name, settings = compared["workload"], compared["settings"]
    size = () if WORKLOADS[name].largest == 0 else ("size",)
    options = ("connections", *size, "burst", "duration", "processes", "rounds")
    workload = "" if name == "echo" else f"--workload {name} "
    return f"twistednet bench --compare {workload}{' '.join(f'--{each} {settings[each]:g}' for each in options)}"


if __name__ == "__main__":
    file, *charts = sys.argv[1:]
    sys.stdout.write(page(json.loads(Path(file).read_text()), *charts))
