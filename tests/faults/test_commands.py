"""Commands that misbehave, and too many who ask for them: nothing is left in the process table."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.processes import living
from tests.services.running import PATIENCE, Twistd, ask_for_all, connect, receive_all

HAS_PS = os.access("/usr/bin/ps", os.X_OK)

SLEEP = "86396"
"""Seconds, in the command line of nothing else."""


def command(name: str, script: str) -> tuple[str, str]:
    """The option for a command that is a script of the shell, which says its process group first."""
    return "--command", f"{name}=/bin/sh -c 'echo $$; {script}'"


MISBEHAVING = (
    *command("endless", "exec /usr/bin/yes"),
    *command("stubborn", 'trap "" TERM; while :; do /bin/sleep 0.01; done'),
    *command("stubborn-and-endless", 'trap "" TERM; while :; do echo more; done'),
    *command("forking", f"/bin/sleep {SLEEP} & /bin/sleep {SLEEP} & wait"),
    *command("leaving", f"/bin/sleep {SLEEP} & exit 0"),
    *command("leaving-endless", "/usr/bin/yes & exit 0"),
    *command("leaving-stubborn", f'trap "" TERM; /bin/sleep {SLEEP} & exit 0'),
    *command("closed", f"exec >&- 2>&- <&-; exec /bin/sleep {SLEEP}"),
    *command("stopped", "kill -STOP $$"),
)
TIMED_OUT = b"error: the command was ended after 0.5 seconds\n"
CUT = b"error: the output was cut after 50000 bytes\n"


def wait_until_gone(server: Twistd, *groups: int) -> None:
    """Wait until nothing lives in `groups`, and the server has no child, not even one that has ended."""
    give_up = time.monotonic() + PATIENCE
    while left := [*(process for group in groups for process in living(group)), *children(server)]:
        assert time.monotonic() < give_up, left
        time.sleep(0.01)


def children(server: Twistd) -> list[psutil.Process]:
    """The children of `server`, those among them that have ended; none where it has ended itself."""
    try:
        return psutil.Process(server.process.pid).children()
    except psutil.NoSuchProcess:
        return []


@contextmanager
def most_children(server: Twistd) -> Iterator[list[int]]:
    """What is yielded has, at the end, the most children that the server has had at once."""
    most = [0]
    over = threading.Event()
    path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")

    def look() -> None:
        while not over.is_set():
            most[0] = max(most[0], len(path.read_text().split()))
            time.sleep(0.0005)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield most
    finally:
        over.set()
        looking.join()


def ask_at_once(server: Twistd, names: list[bytes]) -> list[bytes]:
    """What clients that all ask before any of them reads are answered."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server.port())) for _ in names]
        for client, name in zip(clients, names, strict=True):
            client.sendall(name + b"\n")
        return [receive_all(client) for client in clients]


@pytest.mark.skipif(not HAS_PS, reason="there is no ps here")
@pytest.mark.parametrize("options", [(), ("--keep", "0"), ("--no-share",)])
def test_many_at_once(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Of 300 who ask for ps at once all are answered, with at most four children at any time."""
    with Twistd(tmp_path, "wps", "--port", "0", *options, endpoints=1) as twistd:
        with most_children(twistd) as most:
            answers = ask_at_once(twistd, [b"ps"] * 300)
        assert most[0] <= 4
        for answer in answers:
            assert re.fullmatch(rb" *PID TTY +TIME CMD\n( *\d+ \S+ +[\d:-]+ .+\n)+", answer)
            assert b" ps\n" in answer
        wait_until_gone(twistd)
        twistd.assert_stops_cleanly()


@pytest.mark.parametrize(
    ("options", "runs"), [((), range(1, 100)), (("--keep", "0"), range(1, 100)), (("--no-share",), range(300, 301))]
)
def test_shared(tmp_path: Path, options: tuple[str, ...], runs: range) -> None:
    """300 who ask for the same at once share a run or a few, unless each is to have one."""
    with Twistd(tmp_path, "wps", "--port", "0", *command("number", "/bin/sleep 0.01"), *options, endpoints=1) as twistd:
        # With no more than a few at once no number is given twice.
        assert len(set(ask_at_once(twistd, [b"number"] * 300))) in runs
        twistd.assert_stops_cleanly()


@pytest.fixture(scope="module")
def wps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    """``twistd wps`` with commands that misbehave, and little patience with them."""
    limits = "--command-timeout", "0.5", "--max-output", "50000"
    with Twistd(tmp_path_factory.mktemp("wps"), "wps", "--port", "0", *limits, *MISBEHAVING, endpoints=1) as twistd:
        yield twistd
        twistd.assert_stops_cleanly()


@pytest.mark.parametrize(
    ("name", "end"),
    [
        (b"endless", CUT),
        (b"stubborn", TIMED_OUT),
        (b"stubborn-and-endless", CUT),
        (b"forking", TIMED_OUT),
        (b"leaving", b""),
        (b"leaving-endless", None),
        (b"leaving-stubborn", b""),
        (b"closed", TIMED_OUT),
        (b"stopped", TIMED_OUT),
    ],
)
def test_misbehaving(wps: Twistd, name: bytes, end: bytes | None) -> None:
    """It is cut or ended, the client learns so, and nothing of it is left in the process table."""
    with connect(wps.port()) as client:
        group, _, rest = ask_for_all(client, name + b"\n").partition(b"\n")
    if end is CUT:
        assert rest.endswith(CUT)
        assert 50_000 <= len(group + b"\n" + rest) - len(CUT) <= 50_001
    elif end is not None:
        # What is left of its own output is nothing.
        assert rest == end
    wait_until_gone(wps, int(group))


def test_misbehaving_together(wps: Twistd) -> None:
    """Those that misbehave take four places, and whoever comes after them has an answer all the same."""
    names = [name.encode() for row in MISBEHAVING[1::2] for name in [row.partition("=")[0]]] * 3
    with most_children(wps) as most:
        answers = ask_at_once(wps, names)
    assert most[0] <= 4
    wait_until_gone(wps, *{int(answer.partition(b"\n")[0]) for answer in answers})


@pytest.mark.parametrize("name", [b"forking", b"closed", b"stubborn"])
def test_client_leaves(tmp_path: Path, name: bytes) -> None:
    """A client that leaves doesn't leave its command, whatever that thinks of SIGTERM."""
    with Twistd(tmp_path, "wps", "--port", "0", "--command-timeout", "0", *MISBEHAVING, endpoints=1) as twistd:
        with connect(twistd.port()) as client:
            client.sendall(name + b"\n")
            group = wait_for_child(twistd)
            # With a reset: the end of its stream alone would not say that it does not want the answer any more.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        wait_until_gone(twistd, group)
        twistd.assert_stops_cleanly()


def wait_for_child(server: Twistd) -> int:
    """The first child of `server`, as soon as there is one: the number of its group too."""
    give_up = time.monotonic() + PATIENCE
    while not (found := children(server)):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return found[0].pid


def test_server_stops(tmp_path: Path) -> None:
    """A server that is stopped takes all the commands with it, those too that ignore SIGTERM."""
    options = ("--command-timeout", "0", "--drain", "0.5")
    with Twistd(tmp_path, "wps", "--port", "0", *options, *MISBEHAVING, endpoints=1) as twistd:
        names = [b"stubborn", b"forking", b"closed", b"stopped"]
        with ExitStack() as stack:
            for name in [*names, b"leaving", b"endless"]:
                stack.enter_context(connect(twistd.port())).sendall(name + b"\n")
            give_up = time.monotonic() + PATIENCE
            while len(children(twistd)) < 4:
                assert time.monotonic() < give_up
                time.sleep(0.01)
            groups = [child.pid for child in children(twistd)]
            twistd.assert_stops_cleanly()
        wait_until_gone(twistd, *groups)  # killed before the server ended, but perhaps not gone yet


def test_descriptors(tmp_path: Path) -> None:
    """A command has no descriptor but its first three, whatever the server was started with and has open."""
    inherited = os.open("/dev/null", os.O_RDONLY)
    try:
        fds = "--command", "fds=/bin/ls /proc/self/fd"
        with Twistd(tmp_path, "wps", "--port", "0", *fds, endpoints=1, inherited=[inherited]) as twistd:
            assert Path(f"/proc/{twistd.process.pid}/fd/{inherited}").readlink() == Path("/dev/null")
            with ExitStack() as stack:
                for _ in range(20):
                    stack.enter_context(connect(twistd.port()))
                with connect(twistd.port()) as client:
                    # The last is the one that ls reads the folder by.
                    assert ask_for_all(client, b"fds\n") == b"0\n1\n2\n3\n"
            twistd.assert_stops_cleanly()
    finally:
        os.close(inherited)


@pytest.mark.skipif(not os.access("/usr/bin/w", os.X_OK), reason="there is no w here")
def test_systat_many_datagrams(tmp_path: Path) -> None:
    """Clients of systat's two forms share its runs too, and stopping it under them leaves nothing."""
    with Twistd(tmp_path, "systat", "--udp", "--port", "0", endpoints=2) as twistd:
        with ExitStack() as stack, most_children(twistd) as most:
            peers = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(100)]
            for peer in peers:
                peer.settimeout(PATIENCE)
                peer.sendto(b"", ("127.0.0.1", twistd.port(1)))
            with connect(twistd.port(0)) as client:
                assert b"load average" in receive_all(client)
            for peer in peers:
                assert b"load average" in peer.recv(65536)
        assert 0 <= most[0] <= 4
        twistd.process.send_signal(signal.SIGTERM)
        assert twistd.wait() == 0
        assert "Traceback" not in twistd.log
