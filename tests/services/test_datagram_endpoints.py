"""Endpoint strings for datagrams."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.services.options import MemoryReactor
from twistednet.protocols.echo import EchoDatagramProtocol
from twistednet.reactor.datagram import Port, UNIXDatagramPort
from twistednet.services.datagram_endpoints import (
    UDPEndpoint,
    UNIXDatagramEndpoint,
    datagram_endpoint_from_string,
    is_datagram_string,
)


class StringTests(SynchronousTestCase):
    """`is_datagram_string` and `datagram_endpoint_from_string`."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()

    def test_kinds(self) -> None:
        """Three kinds are ours; all others are Twisted's."""
        for description in ("udp:1", "udp6:1", "unixdgram:x", "udp", "udp:"):
            self.assertTrue(is_datagram_string(description))
        for description in ("tcp:1", "unix:udp:1", "", "udp4:1", " udp:1", "UDP:1"):
            self.assertFalse(is_datagram_string(description))

    def test_strings(self) -> None:
        """Each kind, with the quoting of Twisted's strings."""
        for description, endpoint in (
            ("udp:8888", UDPEndpoint(self.reactor, 8888, "")),
            ("udp:0:interface=127.0.0.1", UDPEndpoint(self.reactor, 0, "127.0.0.1")),
            (r"udp:0:interface=\:\:1", UDPEndpoint(self.reactor, 0, "::1")),
            ("udp6:8888", UDPEndpoint(self.reactor, 8888, "::")),
            (r"udp6:8888:interface=\:\:1", UDPEndpoint(self.reactor, 8888, "::1")),
            ("unixdgram:/run/udpok", UNIXDatagramEndpoint(self.reactor, "/run/udpok")),
            (r"unixdgram:a\:b\\c", UNIXDatagramEndpoint(self.reactor, r"a:b\c")),
        ):
            self.assertEqual(datagram_endpoint_from_string(self.reactor, description), endpoint)

    def test_wrong(self) -> None:
        """Anything else is refused in a line that says what is accepted."""
        udp, unix = "not udp:PORT[:interface=ADDRESS]", "not unixdgram:PATH"
        for description, message in (
            ("udp", udp),
            ("udp:", udp),
            ("udp:x", udp),
            ("udp:1:127.0.0.1:2", udp),
            ("udp:1:bogus=2", udp),
            ("udp6:x", "not udp6:PORT[:interface=ADDRESS]"),
            ("unixdgram", unix),
            ("unixdgram:a:b", unix),
            ("unixdgram:a:mode=600", unix),
        ):
            error = self.assertRaises(ValueError, datagram_endpoint_from_string, self.reactor, description)
            self.assertEqual(str(error), message)


class UDPEndpointTests(SynchronousTestCase):
    """`UDPEndpoint`."""

    def test_listen(self) -> None:
        """The protocol is bound so that it sees the longest datagram, and that one is too long."""
        reactor, protocol = MemoryReactor(), DatagramProtocol()
        port = self.successResultOf(UDPEndpoint(reactor, 8888, "127.0.0.1").listen(protocol))
        self.assertEqual(reactor.udp, [(8888, protocol, "127.0.0.1")])
        self.assertIsNotNone(port)

    def test_fails(self) -> None:
        """A port that can't be bound is a failure, not an exception."""

        class Taken(MemoryReactor):
            def listenUDP(self, *args: object, **kwargs: object) -> None:
                raise CannotListenError("", 1, OSError(98, "Address already in use"))

        self.failureResultOf(UDPEndpoint(Taken(), 1, "").listen(DatagramProtocol()), CannotListenError)


@pytest_twisted.ensureDeferred
async def test_ports(live_reactor: Any, tmp_path: Path) -> None:
    """On a real reactor, whichever, the ports are those that an error does not close."""
    for description, kind in (
        ("udp:0:interface=127.0.0.1", Port),
        (r"udp6:0:interface=\:\:1", Port),
        (f"unixdgram:{tmp_path / 'socket'}", UNIXDatagramPort),
    ):
        endpoint = datagram_endpoint_from_string(live_reactor, description)
        port = await endpoint.listen(EchoDatagramProtocol())
        try:
            assert type(port) is kind
            assert port.getHost() is not None
        finally:
            await port.stopListening()


class UNIXDatagramEndpointTests(SynchronousTestCase):
    """`UNIXDatagramEndpoint`."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "socket")
        self.reactor = MemoryReactor()

    def listen(self) -> None:
        """Listen at the path."""
        protocol = DatagramProtocol()
        self.successResultOf(UNIXDatagramEndpoint(self.reactor, self.path).listen(protocol))
        self.assertEqual(self.reactor.unix_datagrams, [(self.path, protocol)])

    def bind(self) -> socket.socket:
        """A socket at the path, open until the end of the test."""
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(bound.close)
        bound.bind(self.path)
        return bound

    def test_nothing_there(self) -> None:
        """Where there is no file there is nothing to remove."""
        self.listen()

    def test_stale(self) -> None:
        """A socket that nobody has open is removed."""
        self.bind().close()
        self.listen()
        self.assertFalse(os.path.exists(self.path))

    def test_in_use(self) -> None:
        """A socket that somebody reads from stays."""
        reader = self.bind()
        self.listen()
        self.assertTrue(os.path.exists(self.path))
        # Nothing was sent to it.
        reader.setblocking(False)
        self.assertRaises(BlockingIOError, reader.recv, 1)

    def test_stream_socket(self) -> None:
        """A socket of streams stays, open or not."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.bind(self.path)
            stream.listen()
            self.listen()
            self.assertTrue(os.path.exists(self.path))

    def test_file(self) -> None:
        """A file that is no socket stays, and so does what is in it."""
        with open(self.path, "w") as file:
            file.write("precious")
        self.listen()
        with open(self.path) as file:
            self.assertEqual(file.read(), "precious")
