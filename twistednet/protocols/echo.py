"""Echo: everything comes back as it came.

========  ==========================================================================================
stream    each byte received is sent back, in order, unchanged; the server closes when the client has
          ended its stream and has had every byte
datagram  each datagram received is sent back, unchanged; an empty one by an empty one
========  ==========================================================================================

::

    C: 48 65 6C 6C 6F 00 FF    S: 48 65 6C 6C 6F 00 FF

There is no bad input.

Sources: RFC 862; seed 004 figures 8.2 and 8.3, seed 001 ("A Simple Echo Server"), seed 003. The port of the
textbook is 2000 here, as in the rest of the suite.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from twistednet.protocols.datagram import AnsweringDatagramProtocol
from twistednet.protocols.flow import StreamClient, StreamFactory, StreamProtocol, can_half_close


class Echo(StreamProtocol):
    """Sends back what it receives."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class EchoFactory(StreamFactory[Echo]):
    """Serves `Echo`."""

    protocol = Echo


class EchoDatagramProtocol(AnsweringDatagramProtocol):
    """Sends back each datagram it receives."""

    def answer(self, datagram: bytes) -> bytes:
        return datagram


class EchoClient(StreamClient):
    """A client of a service whose answers are as long as its questions."""

    owed = 0
    """How many bytes have been sent and have not come back."""
    begun = 0
    """How many of the bytes that have been sent may come back only when our stream has ended."""
    _asked: Deferred[bytes] | None = None
    _ending = False
    """The end is to be said, and has not been."""

    @property
    def waiting(self) -> bool:
        return self.owed > 0

    def ask(self, data: bytes) -> Deferred[bytes]:
        """Send `data`, and wait for as many bytes; one at a time.

        :return: fires with what came back, less than was sent where the server closed before; fails with the
            reason when the connection breaks.
        """
        asked = self._asked = Deferred()
        self._chunks.clear()
        self.send(data)
        self._settle()
        return asked

    def send(self, data: bytes) -> None:
        self.owed += len(data)
        super().send(data)

    def end(self) -> None:
        self._ending = True
        self._settle()

    def dataReceived(self, data: bytes) -> None:
        self.owed -= len(data)
        super().dataReceived(data)
        self._settle()

    def _settle(self) -> None:
        if self.owed <= 0:
            self._answered(self.answer)
        if self._ending and can_half_close(self.transport):
            # Under TLS a server may drop at our end what it owes (up to TLS 1.2 it must: RFC 5246 §7.2.1).
            if self.owed <= self.begun or not ISSLTransport.providedBy(self.transport):
                self._ending = False
                super().end()
        elif self._ending and self.owed <= 0:
            # The server can't be told that this was all, and needn't be.
            self._ending = False
            self.close()

    def _answered(self, answer: bytes | Failure) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.callback(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._answered(self.answer if reason.check(ConnectionDone) else reason)
        super().connectionLost(reason)
