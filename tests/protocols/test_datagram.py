"""Size, errors and lost answers of datagrams."""

from __future__ import annotations

import errno
from typing import Any, cast

import pytest_twisted
from twisted.internet.error import ConnectionRefusedError, MessageLengthError, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport
from twisted.trial.unittest import SynchronousTestCase

from twistednet.protocols import EchoDatagramProtocol
from twistednet.protocols.counters import Counters
from twistednet.protocols.datagram import MAX_DATAGRAM, AnsweringDatagramProtocol, DatagramClient

PEER = ("192.0.2.1", 4000)


class Tripled(AnsweringDatagramProtocol):
    def answer(self, datagram: bytes) -> bytes:
        return datagram * 3


class Refusing(FakeDatagramTransport):
    """A transport whose writes fail."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, packet: bytes, addr: Any = None) -> None:
        raise self.error


class AnsweringTests(SynchronousTestCase):
    """`AnsweringDatagramProtocol`."""

    def setUp(self) -> None:
        self.protocol = Tripled()
        self.protocol.transport = FakeDatagramTransport()

    def test_answers_where_it_came_from(self) -> None:
        """Each datagram is answered with one, an empty one included."""
        self.protocol.datagramReceived(b"abc", PEER)
        self.protocol.datagramReceived(b"", PEER)
        self.assertEqual(self.protocol.transport.written, [(b"abcabcabc", PEER), (b"", PEER)])
        self.assertEqual(self.protocol.dropped, 0)

    def test_longest(self) -> None:
        """An answer that just fits is sent, one that does not is counted and dropped, not cut."""
        self.protocol.datagramReceived(b"x" * 21835, PEER)
        self.protocol.datagramReceived(b"x" * 21836, PEER)
        self.assertEqual([len(packet) for packet, _ in self.protocol.transport.written], [65505])
        self.assertEqual(self.protocol.dropped, 1)

    def test_too_long_question(self) -> None:
        """A datagram that may have been cut is not answered."""
        self.protocol.answer = lambda _: b"short"  # type: ignore[method-assign,assignment]
        self.protocol.datagramReceived(b"x" * (MAX_DATAGRAM + 1), PEER)
        self.assertEqual((self.protocol.transport.written, self.protocol.dropped), ([], 1))

    def test_reasons(self) -> None:
        """Where there are counters for it, what is dropped is counted by its reason."""
        self.protocol.counters = counters = Counters()
        self.protocol.datagramReceived(b"x" * (MAX_DATAGRAM + 1), PEER)
        self.protocol.datagramReceived(b"x" * MAX_DATAGRAM, PEER)
        self.protocol.transport = Refusing(OSError(errno.EAGAIN, "busy"))
        self.protocol.datagramReceived(b"x", PEER)
        self.assertEqual(counters.dropped, {"too long": 1, "answer too long": 1, "not sent": 1})
        self.assertEqual(self.protocol.dropped, 3)

    def test_errors_of_the_socket(self) -> None:
        """An answer that the socket does not take is counted; nothing is raised."""
        errors = [OSError(errno.EAGAIN, "busy"), MessageLengthError("long"), TypeError("no address"), OverflowError()]
        for error in errors:
            self.protocol.transport = Refusing(error)
            self.protocol.datagramReceived(b"x", PEER)
        self.assertEqual(self.protocol.dropped, len(errors))


@pytest_twisted.ensureDeferred
async def test_whole(live_reactor: Any) -> None:
    """However a protocol is bound, datagrams come and go whole, the longest included."""
    port = live_reactor.listenUDP(0, EchoDatagramProtocol(), interface="127.0.0.1")
    client = DatagramClient(live_reactor)
    own = live_reactor.listenUDP(0, client, interface="127.0.0.1")
    try:
        own.connect("127.0.0.1", port.getHost().port)
        longest = bytes(range(251)) * 260 + b"x" * 247
        assert len(longest) == MAX_DATAGRAM
        assert await client.ask(longest, timeout=10) == longest
    finally:
        await own.stopListening()
        await port.stopListening()


class DatagramClientTests(SynchronousTestCase):
    """`DatagramClient`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.client = self.make(PEER)

    def make(self, address: Any) -> DatagramClient:
        """A client with a transport that keeps what it is given."""
        client = DatagramClient(cast(IReactorTime, self.clock), address)
        client.transport = FakeDatagramTransport()
        return client

    def test_answered(self) -> None:
        """The first datagram that comes is the answer; others are ignored."""
        asked = self.client.ask(b"question", timeout=1)
        self.client.datagramReceived(b"answer", PEER)
        self.client.datagramReceived(b"late", PEER)
        self.assertEqual(self.successResultOf(asked), b"answer")
        self.assertEqual(self.client.transport.written, [(b"question", PEER)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connected(self) -> None:
        """Without an address, it sends to what the transport is connected to."""
        client = self.make(None)
        client.ask(b"question", timeout=1)
        self.assertEqual(client.transport.written, [(b"question", FakeDatagramTransport.noAddr)])

    def test_sends_again(self) -> None:
        """It sends again as often as it was told to, each time after the time-out, and then gives up."""
        asked = self.client.ask(b"question", timeout=1, retries=2)
        self.clock.pump([0.5, 0.5, 1, 0.9])
        self.assertEqual(len(self.client.transport.written), 3)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        self.failureResultOf(asked, TimeoutError)
        self.assertEqual(len(self.client.transport.written), 3)

    def test_refused(self) -> None:
        """The refusal of the peer's machine is the answer, before or after Twisted closes the port for it."""
        for refuse in (DatagramClient.connectionRefused, DatagramClient.stopProtocol):
            asked = self.client.ask(b"question", timeout=1)
            refuse(self.client)
            self.failureResultOf(asked, ConnectionRefusedError)
        self.client.stopProtocol()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_can_not_be_sent(self) -> None:
        """What can't be sent fails at once."""
        self.client.transport = Refusing(MessageLengthError("too long"))
        self.failureResultOf(self.client.ask(b"x" * 70000, timeout=1), MessageLengthError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
