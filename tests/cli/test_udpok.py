"""``twistednet udpok``."""

from __future__ import annotations

import threading

import pytest

from tests.cli.conftest import Servers
from tests.cli.running import Program, Terminal, run, udp_socket
from tests.services.running import PATIENCE


@pytest.mark.parametrize("text", ["hello", ""])
def test_text(servers: Servers, text: str) -> None:
    """TEXT comes back with its prefix."""
    assert run("udpok", "127.0.0.1", servers.udpok, text) == (0, f"OK...{text}\n".encode(), "")


def test_endpoints(servers: Servers) -> None:
    """The server is found by name, and by endpoint string."""
    for address in (
        ("localhost", servers.udpok),
        (f"udp:127.0.0.1:{servers.udpok}",),
        (f"unixdgram:{servers.folder}/udpok",),
    ):
        assert run("udpok", *address, "hello") == (0, b"OK...hello\n", ""), address


def test_json(servers: Servers) -> None:
    """With --json the answer is an object."""
    expected = f'{{"answer": "OK...hello", "address": "127.0.0.1 port {servers.udpok}", "ok": true}}\n'
    assert run("udpok", "--json", "127.0.0.1", servers.udpok, "hello") == (0, expected.encode(), "")


def test_pipe(servers: Servers) -> None:
    """Each line is a datagram, an empty one and the last without an ending among them."""
    assert run("udpok", "127.0.0.1", servers.udpok, stdin=b"hello\n\nyou") == (0, b"OK...hello\nOK...\nOK...you\n", "")
    assert run("udpok", "127.0.0.1", servers.udpok) == (0, b"", "")


def test_conversation(servers: Servers) -> None:
    """Each line is answered before the next is sent."""
    with Program("udpok", "127.0.0.1", servers.udpok) as program:
        for line in (b"hello\n", b"you\n"):
            program.stdin.write(line)
            assert program.read(5 + len(line)) == b"OK..." + line
        program.stdin.close()
        assert program.wait() == (0, "")


def test_terminal(servers: Servers) -> None:
    """The textbook's client asks again and again."""
    with Terminal("udpok", "127.0.0.1", servers.udpok) as terminal:
        for line in ("hello\n", "\n", "two words\n"):
            terminal.expect("Enter message to send : ")
            terminal.type(line)
        terminal.expect("Enter message to send : ")
        terminal.type("\x04")
        assert terminal.wait() == 0
        assert terminal.transcript.decode().split("\r\n") == [
            "Enter message to send : hello",
            "Server reply : OK...hello",
            "Enter message to send : ",
            "Server reply : OK...",
            "Enter message to send : two words",
            "Server reply : OK...two words",
            "Enter message to send : ",
        ]


def test_wrong_answer(servers: Servers) -> None:
    """An echo is not a udpok: its answer is printed, and the status is 1."""
    port = servers.echo_udp
    expected = f"twistednet udpok: 127.0.0.1 port {port}: that is not OK... and what was sent\n"
    assert run("udpok", "127.0.0.1", port, "hello") == (1, b"hello\n", expected)
    assert run("udpok", "127.0.0.1", port, stdin=b"hello\nyou\n") == (1, b"hello\n", expected)


def test_retries() -> None:
    """With --retries a server that hears only the third datagram answers."""
    received: list[bytes] = []
    with udp_socket() as server:

        def answer_third() -> None:
            while len(received) < 3:
                data, client = server.recvfrom(100)
                received.append(data)
            server.sendto(b"OK..." + data, client)

        thread = threading.Thread(target=answer_third, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        assert run("udpok", "--timeout", "0.2", "--retries", "50", "127.0.0.1", port, stdin=b"hello\n") == (
            0,
            b"OK...hello\n",
            "",
        )
        thread.join(PATIENCE)
    assert received == [b"hello"] * 3
