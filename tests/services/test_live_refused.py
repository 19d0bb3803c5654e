"""Connections that are refused, on every kind of stream: reset at once, counted, and nothing is left of them."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
import trustme
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.services.running import PATIENCE, Twistd, connect, connect_unix
from twistednet.policies.limits import LimitedFactory, Limits
from twistednet.policies.proxy_header import HalfClosingProxyFactory
from twistednet.protocols import EchoFactory

APPLICATION = """
import json

from twisted.application.service import Application, Service
from twisted.internet import reactor

from twistednet.services import accumulator

options = accumulator.Options()
options.parseOptions({arguments})
service = accumulator.makeService(options)
application = Application("refusing")
service.setServiceParent(application)


def report():
    with open("counters", "w") as file:
        json.dump({{"refused": service.counters.refused, "connections": service.counters.connections}}, file)


reactor.addSystemEventTrigger("before", "shutdown", report)
# When the loop turns, it has the sockets that it wakes itself with.
reactor.callWhenRunning(reactor.callLater, 0, lambda: open("running", "w").close())
"""
"""What ``twistd --python`` reads: an accumulator that leaves its counters in a file when it is stopped."""

HEADER = b"PROXY TCP4 192.0.2.1 127.0.0.1 4000 2000\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x0f\xa0\x07\xd0"

KINDS = ("tcp", "tcp6", "unix", "tls", "haproxy", "haproxy-unix", "haproxy-tls")
"""The endpoints, in order; ``tcp6`` takes IPv4 connections too."""

PROXIED = ("haproxy", "haproxy-unix", "haproxy-tls")
UNIX = ("unix", "haproxy-unix")


# Python's own ssl forgets a socket that is reset before the handshake begins.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")


class Refusing:
    """An accumulator on endpoints of all kinds."""

    def __init__(self, folder: Path, twistd: Twistd) -> None:
        self.folder = folder
        self.twistd = twistd

    @contextmanager
    def connected(
        self, kind: str, header: bytes = HEADER, source: str | None = None
    ) -> Iterator[Callable[[bytes], bytes]]:
        """A connection of `kind`, after the header if there is to be one; what is yielded sends, and receives."""
        if kind in UNIX:
            client = connect_unix(self.folder / kind)
        else:
            where = "127.0.0.1", self.twistd.port(KINDS.index(kind))
            client = socket.create_connection(where, PATIENCE, None if source is None else (source, 0))
        with client:
            if kind.endswith("tls"):
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                client = context.wrap_socket(client, suppress_ragged_eofs=False)
            with client:
                if kind in PROXIED:
                    client.sendall(header)

                def ask(question: bytes) -> bytes:
                    client.sendall(question)
                    return client.recv(100)

                yield ask

    def answer(self, kind: str, header: bytes = HEADER, source: str | None = None) -> bytes:
        """What an open connection of `kind` answers to a letter; nothing where it was closed."""
        try:
            with self.connected(kind, header, source) as ask:
                return ask(b"a\n")
        except TimeoutError:
            raise
        except OSError:  # reset, in the TLS handshake too
            return b""

    def sockets(self) -> int:
        """How many the server has open."""
        descriptors = Path(f"/proc/{self.twistd.process.pid}/fd")
        number = 0
        for descriptor in descriptors.iterdir():
            with suppress(FileNotFoundError):
                number += str(descriptor.readlink()).startswith("socket:")
        return number

    def assert_left(self, sockets: int) -> None:
        """Only so many sockets are open, at once."""
        give_up = time.monotonic() + 5
        while self.sockets() > sockets:
            assert time.monotonic() < give_up
            time.sleep(0.005)

    def stop(self) -> dict[str, int]:
        """Stop; how many connections were refused, by the reason."""
        self.twistd.assert_stops_cleanly(-signal.SIGTERM)
        refused: dict[str, int] = json.loads((self.folder / "counters").read_text())["refused"]
        return refused


@contextmanager
def refusing(folder: Path, *arguments: str) -> Iterator[Refusing]:
    """An accumulator with `arguments`."""
    certificates = folder / "certificates"
    certificates.mkdir()
    certificate = trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem
    certificate.write_to_path(certificates / "localhost.pem")
    listens = [
        f"--listen={endpoint}"
        for endpoint in (
            "tcp:0:interface=127.0.0.1",
            r"tcp6:0:interface=\:\:",
            f"unix:{folder}/unix",
            f"tls:{certificates}:port=0:interface=127.0.0.1",
            "haproxy:tcp:0:interface=127.0.0.1",
            f"haproxy:unix:{folder}/haproxy-unix",
            f"haproxy:tls:{certificates}:port=0:interface=127.0.0.1",
        )
    ]
    (folder / "refusing.py").write_text(APPLICATION.format(arguments=[*arguments, *listens]))
    with Twistd(folder, "--no_save", "--python", "refusing.py", endpoints=len(KINDS)) as twistd:
        give_up = time.monotonic() + PATIENCE
        while not (folder / "running").exists():
            assert time.monotonic() < give_up
            time.sleep(0.01)
        yield Refusing(folder, twistd)


def check(service: Refusing, refused: tuple[str, ...]) -> None:
    """Connections of the kinds in `refused` are, three times each; the others are served, and nothing stays open."""
    before = service.sockets()
    for kind in KINDS:
        for header in (HEADER, V2, HEADER):
            assert bool(service.answer(kind, header)) == (kind not in refused), kind
            service.assert_left(before)


@pytest.mark.parametrize(
    ("option", "reason"), [(("--clients", "1"), "service"), (("--max-connections", "1"), "max-connections")]
)
def test_one_client(tmp_path: Path, option: tuple[str, ...], reason: str) -> None:
    """While the only client that there may be is connected, no other is served."""
    with refusing(tmp_path, *option) as service:
        with connect(service.twistd.port()) as first:
            first.sendall(b"a\n")
            assert first.recv(1)
            check(service, KINDS)
            assert f"connection refused: {reason}" in service.twistd.log
            service.twistd.process.send_signal(signal.SIGTERM)
            service.twistd.wait_until_logged("Closed)")
        service.twistd.wait()
        assert "Traceback" not in service.twistd.log
        assert "Unhandled" not in service.twistd.log
        assert json.loads((tmp_path / "counters").read_text()) == {"refused": {reason: 21}, "connections": 1}


def test_max_per_host(tmp_path: Path) -> None:
    """One host may have one connection, whether by IPv4, mapped into IPv6, or named by a header."""
    with refusing(tmp_path, "--max-per-host", "1") as service:
        with connect(service.twistd.port()) as first:
            first.sendall(b"a\n")
            assert first.recv(1)
            check(service, ("tcp", "tcp6", "tls"))
            own = HEADER.replace(b"192.0.2.1", b"127.0.0.1")
            for kind in PROXIED:
                assert not service.answer(kind, own)
        with service.connected("haproxy") as ask:
            assert ask(b"a\n")
            check(service, PROXIED)
        assert service.stop() == {"max-per-host": 9 + 3 + 9}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--deny", "127.0.0.0/8", "--deny", "192.0.2.0/24", "--allow", "0.0.0.0/0"), "deny"),
        (("--allow", "198.51.100.0/24", "--allow", "::/0"), "allow"),
    ],
)
def test_lists(tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    """A client's address is the header's, if there is one; a Unix socket has none."""
    with refusing(tmp_path, *options) as service:
        check(service, tuple(kind for kind in KINDS if kind != "unix"))
        assert bool(service.answer("haproxy", HEADER.replace(b"192.0.2.1", b"198.51.100.1")))
        assert bool(service.answer("haproxy-unix", b"PROXY UNKNOWN\r\n"))
        assert f"connection refused: {reason}; it came from TCP 127.0.0.1:" in service.twistd.log
        assert service.stop() == {reason: 18}


def test_deny_sees_the_client(tmp_path: Path) -> None:
    """A balancer is not denied, though its address is, when it has named its client."""
    with refusing(tmp_path, "--deny", "127.0.0.1") as service:
        check(service, ("tcp", "tcp6", "tls"))
        assert not service.answer("haproxy", b"PROXY UNKNOWN\r\n")
        assert service.stop() == {"deny": 10}


def test_proxy_from(tmp_path: Path) -> None:
    """Headers are believed from the balancers that are named, and over Unix sockets."""
    with refusing(tmp_path, "--proxy-from", "127.0.0.2/32") as service:
        check(service, ("haproxy", "haproxy-tls"))
        for kind in ("haproxy", "haproxy-tls"):
            assert service.answer(kind, source="127.0.0.2")
        # Refused before it has sent anything.
        with pytest.raises(ConnectionResetError), connect(service.twistd.port(KINDS.index("haproxy"))) as client:
            client.recv(1)
        assert service.stop() == {"proxy-from": 7}


@pytest.mark.parametrize("kind", PROXIED)
def test_every_cut(tmp_path: Path, kind: str) -> None:
    """However a header arrives, its client is refused or served."""
    with refusing(tmp_path, "--deny", "192.0.2.1") as service:
        before = service.sockets()
        refused = 0
        for header in (HEADER, V2):
            for cut in range(1, len(header), 5):
                for named in (header, header.replace(b"192.0.2.1", b"192.0.2.2").replace(b"\xc0\0\2\1", b"\xc0\0\2\3")):
                    try:
                        with service.connected(kind, named[:cut]) as ask:
                            time.sleep(0.001)
                            answered = bool(ask(named[cut:] + b"a\n"))
                    except (ConnectionError, ssl.SSLError):
                        answered = False
                    assert answered == (named != header), (header, cut)
                    refused += named == header
        service.assert_left(before)
        assert service.stop() == {"deny": refused}


def test_stops_while_a_header_is_awaited(tmp_path: Path) -> None:
    """Connections that have sent no header, or a part of one, don't delay the end."""
    with (
        refusing(tmp_path) as service,
        service.connected("haproxy", b""),
        service.connected("haproxy-tls", b"PROXY "),
    ):
        began = time.monotonic()
        assert service.stop() == {}
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("options", [("--deny", "127.0.0.2"), ("--allow", "127.0.0.1", "--no-guard")])
def test_datagrams(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Datagrams from a source that the lists refuse are not answered, on a socket for both families neither."""
    listens = ("--listen", "udp:0:interface=127.0.0.1", "--listen", r"udp6:0:interface=\:\:")
    with Twistd(tmp_path, "udpok", *options, *listens, endpoints=2) as twistd:
        for n in range(2):
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as refused,
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as accepted,
            ):
                refused.bind(("127.0.0.2", 0))
                accepted.bind(("127.0.0.1", 0))
                accepted.settimeout(PATIENCE)
                refused.sendto(b"hello", ("127.0.0.1", twistd.port(n)))
                accepted.sendto(b"hello", ("127.0.0.1", twistd.port(n)))
                assert accepted.recv(100) == b"OK...hello"
                # The answers would come in the order of the questions.
                refused.setblocking(False)
                with pytest.raises(BlockingIOError):
                    refused.recv(100)
        twistd.wait_until_logged(f"dropped datagrams: 1, {options[0][2:]}; the last came from UDP 127.0.0.2:", 2)
        twistd.assert_stops_cleanly()


class Lost(Protocol):
    """Tells when its connection is gone."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


@pytest.mark.parametrize("begun", [b"", b"PROXY "])
@pytest_twisted.ensureDeferred
async def test_header_time_out(live_reactor: Any, begun: bytes) -> None:
    """A connection whose header doesn't come is reset, and nothing is left of it."""
    limited = LimitedFactory(EchoFactory(), Limits(max_connections=1))
    factory = HalfClosingProxyFactory(limited, header_timeout=0.1)
    port = await TCP4ServerEndpoint(live_reactor, 0, interface="127.0.0.1").listen(factory)
    client = Lost()
    await connectProtocol(TCP4ClientEndpoint(live_reactor, "127.0.0.1", port.getHost().port), client)
    cast(Any, client.transport).write(begun)
    await client.gone.addTimeout(PATIENCE, live_reactor)
    await port.stopListening()
    assert (limited.counters.timed_out, limited.counters.connections) == ({"proxy-header": 1}, 0)
    assert (limited.waiting, factory.protocols) == ({}, {})
