"""A TLS socket that can take the place of a plain one in the load generator's loop."""

from __future__ import annotations

import socket
import ssl
from typing import Any


class TLSSocket(ssl.SSLSocket):
    """A TLS socket whose `recv` and `send` raise `BlockingIOError` where they would block, as a plain socket's do."""

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        """Read at least one record, and all that has been decrypted: epoll does not report that as readable."""
        try:
            data = super().recv(size, flags)
            while self.pending():
                data += super().recv(size, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        """Encrypt and send as much as the socket takes now."""
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None


def start_tls(sock: socket.socket) -> socket.socket:
    """Do the handshake on a connected socket. The server's certificate is not verified.

    :raises OSError: if the handshake fails.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = TLSSocket
    return context.wrap_socket(sock)
