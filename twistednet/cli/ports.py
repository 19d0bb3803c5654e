"""``twistednet ports``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from socket import SOCK_STREAM
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Table

from twistednet.cli.client import write
from twistednet.protocols.printable import printable


@dataclass(frozen=True, order=True)
class Socket:
    """A socket: the five numbers that tell a connection from all others (seed 002 §3.2), its state, and whose it is.

    The remote address and port are empty where it is not connected, the process where it may not be seen.
    """

    protocol: str
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int | None
    state: str
    pid: int | None
    process: str

    @property
    def listening(self) -> bool:
        """Whether anyone may send to it."""
        return self.state == psutil.CONN_LISTEN or (self.protocol == "udp" and not self.remote_address)


def sockets(kind: str = "inet") -> list[Socket]:
    """The TCP and UDP sockets of this machine that are bound to a port, in order.

    :param kind: ``tcp``, ``udp``, or ``inet`` for both.
    :raises psutil.AccessDenied: where the system shows them to its administrator only.
    """
    return sorted(map(_socket, filter(_is_bound, psutil.net_connections(kind))), key=_order)


def _is_bound(found: Any) -> bool:
    return bool(found.laddr)


def _socket(found: Any) -> Socket:
    address, port = found.raddr or ("", None)
    return Socket(
        protocol="tcp" if found.type == SOCK_STREAM else "udp",
        local_address=found.laddr.ip,
        local_port=found.laddr.port,
        remote_address=address,
        remote_port=port,
        state="" if found.status == psutil.CONN_NONE else found.status,
        pid=found.pid,
        process=_process_name(found.pid),
    )


def _process_name(pid: int | None) -> str:
    try:
        return psutil.Process(pid).name() if pid else ""
    except psutil.Error:  # it has ended meanwhile
        return ""


def _order(socket: Socket) -> tuple[str, int, str, str, int]:
    return socket.protocol, socket.local_port, socket.local_address, socket.remote_address, socket.remote_port or 0


@click.command()
@click.argument("port", type=click.IntRange(1, 65535), required=False)
@click.option("--listening", is_flag=True, help="Only sockets that wait for clients.")
@click.option("--tcp", is_flag=True, help="Only TCP.")
@click.option("--udp", is_flag=True, help="Only UDP.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of objects instead.")
def ports(port: int | None, listening: bool, tcp: bool, udp: bool, as_json: bool) -> None:
    """Print the TCP and UDP sockets of this machine, or those with PORT at one of their ends.

    Each has its protocol, local address and port, remote address and port, state, and the process it belongs to
    where you may see that. Into a file or a pipe they go one a line, with tabs between, after a line of headings.
    """
    try:
        found = sockets("tcp" if tcp and not udp else "udp" if udp and not tcp else "inet")
    except psutil.AccessDenied:
        raise click.ClickException("the system shows its sockets to the administrator only") from None
    shown = [
        socket
        for socket in found
        if (port is None or port in (socket.local_port, socket.remote_port)) and (socket.listening or not listening)
    ]
    if as_json:
        write(json.dumps([asdict(socket) for socket in shown], ensure_ascii=False).encode() + b"\n")
    elif sys.stdout.isatty():
        Console().print(table(shown))
    else:
        write(tab_separated(shown))


HEADINGS = [field.name.replace("_", " ") for field in fields(Socket)]


def _cells(socket: Socket) -> list[str]:
    # A process chooses its name, and may choose one that plays with the terminal.
    return [
        "" if value is None else printable(str(value).encode(errors="replace")) for value in asdict(socket).values()
    ]


def tab_separated(rows: Iterable[Socket]) -> bytes:
    """`rows`, one a line, after their headings."""
    return b"".join("\t".join(cells).encode() + b"\n" for cells in (HEADINGS, *map(_cells, rows)))


def table(rows: Iterable[Socket]) -> Table:
    """`rows` for a terminal."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for heading in HEADINGS:
        # In two lines, and never cut off: it all fits into 80 columns.
        shown.add_column(heading.replace(" ", "\n"), overflow="fold")
    for row in rows:
        shown.add_row(*(cell.replace("[", r"\[") for cell in _cells(row)))
    return shown
