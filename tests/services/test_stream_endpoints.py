"""Endpoint strings for streams, of which what they wrap keeps half-close."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import trustme
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, UNIXServerEndpoint
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.services.options import MemoryReactor
from twistednet.policies.half_close import HalfClosingTLS
from twistednet.policies.proxy_header import HalfClosingProxied
from twistednet.protocols import EchoFactory
from twistednet.services.stream_endpoints import client_endpoint_from_string, stream_endpoint_from_string


class ServerTests(SynchronousTestCase):
    """`stream_endpoint_from_string`."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.pem = self.folder / "localhost.pem"
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(self.pem)

    def listen(self, description: str) -> tuple[list[Any], Any]:
        """What wraps the connections to `description`, outermost first, and how it is listened on."""
        factory = EchoFactory()
        port = self.successResultOf(stream_endpoint_from_string(self.reactor, description).listen(factory))
        self.flushWarnings()  # Twisted's own, of how it reads certificates
        (listening,) = self.reactor.tcpServers
        wrapping, protocols = listening[1], []
        while isinstance(wrapping, WrappingFactory):
            protocols.append(wrapping.protocol)
            wrapping = wrapping.wrappedFactory
        self.assertIs(wrapping, factory)
        self.assertIsNotNone(port)
        return protocols, listening

    def test_plain(self) -> None:
        """What wraps nothing is Twisted's own."""
        for description, kind in (
            ("tcp:80:interface=127.0.0.1", TCP4ServerEndpoint),
            (r"tcp6:80:interface=\:\:1", TCP6ServerEndpoint),
            ("unix:socket", UNIXServerEndpoint),
        ):
            self.assertIs(type(stream_endpoint_from_string(self.reactor, description)), kind)

    def test_tls(self) -> None:
        """tls: is TLS over what Twisted's listens on, with the certificates of a folder."""
        protocols, (port, _, backlog, interface) = self.listen(rf"tls:{self.folder}:port=81:backlog=7:interface=\:\:1")
        self.assertEqual(protocols, [HalfClosingTLS])
        self.assertEqual((port, backlog, interface), (81, 7, "::1"))

    def test_ssl(self) -> None:
        """ssl: is TLS over TCP, with one certificate."""
        protocols, (port, _, backlog, interface) = self.listen(
            f"ssl:82:privateKey={self.pem}:backlog=7:interface=127.0.0.1"
        )
        self.assertEqual(protocols, [HalfClosingTLS])
        self.assertEqual((port, backlog, interface), (82, 7, "127.0.0.1"))

    def test_haproxy(self) -> None:
        """haproxy: is a PROXY header, inside of whatever it wraps."""
        self.assertEqual(self.listen("haproxy:tcp:80")[0], [HalfClosingProxied])

    def test_haproxy_in_tls(self) -> None:
        """In TLS as well, of either string."""
        for inner in (f"tls:{self.folder}:port=81", f"ssl:82:privateKey={self.pem}"):
            self.reactor.tcpServers.clear()
            self.assertEqual(self.listen(f"haproxy:{inner}")[0], [HalfClosingTLS, HalfClosingProxied])

    def test_unknown(self) -> None:
        """Errors are Twisted's."""
        for description in ("bogus:1", "haproxy:bogus:1"):
            error = self.assertRaises(ValueError, stream_endpoint_from_string, self.reactor, description)
            self.assertEqual(str(error), "Unknown endpoint type: 'bogus'")


class ClientTests(SynchronousTestCase):
    """`client_endpoint_from_string`."""

    def connect(self, description: str) -> tuple[Any, Any]:
        """What makes the connections to `description`, and how it is connected to."""
        reactor = MemoryReactor()
        client_endpoint_from_string(reactor, description).connect(EchoFactory())
        (connecting,) = reactor.tcpClients
        protocol = connecting[2].buildProtocol(None)
        return getattr(protocol, "_wrappedProtocol", protocol), connecting

    def test_plain(self) -> None:
        """tcp: is Twisted's own."""
        self.assertNotIsInstance(self.connect("tcp:192.0.2.1:80")[0], HalfClosingTLS)

    def test_tls(self) -> None:
        """tls: is TLS over any endpoint."""
        self.assertIsInstance(self.connect(r"tls:localhost:81:endpoint=tcp\:192.0.2.1\:81")[0], HalfClosingTLS)

    def test_ssl(self) -> None:
        """ssl: is TLS over TCP."""
        protocol, connecting = self.connect("ssl:192.0.2.1:82:timeout=7:bindAddress=192.0.2.2")
        self.assertIsInstance(protocol, HalfClosingTLS)
        self.assertEqual(
            (connecting[0], connecting[1], connecting[3], connecting[4]), ("192.0.2.1", 82, 7, ("192.0.2.2", 0))
        )
