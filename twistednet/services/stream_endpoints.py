"""Endpoints for streams, of the strings that Twisted has, but for half-close: what they wrap keeps it.

``tcp:``, ``tcp6:`` and ``unix:`` endpoints are Twisted's own. ``tls:`` and ``ssl:`` wrap their connections as
`twistednet.policies.half_close` has it, ``haproxy:`` as `twistednet.policies.proxy_header`, and so in each other:
``haproxy:tls:...`` is a PROXY header inside TLS. ``systemd:`` leaves a Unix socket to whoever made it. Endpoints of
other plugins are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from socket import AF_UNIX
from typing import Any, cast

from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    SSL4ClientEndpoint,
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    _WrapperEndpoint,
    _WrapperServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.protocols._sni import TLSServerEndpoint
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.protocols.tls import BufferingTLSTransport

from twistednet.policies.addresses import LOOPBACK, Networks
from twistednet.policies.half_close import HalfClosingTLS, HalfClosingTLSFactory
from twistednet.policies.proxy_header import HalfClosingProxyFactory


def stream_endpoint_from_string(
    reactor: Any, description: str, *, proxies: Networks = LOOPBACK
) -> IStreamServerEndpoint:
    """The endpoint to listen on that `description` describes, as ``serverFromString`` has it.

    :param proxies: the balancers whose PROXY headers ``haproxy:`` believes.
    :raises Exception: whatever the parsers of Twisted and of its plugins make of a wrong string.
    """
    try:
        endpoint = serverFromString(reactor, description)
    except LookupError as error:
        if "systemd:" not in description:
            raise
        raise ValueError("no socket of that name or index has been passed (LISTEN_FDS, LISTEN_FDNAMES)") from error
    return cast(
        IStreamServerEndpoint,
        _half_closing(endpoint, partial(HalfClosingProxyFactory, proxies=proxies, reactor=reactor)),
    )


def client_endpoint_from_string(reactor: Any, description: str) -> IStreamClientEndpoint:
    """The endpoint to connect to that `description` describes, as ``clientFromString`` has it.

    :raises Exception: whatever the parsers of Twisted and of its plugins make of a wrong string.
    """
    return cast(IStreamClientEndpoint, _half_closing(clientFromString(reactor, description)))


class AdoptedUNIXServerEndpoint(AdoptedStreamServerEndpoint):
    """Listens on a Unix socket that somebody else has made, and that the next process will listen on.

    Twisted's own shuts that down and removes it from its folder when it stops: of TCP sockets alone it knows better.
    The length of the queue is left as it is, too.
    """

    def listen(self, factory: Any) -> Any:
        return super().listen(factory).addCallback(self._keep)

    def _keep(self, port: Any) -> Any:
        port._shouldShutdown = False
        port.backlog = None
        # What has a zero byte in front is in no folder.
        port._bindPath = b"\0" + port._bindPath
        return port


def _half_closing(endpoint: Any, proxied: Callable[[Any], Any] = HalfClosingProxyFactory) -> Any:
    """`endpoint`, with our wrappers in the place of Twisted's.

    :param proxied: wraps a factory in the PROXY protocol.
    """
    # By private names: Twisted has no others for what an endpoint wraps, and in what.
    if isinstance(endpoint, TLSServerEndpoint):
        return _tls_server(endpoint.endpoint, endpoint.connectionCreator)
    if isinstance(endpoint, SSL4ServerEndpoint):
        tcp = TCP4ServerEndpoint(endpoint._reactor, endpoint._port, endpoint._backlog, endpoint._interface)
        return _tls_server(tcp, endpoint._sslContextFactory)
    if isinstance(endpoint, SSL4ClientEndpoint):
        where = endpoint._host, endpoint._port, endpoint._timeout, endpoint._bindAddress
        options = endpoint._sslContextFactory
        return _WrapperEndpoint(
            TCP4ClientEndpoint(endpoint._reactor, *where), lambda factory: HalfClosingTLSFactory(options, True, factory)
        )
    if isinstance(endpoint, AdoptedStreamServerEndpoint) and endpoint.addressFamily == AF_UNIX:
        return AdoptedUNIXServerEndpoint(endpoint.reactor, endpoint.fileno, endpoint.addressFamily)
    if isinstance(endpoint, _WrapperEndpoint | _WrapperServerEndpoint):
        wrap = endpoint._wrapperFactory
        return type(endpoint)(
            _half_closing(endpoint._wrappedEndpoint, proxied), lambda factory: _with_ours(wrap(factory), proxied)
        )
    return endpoint


def _tls_server(endpoint: IStreamServerEndpoint, options: Any) -> _WrapperServerEndpoint:
    return _WrapperServerEndpoint(endpoint, lambda factory: HalfClosingTLSFactory(options, False, factory))


def _with_ours(factory: Any, proxied: Callable[[Any], Any]) -> Any:
    """What wraps as `factory` does, with our protocol in the place of Twisted's."""
    if type(factory) is HAProxyWrappingFactory:
        return proxied(factory.wrappedFactory)
    if factory.protocol is BufferingTLSTransport:
        factory.protocol = HalfClosingTLS
    return factory
