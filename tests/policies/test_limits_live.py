"""Limits around connections of the reactor that the tests run on: of ours, where the kernel counts, or Twisted's."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.services.running import PATIENCE, receive, receive_all
from twistednet.interfaces import IOctetCounter
from twistednet.policies.limits import Limited, LimitedFactory, Limits
from twistednet.protocols.counters import Counters
from twistednet.protocols.echo import Echo, EchoFactory

Client = Callable[[socket.socket], None]


def half_closes(client: socket.socket) -> None:
    """Send, end, and read everything."""
    client.sendall(b"x" * 100_000)
    client.shutdown(socket.SHUT_WR)
    assert len(receive_all(client)) == 100_000


def resets(client: socket.socket) -> None:
    """Send, read everything, and leave without a word."""
    client.sendall(b"x" * 100_000)
    assert len(receive(client, 100_000)) == 100_000
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def says_nothing(client: socket.socket) -> None:
    """Leave."""


async def serve(reactor: Any, factory: LimitedFactory, address: tuple[str, int] | str, client: Client) -> None:
    """One client of `factory`, until its connection has ended."""
    port = (
        reactor.listenUNIX(address, factory)
        if isinstance(address, str)
        else reactor.listenTCP(0, factory, interface=address[0])
    )
    where = address if isinstance(address, str) else ("127.0.0.1", port.getHost().port)

    def run() -> None:
        with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(where)
            client(connection)

    try:
        await deferToThread(run)
        for _ in range(500):
            if factory.kept.connections and not factory.connections:
                return
            await deferLater(reactor, 0.01, lambda: None)
        raise AssertionError(factory.connections)
    finally:
        await port.stopListening()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize(("client", "octets"), [(half_closes, 100_000), (resets, 100_000), (says_nothing, 0)])
@pytest_twisted.ensureDeferred
async def test_counters(live_reactor: Any, kind: str, client: Client, octets: int) -> None:
    """What is counted is the payload, however the connection ends."""
    with tempfile.TemporaryDirectory() as folder:
        address = ("127.0.0.1", 0) if kind == "tcp" else str(Path(folder, "socket"))
        factory = LimitedFactory(EchoFactory(), Limits(idle_timeout=60))
        await serve(live_reactor, factory, address, client)
    assert factory.counters == Counters(connections=1, bytes_received=octets, bytes_sent=octets)


@pytest_twisted.ensureDeferred
async def test_out_of_the_way(live_reactor: Any) -> None:
    """Where the kernel counts, nothing is between the transport and the protocol; elsewhere a `Limited` is."""
    seen: list[tuple[Any, Any, Any]] = []

    class Looks(Echo):
        def dataReceived(self, data: bytes) -> None:
            transport: Any = self.transport
            seen.append((self, transport, transport.protocol))
            super().dataReceived(data)

    served = EchoFactory()
    served.protocol = Looks
    factory = LimitedFactory(served, Limits())

    def client(connection: socket.socket) -> None:
        connection.sendall(b"x")
        assert receive(connection, 1) == b"x"

    await serve(live_reactor, factory, ("127.0.0.1", 0), client)
    ((protocol, transport, of_transport),) = seen
    if IOctetCounter.implementedBy(type(transport)):
        assert of_transport is protocol
    else:
        assert isinstance(transport, Limited)


@pytest_twisted.ensureDeferred
async def test_protocol_raises(live_reactor: Any, expected_failures: list[Any]) -> None:
    """A protocol that raises loses its connection, and is forgotten."""

    class Raises(Echo):
        def dataReceived(self, data: bytes) -> None:
            raise ZeroDivisionError

    served = EchoFactory()
    served.protocol = Raises
    factory = LimitedFactory(served, Limits(max_per_host=1))
    await serve(live_reactor, factory, ("127.0.0.1", 0), lambda connection: connection.sendall(b"x"))
    assert [failure.type for failure in expected_failures] == [ZeroDivisionError]
    assert factory.counters.bytes_received == 1


def test_imports() -> None:
    """Whoever embeds limits doesn't load our reactor."""
    code = "import sys, twistednet.policies.limits; sys.exit('twistednet.reactor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == 0
