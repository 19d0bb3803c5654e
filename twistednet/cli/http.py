"""What the clients of the web share: one HTTP exchange, redirects followed, over ``treq``.

`request` gives the answer before its body; the body goes to a `Body`, piece by piece. What stands on the wire (inside
TLS, where that is used) passes through a `Tap`, which knows when the first byte came, and copies the bytes of both
sides to whoever wants to see them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import responses
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import click
from hyperlink import URL
from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError, ConnectionDone, ConnectionLost, TimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from twistednet.cli.client import Address, Call, ClientError, timed_out
from twistednet.protocols.framing import IdleTimer
from twistednet.protocols.printable import printable

MAX_REDIRECTS = 20
"""How many redirects are followed; browsers' own limit (Fetch standard, "HTTP-redirect fetch")."""

SENSITIVE = (b"authorization", b"cookie")
"""Headers that are for the host the user named, and no other."""


class WebURL(URL):
    """A URL; its host may be an IPv6 address too, which hyperlink takes for a name with wrong characters in it."""

    def to_uri(self) -> URL:
        if ":" not in self.host:
            return super().to_uri()
        return self.replace(host="localhost").to_uri().replace(host=self.host)


def http_url(text: str) -> URL:
    """`text` as the URL to ask for.

    :raises click.UsageError: where it is none, or not one for HTTP.
    """
    try:
        url = WebURL.from_text(text).to_uri()
        url = url.normalize(path=False, query=False, fragment=False, userinfo=False, percents=False)
        URI.fromBytes(url.to_text().encode("ascii"))
    except ValueError as error:
        raise click.UsageError(f"{text}: not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 0) < 65536:
        raise click.UsageError(f"{text}: not a URL such as http://host/path")
    return url.replace(path=url.path or ("",), fragment="")


def http_headers(lines: tuple[str, ...]) -> Headers:
    """The headers that ``--header`` has given, each a ``Name: value``.

    :raises click.UsageError: where a line is none.
    """
    headers = Headers({"User-Agent": ["twistednet"]})
    for line in lines:
        name, colon, value = line.partition(":")
        try:
            if not colon or any(c in value for c in "\r\n\0"):
                raise ValueError
            if name.lower() == "user-agent":
                headers.removeHeader(name)
            headers.addRawHeader(name, value.strip())
        except ValueError:  # Twisted's own, for what can't be in a name
            raise click.UsageError(f"--header {line!r}: not 'Name: value'") from None
    return headers


# The wire


@dataclass
class Wire:
    """What is known of the connections of one call.

    :param sent: called with the bytes that go out.
    :param received: called with the bytes that come in.
    """

    reactor: Any
    sent: Callable[[bytes], object] | None = None
    received: Callable[[bytes], object] | None = None
    first_byte: float | None = None
    """When the first byte of the latest answer came, by the reactor's clock."""
    tap: Tap | None = None
    """The latest connection."""
    failure: OSError | None = None
    """Why `sent` or `received` can't take any more."""

    def show(self, take: Callable[[bytes], object] | None, data: bytes) -> None:
        if take is None or self.failure is not None:
            return
        try:
            take(data)
        except OSError as failure:
            self.failure = failure
            cast(Tap, self.tap).abort()


class Tap(ProtocolWrapper):
    """Passes on the bytes of a connection, both ways, and tells its `Wire` of them."""

    factory: TapFactory
    transport: Any

    def makeConnection(self, transport: Any) -> None:
        self.factory.wire.tap = self
        self.factory.wire.first_byte = None
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        wire = self.factory.wire
        if wire.first_byte is None:
            wire.first_byte = wire.reactor.seconds()
        if wire.received is not None:
            wire.show(wire.received, data)
        super().dataReceived(data)

    def write(self, data: bytes) -> None:
        self.factory.wire.show(self.factory.wire.sent, data)
        super().write(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def abort(self) -> None:
        """End the connection without another word."""
        if self.transport is not None:
            self.transport.abortConnection()


class TapFactory(WrappingFactory[Tap]):
    """Puts a `Tap` before what `wrappedFactory` builds."""

    protocol = Tap
    noisy = False
    wire: Wire


@implementer(IStreamClientEndpoint)
@dataclass(frozen=True)
class TappedEndpoint:
    """Connects to `endpoint`, through a `Tap`."""

    endpoint: IStreamClientEndpoint
    wire: Wire

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        wrapping = TapFactory(cast(Any, factory))
        wrapping.wire = self.wire
        return self.endpoint.connect(wrapping).addCallback(lambda tap: cast(Tap, tap).wrappedProtocol)


@implementer(IAgentEndpointFactory)
@dataclass(frozen=True)
class TappedEndpoints:
    """Gives an `Agent` its endpoints, each with a `Tap`; TLS, where a URL asks for it, is underneath that."""

    wire: Wire
    policy: BrowserLikePolicyForHTTPS = field(default_factory=BrowserLikePolicyForHTTPS)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: Any = HostnameEndpoint(self.wire.reactor, uri.host, uri.port)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self.policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return TappedEndpoint(endpoint, self.wire)


# The exchange


class Undecoded(proxyForInterface(IResponse)):  # type: ignore[misc]
    """A response in which treq finds nothing to unpack."""

    def __init__(self, original: IResponse) -> None:
        super().__init__(original)
        self._plain: Headers = original.headers.copy()
        self._plain.removeHeader(b"content-encoding")

    @property
    def headers(self) -> Headers:
        return self._plain


@implementer(IAgent)
@dataclass(frozen=True)
class PlainAgent:
    """Asks for the body as it is; treq would ask for it packed with gzip, and unpack a ``.gz`` file too."""

    agent: IAgent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        *wanted, _ = headers.getRawHeaders(b"accept-encoding", [b""])
        headers.removeHeader(b"accept-encoding")
        for value in wanted:
            headers.addRawHeader(b"accept-encoding", value)
        return self.agent.request(method, uri, headers, bodyProducer).addCallback(Undecoded)


async def request(
    call: Call,
    wire: Wire,
    method: str,
    url: URL,
    headers: Headers,
    data: list[tuple[str, str]] | None = None,
) -> tuple[URL, Any]:
    """Ask for `url`, and for what it redirects to.

    :param data: the fields of a form, for the body of the request.
    :return: the URL that has answered, and its answer, an `IResponse` whose body waits to be delivered.
    :raises Exception: for `explain`; `call`'s address is the URL that it is about.
    """
    client = HTTPClient(PlainAgent(Agent.usingEndpointFactory(call.reactor, TappedEndpoints(wire))))
    headers = headers.copy()
    if url.userinfo:
        headers.setRawHeaders(b"authorization", [b"Basic " + base64.b64encode(unquote_to_bytes(url.userinfo))])
        url = url.replace(userinfo="")
    for _ in range(MAX_REDIRECTS + 1):
        call.address = Address(endpoint=url.to_text())
        with explained(call, wire):
            asking = client.request(
                method,
                url,
                headers=headers.copy(),
                data=data,
                allow_redirects=False,
                unbuffered=True,
                reactor=call.reactor,
            )
            response: Any = await asking.addTimeout(call.timeout, call.reactor, timed_out)
        response = response.original.original  # treq's own, around ours
        location = response.headers.getRawHeaders(b"location")
        if response.code not in (301, 302, 303, 307, 308) or not location:
            return url, response
        cast(Tap, wire.tap).abort()
        target = redirected(call, url, location[0])
        if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
            for name in SENSITIVE:
                headers.removeHeader(name)
        if response.code == 303 or (response.code in (301, 302) and method == "POST"):
            method, data = ("HEAD" if method == "HEAD" else "GET"), None
        url = target
    raise ClientError(f"{call.address}: more than {MAX_REDIRECTS} redirects")


def redirected(call: Call, url: URL, location: bytes) -> URL:
    """Where `location` leads to from `url`.

    :raises ClientError: where it is no URL to follow.
    """
    try:
        return http_url(url.click(location.decode()).to_text())
    except (ValueError, click.UsageError):
        raise ClientError(f"{call.address}: redirects to {printable(location, 200)}") from None


@contextmanager
def explained(call: Call, wire: Wire) -> Iterator[None]:
    """Turn what Twisted's HTTP client wraps a failure in into what `explain` knows."""
    try:
        yield
    except Exception as failure:
        if wire.failure is not None:
            raise wire.failure from None
        causes = list(_causes(failure))
        if any(isinstance(cause, CancelledError | ConnectingCancelledError) for cause in causes):
            raise TimeoutError from None
        for cause in causes:
            if isinstance(cause, VerificationError | SSL.Error):
                raise cause from None
        if isinstance(failure, ResponseFailed):
            for cause in causes:
                if isinstance(cause, ConnectionDone | ConnectionLost):
                    raise ClientError(f"{call.address}: closed before the answer was complete") from None
            raise ClientError(f"{call.address}: not HTTP") from None
        raise


def _causes(failure: BaseException) -> Iterator[BaseException]:
    yield failure
    for reason in getattr(failure, "reasons", ()):
        yield from _causes(reason.value)


class Body(Protocol):
    """Hands a response's body on, piece by piece.

    :param take: called with each piece; while it does not return, nothing is read: a slow taker slows the server.
    """

    def __init__(self, call: Call, wire: Wire, take: Callable[[bytes], object]) -> None:
        self.size = 0
        """The bytes that have come so far."""
        self.finished: Deferred[None] = Deferred()
        self._take = take
        self._wire = wire
        self._timer = IdleTimer(call.reactor, call.timeout, lambda: self._end(TimeoutError()))
        self._timer.mark()

    def dataReceived(self, data: bytes) -> None:
        if self.finished.called:
            return
        try:
            self._take(data)
        except Exception as failure:
            self._end(failure)
        else:
            self.size += len(data)
            self._timer.mark()

    def _end(self, failure: Exception) -> None:
        self._timer.cancel()
        self.finished.errback(failure)
        cast(Tap, self._wire.tap).abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.finished.called:
            return
        self._timer.cancel()
        # Without a length, the end of the connection is the end of the body.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.finished.callback(None)
        else:
            self.finished.errback(reason)


async def read(call: Call, wire: Wire, response: IResponse, body: Body) -> None:
    """Read the whole body of `response` into `body`.

    :raises Exception: for `explain`.
    """
    with explained(call, wire):
        response.deliverBody(body)
        await body.finished


def check_status(response: Any) -> None:
    """Refuse an answer that says that there is none.

    :raises ClientError: for a status of 400 or more, as ``404 Not Found``.
    """
    if response.code >= 400:
        raise ClientError(status_line(response))


def status_line(response: Any) -> str:
    """The status, in the server's words or, where it has none, in the standard's."""
    phrase = printable(response.phrase, 200) or responses.get(response.code, "")
    return f"{response.code} {phrase}".strip()
