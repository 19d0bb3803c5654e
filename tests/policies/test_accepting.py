"""A port that rests when the system has nothing left to accept with."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from twistednet.policies.accepting import REST, accept_patiently
from twistednet.reactor.loop import BACKLOG


class Listening(socket.socket):
    """A listening socket that fails when it is told to."""

    error: int | None = None
    queue = 0

    def accept(self) -> Any:
        if self.error is not None:
            raise OSError(self.error, "no")
        return "connection", "address"

    def listen(self, backlog: int = 0) -> None:
        self.queue = backlog


class Port:
    """What accepts."""

    def __init__(self, test: SynchronousTestCase, backlog: int = 50) -> None:
        self.listening = self.socket = Listening()
        test.addCleanup(self.listening.close)
        self.backlog = backlog
        self.connected = self.reading = True
        self.disconnecting = False

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


class AcceptingTests(SynchronousTestCase):
    """`accept_patiently`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.port: Any = Port(self)
        accept_patiently(self.port, self.clock)

    def test_accepts(self) -> None:
        """What can be accepted is; everything else is the socket's own."""
        self.assertEqual(self.port.socket.accept(), ("connection", "address"))
        self.assertEqual(self.port.socket.fileno(), self.port.listening.fileno())

    def test_rests(self) -> None:
        """For want of descriptors or memory, nothing is there to accept, and the port is not looked at for a while."""
        for error in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.port.listening.error = error
            self.assertRaises(BlockingIOError, self.port.socket.accept)
            self.assertFalse(self.port.reading)
            self.clock.advance(REST)
            self.assertTrue(self.port.reading)

    def test_one_line_a_second(self) -> None:
        """However long it lasts, one line a second says so."""
        self.port.listening.error = errno.ENFILE
        with capturedLogs() as events:
            for _ in range(25):
                self.assertRaises(BlockingIOError, self.port.socket.accept)
                self.clock.advance(REST)
        self.assertEqual(len(events), 3)

    def test_closed_meanwhile(self) -> None:
        """A port that has been closed, or is being, stays so."""
        for connected, disconnecting in ((False, False), (True, True)):
            self.port.connected, self.port.disconnecting = connected, disconnecting
            self.port.listening.error = errno.EMFILE
            self.assertRaises(BlockingIOError, self.port.socket.accept)
            self.clock.advance(REST)
            self.assertFalse(self.port.reading)

    def test_other_errors(self) -> None:
        """Other errors are as ever."""
        self.port.listening.error = errno.ECONNABORTED
        self.assertRaises(ConnectionAbortedError, self.port.socket.accept)
        self.assertTrue(self.port.reading)

    def test_queue(self) -> None:
        """The listen queue is long, unless somebody has asked for another length."""
        self.assertEqual(self.port.listening.queue, BACKLOG)
        port: Any = Port(self, backlog=5)
        accept_patiently(port, self.clock)
        self.assertEqual(port.listening.queue, 0)

    def test_others(self) -> None:
        """Ports that don't accept are left alone."""
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            port: Any = Port(self)
            port.socket = datagrams
            accept_patiently(port, self.clock)
            self.assertIs(port.socket, datagrams)
        accept_patiently(object(), self.clock)
