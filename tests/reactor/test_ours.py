"""The tests of `test_streams`, run on our reactors; and how those are chosen."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
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
from twistednet.reactor.stream import LoopStream


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
        ((), "twistednet.reactor.uvloopreactor.UvloopReactor"),
        (("--reactor=epoll",), "twisted.internet.epollreactor.EPollReactor"),
        (("--reactor=twistednet",), "twistednet.reactor.uvloopreactor.UvloopReactor"),
        (("--reactor=twistednet-uvloop",), "twistednet.reactor.uvloopreactor.UvloopReactor"),
        (("--reactor=twistednet-asyncio",), "twistednet.reactor.asyncioreactor.AsyncioReactor"),
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
    """They are among the reactors that Twisted knows."""
    assert {"twistednet", "twistednet-uvloop", "twistednet-asyncio"} <= {
        reactor.shortName for reactor in getReactorTypes()
    }


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


def test_iterate(reactor: LoopReactor) -> None:
    """``iterate`` calls what is due, reads what has come, and returns at once; with a delay it waits as long."""
    called: list[str] = []
    reactor.callLater(0, called.append, "at once")
    reactor.callLater(60, called.append, "later")
    reactor.callFromThread(called.append, "from a thread")
    for _ in range(3):
        reactor.iterate()
    assert sorted(called) == ["at once", "from a thread"]
    reactor.callLater(0.001, called.append, "soon")
    reactor.iterate(0.05)
    assert called[2:] == ["soon"]
    for call in reactor.getDelayedCalls():
        call.cancel()


def test_iterate_calls_what_is_due(reactor: LoopReactor) -> None:
    """``iterate`` calls every timer that is due, though the loop counts in milliseconds."""
    called: list[int] = []
    for n in range(50):
        reactor.callLater(0.0005, called.append, n)
        time.sleep(0.0006)
        reactor.iterate(0)
        assert len(called) == n + 1


def test_iterate_while_running(reactor: LoopReactor) -> None:
    """``iterate`` called while the reactor runs sends what has been written, calls timers, and ends nothing."""
    called: list[str] = []
    server = Peer(lambda peer: peer.transport.pauseProducing())
    factory = Factory.forProtocol(lambda: server)
    factory.noisy = False
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    with connect(port.getHost().port) as client:

        def nested() -> None:
            server.transport.write(b"hello")
            reactor.callLater(0, called.append, "a timer")
            reactor.iterate()
            client.settimeout(PATIENCE)
            assert client.recv(5) == b"hello"
            assert called == ["a timer"]
            reactor.callLater(0.02, reactor.crash)
            reactor.callLater(0.01, called.append, "went on")

        server.opened.addCallback(lambda _server: reactor.callLater(0.02, nested))
        reactor.run(installSignalHandlers=False)
        assert called == ["a timer", "went on"]
        port.stopListening()
        reactor.iterate(0)
        reactor.disconnectAll()
        reactor.iterate(0)


def test_iterate_does_not_wait(reactor: LoopReactor) -> None:
    """A thousand calls of ``iterate(0)`` with nothing to do don't wait: they took ten seconds when each did."""
    before = reactor.loop.time()
    for _ in range(1000):
        reactor.iterate(0)
    assert reactor.loop.time() - before < 5


def test_run_after_crash(reactor: LoopReactor) -> None:
    """A run ends when it is told to, and not because an earlier one was told to twice."""
    ended: list[str] = []

    def twice() -> None:
        reactor.crash()
        reactor.crash()

    for n in range(3):
        reactor.callLater(0, twice)
        reactor.iterate(0.01)
        reactor.callLater(0.01, ended.append, f"run {n}")
        reactor.callLater(0.02, reactor.crash)
        reactor.run(installSignalHandlers=False)
    assert ended == ["run 0", "run 1", "run 2"]
    reactor.crash()
    reactor.callLater(0.01, ended.append, "after a crash that ended nothing")
    reactor.callLater(0.02, reactor.crash)
    reactor.run(installSignalHandlers=False)
    assert len(ended) == 4


def test_clock_that_jumps(reactor: LoopReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is made at once that is due at once, though the clock was set forward after another had been scheduled."""
    called: list[str] = []
    seconds = reactor.seconds
    reactor.callLater(7200, called.append, "in two hours")
    monkeypatch.setattr(reactor, "seconds", lambda: seconds() + 3600)
    reactor.callLater(0, called.append, "at once")
    reactor.callLater(float("inf"), called.append, "never")
    reactor.iterate(0.05)
    assert called == ["at once"]
    for call in reactor.getDelayedCalls():
        call.cancel()


def test_no_turning_while_waiting(reactor: LoopReactor) -> None:
    """A timer wakes the loop when it is due, and not again and again before."""
    wakes = 0
    run = reactor.runUntilCurrent

    def count() -> None:
        nonlocal wakes
        wakes += 1
        run()

    reactor.runUntilCurrent = count  # type: ignore[method-assign]
    called: list[float] = []
    for n in range(10):
        reactor.callLater(0.0123 * (n + 1), lambda: called.append(reactor.seconds()))
    while len(called) < 10:
        reactor.iterate(0.2)
    assert wakes <= 12


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("twistednet.reactor.uvloopreactor", "UvloopReactor"),
        ("twistednet.reactor.asyncioreactor", "AsyncioReactor"),
        ("twistednet.reactor", "UvloopReactor"),
    ],
)
def test_modules(module: str, name: str) -> None:
    """Each reactor's module installs that class, and brings nothing of the clients or the protocols with it."""
    program = f"""
import sys
from {module} import {name}, install
install()
from twisted.internet import reactor
assert type(reactor) is {name}, reactor
foreign = {{"click", "treq", "rich", "twistednet.protocols", "twistednet.services", "twistednet.cli"}}
assert not foreign & set(sys.modules), foreign & set(sys.modules)
"""
    done = programs.run([sys.executable, "-c", program], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("module", ["twistednet.reactor.uvloopreactor", "twistednet.reactor.asyncioreactor"])
def test_loop_of_ones_own(module: str) -> None:
    """``install`` takes a loop, as Twisted's asyncio reactor does."""
    program = f"""
import asyncio
from {module} import install
loop = asyncio.SelectorEventLoop()
install(loop)
from twisted.internet import reactor
assert reactor.loop is loop
assert asyncio.get_event_loop_policy().get_event_loop() is loop
"""
    done = programs.run([sys.executable, "-c", program], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()
