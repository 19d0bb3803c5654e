"""The tests of `test_streams`, run on our reactors; and how those are chosen."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.application.reactors import getReactorTypes
from twisted.internet.error import UnsupportedAddressFamily
from twisted.internet.protocol import Factory

from tests import programs
from tests.reactor.test_streams import Peer
from tests.services import running
from tests.services.running import PATIENCE, Twistd, ask_for_all, connect
from twistednet.reactor import AsyncioReactor, LoopReactor, UvloopReactor
from twistednet.reactor.stream import LoopStream, raised_by_loop


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_streams(loop: str) -> None:
    """Streams keep their contract when the loop carries them."""
    streams = Path(__file__).with_name("test_streams.py")
    done = programs.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "--on", loop, str(streams)],
        capture_output=True,
        cwd=streams.parents[2],
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout.decode()
    assert b" passed" in done.stdout


@pytest.mark.parametrize(
    ("options", "reactor"),
    [
        ((), "twistednet.reactor.UvloopReactor"),
        (("--reactor=epoll",), "twisted.internet.epollreactor.EPollReactor"),
        (("--reactor=twistednet",), "twistednet.reactor.UvloopReactor"),
        (("--reactor=twistednet-asyncio",), "twistednet.reactor.AsyncioReactor"),
    ],
)
@pytest.mark.usefixtures("fresh")
def test_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], reactor: str) -> None:
    """Our commands run on our reactor unless another is named; the log begins with which."""
    monkeypatch.setattr(running, "REACTOR", [])
    with Twistd(tmp_path, *options, "echo", "--port", "0", endpoints=1) as twistd:
        assert f"reactor class: {reactor}.\n" in "".join(twistd.log.splitlines(True)[:2])
        with connect(twistd.port()) as client:
            assert ask_for_all(client, b"hello") == b"hello"
        twistd.assert_stops_cleanly()


def test_plugins() -> None:
    """Both are among the reactors that Twisted knows."""
    assert {"twistednet", "twistednet-asyncio"} <= {reactor.shortName for reactor in getReactorTypes()}


@pytest.fixture(params=[UvloopReactor, AsyncioReactor])
def reactor(request: pytest.FixtureRequest) -> Iterator[LoopReactor]:
    """A reactor of its own for a test, beside the one that the tests may be running on."""
    running_loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    reactor: LoopReactor = request.param()
    try:
        yield reactor
    finally:
        reactor.loop.close()
        asyncio._set_running_loop(running_loop)


def test_paused(reactor: LoopReactor) -> None:
    """A connection that neither reads nor writes is none of the reactor's descriptors, but closed when it stops."""
    server = Peer(lambda peer: peer.transport.pauseProducing())
    factory = Factory.forProtocol(lambda: server)
    factory.noisy = False
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    with connect(port.getHost().port):
        while not server.opened.called:
            reactor.iterate(0)
        port.stopListening()
        reactor.iterate(0)
        assert reactor.removeAll() == []
        reactor.disconnectAll()
        assert server.lost.called
        reactor.iterate(0)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_adopted(tmp_path: Path, reactor: LoopReactor, family: socket.AddressFamily) -> None:
    """The connections of a listening socket that comes from elsewhere are carried by the loop too."""
    server = Peer()
    factory = Factory.forProtocol(lambda: server)
    factory.noisy = False
    where = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0), socket.AF_UNIX: str(tmp_path / "socket")}
    with socket.socket(family) as listening, socket.socket(family) as client:
        listening.bind(where[family])  # type: ignore[arg-type]
        listening.listen()
        listening.setblocking(False)
        port = reactor.adoptStreamPort(listening.fileno(), family, factory)
        client.connect(listening.getsockname())
        client.sendall(b"hello")
        while server.received != b"hello":
            reactor.iterate(0.01)
        assert isinstance(server.transport, LoopStream)
        if family != socket.AF_UNIX:
            assert server.transport.getTcpNoDelay()
        with pytest.raises(UnsupportedAddressFamily):
            reactor.adoptStreamPort(listening.fileno(), socket.AF_UNSPEC, factory)
        port.stopListening()
        reactor.iterate(0)
        reactor.disconnectAll()
        reactor.iterate(0)


def test_whose_error() -> None:
    """An OSError of the network is told from one that a protocol raises."""

    def data_received() -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError) as caught:
        data_received()
    assert not raised_by_loop(caught.value)
    assert raised_by_loop(ConnectionResetError())  # as uvloop makes them
    assert not raised_by_loop(ZeroDivisionError())
