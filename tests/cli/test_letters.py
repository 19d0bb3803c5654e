"""``twistednet letters``."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from tests.cli.running import Program, Terminal, drain, run, tcp_server


def test_text(accumulator: tuple[Path, int]) -> None:
    """LETTERS are added one after another, and the string that there is then is printed."""
    path, port = accumulator
    assert run("letters", "127.0.0.1", port, "abc") == (0, b"abc\n", "")
    assert run("letters", f"unix:{path}", "\xeb d") == (0, "abc\xeb d\n".encode(), "")


def test_json(accumulator: tuple[Path, int]) -> None:
    """With --json the string is in an object."""
    expected = f'{{"answer": "abc", "address": "127.0.0.1 port {accumulator[1]}", "ok": true}}\n'
    assert run("letters", "--json", "127.0.0.1", accumulator[1], "abc") == (0, expected.encode(), "")


def test_pipe(accumulator: tuple[Path, int]) -> None:
    """The string is printed after each letter of each line; an empty line ends it."""
    port = accumulator[1]
    assert run("letters", "127.0.0.1", port, stdin=b"ab\r\nc\n\nx\n") == (0, b"a\nab\nabc\n", "")
    assert run("letters", "127.0.0.1", port, stdin=b"d\n\xc3\xab\xff") == (
        0,
        b"abcd\nabcd\xc3\xab\nabcd\xc3\xab\xff\n",
        "",
    )
    assert run("letters", "127.0.0.1", port) == (0, b"", "")


def test_conversation(accumulator: tuple[Path, int]) -> None:
    """Each letter is answered before the next is sent."""
    with Program("letters", "127.0.0.1", accumulator[1]) as program:
        for n, letter in enumerate((b"a\n", b"b\n", b"c\n"), 1):
            program.stdin.write(letter)
            assert program.read(n + 1) == b"abc"[:n] + b"\n"
        program.stdin.close()
        assert program.wait() == (0, "")


def test_terminal(accumulator: tuple[Path, int]) -> None:
    """The textbook's session: two clients, and what each of their terminals shows in the end."""
    address = "127.0.0.1", accumulator[1]
    prompt = "enter a letter:"
    with Terminal("letters", *address) as one, Terminal("letters", *address) as two:
        one.expect(prompt)
        two.expect(prompt)
        text = ""
        for client, letters in ((one, "abc"), (two, "uuvv"), (one, "d"), (two, "ww"), (one, "e")):
            for letter in letters:
                text += letter
                client.type(f"{letter}\n")
                client.expect(f"{letter}\r\n{text}\r\n{prompt}")
        for client in (one, two):
            client.type("\n")
            assert client.wait() == 0
        assert one.transcript.decode().split("\r\n") == [
            "enter a letter:a",
            "a",
            "enter a letter:b",
            "ab",
            "enter a letter:c",
            "abc",
            "enter a letter:d",
            "abcuuvvd",
            "enter a letter:e",
            "abcuuvvdwwe",
            "enter a letter:",
            "",
        ]
        assert two.transcript.decode().split("\r\n") == [
            "enter a letter:u",
            "abcu",
            "enter a letter:u",
            "abcuu",
            "enter a letter:v",
            "abcuuv",
            "enter a letter:v",
            "abcuuvv",
            "enter a letter:w",
            "abcuuvvdw",
            "enter a letter:w",
            "abcuuvvdww",
            "enter a letter:",
            "",
        ]


def test_terminal_end_of_input(accumulator: tuple[Path, int]) -> None:
    """End of input ends it, as an empty line does."""
    with Terminal("letters", "127.0.0.1", accumulator[1]) as terminal:
        terminal.expect("enter a letter:")
        terminal.type("\x04")
        assert terminal.wait() == 0
        assert terminal.transcript == b"enter a letter:"


def test_terminal_interrupted(accumulator: tuple[Path, int]) -> None:
    """Interrupted, it leaves the terminal as it was, and no traceback on it."""
    with Terminal("letters", "127.0.0.1", accumulator[1]) as terminal:
        terminal.expect("enter a letter:")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 130
        assert terminal.transcript == b"enter a letter:"


def test_no_room(accumulator: tuple[Path, int]) -> None:
    """Letters that the string has no room for give status 1."""
    port = accumulator[1]
    full = b"error: the text has reached its 20 bytes\n"
    expected = f"twistednet letters: 127.0.0.1 port {port}: the string has no room for all of 'xyz'\n"
    assert run("letters", "127.0.0.1", port, "abcdefghijklmnopqrst") == (0, b"abcdefghijklmnopqrst\n", "")
    assert run("letters", "127.0.0.1", port, "xyz") == (1, full, expected)
    status, output, errors = run("letters", "127.0.0.1", port, stdin=b"xyz\n")
    assert (status, output.startswith(full), errors.count("\n")) == (1, True, 1)


def test_wrong_answer() -> None:
    """An answer that does not end in the letter is wrong."""

    def talk(connection: socket.socket) -> None:
        assert connection.recv(100) == b"a\n"
        connection.sendall(b"b\n")
        drain(connection)

    with tcp_server(talk) as port:
        status, output, errors = run("letters", "127.0.0.1", port, "a")
    assert (status, output) == (1, b"b\n")
    assert errors.startswith(f"twistednet letters: 127.0.0.1 port {port}: ")
    assert errors.count("\n") == 1
