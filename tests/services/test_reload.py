"""One twistd after the other on the same listening socket, as systemd passes it: nobody is refused, nothing is lost."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.services.running import PATIENCE, Twistd, ask, assert_one_line, receive, receive_all, start

KINDS = {"INET": socket.AF_INET, "INET6": socket.AF_INET6, "UNIX": socket.AF_UNIX}

BULK = 5_000_000


class Listening:
    """A listening socket, which the test keeps open as systemd would."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.family = KINDS[kind]
        self.path = folder / "socket"
        where: Any = {"INET": ("127.0.0.1", 0), "INET6": ("::1", 0), "UNIX": str(self.path)}[kind]
        self.endpoint = f"systemd:domain={kind}:name=stream"
        self.socket = socket.socket(self.family)
        self.socket.bind(where)
        self.socket.listen(128)

    def connect(self) -> socket.socket:
        """A connected client."""
        client = socket.socket(self.family)
        client.settimeout(PATIENCE)
        try:
            client.connect(self.socket.getsockname())
        except BaseException:
            client.close()
            raise
        return client


@pytest.fixture(params=KINDS)
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listening]:
    """A listening socket of each kind."""
    listening = Listening(request.param, tmp_path)
    with listening.socket:
        yield listening


class Clients(threading.Thread):
    """Clients without end, one after the other, each of which connects, asks, and must have its answer."""

    def __init__(self, listening: Listening) -> None:
        super().__init__()
        self.listening = listening
        self.answered = 0
        self.enough = threading.Event()
        self.problems: list[object] = []

    def run(self) -> None:
        question = b"x" * 100
        while not self.enough.is_set():
            try:
                with self.listening.connect() as client:
                    answer = ask(client, question, len(question))
            except OSError as error:
                self.problems.append(error)
            else:
                if answer != question:
                    self.problems.append(answer)
                self.answered += 1

    def wait_for_more(self) -> None:
        """Wait until some more have been answered."""
        enough = self.answered + 20
        while self.answered < enough and self.is_alive() and not self.problems:
            self.enough.wait(0.01)


def test_one_after_the_other(listening: Listening, tmp_path: Path) -> None:
    """Clients connect all the while that one process ends and the next begins: none is refused, none is lost.

    Who is in the middle of something has all of it from the one that ends.
    """
    clients = Clients(listening)
    starting = True
    try:
        for generation in range(3):
            name = f"twistd{generation}"
            arguments = "--pidfile=", "echo", "--listen", listening.endpoint
            with Twistd(tmp_path, *arguments, endpoints=1, listening=listening.socket, name=name) as twistd:
                if starting:
                    clients.start()
                    starting = False
                clients.wait_for_more()
                with listening.connect() as slow:
                    sender = threading.Thread(target=slow.sendall, args=(b"y" * BULK,))
                    sender.start()
                    assert receive(slow, 1000) == b"y" * 1000
                    twistd.process.terminate()
                    twistd.wait_until_logged("a second signal stops at once")
                    assert receive(slow, BULK - 1000) == b"y" * (BULK - 1000)
                    sender.join(PATIENCE)
                    assert receive_all(slow) == b""
                assert twistd.wait() == 0
                assert re.findall(r" (\d+) were reset", twistd.log) == ["0"]
                assert "Traceback" not in twistd.log
        # In between they wait, and are served by the next.
        arguments = "--pidfile=", "echo", "--listen", listening.endpoint
        with Twistd(tmp_path, *arguments, endpoints=1, listening=listening.socket, name="last") as twistd:
            clients.wait_for_more()
            clients.enough.set()
            clients.join(PATIENCE)
            twistd.assert_stops_cleanly()
    finally:
        clients.enough.set()
        if not starting:
            clients.join(PATIENCE)
    assert clients.problems == []
    assert not clients.is_alive()


def test_side_by_side(listening: Listening, tmp_path: Path) -> None:
    """The next may begin before the last ends; the socket stays where it is, for the next one but one."""
    arguments = "--pidfile=", "echo", "--listen", listening.endpoint
    with (
        Twistd(tmp_path, *arguments, endpoints=1, listening=listening.socket, name="old") as old,
        Twistd(tmp_path, *arguments, endpoints=1, listening=listening.socket, name="new") as new,
    ):
        old.assert_stops_cleanly()
        with listening.connect() as client:
            assert ask(client, b"hello", 5) == b"hello"
        new.assert_stops_cleanly()
    with listening.connect():
        # Nobody accepts it, but the system has it wait for somebody who does.
        assert listening.family != socket.AF_UNIX or listening.path.exists()


def test_options(listening: Listening, tmp_path: Path) -> None:
    """Limits, half-close and time-outs are those of every other endpoint."""
    options = "--max-connections", "2", "--write-timeout", "0.5", "--drain", "5"
    arguments = "--pidfile=", "echo", *options, "--listen", listening.endpoint
    with Twistd(tmp_path, *arguments, endpoints=1, listening=listening.socket) as twistd:
        with listening.connect() as first, listening.connect() as second:
            assert ask(first, b"hello", 5) == b"hello"
            assert ask(second, b"hello", 5) == b"hello"
            with suppress(ConnectionResetError), listening.connect() as refused:
                assert refused.recv(1) == b""
            twistd.wait_until_logged("max-connections")
            first.sendall(b"y" * 50_000)
            first.shutdown(socket.SHUT_WR)
            assert receive_all(first) == b"y" * 50_000
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                second.sendall(b"z" * 100_000_000)
            twistd.wait_until_logged("write-timeout")
        twistd.assert_stops_cleanly()


@pytest.mark.parametrize("header", ["haproxy:", ""])
def test_wrapped(tmp_path: Path, header: str) -> None:
    """A PROXY header may come over such a socket."""
    listening = Listening("INET", tmp_path)
    with listening.socket:
        arguments = "--pidfile=", "reverse", "--listen", header + listening.endpoint
        with Twistd(tmp_path, *arguments, endpoints=1, listening=listening.socket) as twistd:
            with listening.connect() as client:
                client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 2000\r\n" * bool(header) + b"ab\nlast")
                client.shutdown(socket.SHUT_WR)
                assert receive_all(client) == b"ba\ntsal"
            twistd.assert_stops_cleanly()


@pytest.mark.parametrize("which", ["name=stream", "index=0"])
def test_nothing_passed(tmp_path: Path, which: str) -> None:
    """Where nothing has been passed, one line says so."""
    done = start(tmp_path, "--nodaemon", "echo", "--listen", f"systemd:domain=INET:{which}")
    why = "no socket of that name or index has been passed (LISTEN_FDS, LISTEN_FDNAMES)"
    assert_one_line(tmp_path, done, f"twistd echo: --listen systemd:domain=INET:{which}: {why}")
