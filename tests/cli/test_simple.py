"""``twistednet discard``, ``chargen``, ``daytime``, ``time``, ``qotd`` and ``systat``."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import click
import pytest
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conftest import HAS_W, Servers
from tests.cli.running import Program, drain, refusing_port, run, silent_server, tcp_server, udp_socket
from tests.services.running import PATIENCE
from twistednet.cli import simple
from twistednet.protocols.simple import CHARGEN, EPOCH_1900, QUOTES

ANNOUNCING = ("daytime", "time", "qotd", "systat")
needs_w = pytest.mark.skipif(not HAS_W, reason="there is no w here")


class UsageTests(SynchronousTestCase):
    """Wrong usage that is noticed before anything is connected to."""

    def assert_usage(self, message: str, command: click.Command, *arguments: str) -> None:
        """`arguments` end with status 2, and `message` as the last line."""
        result = CliRunner().invoke(command, arguments)
        self.assertEqual(result.exit_code, 2)
        self.assertEqual(result.output.splitlines()[-1], f"Error: {message}")

    def test_nothing_is_sent(self) -> None:
        """Those that only answer are told nothing."""
        for command in (simple.daytime, simple.time, simple.qotd, simple.systat, simple.chargen):
            self.assert_usage("nothing is sent to this service; what is 'x'?", command, "localhost", "13", "x")
            self.assert_usage("HOST PORT, or an endpoint such as unix:/path, is missing", command)

    def test_discard(self) -> None:
        """What is discarded is one argument."""
        self.assert_usage("more than one TEXT; quote it", simple.discard, "localhost", "9", "a", "b")

    def test_bytes(self) -> None:
        """A number of bytes is at least one."""
        for value in ("0", "-1"):
            self.assert_usage(
                f"Invalid value for '--bytes': {value} is not in the range x>=1.", simple.chargen, "--bytes", value
            )


def error_line(command: str, port: int, message: str) -> str:
    """The one line on standard error about a server on `port` of 127.0.0.1."""
    return f"twistednet {command}: 127.0.0.1 port {port}: {message}\n"


@contextmanager
def udp_server(answer: bytes) -> Iterator[int]:
    """A server on a port of 127.0.0.1 that sends `answer` for the first datagram that comes."""
    with udp_socket() as server:

        def serve() -> None:
            _, client = server.recvfrom(65536)
            server.sendto(answer, client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(PATIENCE)
        assert not thread.is_alive()


def announce(answer: bytes) -> Callable[[socket.socket], None]:
    """A conversation in which a server says `answer`, and ends its stream."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    return talk


# What all have in common


def assert_all_fail(port: int, timeout: float, status: int, message: str) -> None:
    """Every one of the clients ends with `status` and `message`, and prints nothing."""
    commands = (*ANNOUNCING, "chargen", "discard")
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda command: run(command, "--timeout", timeout, "127.0.0.1", port), commands)
        assert list(results) == [(status, b"", error_line(command, port, message)) for command in commands]


def test_refused() -> None:
    """Where nobody listens the status is 3."""
    with refusing_port(socket.SOCK_STREAM) as port:
        assert_all_fail(port, PATIENCE, 3, "nobody listens there")


def test_timed_out() -> None:
    """Where no answer comes the status is 4; so it is where nothing comes of the end of what is discarded."""
    with silent_server() as port:
        assert_all_fail(port, 0.2, 4, "no answer in 0.2 seconds")


def test_timed_out_udp() -> None:
    """Over UDP each of the retries has its time, and asks again."""
    with udp_socket() as server:
        port = server.getsockname()[1]
        expected = (4, b"", error_line("daytime", port, "no answer in 0.1 seconds"))
        assert run("daytime", "--udp", "--timeout", "0.1", "--retries", "2", "127.0.0.1", port) == expected
        assert [server.recv(100) for _ in range(3)] == [b""] * 3


def test_refused_udp() -> None:
    """A refused datagram is noticed too, by discard as well."""
    for command, text in (("qotd", ()), ("discard", ("hello",))):
        with refusing_port(socket.SOCK_DGRAM) as port:
            expected = (3, b"", error_line(command, port, "nobody listens there"))
            assert run(command, "--udp", "127.0.0.1", port, *text) == expected


@pytest.mark.parametrize("command", ["daytime", "qotd", "systat"])
def test_nothing_said(command: str) -> None:
    """Where the server closes without a word, that is no answer: the status is 1."""
    with tcp_server(announce(b"")) as port:
        assert run(command, "127.0.0.1", port) == (1, b"", error_line(command, port, "nothing was said"))


# daytime, qotd, systat


def test_daytime(servers: Servers) -> None:
    """The server's time is printed as it came, asked for over TCP or UDP."""
    for address in (
        ("127.0.0.1", servers.simple["daytime"]),
        ("--udp", "127.0.0.1", servers.simple_udp["daytime"]),
        (f"unixdgram:{servers.folder}/daytime-datagrams",),
    ):
        status, output, errors = run("daytime", *address)
        assert (status, errors) == (0, "")
        then = time.mktime(time.strptime(output.decode(), "%a %b %d %H:%M:%S %Y\r\n"))
        assert abs(time.time() - then) < 10


def test_qotd(servers: Servers) -> None:
    """The quotation is printed as it came."""
    for address in (("127.0.0.1", servers.simple["qotd"]), (f"udp:localhost:{servers.simple_udp['qotd']}",)):
        status, output, errors = run("qotd", *address)
        assert (status, errors) == (0, "")
        assert output.decode().removesuffix("\r\n") in QUOTES


def test_qotd_json(servers: Servers) -> None:
    """With --json the answer is in an object."""
    port = servers.simple["qotd"]
    status, output, errors = run("qotd", "--json", "127.0.0.1", port)
    assert (status, errors, output.count(b"\n")) == (0, "", 1)
    answer = json.loads(output)
    assert answer.pop("answer").removesuffix("\r\n") in QUOTES
    assert answer == {"address": f"127.0.0.1 port {port}", "ok": True}


def test_as_it_came() -> None:
    """Whatever is said is printed as it is, without a line ending where it has none."""
    with tcp_server(announce(b"\xc3\xab\xff\r\n\r\nno ending")) as port:
        assert run("qotd", "127.0.0.1", port) == (0, b"\xc3\xab\xff\r\n\r\nno ending", "")


@needs_w
def test_systat(servers: Servers) -> None:
    """The users are printed."""
    for address in (
        ("127.0.0.1", servers.simple["systat"]),
        (f"unix:{servers.folder}/systat",),
        ("--udp", "127.0.0.1", servers.simple_udp["systat"]),
    ):
        status, output, errors = run("systat", *address)
        assert (status, errors) == (0, "")
        assert re.match(rb" \d\d:\d\d:\d\d up .*,  load average: .*\nUSER ", output)


# time


def time_answer(ahead: float) -> bytes:
    """The answer of a time server whose clock is `ahead` seconds ahead of ours."""
    return struct.pack("!I", int(time.time() + ahead) + EPOCH_1900)


def test_time(servers: Servers) -> None:
    """The time is printed as a date, and the server's clock is this machine's."""
    for address in (("127.0.0.1", servers.simple["time"]), ("--udp", "127.0.0.1", servers.simple_udp["time"])):
        status, output, errors = run("time", *address)
        assert (status, errors) == (0, "")
        said = re.fullmatch(
            r"(\w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC, (?:the same as|1 s behind) this machine's clock\n",
            output.decode(),
        )
        assert said is not None, output
        there = datetime.strptime(said[1], "%a %Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        assert abs(there.timestamp() - time.time()) < 10


@pytest.mark.parametrize(("ahead", "said", "udp"), [(3600, "ahead of", False), (-3600, "behind", True)])
def test_time_offset(ahead: int, said: str, udp: bool) -> None:
    """A server that is off by an hour is said to be, with its sign, to the second."""
    answer = time_answer(ahead)
    with udp_server(answer) if udp else tcp_server(announce(answer)) as port:
        status, output, errors = run("time", *["--udp"] * udp, "127.0.0.1", port)
    assert (status, errors) == (0, "")
    date, _, offset = output.decode().partition(" UTC, ")
    there = struct.unpack("!I", answer)[0] - EPOCH_1900
    assert date == f"{datetime.fromtimestamp(there, UTC):%a %Y-%m-%d %H:%M:%S}"
    seconds = re.fullmatch(rf"(\d+) s {said} this machine's clock\n", offset)
    assert seconds is not None, offset
    # Our clock has gone on while the client started.
    assert -10 <= (int(seconds[1]) if ahead > 0 else -int(seconds[1])) - ahead <= 0


def test_time_json() -> None:
    """With --json there are the date, the seconds since 1970, and the offset."""
    answer = time_answer(-3600)
    with tcp_server(announce(answer)) as port:
        status, output, errors = run("time", "--json", "127.0.0.1", port)
    assert (status, errors) == (0, "")
    said = json.loads(output)
    there = struct.unpack("!I", answer)[0] - EPOCH_1900
    assert -3610 <= said.pop("offset") <= -3600
    assert said == {
        "address": f"127.0.0.1 port {port}",
        "time": datetime.fromtimestamp(there, UTC).isoformat(),
        "seconds": there,
    }


@pytest.mark.parametrize(("answer", "size"), [(b"abc", 3), (b"", 0)])
def test_wrong_time(answer: bytes, size: int) -> None:
    """An answer that is not four bytes is no time: the status is 1."""
    with tcp_server(announce(answer)) as port:
        expected = (1, b"", error_line("time", port, f"not a time: {size} bytes, not four"))
        assert run("time", "127.0.0.1", port) == expected


def test_wrong_time_json() -> None:
    """With --json the failure is the one object."""
    with udp_server(b"abc") as port:
        status, output, errors = run("time", "--json", "--udp", "127.0.0.1", port)
    address = f"127.0.0.1 port {port}"
    assert (status, errors) == (1, "")
    assert json.loads(output) == {
        "error": f"{address}: not a time: 3 bytes, not four",
        "address": address,
        "status": 1,
    }


# discard


def test_discard(servers: Servers) -> None:
    """Text is sent, and nothing comes back; over TCP, UDP, a Unix socket; TEXT may be empty."""
    for address in (
        ("127.0.0.1", servers.simple["discard"], "hello"),
        ("127.0.0.1", servers.simple["discard"], ""),
        ("--udp", "127.0.0.1", servers.simple_udp["discard"], "hello"),
        (f"unixdgram:{servers.folder}/discard-datagrams", ""),
    ):
        assert run("discard", *address) == (0, b"", "")


def test_discard_is_sent() -> None:
    """What is discarded has been sent: TEXT, exactly, or standard input."""
    data = random.Random(3).randbytes(5_000_000)
    for arguments, stdin, sent in ((("hello",), b"", b"hello"), ((), data, data)):
        received = bytearray()

        def take(connection: socket.socket, received: bytearray = received) -> None:
            while chunk := connection.recv(262144):
                received += chunk

        with tcp_server(take) as port:
            assert run("discard", "127.0.0.1", port, *arguments, stdin=stdin) == (0, b"", "")
        assert received == sent


def test_discard_stdin(servers: Servers) -> None:
    """5 MB of standard input are taken by our own service too."""
    assert run("discard", "127.0.0.1", servers.simple["discard"], stdin=b"x" * 5_000_000) == (0, b"", "")


def test_discard_answered() -> None:
    """Where something comes back it is printed, and the status is 1."""
    for arguments in (("hello",), ()):
        with tcp_server(announce(b"why?\n")) as port:
            expected = (1, b"why?\n", error_line("discard", port, "it was answered"))
            assert run("discard", "127.0.0.1", port, *arguments, stdin=b"hello") == expected
    with udp_server(b"why?\n") as port:
        expected = (1, b"why?\n", error_line("discard", port, "it was answered"))
        assert run("discard", "--udp", "127.0.0.1", port, "hello") == expected


def test_discard_udp_needs_text() -> None:
    """Standard input is no datagram."""
    status, output, errors = run("discard", "udp:127.0.0.1:9", stdin=b"hello")
    assert (status, output) == (2, b"")
    assert errors.endswith("Error: over UDP, TEXT is needed\n")


def test_discard_json(servers: Servers) -> None:
    """With --json there is one object, whether it was answered or not; without TEXT there is none to print."""
    address = f"127.0.0.1 port {servers.simple['discard']}"
    status, output, errors = run("discard", "--json", "127.0.0.1", servers.simple["discard"], "hello")
    assert (status, errors) == (0, "")
    assert json.loads(output) == {"answer": "", "address": address, "ok": True}
    with tcp_server(announce(b"why?")) as port:
        status, output, errors = run("discard", "--json", "127.0.0.1", port, "hello")
    assert (status, errors) == (1, "")
    assert json.loads(output) == {"answer": "why?", "address": f"127.0.0.1 port {port}", "ok": False}
    status, output, errors = run("discard", "--json", "127.0.0.1", servers.simple["discard"], stdin=b"hello")
    assert (status, output) == (2, b"")
    assert errors.endswith("Error: --json needs one exchange: say what to send on the command line\n")


# chargen


@pytest.mark.parametrize("size", [1, 74, 1_000_000])
def test_chargen_bytes(servers: Servers, size: int) -> None:
    """--bytes is exact, to the byte."""
    status, output, errors = run("chargen", "--bytes", size, "127.0.0.1", servers.simple["chargen"])
    assert (status, errors) == (0, "")
    assert output == (CHARGEN * (size // len(CHARGEN) + 1))[:size]


def test_chargen_too_few() -> None:
    """Where the server closes before that, what has come is printed, and the status is 1."""
    with tcp_server(announce(CHARGEN[:50])) as port:
        expected = (1, CHARGEN[:50], error_line("chargen", port, "closed after 50 bytes"))
        assert run("chargen", "--bytes", "51", "127.0.0.1", port) == expected
    with tcp_server(announce(CHARGEN[:50])) as port:
        assert run("chargen", "--bytes", "50", "127.0.0.1", port) == (0, CHARGEN[:50], "")


def test_chargen_head(servers: Servers) -> None:
    """Where the reader of standard output leaves, as ``head`` does, the command ends at once, with one line."""
    with Program("chargen", "--timeout", "1000", "127.0.0.1", servers.simple["chargen"]) as program:
        assert program.read(10) == CHARGEN[:10]
        program.stdout.close()
        left = time.monotonic()
        assert program.wait() == (1, "twistednet chargen: nobody reads standard output\n")
        assert time.monotonic() - left < 5


def test_chargen_udp(servers: Servers) -> None:
    """Over UDP one datagram is printed, ended by a line ending where it has none."""
    for address in (
        ("--udp", "127.0.0.1", servers.simple_udp["chargen"]),
        (f"unixdgram:{servers.folder}/chargen-datagrams",),
    ):
        status, output, errors = run("chargen", *address)
        assert (status, errors) == (0, "")
        assert output.endswith(b"\n")
        assert len(output) <= 513
        assert CHARGEN.startswith((output, output[:-1]))


def test_chargen_udp_bytes() -> None:
    """--bytes limits what is printed of a datagram as well."""
    with udp_server(CHARGEN[:100]) as port:
        assert run("chargen", "--udp", "--bytes", "10", "127.0.0.1", port) == (0, CHARGEN[:10] + b"\n", "")


def test_chargen_json(servers: Servers) -> None:
    """A stream without end is no object; a datagram is one."""
    status, output, errors = run("chargen", "--json", "127.0.0.1", servers.simple["chargen"])
    assert (status, output) == (2, b"")
    assert errors.splitlines()[-1].startswith("Error: --json needs one exchange")
    with udp_server(CHARGEN[:10]) as port:
        status, output, errors = run("chargen", "--json", "--udp", "127.0.0.1", port)
    assert (status, errors) == (0, "")
    assert json.loads(output) == {
        "answer": CHARGEN[:10].decode(),
        "address": f"127.0.0.1 port {port}",
        "ok": True,
    }
