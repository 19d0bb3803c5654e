"""``twistednet repeat``."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from tests.cli.conftest import Servers
from tests.cli.running import Program, drain, refusing_port, run, silent_server, tcp_server
from tests.services.running import receive_all
from twistednet.cli.repeat import repeat


def error_line(port: int, message: str) -> str:
    """The one line on standard error."""
    return f"twistednet repeat: 127.0.0.1 port {port}: {message}\n"


TOTAL = rb"received (\d+) bytes in (\d+) chunks: \d+\.\d{3} seconds, \d+\.\d MB a second\n"


def in_chunks(*chunks: bytes) -> Callable[[socket.socket], None]:
    """A conversation in which a server sends `chunks` one by one, and ends its stream."""

    def talk(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        receive_all(connection)
        for chunk in chunks:
            connection.sendall(chunk)
            time.sleep(0.05)

    return talk


def test_copies(servers: Servers) -> None:
    """The sizes of all chunks are told, and add up to the total, which is exact."""
    for address in (("127.0.0.1", servers.repeat), (f"unix:{servers.folder}/repeat",)):
        status, output, errors = run("repeat", *address, "abc")
        assert (status, errors) == (0, "")
        *_, last = output.splitlines(keepends=True)
        total = re.fullmatch(TOTAL, last)
        assert total is not None, last
        assert int(total[1]) == 3000
        sizes = [int(size) for size in re.findall(rb"^received (\d+) bytes$", output, re.MULTILINE)]
        assert (sum(sizes), len(sizes)) == (3000, int(total[2]))
        shown = output.replace(last, b"")
        for size in sizes:
            shown = shown.replace(b"\nreceived %d bytes\n" % size, b"", 1)
        assert shown == b"abc" * 1000


def test_many(servers: Servers) -> None:
    """Of many bytes all are counted, and no more than five chunks shown."""
    status, output, errors = run("repeat", "127.0.0.1", servers.repeat, "0123456789" * 2000)
    assert (status, errors) == (0, "")
    sizes = [int(size) for size in re.findall(rb"^received (\d+) bytes$", output, re.MULTILINE)]
    assert sum(sizes) == 20_000_000
    # What was shown is about as long as the first five of the chunks.
    assert 0 < len(output) - sum(sizes[:5]) < 40 * len(sizes) + 100


def test_five_chunks() -> None:
    """The first five chunks are shown, each with its size; of the others, the size only."""
    with tcp_server(in_chunks(b"abc", b"abcabc", b"ab", b"c", b"abc", b"abcabc", b"abc")) as port:
        status, output, errors = run("repeat", "127.0.0.1", port, "abc")
    assert (status, errors) == (0, "")
    *lines, last = output.splitlines(keepends=True)
    assert b"".join(lines) == (
        b"abc\nreceived 3 bytes\n"
        b"abcabc\nreceived 6 bytes\n"
        b"ab\nreceived 2 bytes\n"
        b"c\nreceived 1 bytes\n"
        b"abc\nreceived 3 bytes\n"
        b"received 6 bytes\n"
        b"received 3 bytes\n"
    )
    total = re.fullmatch(TOTAL, last)
    assert total is not None, last
    assert total.groups() == (b"24", b"7")


def test_sent() -> None:
    """TEXT is sent as it is, without a line ending, and the stream is ended."""
    received = bytearray()

    def talk(connection: socket.socket) -> None:
        received.extend(receive_all(connection))
        connection.sendall(received)

    with tcp_server(talk) as port:
        status, output, _ = run("repeat", "127.0.0.1", port, "two w\xf6rds", stdin=b"unread")
    assert (status, bytes(received)) == (0, "two w\xf6rds".encode())
    assert output.startswith("two w\xf6rds\nreceived 10 bytes\n".encode())


def test_json(servers: Servers) -> None:
    """With --json there is one object, and no chunk is shown."""
    status, output, errors = run("repeat", "--json", "127.0.0.1", servers.repeat, "abc")
    assert (status, errors, output.count(b"\n")) == (0, "", 1)
    said = json.loads(output)
    assert said.keys() == {"address", "bytes", "chunks", "seconds", "bytes_per_second"}
    assert (said["address"], said["bytes"]) == (f"127.0.0.1 port {servers.repeat}", 3000)
    assert said["chunks"] >= 1
    assert said["bytes_per_second"] == pytest.approx(3000 / said["seconds"], rel=0.01)


@pytest.mark.parametrize("answer", [b"abcabca", b"ab", b""])
def test_wrong_number(answer: bytes) -> None:
    """Where the bytes are no number of copies what came is told all the same, and the status is 1."""
    with tcp_server(in_chunks(answer)) as port:
        status, output, errors = run("repeat", "127.0.0.1", port, "abc")
    assert status == 1
    assert b"received %d bytes in " % len(answer) in output
    assert errors == error_line(port, "that is no number of copies of what was sent")


def test_wrong_number_json() -> None:
    """With --json that is one object too."""
    with tcp_server(in_chunks(b"abca")) as port:
        status, output, errors = run("repeat", "--json", "127.0.0.1", port, "abc")
    assert (status, errors, output.count(b"\n")) == (1, "", 1)
    assert json.loads(output)["bytes"] == 4


def test_nobody() -> None:
    """A refusal has status 3, silence status 4."""
    with refusing_port(socket.SOCK_STREAM) as port:
        assert run("repeat", "127.0.0.1", port, "abc") == (3, b"", error_line(port, "nobody listens there"))
    with silent_server() as port:
        expected = (4, b"", error_line(port, "no answer in 0.2 seconds"))
        assert run("repeat", "--timeout", "0.2", "127.0.0.1", port, "abc") == expected


def test_stalled() -> None:
    """A server that stops in the middle is given up after --timeout."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"abc")
        try:
            drain(connection)
            connection.recv(1)
            time.sleep(1)
        except ConnectionError:
            pass

    with tcp_server(talk) as port:
        status, output, errors = run("repeat", "--timeout", "0.3", "127.0.0.1", port, "abc")
    assert (status, output) == (4, b"abc\nreceived 3 bytes\n")
    assert errors == error_line(port, "no answer in 0.3 seconds")


def test_head(servers: Servers) -> None:
    """Where the reader of standard output leaves, the command ends, with one line."""
    with Program("repeat", "127.0.0.1", servers.repeat, "abc" * 30000) as program:
        assert program.read(3) == b"abc"
        program.stdout.close()
        assert program.wait() == (1, "twistednet repeat: nobody reads standard output\n")


def test_usage() -> None:
    """There is one TEXT, and it is not empty."""
    for arguments in ([], [""], ["a", "b"]):
        result = CliRunner().invoke(repeat, ["localhost", "2000", *arguments])
        assert result.exit_code == 2
        assert result.output.splitlines()[-1] == "Error: one TEXT is needed; quote it"
