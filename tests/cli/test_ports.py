"""``twistednet ports``."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from tests.cli.running import Terminal, run
from twistednet.cli import ports as module
from twistednet.cli.ports import Socket, ports, tab_separated

HEADINGS = "protocol\tlocal address\tlocal port\tremote address\tremote port\tstate\tpid\tprocess"


@dataclass
class Sockets:
    """The ports of a listening socket, of a client connected to it, and of a UDP socket."""

    server: int
    client: int
    udp: int


@pytest.fixture
def opened() -> Iterator[Sockets]:
    """Some sockets of our own."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0],
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("::1", 0))
        yield Sockets(server.getsockname()[1], client.getsockname()[1], udp.getsockname()[1])


def rows(*arguments: object) -> list[list[str]]:
    """The rows that are printed, without their headings, and without what others have or had at the same port."""
    status, output, errors = run("ports", *arguments)
    assert (status, errors) == (0, "")
    first, *others = output.decode().splitlines()
    assert first == HEADINGS
    return [row for row in (line.split("\t") for line in others) if row[6] == str(os.getpid())]


def test_five_numbers(opened: Sockets) -> None:
    """Each end of a connection, and the socket that listens, is a row with its five numbers and its process."""
    process = [str(os.getpid()), psutil.Process().name()]
    server, client = str(opened.server), str(opened.client)
    found = rows(opened.server)
    assert sorted(found) == sorted(
        [
            ["tcp", "127.0.0.1", server, "", "", "LISTEN", *process],
            ["tcp", "127.0.0.1", server, "127.0.0.1", client, "ESTABLISHED", *process],
            ["tcp", "127.0.0.1", client, "127.0.0.1", server, "ESTABLISHED", *process],
        ]
    )
    assert rows(opened.udp) == [["udp", "::1", str(opened.udp), "", "", "", *process]]


def test_filters(opened: Sockets) -> None:
    """Only what listens, and only one protocol, is shown where that is asked for."""
    assert [row[5] for row in rows("--listening", opened.server)] == ["LISTEN"]
    assert rows("--listening", opened.client) == []
    assert len(rows("--listening", opened.udp)) == 1
    assert (len(rows("--tcp", opened.udp)), len(rows("--udp", opened.udp))) == (0, 1)
    assert len(rows("--tcp", "--udp", opened.udp)) == 1
    assert {row[0] for row in rows("--tcp")} == {"tcp"}
    assert {row[0] for row in rows()} >= {"tcp", "udp"}


def test_json(opened: Sockets) -> None:
    """With --json they are an array of objects."""
    status, output, errors = run("ports", "--json", "--listening", opened.server)
    assert (status, errors) == (0, "")
    assert json.loads(output) == [
        {
            "protocol": "tcp",
            "local_address": "127.0.0.1",
            "local_port": opened.server,
            "remote_address": "",
            "remote_port": None,
            "state": "LISTEN",
            "pid": os.getpid(),
            "process": psutil.Process().name(),
        }
    ]


def test_terminal(opened: Sockets) -> None:
    """At a terminal they are a table."""
    with Terminal("ports", str(opened.server)) as terminal:
        assert terminal.wait() == 0
    shown = terminal.transcript.decode()
    assert "\t" not in shown
    headings, *rows = re.sub(r"\x1b\[\d*m", "", shown).splitlines()
    assert headings.split() == ["local", "local", "remote", "remote"]
    assert rows[0].split() == ["protocol", "address", "port", "address", "port", "state", "pid", "process"]
    process = [str(os.getpid()), psutil.Process().name()]
    assert ["tcp", "127.0.0.1", str(opened.server), "LISTEN", *process] in [row.split() for row in rows[1:]]
    assert len(rows) >= 4


def test_usage() -> None:
    """A port is a number."""
    for port in ("x", "0", "65536"):
        status, _, errors = run("ports", port)
        assert (status, "Usage: twistednet ports" in errors) == (2, True)


def test_names_that_play() -> None:
    """A process's name does nothing to the terminal."""
    row = Socket("tcp", "127.0.0.1", 80, "", None, "LISTEN", 1, "\x1b[31m\n\t\udcff[bold]é")
    assert tab_separated([row]).decode().splitlines()[1].endswith("\t1\t\\x1b[31m\\n\\t?[bold]é")


def test_nothing_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system tells its administrator only, that is said; a process that has ended has no name."""

    def denied(*_: Any) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    result = CliRunner().invoke(ports, [])
    assert (result.exit_code, result.output) == (1, "Error: the system shows its sockets to the administrator only\n")
    assert module._process_name(2**22 + 1) == ""
    assert module._process_name(None) == ""
