"""``twistd accumulator``: its options and its service."""

from __future__ import annotations

import sys
from io import StringIO
from typing import cast

from tests.services.options import MemoryReactor, ServiceTestCase
from tests.wire import Wire
from twistednet.protocols.accumulator import AccumulatorFactory, SharedText
from twistednet.services.accumulator import Options, makeService


class StoppableReactor(MemoryReactor):
    """A reactor that remembers how often it was stopped."""

    stopped = 0

    def stop(self) -> None:
        self.stopped += 1


class AccumulatorServiceTests(ServiceTestCase):
    """`Options` and `makeService`."""

    def setUp(self) -> None:
        self.reactor = StoppableReactor()
        self.output = StringIO()
        self.patch(sys, "__stdout__", self.output)

    def factory(self, *arguments: str) -> AccumulatorFactory:
        """The factory that `arguments` make."""
        options = Options()
        options.parseOptions(arguments)
        makeService(options, self.reactor).privilegedStartService()
        return cast(AccumulatorFactory, self.reactor.tcpServers[-1][1])

    def test_defaults(self) -> None:
        """An `AccumulatorFactory` on the textbook's port; a mebibyte of text, and any number of clients."""
        factory = self.factory()
        self.assertIsInstance(factory, AccumulatorFactory)
        self.assertEqual(self.reactor.tcpServers, [(2000, factory, 50, "127.0.0.1")])
        self.assertEqual(cast(SharedText, factory.text).max_length, 1048576)
        self.assertIs(factory.reactor, self.reactor)
        for _ in range(10):
            Wire.to(factory).send(b"a").end()
        self.assertEqual((self.reactor.stopped, self.output.getvalue()), (0, ""))

    def test_one_string(self) -> None:
        """All endpoints share one string; another service has its own."""
        options = Options()
        options.parseOptions(["-l", "tcp:1", "-l", "unix:letters"])
        makeService(options, self.reactor).privilegedStartService()
        self.assertIs(self.reactor.tcpServers[0][1], self.reactor.unixServers[0][1])
        self.assertIsNot(self.factory().text, self.factory().text)

    def test_max_length(self) -> None:
        """--max-length limits the string."""
        factory = self.factory("--max-length", "2")
        self.assertEqual(Wire.to(factory).send(b"abc").received, b"aab" + b"error: the text has reached its 2 bytes")

    def test_clients(self) -> None:
        """With --clients the final value is printed when the last has left, and the reactor stopped."""
        factory = self.factory("--clients", "2")
        one, two = Wire.to(factory), Wire.to(factory)
        one.send(b"a")
        two.send(b"\xc3\xab")
        one.end()
        self.assertEqual((self.reactor.stopped, self.output.getvalue()), (0, ""))
        self.assertIsNone(factory.buildProtocol(None))
        two.end()
        self.assertEqual((self.reactor.stopped, self.output.getvalue()), (1, "the final value of v is a\xeb\n"))

    def test_printable(self) -> None:
        """What is printed is safe for a terminal."""
        factory = self.factory("-n", "1")
        Wire.to(factory).send(b"\x1b[2J\xff").end()
        self.assertEqual(self.output.getvalue(), "the final value of v is \\x1b[2J\\xff\n")

    def test_refused(self) -> None:
        """A bad option is one line."""
        for option in ("--max-length", "--clients"):
            for value in ("0", "-1", "x"):
                self.assert_refused(Options, f"{option} {value}: not a whole number of 1 or more", option, value)

    def test_help(self) -> None:
        """The help text is complete."""
        self.assert_help(Options, "--clients", "--max-length")
