"""``twistd repeat``: its options, its service, and the operator's go-ahead."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias, cast

import pytest
from twisted.application.service import IServiceCollection
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent

from tests.programs import run_console
from tests.services.options import MemoryReactor, ServiceTestCase
from tests.services.running import (
    Twistd,
    ask_for_all,
    assert_one_line,
    connect,
    connect_unix,
    receive_all,
)
from twistednet.protocols.repeat import RepeatFactory
from twistednet.services.repeat import GoAhead, GoAheadService, Options, makeService

RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing breaks the connection, which the server notices, instead of ending one of its streams."""

QUIET = 0.4
"""Seconds without a byte that show that none is sent; more than the pause that ends a message."""


class RepeatServiceTests(ServiceTestCase):
    """`Options` and `makeService`."""

    def factory(self, *arguments: str) -> RepeatFactory:
        """The factory that `arguments` make."""
        self.reactor, options = MemoryReactor(), Options()
        options.parseOptions(arguments)
        self.service = makeService(options, self.reactor)
        self.listening(self.service)[0].privilegedStartService()
        [(self.port, factory, _, self.interface)] = self.reactor.tcpServers
        self.assertIsInstance(factory, RepeatFactory)
        return cast(RepeatFactory, factory)

    def test_defaults(self) -> None:
        """A `RepeatFactory` with the textbook's number of copies, on its port, on the loopback interface."""
        factory = self.factory()
        self.assertEqual((self.port, self.interface), (2000, "127.0.0.1"))
        self.assertEqual((factory.copies, factory.wait), (10000, False))
        self.assertIs(factory.reactor, self.reactor)
        # Nobody reads standard input.
        self.assertEqual(len(list(IServiceCollection(self.service))), 1)

    def test_copies(self) -> None:
        """--copies, or -n, is how many."""
        self.assertEqual([self.factory("--copies", "5").copies, self.factory("-n", "0").copies], [5, 0])

    def test_go_ahead(self) -> None:
        """With --go-ahead, or -g, the factory waits, and a service beside it reads standard input."""
        for option in ("--go-ahead", "-g"):
            factory = self.factory(option)
            self.assertTrue(factory.wait)
            _, reading = IServiceCollection(self.service)
            self.assertIsInstance(reading, GoAheadService)
            self.assertIs(reading.factory, factory)
            self.assertIs(reading.reactor, self.reactor)

    def test_waits_as_long_as_the_operator(self) -> None:
        """Who waits for the go-ahead is not idle; else the time-out is as ever."""
        for arguments, idle_timeout in ((["--go-ahead"], 0.0), ([], 300.0)):
            options = Options()
            options.parseOptions(arguments)
            self.assertEqual(options.limits().idle_timeout, idle_timeout)

    def test_global_reactor(self) -> None:
        """The global reactor is used when none is given."""
        from twisted.internet import reactor

        options = Options()
        options.parseOptions(["--go-ahead"])
        self.assertIs(list(IServiceCollection(makeService(options)))[1].reactor, reactor)

    def test_refused(self) -> None:
        """A bad option is one line."""
        for copies in ("-1", "x", "", "1.5", "1e4"):
            message = f"--copies {copies}: not a whole number of 0 or more"
            self.assert_refused(Options, message, f"--copies={copies}")
        self.assert_refused(Options, "option --go-ahead must not have an argument", "--go-ahead=yes")
        self.assert_refused(Options, "option --udp not recognized", "--udp")
        self.assert_refused(Options, "abc: repeat takes options only", "abc")

    def test_help(self) -> None:
        """The help text is complete."""
        self.assert_help(Options, "--copies", "--go-ahead")


class Waiting:
    """A factory with clients that wait."""

    def __init__(self, *clients: IAddress) -> None:
        self.clients = list(clients)

    @property
    def waiting(self) -> int:
        """As `RepeatFactory` has it."""
        return len(self.clients)

    def go_ahead(self) -> IAddress | None:
        """As `RepeatFactory` has it."""
        return self.clients.pop(0) if self.clients else None


class GoAheadTests(ServiceTestCase):
    """`GoAhead`."""

    def said(self, clients: list[IAddress], *chunks: bytes) -> list[str]:
        """What is logged when `chunks` are read from standard input while `clients` wait."""
        protocol = GoAhead(cast(RepeatFactory, Waiting(*clients)))
        protocol.makeConnection(StringTransport())
        with capturedLogs() as events:
            for chunk in chunks:
                protocol.dataReceived(chunk)
        return [formatEvent(event) for event in events]

    def test_each_line(self) -> None:
        """Each line releases one client, and the log says who, and how many are left; what it says is nothing."""
        clients: list[IAddress] = [
            IPv4Address("TCP", "127.0.0.1", 4000),
            UNIXAddress(b""),
            IPv4Address("TCP", "::1", 1),
        ]
        self.assertEqual(
            self.said(clients, b"\n", b"go\r", b"\nnot a line", b" yet"),
            ["sending to TCP 127.0.0.1:4000; 2 more waiting", "sending to UNIX ; 1 more waiting"],
        )

    def test_nobody(self) -> None:
        """A line while nobody waits is said to be one, and is not kept for whoever comes next."""
        self.assertEqual(self.said([], b"\n\n"), ["nobody waits for the go-ahead"] * 2)

    def test_long_line(self) -> None:
        """A line may be long: what is read is not looked at."""
        self.assertEqual(self.said([], b"x" * 100_000, b"\n"), ["nobody waits for the go-ahead"])


# As a process


def assert_silent(*clients: socket.socket) -> None:
    """Nothing is sent to any of `clients`, nor is one closed."""
    assert select.select(clients, [], [], QUIET)[0] == []


def address(client: socket.socket) -> str:
    """The address of `client`, as the log has it."""
    host, port = client.getsockname()
    return f"TCP {host}:{port}"


StandardInput: TypeAlias = AbstractContextManager[tuple[int, int, Callable[[], object]]]
"""What is read, what the operator writes to, and what ends the input."""


@contextmanager
def pipe() -> Iterator[tuple[int, int, Callable[[], object]]]:
    """A pipe."""
    reading, writing = os.pipe()
    open_ends = [reading, writing]

    def end() -> None:
        open_ends.remove(writing)
        os.close(writing)

    try:
        yield reading, writing, end
    finally:
        for descriptor in open_ends:
            os.close(descriptor)


@contextmanager
def terminal() -> Iterator[tuple[int, int, Callable[[], object]]]:
    """A pseudo-terminal, where Ctrl-D ends the input."""
    ours, its = os.openpty()
    try:
        yield its, ours, lambda: os.write(ours, b"\x04")
    finally:
        os.close(ours)
        os.close(its)


@pytest.mark.parametrize("standard_input", [pipe, terminal])
def test_go_ahead(tmp_path: Path, standard_input: Callable[[], StandardInput]) -> None:
    """Nothing is sent until a line comes; it goes to whoever waited longest; the log says who, and when input ends."""
    arguments = ("repeat", "--go-ahead", "--copies", "3", "--drain", "0.1", "--port", "0")
    with standard_input() as (stdin, operator, end), Twistd(tmp_path, *arguments, endpoints=1, stdin=stdin) as twistd:
        with (
            connect(twistd.port()) as first,
            connect(twistd.port()) as second,
            connect(twistd.port()) as third,
            connect(twistd.port()) as late,
        ):
            # It is not who connected first that goes first, but who asked first.
            for n, (client, question) in enumerate(((second, b"two\n"), (first, b"one"), (third, b"three\r\n")), 1):
                client.sendall(question)
                twistd.wait_until_logged("waits for the go-ahead", n)
            assert_silent(first, second, third)

            os.write(operator, b"\n")
            assert receive_all(second) == b"two\n" * 3
            twistd.wait_until_logged(f"sending to {address(second)}; 2 more waiting\n")
            assert_silent(first, third)

            # Who is gone is not released.
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            first.close()
            time.sleep(0.3)  # nothing tells when the server has noticed
            os.write(operator, b"go on\n")
            assert receive_all(third) == b"three\r\n" * 3
            twistd.wait_until_logged(f"sending to {address(third)}; 0 more waiting\n")

            os.write(operator, b"\n")
            twistd.wait_until_logged("nobody waits for the go-ahead\n")
            # That line was for nobody, and so not for the next.
            late.sendall(b"me?\n")
            twistd.wait_until_logged("waits for the go-ahead\n", 4)
            assert_silent(late)

            assert os.get_blocking(stdin)
            end()
            twistd.wait_until_logged("no more go-ahead will come: standard input has ended\n")
            assert_silent(late)
        assert os.get_blocking(stdin)
        twistd.assert_stops_cleanly()


def test_file(tmp_path: Path) -> None:
    """Standard input may be a file, or nothing at all; the service goes on without it."""
    (tmp_path / "lines").write_bytes(b"\n\n")
    with (tmp_path / "lines").open("rb") as lines:
        arguments = ("repeat", "--go-ahead", "--drain", "0.1", "--port", "0")
        with Twistd(tmp_path, *arguments, endpoints=1, stdin=lines.fileno()) as twistd:
            twistd.wait_until_logged("nobody waits for the go-ahead\n", 2)
            twistd.wait_until_logged("no more go-ahead will come: standard input has ended\n")
            with connect(twistd.port()) as client:
                client.sendall(b"abc\n")
                twistd.wait_until_logged("waits for the go-ahead\n", 3)
            twistd.assert_stops_cleanly()


def test_unreadable_input(tmp_path: Path) -> None:
    """A standard input that can't be read from is one line, and status 1."""
    with socket.socket() as stdin:
        done = run_console(
            *("twistd", "--nodaemon", "repeat", "--go-ahead", "--port", "0"),
            cwd=tmp_path,
            stdin=stdin.fileno(),
            capture_output=True,
        )
    assert_one_line(tmp_path, done, "twistd repeat: --go-ahead: can't read standard input: No such device or address")


def test_who_at_a_unix_socket(tmp_path: Path) -> None:
    """A client at a Unix socket, which has no address, is released as any other; so is one that has half-closed."""
    listen = ("--listen", f"unix:{tmp_path / 'socket'}")
    with pipe() as (stdin, operator, _):
        arguments = ("repeat", "--go-ahead", "--copies", "2", *listen)
        with Twistd(tmp_path, *arguments, endpoints=1, stdin=stdin) as twistd:
            with connect_unix(tmp_path / "socket") as client:
                client.sendall(b"abc")
                client.shutdown(socket.SHUT_WR)
                twistd.wait_until_logged("waits for the go-ahead")
                assert_silent(client)
                os.write(operator, b"\n")
                assert receive_all(client) == b"abcabc"
            twistd.wait_until_logged("; 0 more waiting\n")
            twistd.assert_stops_cleanly()


def test_without_go_ahead(tmp_path: Path) -> None:
    """Without --go-ahead, the textbook's session, at once, and standard input is left alone."""
    with pipe() as (stdin, operator, _), Twistd(tmp_path, "repeat", "--port", "0", endpoints=1, stdin=stdin) as twistd:
        os.write(operator, b"unread\n")
        with connect(twistd.port()) as client:
            assert ask_for_all(client, b"abc") == b"abc" * 10000
        twistd.assert_stops_cleanly()
        assert os.read(stdin, 100) == b"unread\n"
