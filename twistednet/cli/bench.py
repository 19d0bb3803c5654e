"""``twistednet bench``."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from twistednet.bench import chart, compare
from twistednet.bench.generator import ANSWERS
from twistednet.bench.measure import Result, Settings, measure
from twistednet.bench.report import subject
from twistednet.bench.servers import WORKLOADS
from twistednet.cli.client import Address, Call, ClientError, client_options, run, split_address, write

MOST_UDP = 65507
"""The largest datagram that IPv4 carries."""

PROTOCOLS = ["echo", "reverse", "udpok"]
"""What a server at HOST PORT can be asked. The other `ANSWERS` are those of servers that are started here."""

TABLE_WIDTH = 120
"""The columns that the widest table of a comparison needs."""

LIMITED = (
    "The load generator was the limit, not the server, which may be faster than this. "
    "Give it more processes (--processes) and cores."
)

UNCLEAR = (
    "The machine is too noisy for this ratio: the rounds of one of the two servers differ by more than the two servers "
    "do. Try more rounds (--rounds), longer ones (--duration), or a machine that does nothing else."
)


@click.command()
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[HOST PORT]")
@click.option(
    "--connections",
    type=click.IntRange(1, 60000),
    default=50,
    show_default=True,
    metavar="N",
    help="The number of connections.",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    metavar="BYTES",
    help="The size of a message.",
)
@click.option(
    "--burst",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many messages a connection sends before it waits for the answers.",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    default=5,
    show_default=True,
    metavar="SECONDS",
    help="How long the load lasts.",
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="echo",
    show_default=True,
    help="What the server at HOST PORT does.",
)
@click.option("--udp", is_flag=True, help="Send datagrams. The protocol udpok always does.")
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="How many processes generate the load.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Draw a chart into this file. Its name ends in .svg or .png.",
)
@click.option("--compare", "comparing", is_flag=True, help="Compare servers started here, instead of one at HOST PORT.")
@click.option(
    "--workload",
    "workload_name",
    type=click.Choice(list(WORKLOADS)),
    default="echo",
    show_default=True,
    help="What the servers of --compare do. "
    + " ".join(f"{name}: {workload.title}." for name, workload in WORKLOADS.items()),
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    metavar="N",
    help="How often --compare measures each server. One round does not show how much the rounds differ.",
)
@click.option(
    "--server",
    "names",
    type=click.Choice(list(dict.fromkeys(name for workload in WORKLOADS.values() for name in workload.servers))),
    multiple=True,
    metavar="NAME",
    help="Compare only this server. The option can be repeated. "
    f"The workload echo has {', '.join(WORKLOADS['echo'].servers)}; "
    "the others have ours, ours-asyncio, epoll and, except web, uvloop.",
)
@client_options
@click.pass_context
def bench(
    context: click.Context,
    arguments: tuple[str, ...],
    connections: int,
    size: int,
    burst: int,
    duration: float,
    protocol: str,
    udp: bool,
    processes: int,
    plot: Path | None,
    comparing: bool,
    workload_name: str,
    rounds: int,
    names: tuple[str, ...],
    timeout: float,
    as_json: bool,
) -> None:
    """Measure how many messages a second a server answers, and how fast.

    Each connection sends a burst of messages, waits until all are answered, and sends the next. The answers are
    compared with what they should be. Nothing is sent while the server stalls, so the latencies are those of the
    service under this load; users who arrive at any moment can see longer ones.

    With --compare, several servers are started here, one after another, in several rounds. Each server has a core of
    its own, and the load has the others. The workload echo compares ways to write a server. The other workloads compare
    reactors: the same Twisted application runs on our reactor, on our reactor on asyncio and on Twisted's epoll
    reactor, and a bare protocol that does the same runs on uvloop.
    """
    if not hasattr(select, "epoll"):
        raise click.ClickException("bench needs epoll, which only Linux has")
    udp = udp or protocol == "udpok"
    settings = Settings(protocol, udp, connections, size, burst, duration, processes, timeout)
    check(settings, plot)
    if comparing:
        if arguments or udp or protocol != "echo":
            raise click.UsageError("--compare starts its own servers: it takes no HOST PORT, --udp or --protocol")
        size_given = context.get_parameter_source("size") is not ParameterSource.DEFAULT
        check_workload(workload_name, names, size if size_given else None)
        names = names or tuple(WORKLOADS[workload_name].servers)
        run(
            Call(Address(endpoint="comparison"), timeout, as_json),
            lambda call: comparison(call, workload_name, settings, rounds, names, plot),
        )
    for given, option in (
        (names, "--server"),
        (context.get_parameter_source("workload_name") is not ParameterSource.DEFAULT, "--workload"),
    ):
        if given:
            raise click.UsageError(f"{option} goes with --compare")
    address, rest = split_address(arguments)
    if rest or not address.host:
        raise click.UsageError(f"{rest[0] if rest else address}: not HOST PORT")
    run(Call(address, timeout, as_json), lambda call: single(call, settings, plot))


def check_workload(workload_name: str, names: tuple[str, ...], size: int | None) -> None:
    """Refuse options that do not fit the workload.

    :param size: the size of a message, where one was asked for.
    :raises click.UsageError: saying why.
    """
    workload = WORKLOADS[workload_name]
    for name in names:
        if name not in workload.servers:
            raise click.UsageError(
                f"--server {name}: --workload {workload_name} has only {', '.join(workload.servers)}"
            )
    if size is not None and workload.largest == 0:
        raise click.UsageError(f"--size {size}: with --workload {workload_name} all messages are the same")
    if size is not None and workload.largest is not None and size > workload.largest:
        raise click.UsageError(f"--size {size}: --workload {workload_name} has {workload.largest} bytes at most")


def check(settings: Settings, plot: Path | None) -> None:
    """Refuse what can't be done, before anything is.

    :raises click.UsageError: saying why.
    """
    if settings.udp and settings.burst > 1:
        raise click.UsageError("--burst is for streams: over UDP a connection has one datagram under way")
    most = MOST_UDP - len(ANSWERS[settings.protocol](b""))
    if settings.udp and settings.size > most:
        raise click.UsageError(f"--size {settings.size}: over UDP, {settings.protocol} has {most} bytes at most")
    if plot is not None:
        try:
            chart.check(plot)
        except chart.ChartError as error:
            raise click.UsageError(f"--plot {plot}: {error}") from None


async def single(call: Call, settings: Settings, plot: Path | None) -> None:
    """Measure one server."""
    with progress(settings.duration) as show:
        result = await measure(call.reactor, call.address.host, call.address.port, settings, progress=show)
    if call.as_json:
        call.print_json(address=str(call.address), **result.as_json())
    else:
        write(report(result).encode())
        if result.generator_limited:
            warn(LIMITED)
    draw(plot, lambda path: chart.draw_run(path, result, str(call.address)))


def report(result: Result) -> str:
    """What is told of one run."""
    latency = "  ".join(f"{name} {microseconds:,.0f}" for name, microseconds in result.latency_us.items())
    lines = [
        f"{result.messages_per_second:,.0f} messages/s  {result.bytes_per_second / 1e6:,.1f} MB/s each way",
        f"latency in µs: {latency}",
        f"{result.messages:,} messages in {result.seconds:.2f} s, "
        f"generators busy {', '.join(f'{share:.0%}' for share in result.busy)}",
    ]
    if result.settings.udp:
        lines.append(f"{result.sent_again:,} datagrams sent again, {result.late:,} answers came late")
    return "\n".join(lines) + "\n"


async def comparison(
    call: Call, workload_name: str, settings: Settings, rounds: int, names: tuple[str, ...], plot: Path | None
) -> None:
    """Compare servers."""
    try:
        with progress(settings.duration) as show:
            compared = await compare.compare(call.reactor, workload_name, settings, rounds, names, progress=show)
    except compare.CompareError as error:
        raise ClientError(str(error)) from None
    if call.as_json:
        call.print_json(**compared)
    else:
        out = Console(highlight=False)
        if not out.is_terminal:  # a file has no width into which the table must fit
            out.width = max(out.width, TABLE_WIDTH)
        out.print(f"{subject(compared)}; ratios to: {compared['reference']}", markup=False, soft_wrap=True)
        out.print(table(compared))
        for name, why in compared["left_out"].items():
            warn(f"Left out: {name}: {why}")
        if any(server["generator_limited"] for server in compared["servers"]):
            warn(f"* {LIMITED}")
        if any(server["unclear"] for server in compared["servers"]):
            warn(f"? {UNCLEAR}")
        if not compared["pinned"]:
            warn("This machine has one core: servers and load shared it, and the figures say little.")
    draw(plot, lambda path: chart.draw_comparison(path, compared))


def table(compared: dict[str, Any]) -> Table:
    """Medians, the least and the most of the rounds, and ratios."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("server")
    for heading in ("messages/s", "least", "most", "ratio", "p50 µs", "p99 µs"):
        shown.add_column(heading, justify="right")
    for server in compared["servers"]:
        median = server["median"]
        shown.add_row(
            escape(server["title"]),
            f"{median['messages_per_second']:,.0f}{'*' if server['generator_limited'] else ''}",
            f"{server['least']:,.0f}",
            f"{server['most']:,.0f}",
            f"{server['ratio']:.2f}{'?' if server['unclear'] else ''}",
            f"{median['p50']:,.0f}",
            f"{median['p99']:,.0f}",
        )
    return shown


def draw(plot: Path | None, drawing: Callable[[Path], None]) -> None:
    """Draw the chart, where one is asked for.

    :raises ClientError: where it can't be written.
    """
    if plot is not None:
        try:
            drawing(plot)
        except OSError as error:
            raise ClientError(f"{plot}: {error.strerror}") from None


def warn(text: str) -> None:
    """Tell the user something on standard error."""
    Console(stderr=True, highlight=False).print(text, style="yellow", markup=False, soft_wrap=True)


@contextmanager
def progress(duration: float) -> Iterator[Callable[..., None]]:
    """A line on standard error, where that is a terminal, that shows how far a run is.

    It gets the number of messages answered so far, which falls when the next run begins, and what is measured.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        console=console,
        # Drawn when there is news, and not by a thread that takes time from the load.
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        shown = bar.add_task("", total=duration, rate="")
        began = before = 0.0

        def show(messages: int, what: str = "") -> None:
            nonlocal began, before
            now = bar.get_time()
            if messages < before or not began:
                began = now
            before = messages
            passed = max(now - began, 0.25)
            bar.update(shown, description=escape(what), completed=passed, rate=f"{messages / passed:,.0f} messages/s")
            bar.refresh()

        yield show
