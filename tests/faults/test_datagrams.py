"""Live servers, and datagrams with forged senders, floods, and a system that is out of memory."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.services import running
from tests.services.running import PATIENCE, Twistd, ask, connect, inject

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


@pytest.fixture
def namespace() -> Iterator[None]:
    """A network of the test's own, which has nothing but a loopback interface; anything may be sent there."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
            programs.stop_launcher()  # the next is in this network
            yield
        finally:
            programs.stop_launcher()
            assert libc.setns(home, CLONE_NEWNET) == 0
    finally:
        os.close(home)


def send_as(source: tuple[str, int], target: tuple[str, int], datagram: bytes, times: int = 1) -> None:
    """Send `datagram` to `target`, so that it seems to come from `source`."""
    udp = struct.pack("!HHHH", source[1], target[1], 8 + len(datagram), 0) + datagram
    # The system fills in the length and the checksum.
    hosts = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0) + hosts
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for _ in range(times):
            raw.sendto(header + udp, (target[0], 0))


def sent_datagrams() -> int:
    """How many datagrams have been sent by UDP sockets in this network; forged ones do not count."""
    names, values = (
        line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines() if line.startswith("Udp:")
    )
    return int(values[names.index("OutDatagrams")])


class Client:
    """A client who waits for answers.

    :param host: the address it has.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.settimeout(PATIENCE)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, port: int, datagram: bytes = b"hello") -> bytes:
        """The answer from `port`."""
        self.socket.sendto(datagram, ("127.0.0.1", port))
        return self.socket.recv(65536)


def replies_to(source: int, target: int, datagram: bytes = b"x") -> int:
    """How many datagrams follow on one to our port `target` that seems to come from our port `source`.

    Each server answers a client ten times after that. A datagram of a loop would be there before the client's, and so
    its answer would have been sent before the client has his.
    """
    with Client("127.0.1.1") as client:
        before = sent_datagrams()
        send_as(("127.0.0.1", source), ("127.0.0.1", target), datagram)
        for _ in range(10):
            client.ask(target)
            client.ask(source)
        return sent_datagrams() - before - 40


def folder(parent: Path, name: str) -> Path:
    """A folder of its own for a twistd."""
    path = parent / name
    path.mkdir()
    return path


# Every address, so that a server is itself there to whoever asks from another network.
EVERYWHERE = ("--interface", "0.0.0.0")
SERVICES = {"echo": ["--udp"], "time": ["--udp"], "daytime": ["--udp"], "udpok": []}


@pytest.mark.usefixtures("namespace")
def test_no_loop_between_our_services(tmp_path: Path) -> None:
    """One forged datagram between any two of our services, each in a process of its own, has at most one reply."""
    with ExitStack() as stack:
        ports = []
        for name, options in SERVICES.items():
            twistd = Twistd(folder(tmp_path, name), name, *options, *EVERYWHERE, endpoints=2 if options else 1)
            ports.append(stack.enter_context(twistd).port(-1))
        assert ports == [2000, 37, 13, 8888]
        for source in ports:
            for target in ports:
                if source != target:
                    assert replies_to(source, target) <= 1, (source, target)


@pytest.mark.usefixtures("namespace")
def test_no_loop_within_a_process(tmp_path: Path) -> None:
    """Two ports of one service do not answer each other, whichever they are."""
    endpoints = ("--listen", "udp:3001", "--listen", "udp:3002")
    for name in SERVICES:
        with Twistd(folder(tmp_path, name), name, *endpoints, endpoints=2):
            assert replies_to(3001, 3002) == 0
            assert replies_to(3002, 3001) == 0


@pytest.mark.usefixtures("namespace")
def test_loop_ends(tmp_path: Path) -> None:
    """A loop that nothing tells from clients, of two processes at ports that nobody knows, ends by the rate."""
    options = ("--source-burst", "5", "--source-rate", "1")
    with (
        Twistd(folder(tmp_path, "one"), "echo", "--listen", "udp:3001", *options, endpoints=1) as one,
        Twistd(folder(tmp_path, "two"), "time", "--listen", "udp:3002", *options, endpoints=1) as two,
    ):
        before = sent_datagrams()
        send_as(("127.0.0.1", 3001), ("127.0.0.1", 3002), b"x")
        give_up = time.monotonic() + PATIENCE
        while "source rate" not in one.log + two.log:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        # A datagram was dropped, and there was only one.
        ended = sent_datagrams()
        assert ended - before >= 5
        with Client("127.0.1.1") as client:
            for port in (3001, 3002):
                client.ask(port)
        assert sent_datagrams() - ended == 4


@pytest.mark.usefixtures("namespace")
def test_no_loop_with_others(tmp_path: Path) -> None:
    """Neither is there one with the plain echo service of another machine, on its port below 1024."""
    with ExitStack() as stack:
        for name in SERVICES:
            stack.enter_context(Twistd(folder(tmp_path, name), name, "--listen", "udp:3000", endpoints=1))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs, Client() as client:
                theirs.settimeout(PATIENCE)
                theirs.bind(("127.0.0.1", 7))
                # To ours, as if from theirs.
                send_as(("127.0.0.1", 7), ("127.0.0.1", 3000), b"x", times=10)
                # And theirs answers one that seemed to come from ours.
                theirs.sendto(b"x", ("127.0.0.1", 3000))
                assert client.ask(3000)
                theirs.setblocking(False)
                with pytest.raises(BlockingIOError):
                    theirs.recv(100)
            stack.close()


@pytest.mark.usefixtures("namespace")
def test_port_0(tmp_path: Path) -> None:
    """A thousand datagrams from port 0 are dropped, with a line a second in the log, and no traceback."""
    with Twistd(tmp_path, "udpok", "--port", "3000", endpoints=1) as twistd, Client() as client:
        started = time.monotonic()
        for _ in range(10):  # no more at once than there is room for
            send_as(("127.0.0.1", 0), ("127.0.0.1", 3000), b"\x1b[2J", times=100)
            assert client.ask(3000) == b"OK...hello"
        lines = 1 + int(time.monotonic() - started)
        assert 1 <= twistd.log.count("port 0") <= lines
        assert "\x1b" not in twistd.log
        twistd.assert_stops_cleanly()


@pytest.mark.parametrize("reactor", running.REACTOR or ["--reactor=twistednet", "--reactor=epoll"])
@pytest.mark.parametrize("interface", ["udp", "unixdgram"])
def test_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reactor: str, interface: str) -> None:
    """When the system has no memory for a datagram, once or twice, the port answers again, and the log says why not."""
    monkeypatch.setattr(running, "REACTOR", [reactor])
    path = str(tmp_path / "socket")
    endpoint = "udp:0:interface=127.0.0.1" if interface == "udp" else f"unixdgram:{path}"
    with Twistd(tmp_path, "udpok", "--listen", endpoint, endpoints=1) as twistd:
        for times, failures in enumerate((1, 2), 1):
            failing = f"inject=recvfrom:error=ENOMEM:when=1..{failures}"
            strace = inject(twistd, "-e", "trace=recvfrom", "-e", failing)
            try:
                family = socket.AF_INET if interface == "udp" else socket.AF_UNIX
                with socket.socket(family, socket.SOCK_DGRAM) as client:
                    client.bind(("127.0.0.1", 0) if interface == "udp" else f"{path}-{times}")
                    client.settimeout(0.1)
                    give_up = time.monotonic() + PATIENCE
                    while True:
                        assert time.monotonic() < give_up, twistd.log
                        try:
                            client.sendto(b"hello", ("127.0.0.1", twistd.port()) if interface == "udp" else path)
                            answer = client.recv(100)
                            break
                        except OSError:  # lost with the socket that it was sent to
                            time.sleep(0.01)
                    assert answer == b"OK...hello"
            finally:
                strace.terminate()
                strace.communicate()
        assert "Cannot allocate memory" in twistd.log
        twistd.assert_stops_cleanly()


@pytest.mark.parametrize("options", [(), ("--no-guard",)])
def test_flood(tmp_path: Path, options: tuple[str, ...]) -> None:
    """However many datagrams come, and be they empty, the connections are served; and the port is, after it."""
    with Twistd(tmp_path, "echo", "--udp", "--port", "0", *options, endpoints=2) as twistd:
        with connect(twistd.port(0)) as bystander, Client() as client, Client("127.0.1.1") as other:
            for datagram in (b"", b"x", b"x" * 64):
                for _ in range(50):
                    for _ in range(300):
                        client.socket.sendto(datagram, ("127.0.0.1", twistd.port(1)))
                    assert ask(bystander, b"hello", 5) == b"hello"
                longest = b"x" * 65507
                assert other.ask(twistd.port(1), longest) == longest
            # An unguarded service says that it is one, a guarded one that it has dropped what was too much.
            assert ("no guard" in twistd.log, "source rate" in twistd.log) == (bool(options), not options)
        twistd.assert_stops_cleanly()
