"""The workloads other than echo, and their servers: ``python -m twistednet.bench.applications WORKLOAD REACTOR PORT``.

Each is a Twisted factory, and for some workloads also a bare asyncio protocol that answers the same bytes. REACTOR is a
name that ``twistd --help-reactors`` lists, or ``bare`` for the bare protocol on uvloop. The servers listen on 127.0.0.1
and run until they are killed. They have no limits: they are for comparing, not for use.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.basic import LineReceiver

from twistednet.bench.generator import HELLO_DATE, HELLO_SERVER, WRITE, WRITES
from twistednet.bench.models import BACKLOG, HOST, EchoProtocol

# Twisted


class Echo(Protocol):
    """Sends everything back."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class ManyWrites(Protocol):
    """Answers each message with several small writes, as a protocol does that writes what it has piece by piece."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        for _ in range(WRITES * data.count(b"\n")):
            self.transport.write(WRITE)


class Lines(LineReceiver):
    """Sends each line back."""

    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(line)


def site() -> Factory[Any]:
    """A web site with one page, the same headers each time included."""
    from twisted.web.resource import Resource
    from twisted.web.server import Request, Site

    class Hello(Resource):
        isLeaf = True

        def render_GET(self, request: Request) -> bytes:
            # Twisted sets these two before; fixed values let the load generator compare whole answers.
            request.setHeader(b"server", HELLO_SERVER)
            request.setHeader(b"date", HELLO_DATE)
            return b"hello"

    return Site(Hello())


def plain(protocol: type[Protocol]) -> Callable[[], Factory[Any]]:
    """What makes a factory of `protocol`."""
    return lambda: Factory.forProtocol(protocol)


# asyncio


class BareManyWrites(EchoProtocol):
    """Answers each message with several small writes."""

    def data_received(self, data: bytes) -> None:
        for _ in range(WRITES * data.count(b"\n")):
            self.write(WRITE)


class BareLines(EchoProtocol):
    """Sends each line back."""

    rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.write(line + b"\n")


# All of them


@dataclass(frozen=True)
class Application:
    """A Twisted application to compare on several reactors.

    :param title: what is measured, in the heading of a table.
    :param factory: makes the Twisted factory; called when the reactor is installed.
    :param bare: an asyncio protocol that does the same, if there is one.
    :param protocol: what is sent and what comes back, one of `twistednet.bench.generator.ANSWERS`.
    :param tls: whether it does so over TLS.
    :param largest: the largest message in bytes; None for any size, 0 where all messages are the same.
    """

    title: str
    factory: Callable[[], Factory[Any]]
    bare: Callable[[], asyncio.Protocol] | None = None
    protocol: str = "echo"
    tls: bool = False
    largest: int | None = None


APPLICATIONS = {
    "writes": Application(
        f"{WRITES} writes of {len(WRITE)} bytes for each message", plain(ManyWrites), BareManyWrites, protocol="writes"
    ),
    "lines": Application(
        "lines echoed by a LineReceiver",
        plain(Lines),
        BareLines,
        largest=Lines.MAX_LENGTH + len(Lines.delimiter),
    ),
    "web": Application("requests for a small page of twisted.web", site, protocol="web", largest=0),
    "tls": Application("echo over TLS", plain(Echo), EchoProtocol, tls=True),
}
"""By the name of the workload."""


def throwaway_certificate() -> bytes:
    """A private key and a certificate for it, signed by itself and valid for a day, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password) + certificate.public_bytes(
        encoding
    )


def serve(application: Application, reactor_name: str, port: int) -> None:
    """Serve on one of Twisted's reactors or ours."""
    from twisted.application.reactors import installReactor

    reactor: Any = installReactor(reactor_name)
    factory = application.factory()
    if application.tls:
        from twisted.internet.ssl import PrivateCertificate

        context = PrivateCertificate.loadPEM(throwaway_certificate()).options()
        reactor.listenSSL(port, factory, context, backlog=BACKLOG, interface=HOST)
    else:
        reactor.listenTCP(port, factory, backlog=BACKLOG, interface=HOST)
    reactor.run()


def serve_bare(application: Application, port: int) -> None:
    """Serve with the bare protocol on uvloop."""
    import uvloop

    assert application.bare is not None
    protocol = application.bare
    context: ssl.SSLContext | None = None
    if application.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "certificate.pem")
            file.write_bytes(throwaway_certificate())
            context.load_cert_chain(file)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, HOST, port, backlog=BACKLOG, ssl=context)
        await server.serve_forever()

    uvloop.run(run())


def main() -> None:
    """Serve what the command line says."""
    workload, reactor_name, port = sys.argv[1:]
    if reactor_name == "bare":
        serve_bare(APPLICATIONS[workload], int(port))
    else:
        serve(APPLICATIONS[workload], reactor_name, int(port))


if __name__ == "__main__":
    main()
