"""``twistednet echo``."""

from __future__ import annotations

import random
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.cli.conftest import Servers
from tests.cli.running import (
    ENVIRONMENT,
    Program,
    Terminal,
    drain,
    run,
    tcp_server,
    udp_socket,
)
from tests.programs import Console, run_console
from tests.services.running import PATIENCE


@pytest.mark.parametrize("text", ["hello", "two words\n", ""])
def test_text(servers: Servers, text: str) -> None:
    """TEXT comes back, and is printed as a line."""
    assert run("echo", "127.0.0.1", servers.echo, text) == (0, (text.rstrip("\n") + "\n").encode(), "")


def test_json(servers: Servers) -> None:
    """With --json the answer is an object."""
    expected = f'{{"answer": "hello", "address": "127.0.0.1 port {servers.echo}", "ok": true}}\n'
    assert run("echo", "--json", "127.0.0.1", servers.echo, "hello") == (0, expected.encode(), "")


def test_endpoints(servers: Servers) -> None:
    """The server is found by name, by endpoint string, and over datagrams of both kinds."""
    for address in (
        ("localhost", servers.echo),
        (f"tcp:127.0.0.1:{servers.echo}",),
        (f"unix:{servers.folder}/echo",),
        ("--udp", "127.0.0.1", servers.echo_udp),
        (f"udp:localhost:{servers.echo_udp}",),
        (f"unixdgram:{servers.folder}/echo-datagrams",),
    ):
        assert run("echo", *address, "hello") == (0, b"hello\n", ""), address


def test_pipe(servers: Servers) -> None:
    """What comes in through a pipe goes out through one, with nothing added."""
    for data in (b"hello", b"", b"\0\xff\r\n\n"):
        assert run("echo", "127.0.0.1", servers.echo, stdin=data) == (0, data, "")


def test_large_pipe(servers: Servers) -> None:
    """20 MB go through pipes unchanged."""
    data = random.Random(1).randbytes(20_000_000)
    status, output, errors = run("echo", "127.0.0.1", servers.echo, stdin=data)
    assert (status, errors) == (0, "")
    assert output == data


@pytest.mark.usefixtures("fresh")
def test_large_file(servers: Servers, tmp_path: Path) -> None:
    """20 MB go from a file to a file unchanged."""
    data = random.Random(2).randbytes(20_000_000)
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as destination:
        done = run_console(
            "twistednet",
            "echo",
            f"unix:{servers.folder}/echo",
            stdin=source,
            stdout=destination,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out").read_bytes() == data


def test_head(servers: Servers, tmp_path: Path) -> None:
    """A reader that leaves after ten bytes ends the command, though there is more to come."""
    (tmp_path / "in").write_bytes(b"0123456789" * 500_000)
    with (tmp_path / "in").open("rb") as source:
        process = Console(
            "twistednet",
            *("echo", "--timeout", "1000", "127.0.0.1", servers.echo),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            bufsize=0,
        )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as output, process.stderr as errors:
        try:
            assert output.read(10) == b"0123456789"
            output.close()
            assert process.wait(PATIENCE) == 1
            assert errors.read() == b"twistednet echo: nobody reads standard output\n"
        finally:
            process.kill()
            process.wait(PATIENCE)


def test_conversation(servers: Servers) -> None:
    """What comes in is sent at once: a program can talk through the command."""
    with Program("echo", "127.0.0.1", servers.echo) as program:
        for data in (b"hello\n", b"x", b"\0"):
            program.stdin.write(data)
            assert program.read(len(data)) == data
        program.stdin.close()
        assert program.wait() == (0, "")
        assert program.stdout.read() == b""


@pytest.mark.usefixtures("fresh")
def test_terminal(servers: Servers) -> None:
    """At a terminal each line comes back; end of input ends it."""
    with Terminal("echo", "127.0.0.1", servers.echo) as terminal:
        terminal.type("hello\n")
        terminal.expect("hello\r\nhello\r\n")
        terminal.type("\x04")
        assert terminal.wait() == 0
        assert terminal.transcript == b"hello\r\nhello\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"hel", "2 bytes have not come back"),
        (b"hallo", "other bytes came back than were sent"),
        (b"hello you", "more came back than was sent"),
    ],
)
def test_wrong_answer(answer: bytes, reason: str) -> None:
    """Where something else comes back it is printed, and the status is 1."""

    def talk(connection: socket.socket) -> None:
        assert connection.recv(100) == b"hello"
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    with tcp_server(talk) as port:
        expected = f"twistednet echo: 127.0.0.1 port {port}: {reason}\n"
        assert run("echo", "127.0.0.1", port, stdin=b"hello") == (1, answer, expected)
    with tcp_server(talk) as port:
        expected = f"twistednet echo: 127.0.0.1 port {port}: that is not what was sent\n"
        assert run("echo", "127.0.0.1", port, "hello") == (1, answer + b"\n", expected)


def test_wrong_answer_json() -> None:
    """With --json a wrong answer is one object too."""

    def talk(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"hallo")
        drain(connection)

    with tcp_server(talk) as port:
        expected = f'{{"answer": "hallo", "address": "127.0.0.1 port {port}", "ok": false}}\n'
        assert run("echo", "--json", "127.0.0.1", port, "hello") == (1, expected.encode(), "")


def test_retries() -> None:
    """With --retries a server that hears only the third datagram answers."""
    received: list[bytes] = []
    with udp_socket() as server:

        def answer_third() -> None:
            while len(received) < 3:
                data, client = server.recvfrom(100)
                received.append(data)
            server.sendto(data, client)

        thread = threading.Thread(target=answer_third, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        assert run("echo", "--udp", "--timeout", "0.2", "--retries", "50", "127.0.0.1", port, "hello") == (
            0,
            b"hello\n",
            "",
        )
        thread.join(PATIENCE)
    assert received == [b"hello"] * 3
