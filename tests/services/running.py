"""Real programs, run as a user runs them: ``twistd`` in a folder of its own, and bare sockets to talk to it with."""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests import programs
from tests.programs import Console, Popen, run_console

PATIENCE = programs.PATIENCE
"""Seconds after which a test gives up waiting."""

SCRIPTS = programs.SCRIPTS
"""Where ``twistd`` and ``twistednet`` are."""

REACTOR: list[str] = []
"""The option that names the reactor for every twistd, where the tests are run on a particular one."""

APPLICATION = """
from importlib import import_module

from twisted.application.service import Application

application = Application("all")

for name, *arguments in {commands}:
    service = import_module("twistednet.services." + name)
    options = service.Options()
    options.parseOptions(arguments)
    service.makeService(options).setServiceParent(application)
"""
"""What ``twistd --python`` reads for an application of several services, each a command line in `commands`."""


class Twistd:
    """A ``twistd`` in the foreground, from its start until the end of the ``with`` statement.

    :param folder: where it runs, and keeps its log and its pid file.
    :param arguments: the command line after twistd's own options.
    :param endpoints: how many endpoints it will listen on.
    :param stdin: a descriptor for its standard input; nothing can be read there when left out.
    :param listening: a socket that it gets as systemd would pass it, by the name of ``stream``.
    :param name: the name of its log, where several run in one folder.
    :param descriptors: how many it may have; as many as the tests when left out.
    :param inherited: descriptors that it gets as they are.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        endpoints: int,
        stdin: int = subprocess.DEVNULL,
        listening: socket.socket | None = None,
        name: str = "twistd",
        descriptors: int | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        self.folder = folder
        self.log_file = folder / f"{name}.log"
        self._output = folder / "stdout"
        self._errors = folder / "stderr"
        self._endpoints = endpoints
        options = ["--nodaemon", "--logfile", str(self.log_file), *REACTOR, *arguments]
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            how: dict[str, Any] = {"cwd": folder, "stdin": stdin, "stdout": output, "stderr": errors}
            self.process: Popen
            if descriptors is not None:
                self.process = Popen(["prlimit", f"--nofile={descriptors}", SCRIPTS / "twistd", *options], **how)
            else:
                if listening is not None:
                    how["listening"] = listening
                self.process = Console("twistd", *options, pass_fds=inherited, **how)

    def __enter__(self) -> Twistd:
        try:
            self._wait_until_listening()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def _wait_until_listening(self) -> None:
        give_up = time.monotonic() + PATIENCE
        while len(self.addresses) < self._endpoints or not self._takes_signals():
            assert self.process.poll() is None, self.errors + self.log.encode()
            assert time.monotonic() < give_up, self.log
            time.sleep(0.01)

    def _takes_signals(self) -> bool:
        """Whether its reactor runs: before that, SIGTERM ends it at once."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (caught,) = re.findall(r"^SigCgt:\s+(\w+)$", status, re.MULTILINE)
        return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def output(self) -> bytes:
        """What it has written on its standard output."""
        return self._output.read_bytes()

    @property
    def errors(self) -> bytes:
        """What it has written on its standard error."""
        return self._errors.read_bytes()

    @property
    def addresses(self) -> list[str]:
        """Where it listens, in the order of the endpoints, as it says in its log."""
        return re.findall(r" listening on (.+)\n", self.log)

    def port(self, n: int = 0) -> int:
        """The port of its `n`-th endpoint."""
        return int(self.addresses[n].rpartition(":")[2])

    def wait_until_logged(self, text: str, times: int = 1) -> None:
        """Wait until `text` stands in the log as many times."""
        give_up = time.monotonic() + PATIENCE
        while self.log.count(text) < times:
            assert time.monotonic() < give_up, self.log
            time.sleep(0.01)

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def wait(self) -> int:
        """Wait until it has stopped by itself; its exit status."""
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def assert_stops_cleanly(self, status: int = 0) -> None:
        """Ask it to stop: it does, with `status`, with nothing on the terminal, no traceback, and no pid file."""
        assert self.stop() == status
        assert (self.output, self.errors) == (b"", b"")
        assert "Traceback" not in self.log, self.log
        assert "Unhandled" not in self.log
        assert not (self.folder / "twistd.pid").exists()


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``twistd`` to its end, which is soon."""
    return run_console("twistd", *arguments, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True)


def assert_one_line(folder: Path, done: subprocess.CompletedProcess[bytes], line: str) -> None:
    """`done` has failed, and all that the user sees of it is `line`."""
    assert done.stderr.decode() == line + "\n"
    assert done.returncode == 1
    assert b"Traceback" not in done.stdout
    assert not (folder / "twistd.pid").exists()


def free_port() -> int:
    """A port that nobody uses, over TCP or UDP, and that the system gives to none who let it choose."""
    first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    while True:
        port = 5000 + secrets.randbelow(int(first) - 5000)
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            try:
                stream.bind(("127.0.0.1", port))
                datagram.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A connected TCP socket."""
    return socket.create_connection((host, port), PATIENCE)


def connect_started(path: Path, process: Popen) -> socket.socket:
    """A connected Unix socket of a program that is about to listen there."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return connect_unix(path)
        except (FileNotFoundError, ConnectionRefusedError):
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.01)


def connect_unix(path: Path) -> socket.socket:
    """A connected Unix socket."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    try:
        client.connect(str(path))
    except BaseException:
        client.close()
        raise
    return client


def receive(client: socket.socket, size: int) -> bytes:
    """The next `size` bytes; fewer where the stream ends before that."""
    answer = b""
    while len(answer) < size and (data := client.recv(size - len(answer))):
        answer += data
    return answer


def receive_all(client: socket.socket) -> bytes:
    """Everything until the end of the stream."""
    chunks = []
    while data := client.recv(65536):
        chunks.append(data)
    return b"".join(chunks)


def ask(client: socket.socket, question: bytes, size: int) -> bytes:
    """Send `question`, and receive `size` bytes."""
    client.sendall(question)
    return receive(client, size)


def ask_for_all(client: socket.socket, question: bytes) -> bytes:
    """Send `question`, end the stream, and receive everything."""
    client.sendall(question)
    client.shutdown(socket.SHUT_WR)
    return receive_all(client)


def inject(twistd: Twistd, *options: str) -> Popen:
    """strace, attached to `twistd` with `options`, which say what is to fail; the test is skipped where it can't be.

    Whoever asks for it ends it.
    """
    if shutil.which("strace") is None:
        pytest.skip("there is no strace here")
    strace = Popen(
        ["strace", "-p", str(twistd.process.pid), *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert strace.stderr is not None
    attached = strace.stderr.readline()
    if b"attached" not in attached:
        strace.communicate()
        pytest.skip(f"strace can't attach: {attached!r}")
    return strace
