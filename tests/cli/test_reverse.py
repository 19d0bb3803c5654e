"""``twistednet reverse``."""

from __future__ import annotations

import socket

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conftest import Servers
from tests.cli.running import Program, Terminal, drain, run, tcp_server
from twistednet.cli.reverse import is_reversed


class IsReversedTests(SynchronousTestCase):
    """`is_reversed`."""

    def test_either_way(self) -> None:
        """By characters or by bytes."""
        text = "no\xebl".encode()
        self.assertTrue(is_reversed(text, "l\xebon".encode()))
        self.assertTrue(is_reversed(text, text[::-1]))
        self.assertTrue(is_reversed(b"", b""))

    def test_not(self) -> None:
        """Anything else is not."""
        self.assertFalse(is_reversed(b"stressed", b"stressed"))
        self.assertFalse(is_reversed(b"stressed", b"dessert"))
        self.assertFalse(is_reversed(b"stressed", b"desserts\n"))


def test_text(servers: Servers) -> None:
    """TEXT comes back reversed, on every kind of stream."""
    for address in (("127.0.0.1", servers.reverse), (f"unix:{servers.folder}/reverse",)):
        assert run("reverse", *address, "no\xebl stressed") == (0, "desserts l\xebon\n".encode(), "")
    assert run("reverse", "127.0.0.1", servers.reverse, "") == (0, b"\n", "")


def test_json(servers: Servers) -> None:
    """With --json the answer is an object."""
    expected = f'{{"answer": "desserts", "address": "127.0.0.1 port {servers.reverse}", "ok": true}}\n'
    assert run("reverse", "--json", "127.0.0.1", servers.reverse, "stressed") == (0, expected.encode(), "")


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        (b"stressed\ndesserts\r\n", b"desserts\nstressed\r\n"),
        (b"stressed", b"desserts"),
        (b"", b""),
        (b"abc\n" * 100_000, b"cba\n" * 100_000),
    ],
    ids=["lines", "no ending", "nothing", "many"],
)
def test_pipe(servers: Servers, lines: bytes, answers: bytes) -> None:
    """The lines of standard input are reversed, framed as they came."""
    assert run("reverse", "127.0.0.1", servers.reverse, stdin=lines) == (0, answers, "")


def test_conversation(servers: Servers) -> None:
    """Each line is answered before the next is sent: a program can talk through the command."""
    with Program("reverse", "127.0.0.1", servers.reverse) as program:
        for line in (b"stressed\n", b"\n", b"abc\r\n"):
            program.stdin.write(line)
            assert program.read(len(line)) == {b"abc\r\n": b"cba\r\n"}.get(line, line.strip()[::-1] + b"\n")
        program.stdin.close()
        assert program.wait() == (0, "")


def test_terminal(servers: Servers) -> None:
    """The textbook's conversation: its sentence, a line of one's own, and no more."""
    with Terminal("reverse", "127.0.0.1", servers.reverse) as terminal:
        terminal.expect("]: ")
        terminal.type("\n")
        terminal.expect("Do you want to continue (y/n) :")
        terminal.type("y\n")
        terminal.expect("]: ")
        terminal.type("stressed\n")
        terminal.expect("Do you want to continue (y/n) :")
        terminal.type("n\n")
        assert terminal.wait() == 0
        assert terminal.transcript.decode().split("\r\n") == [
            "Message to send [SNS is the best course ever !]: ",
            "Received from the server : ! reve esruoc tseb eht si SNS",
            "",
            "Do you want to continue (y/n) :y",
            "Message to send [SNS is the best course ever !]: stressed",
            "Received from the server : desserts",
            "",
            "Do you want to continue (y/n) :n",
            "",
        ]


def test_terminal_end_of_input(servers: Servers) -> None:
    """End of input ends the conversation at either question."""
    for answers in ([], ["stressed\n"]):
        with Terminal("reverse", "127.0.0.1", servers.reverse) as terminal:
            for answer in answers:
                terminal.expect("]: ")
                terminal.type(answer)
            terminal.expect(":" if answers else "]: ")
            terminal.type("\x04")
            assert terminal.wait() == 0


@pytest.mark.parametrize("answer", [b"stressed\n", b"desser"])
def test_wrong_answer(answer: bytes) -> None:
    """Where the server answers wrongly, or closes early, the status is 1."""

    def talk(connection: socket.socket) -> None:
        assert connection.recv(100) == b"stressed\n"
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    with tcp_server(talk) as port:
        expected = f"twistednet reverse: 127.0.0.1 port {port}: that is not what was sent, reversed\n"
        assert run("reverse", "127.0.0.1", port, "stressed") == (1, answer.rstrip() + b"\n", expected)
