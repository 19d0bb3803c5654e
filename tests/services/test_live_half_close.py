"""The end of a client's stream, on every kind of stream that wraps it, with the clients that there are."""

from __future__ import annotations

import hashlib
import os
import random
import select
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from OpenSSL.SSL import TLS_CLIENT_METHOD, Connection, Context, WantReadError, ZeroReturnError

from tests import programs
from tests.cli.running import run
from tests.services.running import APPLICATION, PATIENCE, Twistd, connect, receive_all
from twistednet.services.support import load_dialogue

V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 2000\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x0f\xa0\x07\xd0"

SERVICES: dict[str, tuple[str, ...]] = {
    "echo": (),
    "reverse": (),
    "accumulator": ("--max-length", "100000"),
    "wps": ("--command", "hello=/usr/bin/printf 'hello\\nyou'"),
    "support": (),
    "repeat": ("--copies", "3"),
    "greeter": (),
}

QUESTIONS: dict[str, tuple[bytes, bytes]] = {
    "echo": (b"Hello\0\xff", b"Hello\0\xff"),
    "reverse": (b"ab\nlast", b"ba\ntsal"),
    "wps": (b"hello", b"hello\nyou"),
    "support": (b"help\nquit", "\n".join(load_dialogue().goodbye).encode()),
    "repeat": (b"x" * 10_000, b"x" * 30_000),
    "greeter": (b"Hello World", b"Hello YourselfGoodbye"),
    "accumulator": (b"a\nb", b"b"),
}
"""For each service messages, the last without an ending, and how the answers end."""

HEADERS = {"tcp": b"", "v1": V1, "v2": V2, "tls": b"", "ssl": b"", "tls-v2": V2}
"""For each kind of stream, what a client sends first."""


class Wrapped:
    """All the services, each as tcp:, haproxy:, tls:, ssl: and haproxy:tls:."""

    def __init__(self, twistd: Twistd) -> None:
        self.twistd = twistd

    def port(self, name: str, kind: str) -> int:
        """Where the service called `name` listens for `kind`."""
        order = {"tcp": 0, "v1": 1, "v2": 1, "tls": 2, "ssl": 3, "tls-v2": 4}
        return self.twistd.port(5 * list(SERVICES).index(name) + order[kind])

    def ask(self, name: str, kind: str, question: bytes) -> bytes:
        """Send `question`, end the stream, and receive everything: close_notify where there is TLS."""
        if kind in ("tcp", "v1", "v2"):
            with connect(self.port(name, kind)) as client:
                client.sendall(HEADERS[kind] + question)
                client.shutdown(socket.SHUT_WR)
                return receive_all(client)
        with connect(self.port(name, kind)) as client:
            return ask_tls(client, HEADERS[kind] + question)


def ask_tls(client: socket.socket, question: bytes) -> bytes:
    """Send `question` and close_notify at once, and receive until close_notify.

    Python's own ssl can't: its ``unwrap`` drops what it finds where it looks for the peer's close_notify.
    """
    tls = Connection(Context(TLS_CLIENT_METHOD), None)
    tls.set_connect_state()
    unsent, answer, unencrypted, shaken = b"", bytearray(), memoryview(question), False
    client.setblocking(False)
    while True:
        try:
            if not shaken:
                tls.do_handshake()
                shaken = True
            while unencrypted and len(unsent) < 262144:
                unencrypted = unencrypted[tls.send(unencrypted[:16384]) :]
                unsent += tls.bio_read(32768)
                if not unencrypted:
                    tls.shutdown()
            while True:
                answer += tls.recv(65536)
        except WantReadError:
            pass
        except ZeroReturnError:
            return bytes(answer)
        with suppress(WantReadError):
            unsent += tls.bio_read(32768)
        ready, writable, _ = select.select([client], [client] if unsent else [], [], PATIENCE)
        assert ready or writable
        if writable:
            unsent = unsent[client.send(unsent) :]
        if ready:
            data = client.recv(262144)
            assert data, "no close_notify"
            tls.bio_write(data)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority."""
    return trustme.CA()


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Wrapped]:
    """All the services."""
    folder = tmp_path_factory.mktemp("wrapped")
    certificates = folder / "certificates"
    certificates.mkdir()
    pem = certificates / "localhost.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    listens = [
        f"--listen={endpoint}"
        for endpoint in (
            "tcp:0:interface=127.0.0.1",
            "haproxy:tcp:0:interface=127.0.0.1",
            f"tls:{certificates}:port=0:interface=127.0.0.1",
            f"ssl:0:privateKey={pem}:interface=127.0.0.1",
            f"haproxy:tls:{certificates}:port=0:interface=127.0.0.1",
        )
    ]
    commands = [(name, *arguments, *listens) for name, arguments in SERVICES.items()]
    (folder / "all.py").write_text(APPLICATION.format(commands=commands))
    with Twistd(folder, "--no_save", "--python", "all.py", endpoints=5 * len(SERVICES)) as twistd:
        yield Wrapped(twistd)
        twistd.assert_stops_cleanly(-signal.SIGTERM)


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("name", SERVICES)
def test_last_message(wrapped: Wrapped, name: str, kind: str) -> None:
    """The last message, which nothing ends but the stream, is answered."""
    question, answer = QUESTIONS[name]
    assert wrapped.ask(name, kind, question).endswith(answer)


@pytest.mark.parametrize("kind", HEADERS)
def test_bulk(wrapped: Wrapped, kind: str) -> None:
    """What goes through echo comes back, each time, though the client has long ended."""
    data = random.Random(5).randbytes(5_000_000)
    sent = hashlib.sha256(data).digest()
    for _ in range(4):
        if kind in ("tcp", "v1", "v2"):
            assert hashlib.sha256(echo_tcp(wrapped.port("echo", kind), HEADERS[kind], data)).digest() == sent
        else:
            assert hashlib.sha256(wrapped.ask("echo", kind, data)).digest() == sent


def echo_tcp(port: int, header: bytes, data: bytes) -> bytes:
    """`data` through ``nc -N``."""
    return nc("-N", "127.0.0.1", str(port), stdin=header + data)


def program(name: str) -> str:
    """Where the program called `name` is."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name} here")
    return path


def nc(*arguments: str, stdin: bytes) -> bytes:
    """The output of ``nc``, which must be OpenBSD's, for -N."""
    path = program("nc")
    usage = programs.run([path, "-h"], capture_output=True, timeout=PATIENCE).stderr
    if b"-N" not in usage and b"N]" not in usage and not os.path.realpath(path).endswith("openbsd"):
        pytest.skip("this nc has no -N")
    output: bytes = programs.run([path, *arguments], input=stdin, capture_output=True).stdout
    return output


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_nc(wrapped: Wrapped, kind: str) -> None:
    """``nc -N`` behind a PROXY header has its last answer."""
    assert nc("-N", "127.0.0.1", str(wrapped.port("reverse", kind)), stdin=HEADERS[kind] + b"ab\nlast") == b"ba\ntsal"


def test_ncat(wrapped: Wrapped) -> None:
    """``ncat --ssl`` ends with a FIN alone, a truncation: it has the answers to all that it had ended."""
    port = str(wrapped.port("reverse", "tls"))
    done = programs.run(
        [program("ncat"), "--ssl", "127.0.0.1", port], input=b"ab\ncd\n", capture_output=True, timeout=PATIENCE
    )
    assert done.stdout == b"ba\ndc\n"


def test_openssl(wrapped: Wrapped) -> None:
    """``openssl s_client`` leaves after its close_notify; its last letter, without an ending, has been heard."""
    programs.run(
        [program("openssl"), "s_client", "-connect", f"127.0.0.1:{wrapped.port('accumulator', 'tls')}"],
        input=b"openssl\nwas her\xc3\xab",
        capture_output=True,
        timeout=PATIENCE,
    )
    assert "opensslwas her\xeb" in wrapped.ask("accumulator", "tls", b"!").decode()


@pytest.mark.parametrize("kind", ["tls", "ssl"])
def test_our_client(wrapped: Wrapped, authority: trustme.CA, tmp_path: Path, kind: str) -> None:
    """``twistednet`` ends its stream with close_notify, and has its last answer."""
    roots = tmp_path / "roots"
    roots.mkdir()
    authority.cert_pem.write_to_path(roots / "ca.pem")
    data = random.Random(5).randbytes(1_000_000)

    def where(name: str) -> str:
        port = wrapped.port(name, kind)
        if kind == "tls":
            return f"tls:localhost:{port}:trustRoots={roots}:endpoint=tcp\\:127.0.0.1\\:{port}"
        return f"ssl:127.0.0.1:{port}:caCertsDir={roots}:hostname=localhost"

    assert run("echo", where("echo"), stdin=data) == (0, data, "")
    assert run("reverse", where("reverse"), stdin=b"ab\nlast") == (0, b"ba\ntsal", "")
