"""The ``twistednet`` command, run as a user runs it, and servers that misbehave."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from tests.programs import Console, run_console
from tests.services.running import PATIENCE

ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}


def run(*arguments: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
    """Run ``twistednet``: its exit status, its output, and what it has written on standard error."""
    done = run_console("twistednet", *arguments, input=stdin, capture_output=True, env=ENVIRONMENT)
    return done.returncode, done.stdout, done.stderr.decode()


class Program:
    """A running ``twistednet`` whose standard input and output are pipes, until the end of the ``with`` statement."""

    def __init__(self, *arguments: object) -> None:
        self.process = Console(
            "twistednet",
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdin, self.stdout, self.stderr = self.process.stdin, self.process.stdout, self.process.stderr

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()

    def read(self, size: int) -> bytes:
        """The next `size` bytes of its output."""
        data = b""
        while len(data) < size:
            ready, _, _ = select.select([self.stdout], [], [], PATIENCE)
            assert ready, data
            more = self.stdout.read(size - len(data))
            assert more, data
            data += more
        return data

    def wait(self) -> tuple[int, str]:
        """Wait for its end: its exit status, and what it has written on standard error."""
        status = self.process.wait(PATIENCE)
        return status, self.stderr.read().decode()


class Terminal:
    """A running ``twistednet`` at a terminal of its own, until the end of the ``with`` statement.

    The transcript is what somebody who sits there sees, what they type included.
    """

    def __init__(self, *arguments: object) -> None:
        self.transcript = b""
        self._expected = 0  # how much of it has been expected
        self._ours, self._its = os.openpty()
        self.process = Console(
            "twistednet",
            *arguments,
            stdin=self._its,
            stdout=self._its,
            stderr=self._its,
            env=ENVIRONMENT,
            start_new_session=True,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._ours)
        os.close(self._its)

    def expect(self, text: str) -> None:
        """Wait until what has been shown since the last time ends in `text`."""
        give_up = time.monotonic() + PATIENCE
        while not self.transcript[self._expected :].endswith(text.encode()):
            ready, _, _ = select.select([self._ours], [], [], max(0, give_up - time.monotonic()))
            assert ready, self.transcript
            self.transcript += os.read(self._ours, 4096)
        self._expected = len(self.transcript)

    def type(self, text: str) -> None:
        """Type `text`."""
        os.write(self._ours, text.encode())

    def wait(self) -> int:
        """Wait for its end: its exit status. The terminal is as it was before."""
        status = self.process.wait(PATIENCE)
        while select.select([self._ours], [], [], 0)[0]:
            self.transcript += os.read(self._ours, 4096)
        assert os.get_blocking(self._its)
        return status


@contextmanager
def tcp_server(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server on a port of 127.0.0.1 that has `talk` talk to its only client, and then closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(PATIENCE)
                talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(PATIENCE)
        assert not thread.is_alive()


def drain(connection: socket.socket) -> None:
    """Receive until the client has ended its stream."""
    while connection.recv(65536):
        pass


@contextmanager
def silent_server() -> Iterator[int]:
    """A port of 127.0.0.1 where connections are taken, and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def udp_socket() -> Iterator[socket.socket]:
    """A UDP socket on a port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        yield server


@contextmanager
def refusing_port(kind: socket.SocketKind) -> Iterator[int]:
    """A port of 127.0.0.1 that refuses, and that nobody else can get: it is bound, but does not listen."""
    with socket.socket(socket.AF_INET, kind) as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        if kind == socket.SOCK_DGRAM:
            # Connected to itself, it takes datagrams from nobody else.
            bound.connect(("127.0.0.1", port))
        yield port
