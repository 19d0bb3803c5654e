"""All stream services under limits, in memory, and peers who do whatever peers can do, in any order.

What each connection is owed is known from models: functions of what was sent. Invariants after every step:

- what has been written is the beginning of what is owed: nothing invented, nothing out of order;
- a connection that has ended in good order has had all of it: nothing lost;
- each that came was served or refused, and each that was served is open, or has ended in one way that was counted;
- the counters say what went over the wires.

The suite runs 30 examples for each service; ``TWISTEDNET_EXAMPLES=500 pytest tests/faults/test_invariants.py`` runs as
many as it says.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from tests import models
from tests.wire import Wire
from twistednet.policies.limits import Drained, LimitedFactory, Limits, Refused
from twistednet.protocols import (
    DiscardFactory,
    EchoFactory,
    GreeterFactory,
    RepeatFactory,
    ReverseFactory,
    SupportFactory,
)
from twistednet.protocols.framing import MessageProtocol
from twistednet.protocols.greeter import GOODBYE, GREETING
from twistednet.protocols.reverse import reverse_characters
from twistednet.services.support import load_dialogue

TICKET = "12345678"
COPIES = 3
DIALOGUE = load_dialogue()
LIMITS = Limits(max_connections=4, max_per_host=3, idle_timeout=7, message_timeout=5, write_timeout=3)

WORDS = [b"\n", b"\r\n", b"\r", b"ab", b"a\n", b"2\r\n", b"yes\n", b"quit\n", "noe\u0308l".encode(), b"\xff", b"\xc3"]
MASSES = [(b"ab\n", 30_000), (b"x", 16_384), (b"x", 70_000), (b"y\r\n", 100), (b"z", 3000)]
PIECES = [*((word, 1) for word in WORDS), *MASSES]
"""What streams are made of, and how many of each."""


def reversed_message(message: bytes, ending: bytes) -> bytes:
    """What reverse owes for a message."""
    return reverse_characters(message) + ending


def greeted(_message: bytes, ending: bytes) -> bytes:
    """The same of the greeter."""
    return GREETING.encode() + ending + GOODBYE.encode() + ending


def repeated(message: bytes, ending: bytes) -> bytes:
    """The same of repeat."""
    return (message + ending) * COPIES


SERVICES: dict[str, tuple[Callable[[Clock], Factory[Any]], Callable[[bytes, bool], bytes]]] = {
    "echo": (lambda clock: EchoFactory(reactor=clock), lambda stream, _: stream),
    "discard": (lambda clock: DiscardFactory(reactor=clock), lambda _stream, _ended: b""),
    "reverse": (
        lambda clock: ReverseFactory(reactor=clock, message_gap=0),
        lambda stream, ended: models.answers(stream, reversed_message, ended=ended),
    ),
    "greeter": (
        lambda clock: GreeterFactory(reactor=clock, message_gap=0),
        lambda stream, ended: models.answers(stream, greeted, ended=ended, first=True),
    ),
    "repeat": (
        lambda clock: RepeatFactory(reactor=clock, message_gap=0, copies=COPIES),
        lambda stream, ended: models.answers(stream, repeated, 2**20, ended=ended, first=True),
    ),
    "support": (
        lambda clock: SupportFactory(DIALOGUE, reactor=clock, message_gap=0, new_ticket=lambda: TICKET),
        lambda stream, ended: models.support(stream, DIALOGUE, TICKET, ended=ended),
    ),
}
"""Each service's factory, and its model: what is owed for a stream so far, or for one that has ended."""


class Peer(Wire):
    """A connection whose peer reads only when it is told to, and who remembers all that it has sent.

    :param protocol: of the server.
    :param address: the peer's.
    """

    def __init__(self, protocol: Any, address: str) -> None:
        super().__init__(protocol)
        self.address = address
        self.sent = b""
        self.half_closed = False
        self.reason: Exception | None = None
        self.left = False
        """The peer has reset it."""
        self.cut = False
        """The server has closed it for want of progress."""
        self.sweeping = False
        """The server looks for such."""
        self.taken: tuple[bytes, bool] | None = None
        """What had been delivered, and whether the end had, when the server ended its stream."""

    @property
    def delivered(self) -> bytes:
        """What the protocol has got of what was sent."""
        return self.sent[: len(self.sent) - sum(map(len, self._arriving))]

    @property
    def end_delivered(self) -> bool:
        """Whether it has got the end too."""
        return self.half_closed and not self._peer_ended

    @property
    def written(self) -> bytes:
        """What the protocol has written."""
        return b"".join(self.writes)

    def say(self, data: bytes) -> None:
        """Send, if the stream has not ended."""
        if not self.half_closed and not self.closed:
            self.sent += data
            self._arriving.append(data)

    def half_close(self) -> None:
        """End the stream."""
        if not self.half_closed and not self.closed:
            self.half_closed = self._peer_ended = True

    def settle(self) -> None:
        """Let the transport do what it can without the peer's reading any more."""
        while not self.closed:
            before = len(self._arriving), self._peer_ended, self.ended, len(self.waiting)
            self._deliver()
            self.read(0)
            if before == (len(self._arriving), self._peer_ended, self.ended, len(self.waiting)):
                return

    def _drained(self) -> None:
        # As Twisted's transports have it: a streaming producer that isn't paused has nothing more to write.
        if self.disconnecting and self.producer is not None and self.streaming and not self._producer_paused:
            self._lose(ConnectionDone())
        else:
            super()._drained()

    def loseWriteConnection(self) -> None:
        self.taken = self.delivered, self.end_delivered
        super().loseWriteConnection()

    def loseConnection(self) -> None:
        self.cut = self.cut or self.sweeping
        super().loseConnection()

    def abortConnection(self) -> None:
        self.cut = self.cut or self.sweeping
        super().abortConnection()

    def _lose(self, error: Exception) -> None:
        if not self.closed:
            self.reason = error
        super()._lose(error)


class Invariants(RuleBasedStateMachine):
    """The peers of one service."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.peers: list[Peer] = []
        self.served: list[Any] = []
        self.refused = 0
        self.drained: Drained | None = None
        self.at_drain: list[Peer] = []
        self.checked: dict[Peer, tuple[int, ...]] = {}

    def teardown(self) -> None:
        self.finish()

    @initialize(name=st.sampled_from(list(SERVICES)))
    def serve(self, name: str) -> None:
        """Begin."""
        make, self.owed = SERVICES[name]
        self.factory = LimitedFactory(make(self.clock), LIMITS, reactor=self.clock)
        sweep = self.factory._sweep

        def sweep_seen_by_peers() -> None:
            peers = self.open
            for peer in peers:
                peer.sweeping = True
            sweep()
            for peer in peers:
                peer.sweeping = False

        self.factory._sweep = sweep_seen_by_peers  # type: ignore[method-assign]

    # What peers do

    @property
    def open(self) -> list[Peer]:
        """The connections that there are."""
        return [peer for peer in self.peers if not peer.closed]

    def choose(self, which: int) -> Peer:
        """One of them."""
        return self.open[which % len(self.open)]

    has_peers = precondition(lambda self: bool(self.open))
    not_drained = precondition(lambda self: not self.at_drain and self.drained is None)

    @not_drained
    @rule(host=st.sampled_from(["192.0.2.1", "192.0.2.2"]))
    def connect(self, host: str) -> None:
        """Connect; what is over a limit is refused, and nothing else."""
        here = sum(peer.address == host for peer in self.open)
        allowed = len(self.open) < LIMITS.max_connections and here < LIMITS.max_per_host
        protocol = self.factory.buildProtocol(IPv4Address("TCP", host, 1))
        peer = Peer(protocol, host)
        protocol.makeConnection(peer)
        assert isinstance(protocol, Refused) is not allowed
        if allowed:
            self.peers.append(peer)
            self.served.append(protocol.wrappedProtocol)
            peer.settle()
        else:
            self.refused += 1
            assert isinstance(peer.reason, ConnectionAborted)
            assert not peer.writes

    @has_peers
    @rule(which=st.integers(0), data=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), cut=st.integers(0))
    def send(self, which: int, data: list[tuple[bytes, int]], cut: int) -> None:
        """Send some, in two pieces."""
        peer, stream = self.choose(which), b"".join(piece * times for piece, times in data)
        cut %= len(stream)
        for piece in (stream[:cut], stream[cut:]):
            peer.say(piece)
            peer.settle()

    @has_peers
    @rule(which=st.integers(0), size=st.sampled_from([1, 1000, 65_536, 10**6]))
    def read(self, which: int, size: int) -> None:
        """Read some."""
        peer = self.choose(which)
        peer.read(size)
        peer.settle()

    @has_peers
    @rule(which=st.integers(0))
    def half_close(self, which: int) -> None:
        """Send no more."""
        peer = self.choose(which)
        peer.half_close()
        peer.settle()

    @has_peers
    @rule(which=st.integers(0))
    def reset(self, which: int) -> None:
        """Leave without a word."""
        peer = self.choose(which)
        peer.left = True
        peer.reset()

    @rule(seconds=st.sampled_from([0, 0.1, 1, 2, 4]))
    def wait(self, seconds: float) -> None:
        """Nobody does anything for a while."""
        steps = 10 if seconds > 0.1 else 1
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            for peer in self.open:
                peer.settle()

    @not_drained
    @rule(seconds=st.sampled_from([0, 1, 10]))
    def drain(self, seconds: float) -> None:
        """The service stops."""
        self.at_drain = self.open
        self.factory.drain(seconds).addCallback(lambda drained: setattr(self, "drained", drained))

    # What holds

    @invariant()
    def nothing_lost_or_invented(self) -> None:
        """What is written is what is owed."""
        for peer in self.peers:
            state = len(peer.delivered), len(peer.writes), len(peer.received), peer.end_delivered, peer.closed
            if self.checked.get(peer) == state:
                continue
            self.checked[peer] = state
            owed = self.owed(*(peer.taken or (peer.delivered, peer.end_delivered)))
            assert owed.startswith(peer.written)
            assert peer.written == peer.received + peer.waiting
            if peer.closed and not (peer.left or peer.cut) and isinstance(peer.reason, ConnectionDone):
                assert peer.received == owed
            if peer.closed and isinstance(peer.reason, ConnectionAborted):
                assert peer.cut or self.at_drain

    @invariant()
    def everyone_accounted_for(self) -> None:
        """Each connection is where it should be, and was counted once."""
        counters = self.factory.counters
        assert counters.connections == len(self.peers)
        assert counters.refused.total() == self.refused
        assert counters.timed_out.total() == sum(peer.cut for peer in self.peers)
        assert len(self.factory.connections) == len(self.open)
        if self.drained is not None:
            assert not self.open
            drained = self.drained
            assert drained.idle + drained.finished + drained.reset == len(self.at_drain)
            aborted = [peer for peer in self.at_drain if isinstance(peer.reason, ConnectionAborted)]
            assert drained.reset == len(aborted)

    @invariant()
    def counters_add_up(self) -> None:
        """What was counted is what went over the wires."""
        counters = self.factory.counters
        assert counters.bytes_received == sum(len(peer.delivered) for peer in self.peers)
        assert counters.bytes_sent == sum(len(peer.written) for peer in self.peers)
        assert counters.messages == sum(one.messages for one in self.served if isinstance(one, MessageProtocol))

    # The end

    def finish(self) -> None:
        """Everyone who is left ends the stream and reads: all has come, and nothing is left behind."""
        if not hasattr(self, "factory"):
            return
        for _ in range(100):
            if not self.open:
                break
            for peer in self.open:
                peer.half_close()
                peer.read()
                peer.settle()
            self.clock.advance(0)
        assert not self.open
        self.nothing_lost_or_invented()
        self.everyone_accounted_for()
        self.counters_add_up()
        assert not self.clock.getDelayedCalls()


InvariantsTests = Invariants.TestCase
InvariantsTests.settings = settings(
    max_examples=int(os.environ.get("TWISTEDNET_EXAMPLES", "30")),
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
)
