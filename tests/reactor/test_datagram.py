"""Datagram ports: how much they read at once, and what an error of the system does to them."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twistednet.reactor.datagram import DATAGRAMS_PER_TURN, PAUSE, MulticastPort, Port, UNIXDatagramPort

NO_MEMORY = OSError(errno.ENOMEM, "Cannot allocate memory")


class Reactor(Clock):
    """Knows who reads, and lets them read when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        """Nobody writes."""

    def turn(self) -> None:
        """Let everybody read who wants to."""
        for reader in list(self.readers):
            reader.doRead()


class Failing:
    """The socket of a port, from which can't be read for a while.

    :param errors: what comes of each reading, before the first that works.
    """

    def __init__(self, port: Port, *errors: OSError) -> None:
        self.port = port
        self.real = port.socket
        self.errors = list(errors)
        port.socket = self  # type: ignore[assignment]

    def recvfrom(self, size: int) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return self.real.recvfrom(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Echo(DatagramProtocol):
    """Answers, and keeps what it got."""

    noisy = False

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.stopped = False

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received.append(datagram)
        assert self.transport is not None
        self.transport.write(datagram, addr)

    def stopProtocol(self) -> None:
        self.stopped = True


class PortTests(SynchronousTestCase):
    """`Port`."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.protocol = Echo()
        self.port = self.listen()
        self.client = self.connect()

    def listen(self) -> Port:
        """A port that is there until the end of the test."""
        port = Port(0, self.protocol, "127.0.0.1", reactor=self.reactor)
        port.startListening()
        self.addCleanup(self.close, port)
        return port

    def name(self) -> str:
        """What the log calls the port."""
        return f"UDP port {self.port.getHost().port}"

    def close(self, port: Port) -> None:
        """Close `port`, if it is open; nothing of it is left."""
        if port.connected:
            port.stopListening()
            self.reactor.advance(0)
        self.assertNotIn(port, self.reactor.readers)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def connect(self) -> socket.socket:
        """A client's socket."""
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(client.close)
        client.bind(("127.0.0.1", 0))
        client.connect(self.port.socket.getsockname())
        client.setblocking(False)
        return client

    def assert_answers(self) -> None:
        """It answers a datagram when it is its turn."""
        self.client.send(b"hello")
        self.reactor.turn()
        self.assertEqual(self.client.recv(100), b"hello")

    def assert_silent(self) -> None:
        """It does not."""
        self.client.send(b"while it was away")
        self.reactor.turn()
        self.assertRaises(BlockingIOError, self.client.recv, 100)

    def test_turn(self) -> None:
        """So many datagrams are read in a turn, be they empty."""
        for _ in range(DATAGRAMS_PER_TURN + 1):
            self.client.send(b"")
        self.reactor.turn()
        self.assertEqual(self.protocol.received, [b""] * 32)
        self.reactor.turn()
        self.assertEqual(len(self.protocol.received), 33)

    def test_closed_by_the_protocol(self) -> None:
        """A port that is lost while a datagram is received reads no more, and does not come back."""

        def close(_datagram: bytes, _address: Any) -> None:
            self.port.connectionLost(Failure(ConnectionLost()))

        self.protocol.datagramReceived = close  # type: ignore[method-assign, assignment]
        self.client.send(b"first")
        self.client.send(b"second")
        with capturedLogs() as events:
            self.reactor.turn()
        self.assertEqual([event for event in events if event["log_level"] >= LogLevel.warn], [])
        self.assertEqual(self.reactor.readers, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertTrue(self.protocol.stopped)

    def test_one_error(self) -> None:
        """After one error it goes on with the same socket, and answers what has come meanwhile."""
        before = self.port.socket
        Failing(self.port, NO_MEMORY)
        with capturedLogs() as events:
            self.reactor.turn()
            self.assertEqual(self.reactor.readers, set())
            self.assert_silent()
            self.reactor.advance(PAUSE)
            self.reactor.turn()
        self.assertEqual(self.client.recv(100), b"while it was away")
        self.assertIs(self.port.socket.real, before)  # type: ignore[attr-defined]
        self.assertFalse(self.protocol.stopped)
        [event] = events
        self.assertEqual((event["log_level"], event["error"]), (LogLevel.error, "Cannot allocate memory"))
        self.assertEqual(event["name"], self.name())
        self.assertNotIn("log_failure", event)

    def test_errors_with_datagrams_between(self) -> None:
        """Errors that are not in a row are one each, and the socket is kept."""
        failing = Failing(self.port)
        for _ in range(3):
            failing.errors = [NO_MEMORY]
            self.reactor.turn()
            self.reactor.advance(PAUSE)
            self.assert_answers()
        self.assertIs(self.port.socket, failing)

    def test_two_errors(self) -> None:
        """After two errors in a row there is another socket, at the same address."""
        address = self.port.getHost()
        failing = Failing(self.port, NO_MEMORY, OSError(errno.EBADF, "Bad file descriptor"))
        for _ in range(2):
            self.reactor.turn()
            self.reactor.advance(PAUSE)
        self.assertEqual(failing.real.fileno(), -1)
        self.assertEqual(self.port.getHost(), address)
        self.assertEqual(self.reactor.readers, {self.port})
        self.assert_answers()
        self.assertFalse(self.protocol.stopped)

    def test_address_taken(self) -> None:
        """Where the address is taken by then, it waits until that is free."""
        failing = Failing(self.port, NO_MEMORY, NO_MEMORY)
        self.reactor.turn()
        self.reactor.advance(PAUSE)
        self.reactor.turn()
        address = failing.real.getsockname()
        failing.real.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.bind(address)
            self.reactor.pump([PAUSE] * 3)
            self.assertEqual(self.reactor.readers, set())
        self.reactor.advance(PAUSE)
        self.assert_answers()

    def test_log(self) -> None:
        """An error that lasts is said once a second."""
        with capturedLogs() as events:
            for _ in range(20):
                Failing(self.port, NO_MEMORY)
                self.reactor.turn()
                self.reactor.advance(PAUSE)
        self.assertEqual(len(events), 2)

    def test_stops_while_it_waits(self) -> None:
        """It can be stopped at any moment after an error."""
        for errors, pauses in (1, 0), (2, 1):
            self.protocol = Echo()
            port = self.listen()
            Failing(port, *[NO_MEMORY] * errors)
            for _ in range(pauses):
                port.doRead()
                self.reactor.advance(PAUSE)
            port.doRead()
            stopped = port.stopListening()
            self.reactor.advance(0)
            self.assertIsNone(self.successResultOf(stopped))
            self.assertNotIn(port, self.reactor.readers)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_error_unseen(self) -> None:
        """An error that the reactor has seen, and not the port, is one too; the end of the reactor is not."""
        self.reactor.removeReader(self.port)
        self.port.connectionLost(Failure(ConnectionDone()))
        self.reactor.advance(PAUSE)
        self.assert_answers()
        self.reactor.removeReader(self.port)
        self.port.connectionLost(Failure(ConnectionLost()))
        self.assertTrue(self.protocol.stopped)

    def test_connected(self) -> None:
        """The port of a client tells its reactor."""
        self.port.connect("127.0.0.1", self.client.getsockname()[1])
        Failing(self.port, NO_MEMORY)
        self.assertRaises(OSError, self.port.doRead)
        self.port.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.protocol.stopped)


class MulticastPortTests(PortTests):
    """`MulticastPort`: as any other, but that it keeps its socket."""

    def listen(self) -> Port:
        """A port that is there until the end of the test."""
        port = MulticastPort(0, self.protocol, "127.0.0.1", reactor=self.reactor)  # type: ignore[arg-type]
        port.startListening()
        self.addCleanup(self.close, port)
        return port

    def test_two_errors(self) -> None:
        """After two errors in a row too: the groups it has joined are the socket's."""
        failing = Failing(self.port, NO_MEMORY, NO_MEMORY)
        for _ in range(2):
            self.reactor.turn()
            self.reactor.advance(PAUSE)
        self.assertIs(self.port.socket, failing)
        self.assert_answers()

    test_address_taken = None  # type: ignore[assignment]


class UNIXDatagramPortTests(PortTests):
    """`UNIXDatagramPort`."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "server")
        self.number = 0
        super().setUp()

    def listen(self) -> Port:
        """A port that is there until the end of the test."""
        self.number += 1
        port = UNIXDatagramPort(f"{self.path}{self.number}", self.protocol, reactor=self.reactor)
        port.startListening()
        self.addCleanup(self.close, port)
        return port

    def name(self) -> str:
        """What the log calls the port."""
        return f"the datagram socket {self.path + '1'!r}"

    def connect(self) -> socket.socket:
        """A client's socket."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(client.close)
        client.bind(self.path + "-client")
        client.connect(self.port.socket.getsockname())
        client.setblocking(False)
        return client

    def test_two_errors(self) -> None:
        """After two errors in a row there is another socket, at the same path, for everybody as before."""
        for at_the_path in (True, False):
            Failing(self.port, NO_MEMORY, NO_MEMORY)
            self.reactor.turn()
            self.reactor.advance(PAUSE)
            self.reactor.turn()
            if not at_the_path:
                os.unlink(f"{self.path}1")
            self.reactor.advance(PAUSE)
            self.client.connect(f"{self.path}1")
            self.assertEqual(stat.S_IMODE(os.stat(f"{self.path}1").st_mode), 0o666)
            self.assert_answers()
        self.assertFalse(self.protocol.stopped)

    # The system keeps fewer datagrams for a Unix socket than are read in a turn.
    test_address_taken = test_connected = test_turn = None  # type: ignore[assignment]
