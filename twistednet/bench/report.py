"""A page from a comparison: ``python -m twistednet.bench.report FILE.json [CHART] > docs/performance.md``.

The file is what ``twistednet bench --compare --json`` has printed; the chart, what its ``--plot`` has drawn, as the
page should refer to it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CLOSED_LOOP = """\
Each connection sends a message, waits for the answer, and sends the next (a closed loop), so the latencies are those of
the service under this load, and not those of users who arrive whenever they like. Absolute figures vary from machine to
machine and hour to hour; the ratios hold.
"""


def page(compared: dict[str, Any], chart: str = "") -> str:
    """The page, in Markdown."""
    settings, machine, versions = compared["settings"], compared["machine"], compared["versions"]
    burst = f" in bursts of {settings['burst']}" if settings["burst"] > 1 else ""
    pinned = "the server on one core, the load on the others" if compared["pinned"] else "server and load on one core"
    lines = [
        "# Performance",
        "",
        f"Echo, {settings['connections']} connections, messages of {settings['size']:,} bytes{burst}: {pinned}; "
        f"medians of {settings['rounds']} interleaved rounds of {settings['duration']:g} seconds.",
        "",
        f"| server | messages/s | against {compared['reference']} | p50 µs | p99 µs | p99.9 µs |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for server in compared["servers"]:
        median = server["median"]
        limited = " \\*" if server["generator_limited"] else ""
        lines.append(
            f"| {server['title']} | {median['messages_per_second']:,.0f}{limited} | {server['ratio']:.2f} "
            f"| {median['p50']:,.0f} | {median['p99']:,.0f} | {median['p99.9']:,.0f} |"
        )
    lines.append("")
    if any(server["generator_limited"] for server in compared["servers"]):
        lines += ["\\* Here the load generator was the limit in at least one round: the server may be faster.", ""]
    lines += [f"Left out: {title} ({why})." for title, why in compared["left_out"].items()]
    lines += [""] * bool(compared["left_out"])
    if chart:
        lines += [f"![Messages per second]({chart})", ""]
    lines += [
        CLOSED_LOOP,
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}; {compared['date'][:10]}.",
        "",
        f"To measure it again: `{command(settings)}`.",
        "",
    ]
    return "\n".join(lines)


def command(settings: dict[str, Any]) -> str:
    """What measures the same."""
    options = ("connections", "size", "burst", "duration", "processes", "rounds")
    return f"twistednet bench --compare {' '.join(f'--{name} {settings[name]:g}' for name in options)}"


if __name__ == "__main__":
    file, *charts = sys.argv[1:]
    sys.stdout.write(page(json.loads(Path(file).read_text()), *charts))
