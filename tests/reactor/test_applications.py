"""Applications of Twisted's own, and treq, on our reactors: run as a user runs them, and none of them changed."""

from __future__ import annotations

import hashlib
import http.client
import random
import re
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests import programs
from tests.services import running
from tests.services.running import PATIENCE, Twistd, connect, free_port, receive

LOOPS = {"uvloop": "--reactor=twistednet", "asyncio": "--reactor=twistednet-asyncio"}

BIG = random.Random(0).randbytes(20_000_000)
"""More than all buffers on its way hold."""


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the loop that the reactor runs on."""
    monkeypatch.setattr(running, "REACTOR", [])
    return str(request.param)


# twistd web


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder to serve."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "small.txt").write_bytes(b"hello\n")
    (folder / "big").write_bytes(BIG)
    return folder


@pytest.fixture
def web(tmp_path: Path, site: Path, loop: str) -> Iterator[Twistd]:
    """``twistd web``, over HTTP and HTTPS."""
    certificate = tmp_path / "certificate.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    endpoints = "tcp:0:interface=127.0.0.1", f"ssl:0:privateKey={certificate}:interface=127.0.0.1"
    listen = [f"--listen={endpoint}" for endpoint in endpoints]
    with Started(tmp_path, LOOPS[loop], "web", "--path", str(site), *listen, endpoints=2) as twistd:
        yield twistd
        twistd.assert_stops_cleanly(-signal.SIGTERM)


def test_web(web: Twistd) -> None:
    """One connection carries small files, ranges, a mistake and a download."""
    client = http.client.HTTPConnection("127.0.0.1", web.port(), timeout=PATIENCE)
    client.connect()
    connection = client.sock

    def get(path: str, **headers: str) -> tuple[int, bytes]:
        client.request("GET", path, headers=headers)
        response = client.getresponse()
        return response.status, response.read()

    try:
        assert get("/small.txt") == (200, b"hello\n")
        assert get("/big", Range="bytes=1000-1999") == (206, BIG[1000:2000])
        assert get("/big", Range="bytes=-5") == (206, BIG[-5:])
        assert get("/nothing")[0] == 404
        assert get("/big") == (200, BIG)
        assert get("/small.txt") == (200, b"hello\n")
        assert client.sock is connection
    finally:
        client.close()


def test_goes_away(web: Twistd) -> None:
    """A client that goes away in the middle of a download hinders nobody, and leaves nothing in the log."""
    with connect(web.port()) as client:
        client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        assert receive(client, 100_000).startswith(b"HTTP/1.0 200 OK\r\n")
    with connect(web.port()) as client:
        client.sendall(b"GET /small.txt HTTP/1.0\r\n\r\n")
        assert receive(client, 1000).endswith(b"\r\n\r\nhello\n")


# treq

TREQ = """
import hashlib, sys
from twistednet.reactor import install
loop, authority, plain, tls, mute = sys.argv[1:]
install(loop)
from twisted.internet import defer, error, ssl, task
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from treq import text_content
from treq.client import HTTPClient

async def main(reactor):
    with open(authority) as file:
        trusted = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(file.read())])
    pool = HTTPConnectionPool(reactor)
    client = HTTPClient(Agent(reactor, BrowserLikePolicyForHTTPS(trusted), pool=pool))
    for root in plain, tls:
        answers = await defer.gatherResults(client.get(root + "small.txt") for _ in range(50))
        print({await text_content(answer) for answer in answers})
        digest = hashlib.sha256()
        await (await client.get(root + "big")).collect(digest.update)
        print(digest.hexdigest())
    try:
        await client.get(mute, timeout=0.1)
    except Exception as why:
        print([reason.type.__name__ for reason in why.reasons])
    await pool.closeCachedConnections()
    await task.deferLater(reactor, 0)
    print(reactor.streams, reactor.getDelayedCalls())

task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""
"""Many requests at once and a download, each over HTTP and over HTTPS, and an answer that doesn't come in time."""


def test_treq(tmp_path: Path, web: Twistd, loop: str) -> None:
    """treq is answered, over HTTPS too, gives up in time, and leaves nothing in the reactor."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        roots = [
            f"http://127.0.0.1:{web.port()}/",
            f"https://127.0.0.1:{web.port(1)}/",
            f"http://127.0.0.1:{mute.getsockname()[1]}/",
        ]
        done = programs.run(
            [sys.executable, "-c", TREQ, loop, str(tmp_path / "authority.pem"), *roots],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    fetched = ["{'hello\\n'}", hashlib.sha256(BIG).hexdigest()]
    assert done.stdout.splitlines() == [*fetched, *fetched, "['CancelledError']", "set() []"], done.stderr
    assert (done.returncode, done.stderr) == (0, "")


# twistd dns

QUESTION = b"\0\1\1\0\0\1\0\0\0\0\0\0\4host\7example\0\0\1\0\1"
"""The address of host.example?"""

ADDRESS = socket.inet_aton("192.0.2.7")


def test_dns(tmp_path: Path, loop: str) -> None:
    """``twistd dns`` answers over UDP and TCP, many questions on one connection."""
    (tmp_path / "hosts").write_text("192.0.2.7 host.example\n")
    options = ("--hosts-file=hosts", "--recursive", "--interface=127.0.0.1", f"--port={free_port()}")
    with Started(tmp_path, LOOPS[loop], "dns", *options, endpoints=2) as twistd:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", twistd.port()))
            client.send(QUESTION)
            assert is_answer(client.recv(512))
        with connect(twistd.port()) as stream:
            stream.sendall(50 * (struct.pack("!H", len(QUESTION)) + QUESTION))
            for _ in range(50):
                (size,) = struct.unpack("!H", receive(stream, 2))
                assert is_answer(receive(stream, size))
        twistd.assert_stops_cleanly(-signal.SIGTERM)


def is_answer(message: bytes) -> bool:
    """Whether `message` is the answer to `QUESTION`: the same number, no error, the address."""
    identity, flags = struct.unpack_from("!HH", message)
    return identity == 1 and bool(flags & 0x8000) and not flags & 0xF and ADDRESS in message


# twistd manhole


def test_manhole(tmp_path: Path, loop: str) -> None:
    """``twistd manhole`` lets a user in by telnet, and answers; also from a later turn of the reactor."""
    pytest.importorskip("twisted.conch.manhole_tap", reason="needs what twisted[conch] installs")
    (tmp_path / "passwd").write_text("user:secret\n")
    options = ("--passwd=passwd", "--telnetPort=tcp:0:interface=127.0.0.1")
    with Started(tmp_path, LOOPS[loop], "manhole", *options, endpoints=1) as twistd:
        with Telnet(twistd.port()) as client:
            for prompt, answer in (rb"Username: ", b"user"), (rb"Password: ", b"secret"), (rb">>> ", b"6*7"):
                client.wait_for(prompt)
                client.type(answer)
            client.wait_for(rb"\n42\r")
            client.type(b"from twisted.internet import reactor, task")
            client.type(b'task.deferLater(reactor, 0.01, lambda: "la" + "ter")')
            client.wait_for(rb"'later'")
        twistd.assert_stops_cleanly(-signal.SIGTERM)


class Telnet:
    """A telnet client that agrees to every option.

    :param port: the port to connect to.
    """

    AGREED = {b"\xfb": b"\xfd", b"\xfc": b"\xfe", b"\xfd": b"\xfb"}
    """DO to WILL, DONT to WONT, WILL to DO."""

    def __init__(self, port: int) -> None:
        self._socket = connect(port)
        self._unread = b""

    def __enter__(self) -> Telnet:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def type(self, line: bytes) -> None:
        """Send `line`."""
        self._socket.sendall(line + b"\r\n")

    def wait_for(self, pattern: bytes) -> None:
        """Read until `pattern` has come, and forget what came before."""
        while (found := re.search(pattern, self._unread)) is None:
            data = self._socket.recv(4096)
            assert data, self._unread
            for verb, option in re.findall(rb"\xff([\xfb-\xfd])(.)", data, re.DOTALL):
                self._socket.sendall(b"\xff" + self.AGREED[verb] + option)
            self._unread += data
        self._unread = self._unread[found.end() :]


class Started(Twistd):
    """A ``twistd`` of Twisted's own services, which say in another way than ours where they listen."""

    @property
    def addresses(self) -> list[str]:
        return re.findall(r" starting on (\d+)\n", self.log)
