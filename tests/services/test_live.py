"""The services as they are run: ``twistd`` as a process of its own, and bare sockets."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests import programs
from tests.services.running import (
    PATIENCE,
    Twistd,
    ask,
    ask_for_all,
    assert_one_line,
    connect,
    connect_unix,
    receive,
    receive_all,
    start,
)
from twistednet.protocols.commands import ENVIRONMENT
from twistednet.protocols.wps import COMMANDS

ANSWERS = {"echo": (b"stressed\n", b"stressed\n"), "reverse": (b"stressed\n", b"desserts\n")}
"""For each service a question, and its answer."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority."""
    return trustme.CA()


class Streams:
    """One service on a port, and over IPv6, TLS and a Unix socket."""

    def __init__(self, twistd: Twistd, authority: trustme.CA) -> None:
        self.twistd = twistd
        self.authority = authority
        self.unix = twistd.folder / "socket"

    def connect(self, kind: str) -> socket.socket:
        """A connected client: tcp6, tls, unix or tcp."""
        if kind == "tcp6":
            return connect(self.twistd.port(0), "::1")
        if kind == "unix":
            return connect_unix(self.unix)
        if kind == "tls":
            context = ssl.create_default_context()
            self.authority.configure_trust(context)
            return context.wrap_socket(connect(self.twistd.port(1)), server_hostname="localhost")
        return connect(self.twistd.port(3))


def serve(folder: Path, authority: trustme.CA, name: str) -> Iterator[Streams]:
    """Start the service called `name`; at the end stop it, and look that nothing is left."""
    certificates = folder / "certificates"
    certificates.mkdir()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificates / "localhost.pem")
    endpoints = (
        r"tcp6:0:interface=\:\:1",
        f"tls:{certificates}:port=0:interface=127.0.0.1",
        f"unix:{folder / 'socket'}",
    )
    listens = [argument for endpoint in endpoints for argument in ("--listen", endpoint)]
    with Twistd(folder, name, *listens, "--port", "0", endpoints=4) as twistd:
        streams = Streams(twistd, authority)
        yield streams
        twistd.assert_stops_cleanly()
        assert sorted(os.listdir(folder)) == ["certificates", "stderr", "stdout", "twistd.log"]


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Streams]:
    """``twistd echo``."""
    yield from serve(tmp_path_factory.mktemp("echo"), authority, "echo")


@pytest.fixture(scope="module")
def reverse(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Streams]:
    """``twistd reverse``."""
    yield from serve(tmp_path_factory.mktemp("reverse"), authority, "reverse")


@pytest.fixture
def accumulator(tmp_path: Path, authority: trustme.CA) -> Iterator[Streams]:
    """``twistd accumulator``, its string empty."""
    yield from serve(tmp_path, authority, "accumulator")


@pytest.fixture(scope="module")
def datagrams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    """``twistd udpok`` on udp6:, unixdgram: (where a stale socket is in the way) and a port."""
    folder = tmp_path_factory.mktemp("udpok")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
        stale.bind(str(folder / "socket"))
    endpoints = "--listen", r"udp6:0:interface=\:\:1", "--listen", f"unixdgram:{folder / 'socket'}"
    with Twistd(folder, "udpok", *endpoints, "--port", "0", endpoints=3) as twistd:
        yield twistd
        twistd.assert_stops_cleanly()


@pytest.fixture(scope="module")
def wps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    """``twistd wps`` with the textbook's two commands."""
    folder = tmp_path_factory.mktemp("wps")
    with Twistd(folder, "wps", "--port", "0", endpoints=1) as twistd:
        yield twistd
        twistd.assert_stops_cleanly()
        # Nothing that a client sent has made a file.
        assert sorted(os.listdir(folder)) == ["stderr", "stdout", "twistd.log"]


# Streams


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix", "tls"])
@pytest.mark.parametrize("name", ["echo", "reverse"])
def test_streams(request: pytest.FixtureRequest, name: str, kind: str) -> None:
    """Echo and reverse answer on every kind of stream."""
    streams: Streams = request.getfixturevalue(name)
    question, answer = ANSWERS[name]
    with streams.connect(kind) as client:
        assert ask(client, question, len(answer)) == answer
        assert ask(client, question, len(answer)) == answer


def test_accumulator_streams(accumulator: Streams) -> None:
    """The clients of all kinds of streams share one string."""
    text = b""
    for kind, letter in (("tcp", b"a"), ("tcp6", b"b"), ("unix", b"c"), ("tls", b"d")):
        text += letter
        with accumulator.connect(kind) as client:
            assert ask(client, letter, len(text)) == text
            # A line of its own, which is empty: the client has left.
            assert ask(client, b"\n\n", 3) == b"\n\n"


@pytest.mark.parametrize(
    ("name", "question", "answer"),
    [
        ("echo", b"Hello\0\xff", b"Hello\0\xff"),
        ("reverse", b"SNS is the best course ever !", b"! reve esruoc tseb eht si SNS"),
    ],
)
def test_textbook_client(request: pytest.FixtureRequest, name: str, question: bytes, answer: bytes) -> None:
    """The textbook's client, which sends no line ending and waits, is answered, byte for byte, again and again."""
    streams: Streams = request.getfixturevalue(name)
    with streams.connect("tcp") as client:
        assert ask(client, question, len(answer)) == answer
        assert ask(client, question, len(answer)) == answer
        # Nothing but the answers.
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""


def test_framing(reverse: Streams) -> None:
    """Answers are framed as their questions are."""
    with reverse.connect("tcp") as client:
        assert ask_for_all(client, b"stressed\ndesserts\r\n\nnoe\xcc\x88l") == (b"desserts\nstressed\r\n\nle\xcc\x88on")


def test_reverse_unit(tmp_path: Path) -> None:
    """With --unit byte the bytes are reversed, as the textbook has it."""
    with Twistd(tmp_path, "reverse", "--unit", "byte", "--port", "0", endpoints=1) as twistd:
        with connect(twistd.port()) as client:
            assert ask_for_all(client, b"no\xc3\xab\n") == b"\xab\xc3on\n"
        twistd.assert_stops_cleanly()


def test_half_close_slow_reader(echo: Streams) -> None:
    """20 MB come back through echo unchanged, though the reader is slow and the sender has half-closed long ago."""
    data = random.Random(20).randbytes(20_000_000)
    with echo.connect("tcp") as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        time.sleep(0.3)
        received = bytearray()
        while chunk := client.recv(262144):
            received += chunk
            if len(received) % 100 == 0:
                time.sleep(0.002)
        sender.join(PATIENCE)
        assert not sender.is_alive()
        assert received == data


# Datagrams


def test_udp(datagrams: Twistd) -> None:
    """The textbook's client is answered; so is an empty datagram, and the longest."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", datagrams.port(2)))
        for question in (b"hello", b"", b"x" * 65502):
            client.send(question)
            assert client.recv(65536) == b"OK..." + question


def test_udp6(datagrams: Twistd) -> None:
    """A client is answered over IPv6."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("::1", datagrams.port(0)))
        client.send(b"hello")
        assert client.recv(65536) == b"OK...hello"


def test_unixdgram(datagrams: Twistd, tmp_path: Path) -> None:
    """A client is answered on a Unix socket that has replaced a stale one; one without an address is not."""
    path = str(datagrams.folder / "socket")
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nobody,
    ):
        client.settimeout(PATIENCE)
        client.bind(str(tmp_path / "client"))
        nobody.sendto(b"nobody", path)
        client.sendto(b"hello", path)
        assert client.recv(65536) == b"OK...hello"


def test_echo_udp(tmp_path: Path) -> None:
    """``twistd echo --udp`` answers both streams and datagrams."""
    with Twistd(tmp_path, "echo", "--udp", "--port", "0", endpoints=2) as twistd:
        assert [address.split()[0] for address in twistd.addresses] == ["TCP", "UDP"]
        with connect(twistd.port(0)) as client:
            assert ask_for_all(client, b"hello") == b"hello"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", twistd.port(1)))
            client.send(b"hello\n")
            assert client.recv(65536) == b"hello\n"
        twistd.assert_stops_cleanly()


# Commands


@pytest.mark.skipif(not os.access("/usr/bin/w", os.X_OK), reason="there is no w here")
@pytest.mark.parametrize("question", [b"w", b"w\r\n", b"w\n"])
def test_w(wps: Twistd, question: bytes) -> None:
    """The client that asks for w gets its output, and the end of the stream, though it has not ended its own."""
    here = programs.run(
        COMMANDS["w"], env=ENVIRONMENT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=True
    ).stdout.splitlines(keepends=True)
    with connect(wps.port()) as client:
        client.sendall(question)
        first, *rest = receive_all(client).splitlines(keepends=True)
    assert re.fullmatch(rb" \d\d:\d\d:\d\d up .*,  load average: [\d.]+, [\d.]+, [\d.]+\n", first)
    assert rest[0] == here[1]
    assert len(rest) == len(here) - 1


@pytest.mark.skipif(not os.access("/usr/bin/ps", os.X_OK), reason="there is no ps here")
def test_ps(wps: Twistd) -> None:
    """The client that asks for ps gets its output whole, from the headings on, ps itself and its last line included."""
    with connect(wps.port()) as client:
        output = ask_for_all(client, b"ps")
    assert re.fullmatch(rb" *PID TTY +TIME CMD\n( *\d+ \S+ +[\d:-]+ .+\n)+", output)
    assert re.search(rb" ps\n", output)


@pytest.mark.parametrize(
    "question", [b"ls", b">v", b"ps;id", b"ps -e\n", b"W\n", b" w\n", b"w\0\n", b"\n", b"/usr/bin/w\n"]
)
def test_no_such_command(wps: Twistd, question: bytes) -> None:
    """Whatever else a client asks for, it gets one line, and nothing is run."""
    with connect(wps.port()) as client:
        client.sendall(question)
        assert receive_all(client) == b"error: no such command; there are: ps, w\n"
    assert not (wps.folder / "v").exists()


def test_no_such_command_crlf(wps: Twistd) -> None:
    """The error is framed as the question was."""
    with connect(wps.port()) as client:
        client.sendall(b"ls\r\n")
        assert receive_all(client) == b"error: no such command; there are: ps, w\r\n"


def test_junk(wps: Twistd) -> None:
    """A client that sends 1 MB without a line ending can send it all, and gets one line."""
    with connect(wps.port()) as client:
        client.sendall(b"x" * 1_000_000)
        assert ask_for_all(client, b"w\n") == b"error: a message is longer than 16384 bytes\n"


def test_command(tmp_path: Path) -> None:
    """The operator's own commands: arguments are quoted, output is exact, and w is gone."""
    commands = (
        "--command",
        "two=/bin/printf '%s\\n' 'one line' two",
        "--command",
        "none=/bin/true",
        "--command",
        "fails=/bin/false",
        "--command",
        "env=/usr/bin/env",
    )
    with Twistd(tmp_path, "wps", *commands, "--port", "0", endpoints=1) as twistd:
        answers = {}
        for name in (b"two", b"none", b"fails", b"env", b"w"):
            with connect(twistd.port()) as client:
                answers[name] = ask_for_all(client, name + b"\n")
        assert answers == {
            b"two": b"one line\ntwo\n",
            b"none": b"",
            b"fails": b"error: the command failed with status 1\n",
            b"env": b"".join(f"{name}={value}\n".encode() for name, value in ENVIRONMENT.items()),
            b"w": b"error: no such command; there are: env, fails, none, two\n",
        }
        twistd.assert_stops_cleanly()


# The accumulator's textbook session


def test_accumulator_clients(tmp_path: Path) -> None:
    """Two clients, in the textbook's order, get its answers; then the server prints the final value, and stops."""
    with Twistd(tmp_path, "accumulator", "--clients", "2", "--port", "0", endpoints=1) as twistd:
        with connect(twistd.port()) as one, connect(twistd.port()) as two:
            session = [
                (one, b"a", b"a"),
                (one, b"b", b"ab"),
                (one, b"c", b"abc"),
                (two, b"u", b"abcu"),
                (two, b"u", b"abcuu"),
                (two, b"v", b"abcuuv"),
                (two, b"v", b"abcuuvv"),
                (one, b"d", b"abcuuvvd"),
                (two, b"w", b"abcuuvvdw"),
                (two, b"w", b"abcuuvvdww"),
                (one, b"e", b"abcuuvvdwwe"),
            ]
            for client, letter, text in session:
                assert ask(client, letter, len(text)) == text
            one.close()
            two.shutdown(socket.SHUT_WR)
            assert receive_all(two) == b""
        assert twistd.wait() == 0
        assert twistd.output == b"the final value of v is abcuuvvdwwe\n"
        assert twistd.errors == b""
        assert "Traceback" not in twistd.log
        assert not (tmp_path / "twistd.pid").exists()


def test_accumulator_is_cautious(tmp_path: Path) -> None:
    """What a client sends can't drive the operator's terminal; --max-length limits it."""
    with Twistd(tmp_path, "accumulator", "-n", "1", "-m", "5", "--port", "0", endpoints=1) as twistd:
        with connect(twistd.port()) as client:
            client.sendall("\x1b[2\xe9".encode())
            assert receive(client, 1 + 2 + 3 + 5) == b"\x1b\x1b[\x1b[2\x1b[2\xc3\xa9"
            full = b"error: the text has reached its 5 bytes"
            assert ask(client, b"x", len(full)) == full
        assert twistd.wait() == 0
        assert twistd.output.decode() == "the final value of v is \\x1b[2\xe9\n"


# Starting


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("echo", "--port", "99999"),
            "twistd echo: --port 99999: not a whole number from 0 to 65535 (see twistd echo --help)",
        ),
        (
            ("accumulator", "--port", "x"),
            "twistd accumulator: --port x: not a whole number from 0 to 65535 (see twistd accumulator --help)",
        ),
        (
            ("echo", "--listen", "bogus:1"),
            "twistd echo: --listen bogus:1: Unknown endpoint type: 'bogus'",
        ),
        (
            ("reverse", "--listen", "udp:0"),
            "twistd reverse: --listen udp:0: reverse has no datagram form; try tcp:",
        ),
        (
            ("wps", "--command", "w=w"),
            "twistd wps: --command w=w: not NAME=/absolute/path [ARGUMENT...] (see twistd wps --help)",
        ),
    ],
)
@pytest.mark.usefixtures("fresh")
def test_bad_option(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    """A bad option is one line, and status 1."""
    assert_one_line(tmp_path, start(tmp_path, "--nodaemon", *arguments), line)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("fresh")
def test_help(tmp_path: Path) -> None:
    """``twistd NAME --help`` succeeds, and is about the command."""
    done = start(tmp_path, "echo", "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Usage: twistd [twistd's options] echo [options]\n")


@pytest.mark.usefixtures("fresh")
def test_port_taken(tmp_path: Path, taken: int) -> None:
    """A port that is taken is one line, and status 1, and another in the log."""
    done = start(tmp_path, "--nodaemon", "echo", "--port", str(taken))
    endpoint = f"tcp:{taken}:interface=127.0.0.1"
    line = f"twistd echo: can't listen on {endpoint}: Address already in use"
    assert_one_line(tmp_path, done, line)
    assert done.stdout.decode().endswith(f"#critical] {line}\n")
    assert os.listdir(tmp_path) == []


def test_datagram_socket_taken(tmp_path: Path) -> None:
    """A Unix datagram socket that somebody reads from is not replaced."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(path))
        done = start(tmp_path, "--nodaemon", "udpok", "--listen", f"unixdgram:{path}")
        assert_one_line(tmp_path, done, f"twistd udpok: can't listen on unixdgram:{path}: Address already in use")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"still here", str(path))
        reader.settimeout(PATIENCE)
        assert reader.recv(100) == b"still here"


@pytest.mark.usefixtures("fresh")
def test_daemon_port_taken(tmp_path: Path, taken: int) -> None:
    """Whoever starts a daemon whose port is taken is told so, and gets status 1."""
    done = start(tmp_path, "echo", "--port", str(taken))
    line = f"twistd echo: can't listen on tcp:{taken}:interface=127.0.0.1: Address already in use"
    # As much of it as Twisted passes on, in its own words.
    said = re.match(rb"An error has occurred: b\"twistednet.services.base.StartError: (.+)\"\n", done.stderr)
    assert said is not None
    assert len(said[1]) > 50
    assert line.startswith(said[1].decode())
    assert (done.returncode, done.stdout) == (1, b"")
    log = (tmp_path / "twistd.log").read_text()
    assert f"#critical] {line}\n" in log
    assert "Traceback" not in log
    # It is removed after the word to whoever started the daemon.
    give_up = time.monotonic() + PATIENCE
    while (tmp_path / "twistd.pid").exists():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.usefixtures("fresh")
def test_daemon(tmp_path: Path) -> None:
    """A daemon serves after ``twistd`` has returned, and ends, with its pid file, on SIGTERM."""
    done = start(tmp_path, "echo", "--port", "0")
    pid_file = tmp_path / "twistd.pid"
    pid = int(pid_file.read_text())
    try:
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        log = (tmp_path / "twistd.log").read_text()
        [port] = re.findall(r"echo listening on TCP 127\.0\.0\.1:(\d+)\n", log)
        with connect(int(port)) as client:
            assert ask_for_all(client, b"hello") == b"hello"
        os.kill(pid, signal.SIGTERM)
        give_up = time.monotonic() + PATIENCE
        while pid_file.exists():
            assert time.monotonic() < give_up
            time.sleep(0.01)
    finally:
        if pid_file.exists():
            os.kill(pid, signal.SIGKILL)
    assert (tmp_path / "twistd.log").read_text().endswith("Server Shut Down.\n")
