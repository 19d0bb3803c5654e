"""Live servers, and clients who are too many, too slow, or gone; and a system that has nothing left to accept with."""

from __future__ import annotations

import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests import programs
from tests.services.running import PATIENCE, Twistd, ask, connect, inject, receive, receive_all
from twistednet.policies.accepting import REST


def reset(client: socket.socket) -> None:
    """Leave without a word: RST instead of FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def slow_reader(port: int) -> socket.socket:
    """A connection that takes little before it is read from."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(PATIENCE)
    client.connect(("127.0.0.1", port))
    return client


def send_unread(client: socket.socket) -> None:
    """Send as much as is taken without reading any answer."""
    client.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            client.send(b"abcd\n" * 20_000)
    client.settimeout(PATIENCE)


def warnings(twistd: Twistd) -> list[str]:
    """The lines of the log that strangers have caused."""
    return [line for line in twistd.log.splitlines() if "[twistednet.policies." in line]


@contextmanager
def few_lines(twistd: Twistd, kinds: int = 1) -> Iterator[None]:
    """Meanwhile no more than one line a second of each kind comes into the log, and some do."""
    started, before = time.monotonic(), len(warnings(twistd))
    yield
    allowed = kinds * (1 + int(time.monotonic() - started))
    assert 1 <= len(warnings(twistd)) - before <= allowed, twistd.log


def assert_reset(port: int) -> None:
    """Who connects is reset, even before he knows that he is connected."""
    with pytest.raises(ConnectionResetError), connect(port) as client:
        client.recv(1)


def assert_serves(port: int, clients: int = 20) -> None:
    """So many clients, who are there at the same time, are served, as soon as those who left have been seen to go."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            with ExitStack() as stack:
                for client in [stack.enter_context(connect(port)) for _ in range(clients)]:
                    assert ask(client, b"hello\n", 6) == b"hello\n"
            return
        except ConnectionResetError:
            assert time.monotonic() < give_up


# Too many


@pytest.mark.parametrize("options", [(), ("--max-connections", "0")], ids=["default", "unlimited"])
def test_descriptors_run_out(tmp_path: Path, options: tuple[str, ...]) -> None:
    """With 64 descriptors for 300 clients those that are served stay so, and when others leave there is room again."""
    with Twistd(tmp_path, "echo", "--port", "0", *options, endpoints=1, descriptors=64) as twistd:
        with connect(twistd.port()) as first:
            assert ask(first, b"hello", 5) == b"hello"
            with ExitStack() as stack, few_lines(twistd):
                for _ in range(300):
                    with suppress(ConnectionError):
                        stack.enter_context(connect(twistd.port())).sendall(b"hello")
                    assert ask(first, b"hello", 5) == b"hello"
                twistd.wait_until_logged("no connection can be accepted" if options else "connection refused: max-conn")
                assert ask(first, b"hello", 5) == b"hello"
            assert_serves(twistd.port())
            assert ask(first, b"hello", 5) == b"hello"
        twistd.assert_stops_cleanly()


def test_max_connections(tmp_path: Path) -> None:
    """Beyond ``--max-connections`` a client is reset; when one leaves there is room for one."""
    with (
        Twistd(tmp_path, "echo", "--port", "0", "--max-connections", "2", endpoints=1) as twistd,
        connect(twistd.port()) as one,
        few_lines(twistd),
    ):
        with connect(twistd.port()) as two:
            for client in (one, two):
                assert ask(client, b"hello", 5) == b"hello"
            for _ in range(50):
                assert_reset(twistd.port())
            for client in (one, two):
                assert ask(client, b"hello", 5) == b"hello"
            two.shutdown(socket.SHUT_WR)
            assert two.recv(1) == b""
        with connect(twistd.port()) as three:
            assert ask(three, b"hello", 5) == b"hello"
        assert "connection refused: max-connections is 2" in twistd.log


def test_max_per_host(tmp_path: Path) -> None:
    """Beyond ``--max-per-host`` a client of that host is reset, and one of another is served."""
    with (
        Twistd(tmp_path, "echo", "--port", "0", "--max-per-host", "1", endpoints=1) as twistd,
        connect(twistd.port()) as one,
        few_lines(twistd),
    ):
        assert ask(one, b"hello", 5) == b"hello"
        for _ in range(50):
            assert_reset(twistd.port())
        with socket.create_connection(("127.0.0.1", twistd.port()), PATIENCE, ("127.0.0.2", 0)) as other:
            assert ask(other, b"hello", 5) == b"hello"
        assert ask(one, b"hello", 5) == b"hello"
        assert "connection refused: max-per-host is 1" in twistd.log


def test_table_of_files_is_full(tmp_path: Path) -> None:
    """Where ``accept`` fails again and again, it is tried ten times a second, and those who are there are served."""
    trace = tmp_path / "trace"
    with Twistd(tmp_path, "echo", "--port", "0", endpoints=1) as twistd:
        with connect(twistd.port()) as first:
            assert ask(first, b"hello", 5) == b"hello"
            calls = ("-e", "trace=accept4,accept", "-e", "inject=accept4,accept:error=ENFILE")
            strace = inject(twistd, "-f", "-o", str(trace), *calls)
            try:
                started = time.monotonic()
                with connect(twistd.port()) as late, few_lines(twistd):
                    twistd.wait_until_logged("Too many open files in system")
                    while trace.read_text().count("ENFILE") < 10:
                        assert time.monotonic() < started + PATIENCE
                        assert ask(first, b"hello", 5) == b"hello"
                    assert trace.read_text().count("ENFILE") <= 1 + (time.monotonic() - started) / REST
                    strace.terminate()
                    strace.wait(PATIENCE)
                    assert ask(late, b"hello", 5) == b"hello"
            finally:
                strace.kill()
                strace.communicate()
            assert_serves(twistd.port())
        twistd.assert_stops_cleanly()


# Too slow


def drip(client: socket.socket, ended: threading.Event) -> None:
    """Send an octet every now and then, until there is nobody to send it to."""
    with suppress(OSError):
        while not ended.wait(0.05):
            client.sendall(b"x")


def test_slow_clients(tmp_path: Path) -> None:
    """Who drips, never finishes, never reads or does nothing is cut; who goes on asking, and who answers, never is."""
    timeouts = ("--message-timeout", "1", "--write-timeout", "1", "--idle-timeout", "2")
    ended = threading.Event()
    with Twistd(tmp_path, "reverse", "--port", "0", *timeouts, endpoints=1) as twistd:
        with (
            connect(twistd.port()) as good,
            connect(twistd.port()) as dripping,
            connect(twistd.port()) as unfinished,
            slow_reader(twistd.port()) as unread,
            connect(twistd.port()) as idle,
        ):
            dripper = threading.Thread(target=drip, args=(dripping, ended))
            try:
                unfinished.sendall(b"a\nbcd")
                dripping.sendall(b"a\n")
                dripper.start()
                send_unread(unread)
                broken = select.poll()
                broken.register(unread, 0)
                watched = {dripping: b"a\n", unfinished: b"a\n", idle: b""}
                for client in watched:
                    client.setblocking(False)
                give_up = time.monotonic() + PATIENCE
                while watched or not broken.poll(0):
                    assert time.monotonic() < give_up, twistd.log
                    assert ask(good, b"ab\n", 3) == b"ba\n"
                    for client in list(watched):
                        with suppress(BlockingIOError):
                            try:
                                data = client.recv(100)
                            except ConnectionResetError:  # what it sent crossed the end
                                data = b""
                            if data:
                                assert data == watched[client]
                            else:
                                del watched[client]
            finally:
                ended.set()
                dripper.join()
            with pytest.raises(ConnectionResetError):
                receive_all(unread)
            assert ask(good, b"ab\n", 3) == b"ba\n"
            assert len(re.findall(r"nothing happened for the time that", twistd.log)) <= 10
        twistd.assert_stops_cleanly()


STOPPABLE = """
import socket, sys
client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
client.connect(("127.0.0.1", int(sys.argv[1])))
print(len(client.recv(1)), flush=True)
while True:
    try:
        if not client.recv(65536):
            sys.exit("closed")
    except ConnectionResetError:
        sys.exit(0)
"""


@pytest.mark.slow
def test_stopped_peer(tmp_path: Path) -> None:
    """A peer whose process is stopped is reset, and takes nothing from another."""
    with Twistd(tmp_path, "chargen", "--port", "0", "--write-timeout", "1", endpoints=1) as twistd:
        with connect(twistd.port()) as good:
            peer = programs.Popen(
                [sys.executable, "-c", STOPPABLE, str(twistd.port())], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            try:
                assert peer.stdout is not None
                assert peer.stdout.readline() == b"1\n"
                peer.send_signal(signal.SIGSTOP)
                give_up = time.monotonic() + PATIENCE
                while "write-timeout" not in twistd.log:
                    assert time.monotonic() < give_up
                    assert len(receive(good, 100_000)) == 100_000
                peer.send_signal(signal.SIGCONT)
                assert peer.wait(PATIENCE) == 0
            finally:
                peer.kill()
                peer.communicate()
            assert len(receive(good, 10**6)) == 10**6
        twistd.assert_stops_cleanly()


# Gone


@pytest.mark.parametrize("name", ["echo", "reverse", "repeat"])
def test_resets(tmp_path: Path, name: str) -> None:
    """Who leaves without a word, at whatever stage, takes nothing from others, and leaves nothing behind."""
    options = ("--copies", "1000") if name == "repeat" else ()
    with Twistd(tmp_path, name, "--port", "0", *options, endpoints=1) as twistd:
        with connect(twistd.port()) as good:
            with connect(twistd.port()) as other:
                # The other has been accepted before this one.
                assert ask(other, b"aa\n", 3) == b"aa\n"
                before = psutil.Process(twistd.process.pid).num_fds()
            for _ in range(5):
                # Before a byte, in a message, while output waits, after the end of the stream, and when all is read.
                reset(slow_reader(twistd.port()))
                for much, end in ((False, False), (True, False), (True, True), (False, True)):
                    client = slow_reader(twistd.port())
                    client.sendall(b"abc")
                    if much:
                        send_unread(client)
                    if end:
                        client.shutdown(socket.SHUT_WR)
                    if much or end:
                        assert receive(client, 3)
                    reset(client)
            give_up = time.monotonic() + PATIENCE
            while psutil.Process(twistd.process.pid).num_fds() > before:
                assert time.monotonic() < give_up
                time.sleep(0.01)
            assert ask(good, b"aa\n", 3) == b"aa\n"
        twistd.assert_stops_cleanly()


# The end

SIZE = 5_000_000


@contextmanager
def stopping(tmp_path: Path, *options: str) -> Iterator[tuple[Twistd, list[socket.socket]]]:
    """A server that has been told to stop while four clients have still to read 5 MB each."""
    with ExitStack() as stack:
        copies = ("--copies", str(SIZE // 5))
        twistd = stack.enter_context(Twistd(tmp_path, "repeat", "--port", "0", *copies, *options, endpoints=1))
        clients = [stack.enter_context(slow_reader(twistd.port())) for _ in range(4)]
        for client in clients:
            client.sendall(b"abcd\n")
            assert receive(client, 5) == b"abcd\n"
        twistd.process.send_signal(signal.SIGTERM)
        twistd.wait_until_logged("stopping")
        yield twistd, clients


def test_drain(tmp_path: Path) -> None:
    """When it stops, those who have begun get all of it, nobody else comes in, and all is well."""
    with stopping(tmp_path, "--drain", str(PATIENCE)) as (twistd, clients):
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                connect(twistd.port()).close()
            except ConnectionRefusedError:
                break
            assert time.monotonic() < give_up
        for client in clients:
            assert len(receive_all(client)) == SIZE - 5
            client.close()
        assert twistd.wait() == 0
        assert "0 connections were idle, 4 have finished, 0 were reset" in twistd.log
        assert "Traceback" not in twistd.log


def test_second_signal(tmp_path: Path) -> None:
    """A second signal doesn't wait for anyone."""
    with stopping(tmp_path, "--drain", str(10 * PATIENCE)) as (twistd, clients):
        twistd.process.send_signal(signal.SIGTERM)
        assert twistd.wait() == 0
        for client in clients:
            with pytest.raises(ConnectionResetError):
                receive_all(client)
        assert "0 connections were idle, 0 have finished, 4 were reset" in twistd.log
        assert "Traceback" not in twistd.log


# For a long time


def resident(twistd: Twistd) -> int:
    """How much memory it has, in bytes."""
    return psutil.Process(twistd.process.pid).memory_info().rss


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path) -> None:
    """After 100,000 connections there is as much memory in use as after 20,000."""
    with Twistd(tmp_path, "echo", "--port", "0", endpoints=1) as twistd:
        sizes = []
        for n in range(5):
            # From an address of its own: one has not enough ports.
            here = (f"127.0.1.{n + 1}", 0)
            for i in range(20_000):
                client = socket.create_connection(("127.0.0.1", twistd.port()), PATIENCE, here)
                assert ask(client, b"hello", 5) == b"hello"
                if i % 2:
                    reset(client)
                else:
                    client.close()
            sizes.append(resident(twistd))
        print("resident after each 20,000:", sizes)  # noqa: T201
        assert max(sizes) - sizes[0] < 2**20
        twistd.assert_stops_cleanly()
