"""``twistednet greeter``."""

from __future__ import annotations

import json
import socket

import pytest
from click.testing import CliRunner

from tests.cli.conftest import Servers
from tests.cli.running import drain, refusing_port, run, silent_server, tcp_server
from twistednet.cli.greeter import greeter


def error_line(port: int, message: str) -> str:
    """The one line on standard error."""
    return f"twistednet greeter: 127.0.0.1 port {port}: {message}\n"


def test_greeting(servers: Servers) -> None:
    """The greeting and the goodbye are printed, whatever is said."""
    for arguments in (
        ("127.0.0.1", servers.greeter),
        ("127.0.0.1", servers.greeter, "Good morning"),
        (f"unix:{servers.folder}/greeter", ""),
    ):
        assert run("greeter", *arguments) == (0, b"Hello Yourself\nGoodbye\n", "")


@pytest.mark.parametrize(("arguments", "said"), [((), b"Hello World\n"), (("H\xe9 l\xe0",), "H\xe9 l\xe0\n".encode())])
def test_said(arguments: tuple[str, ...], said: bytes) -> None:
    """What is said is a line: the textbook's, or TEXT."""

    def talk(connection: socket.socket) -> None:
        assert connection.recv(100) == said
        connection.sendall(b"Yes?\nNo.\n")
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    with tcp_server(talk) as port:
        assert run("greeter", "127.0.0.1", port, *arguments, stdin=b"unread") == (0, b"Yes?\nNo.\n", "")


def test_json(servers: Servers) -> None:
    """With --json the answer is an object."""
    status, output, errors = run("greeter", "--json", "127.0.0.1", servers.greeter)
    assert (status, errors) == (0, "")
    assert json.loads(output) == {
        "answer": "Hello Yourself\nGoodbye\n",
        "address": f"127.0.0.1 port {servers.greeter}",
        "ok": True,
    }


@pytest.mark.parametrize("answer", [b"Hello Yourself\n", b""])
def test_wrong_answer(answer: bytes) -> None:
    """Less than the two is printed, and the status is 1."""

    def talk(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    with tcp_server(talk) as port:
        status, output, errors = run("greeter", "127.0.0.1", port)
    assert (status, output.strip()) == (1, answer.strip())
    assert errors == error_line(port, "not a greeting and a goodbye")


def test_nobody() -> None:
    """A refusal has status 3, silence status 4."""
    with refusing_port(socket.SOCK_STREAM) as port:
        assert run("greeter", "127.0.0.1", port) == (3, b"", error_line(port, "nobody listens there"))
    with silent_server() as port:
        expected = (4, b"", error_line(port, "no answer in 0.2 seconds"))
        assert run("greeter", "--timeout", "0.2", "127.0.0.1", port) == expected


def test_usage() -> None:
    """TEXT is one argument."""
    for arguments, message in (
        (["localhost", "15000", "a", "b"], "more than one TEXT; quote it"),
        ([], "HOST PORT, or an endpoint such as unix:/path, is missing"),
    ):
        result = CliRunner().invoke(greeter, arguments)
        assert result.exit_code == 2
        assert result.output.splitlines()[-1] == f"Error: {message}"
