"""Discard, chargen, daytime, time, qotd, systat."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ProcessReactor, ProcessRunner
from tests.wire import OneWayWire, Wire
from twistednet.protocols.datagram import AnsweringDatagramProtocol
from twistednet.protocols.simple import (
    ChargenDatagramProtocol,
    ChargenFactory,
    DaytimeDatagramProtocol,
    DaytimeFactory,
    DiscardClient,
    DiscardDatagramProtocol,
    DiscardFactory,
    QotdDatagramProtocol,
    QotdFactory,
    SystatDatagramProtocol,
    SystatFactory,
    TimeDatagramProtocol,
    TimeFactory,
    from_time_1900,
)

NOON = 1_795_176_000.0  # 2026-11-20 12:00:00 UTC
PEER = ("192.0.2.1", 4000)


def asked(protocol: AnsweringDatagramProtocol, datagram: bytes = b"") -> list[bytes]:
    """What `protocol` sends in answer to `datagram`."""
    protocol.transport = FakeDatagramTransport()
    protocol.datagramReceived(datagram, PEER)
    return [packet for packet, _ in protocol.transport.written]


class DiscardTests(SynchronousTestCase):
    """Discard."""

    def test_stream(self) -> None:
        """Everything is read and nothing answered, until the client closes."""
        wire = Wire.to(DiscardFactory()).send(*[b"x" * 65536] * 100)
        self.assertFalse(wire.closed)
        wire.end()
        self.assertEqual((wire.received, wire.closed), (b"", True))

    def test_datagram(self) -> None:
        """No datagram is answered."""
        self.assertEqual(asked(DiscardDatagramProtocol(), b"x" * 100), [])

    def test_client(self) -> None:
        """The client ends its stream, or closes where it can't."""
        wire = Wire.to(Factory.forProtocol(DiscardClient))
        cast(DiscardClient, wire.protocol).end()
        wire.turn()
        self.assertEqual((wire.ended, wire.closed), (True, False))
        client = DiscardClient()
        whole = OneWayWire(client)
        client.makeConnection(whole)
        client.send(b"x")
        client.end()
        whole.turn()
        self.assertEqual((whole.received, whole.closed), (b"x", True))


class ChargenTests(SynchronousTestCase):
    """Chargen."""

    def test_pattern(self) -> None:
        """Line N has the 72 characters from number N on of the ring of the 95 printable ones (RFC 864)."""
        wire = Wire.to(ChargenFactory())
        while len(wire.received) < 200 * 74:
            wire.read()
        ring = [chr(code) for code in range(32, 127)]
        for number, line in enumerate(wire.received[: 200 * 74].decode().split("\r\n")[:-1]):
            self.assertEqual(line, "".join(ring[(number + i) % 95] for i in range(72)))

    def test_slow_reader(self) -> None:
        """The lines are made as they are read, without end, with no line broken, whatever the client sends."""
        wire = Wire.to(ChargenFactory())
        for size in (1, 1000, 70000, 7) * 50:
            wire.arrive(b"x" * 1000)
            wire.read(size)
            self.assertLessEqual(len(wire.waiting), 65536)
        self.assertEqual({len(line) for line in wire.received.split(b"\r\n")[:-1]}, {72})
        wire.reset()

    def test_client_ends(self) -> None:
        """The end of the client's stream is the end of the lines."""
        wire = Wire.to(ChargenFactory())
        cast(Any, wire.protocol).readConnectionLost()
        wire.read()
        self.assertTrue(wire.closed)

    def test_datagram(self) -> None:
        """A datagram is answered with one of as many characters as chance has it, up to 512."""
        self.assertEqual(asked(ChargenDatagramProtocol(length=lambda: 3)), [b' !"'])
        lengths = {len(asked(ChargenDatagramProtocol())[0]) for _ in range(200)}
        self.assertGreater(len(lengths), 10)
        self.assertLessEqual(max(lengths), 512)


class AnnouncementTests(SynchronousTestCase):
    """Daytime, time and qotd: whatever is sent, the same is said."""

    def setUp(self) -> None:
        zone = os.environ.get("TZ")
        os.environ["TZ"] = "UTC"
        time.tzset()

        def restore() -> None:
            if zone is None:
                del os.environ["TZ"]
            else:
                os.environ["TZ"] = zone
            time.tzset()

        self.addCleanup(restore)

    def check(self, answer: bytes, make: Callable[..., Any], make_datagram: Callable[..., Any]) -> None:
        """The answer over TCP, however much the client says and whether it ends its stream, and over UDP."""
        for said in (b"", b"hello\n", b"x" * 100000):
            factory = make(now=lambda: NOON, reactor=cast(IReactorTime, Clock()))
            wire = Wire.to(factory).send(said)
            self.assertEqual((wire.received, wire.ended, wire.closed), (answer, True, False))
            self.assertTrue(wire.end().closed)
            self.assertEqual(asked(make_datagram(now=lambda: NOON), said[:100]), [answer])

    def test_daytime(self) -> None:
        """The date and the time, and CR LF."""
        self.check(b"Fri Nov 20 12:00:00 2026\r\n", DaytimeFactory, DaytimeDatagramProtocol)

    def test_time(self) -> None:
        """Four bytes: seconds since 1900."""
        self.check(struct.pack("!I", 4_004_164_800), TimeFactory, TimeDatagramProtocol)

    def test_time_of_the_rfc(self) -> None:
        """The examples of RFC 868: 2,208,988,800 is the beginning of 1970, 2,629,584,000 of 1 May 1983."""
        for now, seconds in ((0, 2_208_988_800), (420_595_200, 2_629_584_000)):
            self.assertEqual(asked(TimeDatagramProtocol(now=partial(float, now))), [struct.pack("!I", seconds)])

    def test_time_after_2036(self) -> None:
        """Where four bytes do not suffice, the count begins anew."""
        end = 2**32 - 2_208_988_800
        self.assertEqual(asked(TimeDatagramProtocol(now=lambda: end + 1.5)), [b"\0\0\0\1"])

    @given(st.integers(0, 2**34), st.integers(-(2**31) + 1, 2**31 - 1))
    def test_time_there_and_back(self, now: int, off: int) -> None:
        """A client whose clock is off by less than 68 years finds the right period."""
        (answer,) = asked(TimeDatagramProtocol(now=lambda: now))
        self.assertEqual(from_time_1900(answer, now + off), now)

    def test_time_of_the_wrong_length(self) -> None:
        """Other than four bytes are no time."""
        for answer in (b"", b"123", b"12345"):
            self.assertRaises(ValueError, from_time_1900, answer, NOON)

    def test_qotd(self) -> None:
        """One quotation a day, in turn."""
        quotes = ["one", "two", "three"]
        days = [asked(QotdDatagramProtocol(quotes=quotes, now=partial(float, NOON + d * 86400)))[0] for d in range(4)]
        self.assertEqual(len(set(days[:3])), 3)
        self.assertEqual(days[0], days[3])
        self.check(days[0], partial(QotdFactory, quotes=quotes), partial(QotdDatagramProtocol, quotes=quotes))

    def test_own_quotes(self) -> None:
        """What is quoted by default keeps to RFC 865: fewer than 512 characters, printable ones, CR, LF and space."""
        for day in range(30):
            (answer,) = asked(QotdDatagramProtocol(now=partial(float, day * 86400)))
            self.assertLess(len(answer), 512)
            self.assertTrue(answer.endswith(b"\r\n"))
            self.assertTrue(answer[:-2].decode().isprintable())

    def test_wrong_quotes(self) -> None:
        """No quotation, or one that is too long, is an error."""
        for quotes in ([], ["x" * 510], ["fine", "é" * 255]):
            self.assertRaises(ValueError, QotdFactory, quotes=quotes)
            self.assertRaises(ValueError, QotdDatagramProtocol, quotes=quotes)


class SystatTests(SynchronousTestCase):
    """Systat."""

    def setUp(self) -> None:
        self.reactor = ProcessReactor()
        self.runner = ProcessRunner(self.reactor, keep=0.0)
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def connect(self) -> Wire:
        """A new connection."""
        return Wire.to(SystatFactory(runner=self.runner, reactor=cast(IReactorTime, self.reactor)))

    def test_owing(self) -> None:
        """The output is owed until it has been sent."""
        wire = self.connect()
        systat = cast(Any, wire.protocol)
        self.assertTrue(systat.owing)
        (process,) = self.reactor.processes
        process.end(0)
        self.assertFalse(systat.owing)

    def test_stream(self) -> None:
        """The output of w is sent, whatever the client says and whether it ends its stream, and then the close."""
        for ends in (False, True):
            self.reactor.processes.clear()
            wire = self.connect().send(b"hello\n")
            if ends:
                wire.end()
            (process,) = self.reactor.processes
            self.assertEqual(process.argv, ["/usr/bin/w"])
            process.write(b"one\n")
            process.write(b"two\n")
            self.assertFalse(wire.ended)
            process.end(0)
            wire.turn()
            self.assertEqual((wire.received, wire.ended, wire.closed), (b"one\ntwo\n", True, ends))

    def test_client_leaves(self) -> None:
        """The command of a client that leaves is ended."""
        wire = self.connect()
        (process,) = self.reactor.processes
        wire.reset()
        self.assertEqual(process.signals, [15])
        process.end(-15)

    def test_fails(self) -> None:
        """Where the command fails, or can't be run, the log says so, and the connection is closed."""
        wire = self.connect()
        self.reactor.processes[0].end(1)
        wire.turn()
        self.assertEqual((wire.received, wire.ended), (b"", True))
        self.reactor.error = FileNotFoundError(2, "No such file or directory")
        wire = self.connect()
        wire.turn()
        self.assertEqual((wire.received, wire.end().closed), (b"", True))
        self.assertEqual(asked(SystatDatagramProtocol(runner=self.runner)), [b""])
        logged = [formatEvent(event) for event in self.events if event.get("problem")]
        self.assertEqual(logged, ["/usr/bin/w: the command failed with status 1"])

    def test_datagram(self) -> None:
        """Datagrams that come while the command runs share its answer; a later one gets one of its own."""
        protocol = SystatDatagramProtocol(runner=self.runner)
        protocol.transport = FakeDatagramTransport()
        protocol.datagramReceived(b"", PEER)
        protocol.datagramReceived(b"x", ("192.0.2.2", 4000))
        (process,) = self.reactor.processes
        process.write(b"one\n")
        process.end(0)
        self.assertEqual(protocol.transport.written, [(b"one\n", PEER), (b"one\n", ("192.0.2.2", 4000))])
        protocol.datagramReceived(b"", PEER)
        self.reactor.processes[1].write(b"two\n")
        self.reactor.processes[1].end(0)
        self.assertEqual(protocol.transport.written[2:], [(b"two\n", PEER)])

    def test_datagrams_and_streams(self) -> None:
        """Whoever shares a runner shares its runs."""
        protocol = SystatDatagramProtocol(runner=self.runner)
        protocol.transport = FakeDatagramTransport()
        wire = self.connect()
        protocol.datagramReceived(b"", PEER)
        (process,) = self.reactor.processes
        process.write(b"one\n")
        process.end(0)
        wire.turn()
        self.assertEqual((wire.received, protocol.transport.written), (b"one\n", [(b"one\n", PEER)]))

    def test_port_is_closed(self) -> None:
        """When the port is closed those who wait are not answered, and the command is ended."""
        protocol = SystatDatagramProtocol(runner=self.runner)
        transport = protocol.transport = FakeDatagramTransport()
        protocol.datagramReceived(b"", PEER)
        protocol.datagramReceived(b"", PEER)
        protocol.stopProtocol()
        (process,) = self.reactor.processes
        self.assertEqual((process.signals, transport.written), ([15], []))
        process.end(-15)
