"""What the client commands share: addresses, options, exit statuses."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import defer, error
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.cli.conftest import Servers
from tests.cli.running import (
    Program,
    drain,
    refusing_port,
    run,
    silent_server,
    tcp_server,
    udp_socket,
)
from tests.services.running import PATIENCE
from twistednet.cli.client import Address, Call, ClientError, connect, explain, split_address
from twistednet.cli.main import MODULES, main


class SplitAddressTests(SynchronousTestCase):
    """`split_address`."""

    def assert_usage(self, message: str, *arguments: str) -> None:
        """`arguments` are refused with `message`."""
        wrong = self.assertRaises(click.UsageError, split_address, arguments)
        self.assertEqual(wrong.message, message)

    def test_host_and_port(self) -> None:
        """A host and a port, and what follows."""
        address, rest = split_address(("localhost", "2000", "a", "b"))
        self.assertEqual((address, rest), (Address(host="localhost", port=2000), ("a", "b")))
        self.assertEqual(str(address), "localhost port 2000")

    def test_ipv6(self) -> None:
        """An IPv6 address is a host."""
        address, rest = split_address(("::1", "65535"))
        self.assertEqual((address, rest), (Address(host="::1", port=65535), ()))

    def test_endpoint(self) -> None:
        """An endpoint string stands for both."""
        address, rest = split_address(("unix:/run/echo", "2000"))
        self.assertEqual((address, rest), (Address(endpoint="unix:/run/echo"), ("2000",)))
        self.assertEqual(str(address), "unix:/run/echo")

    def test_nothing(self) -> None:
        """There must be an address."""
        self.assert_usage("HOST PORT, or an endpoint such as unix:/path, is missing")

    def test_no_port(self) -> None:
        """A host needs a port."""
        self.assert_usage("the port of localhost is missing", "localhost")

    def test_bad_port(self) -> None:
        """A port is a whole number from 1 to 65535."""
        for port in ("0", "65536", "-1", "x", "", "80 ", "\u0661"):
            self.assert_usage(f"{port}: not a port, a whole number from 1 to 65535", "localhost", port)


class ExplainTests(SynchronousTestCase):
    """`explain`."""

    def setUp(self) -> None:
        self.call = Call(Address(host="echo.example", port=2000), 2.5, False)

    def assert_explained(self, failure: Exception, message: str, status: int) -> None:
        """`failure` is explained by `message` and `status`."""
        self.assertEqual(explain(failure, self.call), (f"echo.example port 2000: {message}", status))

    def test_client_error(self) -> None:
        """A `ClientError` says itself what there is to say."""
        self.assertEqual(explain(ClientError("no"), self.call), ("no", 1))
        self.assertEqual(explain(ClientError("no", 3), self.call), ("no", 3))

    def test_not_found(self) -> None:
        """No such name, from Twisted's resolver or the system's."""
        self.assert_explained(error.DNSLookupError(), "there is no such name", 5)
        self.assert_explained(socket.gaierror(), "there is no such name", 5)

    def test_refused(self) -> None:
        """Nobody listens, or there is no such socket."""
        self.assert_explained(error.ConnectionRefusedError(), "nobody listens there", 3)
        self.assert_explained(error.ConnectError(errno.ENOENT), "nobody listens there", 3)

    def test_refused_datagram(self) -> None:
        """The same, as a datagram socket has it."""
        self.assert_explained(ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "nobody listens there", 3)
        self.assert_explained(FileNotFoundError(errno.ENOENT, "no such file"), "nobody listens there", 3)

    def test_timed_out(self) -> None:
        """No connection, or no answer."""
        self.assert_explained(defer.TimeoutError(), "no answer in 2.5 seconds", 4)
        self.assert_explained(error.TimeoutError(), "no answer in 2.5 seconds", 4)
        self.assert_explained(error.ConnectingCancelledError("where"), "no answer in 2.5 seconds", 4)

    def test_tls(self) -> None:
        """No trust, or the certificate of somebody else."""
        untrusted = SSL.Error([("SSL routines", "", "certificate verify failed")])
        self.assert_explained(untrusted, "TLS: certificate verify failed", 1)
        self.assert_explained(SSL.Error(), "TLS: the connection was ended", 1)
        self.assert_explained(VerificationError([]), "TLS: the certificate is not for this name", 1)

    def test_unread(self) -> None:
        """Nobody reads standard output."""
        self.assertEqual(explain(BrokenPipeError(), self.call), ("nobody reads standard output", 1))

    def test_other(self) -> None:
        """Anything else is told as it is, or by its name."""
        self.assert_explained(ValueError("what it was"), "what it was", 1)
        self.assert_explained(ValueError(), "ValueError", 1)


@implementer(IHostnameResolver, IHostResolution)
class SlowResolver:
    """Never finds a name, until it is asked to stop."""

    name = "slow"

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Any = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> SlowResolver:
        """As `IHostnameResolver` has it."""
        resolutionReceiver.resolutionBegan(self)
        return self

    def cancel(self) -> None:
        """As `IHostResolution` has it."""


class ConnectTests(SynchronousTestCase):
    """`connect`."""

    def test_slow_name(self) -> None:
        """A name that takes too long to be found may exist: that is no answer in time."""
        reactor: Any = MemoryReactorClock()
        reactor.nameResolver = SlowResolver()
        call = Call(Address(host="slow.example", port=7), 2.5, False, reactor)
        connecting = defer.ensureDeferred(connect(call, Protocol))
        reactor.advance(2.5)
        failure = self.failureResultOf(connecting).value
        self.assertEqual(explain(failure, call), ("slow.example port 7: no answer in 2.5 seconds", 4))


class UsageTests(SynchronousTestCase):
    """Wrong usage that is noticed before anything is connected to."""

    def assert_usage(self, message: str, *arguments: str) -> None:
        """`arguments` end with status 2, and `message` as the last line."""
        result = CliRunner().invoke(main, arguments)
        self.assertEqual(result.exit_code, 2)
        self.assertEqual(result.output.splitlines()[-1], f"Error: {message}")
        self.assertTrue(result.output.startswith(f"Usage: main {arguments[0]} [OPTIONS] {{HOST PORT | ENDPOINT}} "))

    def test_no_address(self) -> None:
        """Every command needs an address."""
        for command in ("echo", "letters", "reverse", "udpok", "wps"):
            self.assert_usage("HOST PORT, or an endpoint such as unix:/path, is missing", command)

    def test_too_much(self) -> None:
        """What is sent is one argument."""
        self.assert_usage("more than one TEXT; quote it", "echo", "localhost", "2000", "a", "b")
        self.assert_usage("TEXT is one line; quote it", "reverse", "localhost", "2000", "a", "b")
        self.assert_usage("more than one TEXT; quote it", "udpok", "localhost", "2000", "a", "b")
        self.assert_usage("LETTERS is one word; quote it", "letters", "localhost", "2000", "a", "b")
        self.assert_usage("name one command: w or ps, for example", "wps", "localhost", "2000", "w", "ps")

    def test_bad_text(self) -> None:
        """What can't be sent as one message is refused."""
        self.assert_usage("TEXT is one line; quote it", "reverse", "localhost", "2000", "a\nb")
        for letters in ("", "a\n", "\r"):
            self.assert_usage("LETTERS is one word; quote it", "letters", "localhost", "2000", letters)
        self.assert_usage("name one command: w or ps, for example", "wps", "localhost", "2000")

    def test_bad_option(self) -> None:
        """A time-out is more than nothing, and there are no fewer retries than none."""
        self.assert_usage("Invalid value for '--timeout': 0.0 is not in the range x>0.", "echo", "--timeout", "0")
        self.assert_usage("Invalid value for '--retries': -1 is not in the range x>=0.", "udpok", "--retries", "-1")
        self.assert_usage("No such option '--udp'.", "reverse", "--udp", "localhost", "2000")

    def test_help(self) -> None:
        """-h and --help say the same, and each command has its line."""
        long, short = (CliRunner().invoke(main, [option]) for option in ("--help", "-h"))
        self.assertEqual((long.exit_code, long.output), (0, short.output))
        listed = long.output.partition("Commands:\n")[2].splitlines()
        self.assertEqual([line.split()[0] for line in listed], sorted(MODULES))
        for line in listed:
            self.assertGreater(len(line.split()), 2, line)
        self.assertIn("--timeout SECONDS", CliRunner().invoke(main, ["echo", "--help"]).output)


def error_line(command: str, message: str) -> str:
    """The one line on standard error."""
    return f"twistednet {command}: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("echo", "bogus:1", "hello"), "bogus:1: not an endpoint, such as unix:/path or tls:host:port"),
        (("wps", "tcp:x", "w"), "tcp:x: not an endpoint, such as unix:/path or tls:host:port"),
        (("udpok", "tcp:localhost:1", "hello"), "tcp:localhost:1: not udp:HOST:PORT or unixdgram:PATH"),
        (("udpok", "udp:localhost:0", "hello"), "0: not a port, a whole number from 1 to 65535"),
        (("echo", "udp:localhost:1:2", "hello"), "udp:localhost:1:2: not udp:HOST:PORT or unixdgram:PATH"),
        (("echo", "udp:localhost:1"), "over UDP, TEXT is needed"),
    ],
)
def test_usage(arguments: tuple[str, ...], message: str) -> None:
    """Wrong usage that is noticed later has the same status, and reads the same."""
    status, output, errors = run(*arguments)
    assert (status, output) == (2, b"")
    assert errors.splitlines()[0].startswith(f"Usage: twistednet {arguments[0]} [OPTIONS] {{HOST PORT | ENDPOINT}} ")
    assert errors.splitlines()[-1] == f"Error: {message}"


@pytest.mark.usefixtures("fresh")
def test_usage_at_start() -> None:
    """So it is in an interpreter of its own, as a user has it."""
    status, output, errors = run("echo", "localhost", "0")
    assert (status, output) == (2, b"")
    assert errors.startswith("Usage: twistednet echo [OPTIONS] {HOST PORT | ENDPOINT} ")
    assert errors.endswith("Error: 0: not a port, a whole number from 1 to 65535\n")


@pytest.mark.parametrize("command", ["echo", "reverse", "udpok", "letters"])
def test_json_needs_text(servers: Servers, command: str) -> None:
    """Without TEXT there is no one object to print, and nothing is read or sent."""
    status, output, errors = run(command, "--json", "127.0.0.1", servers.echo, stdin=b"hello\n")
    assert (status, output) == (2, b"")
    assert errors.endswith("Error: --json needs one exchange: say what to send on the command line\n")


@pytest.mark.parametrize("command", ["echo", "reverse", "letters", "wps"])
def test_refused(command: str) -> None:
    """Where nobody listens the status is 3."""
    with refusing_port(socket.SOCK_STREAM) as port:
        assert run(command, "127.0.0.1", port, "x") == (
            3,
            b"",
            error_line(command, f"127.0.0.1 port {port}: nobody listens there"),
        )


def test_refused_udp() -> None:
    """A refused datagram is noticed too."""
    with refusing_port(socket.SOCK_DGRAM) as port:
        assert run("udpok", "--timeout", PATIENCE, "127.0.0.1", port, "x") == (
            3,
            b"",
            error_line("udpok", f"127.0.0.1 port {port}: nobody listens there"),
        )


@pytest.mark.parametrize(("command", "kind"), [("reverse", "unix"), ("udpok", "unixdgram")])
def test_refused_unix(tmp_path: Path, command: str, kind: str) -> None:
    """A Unix socket that is not there, or that nobody has open, refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if kind == "unix" else socket.SOCK_DGRAM) as stale:
        stale.bind(str(tmp_path / "stale"))
    for name in ("none", "stale"):
        endpoint = f"{kind}:{tmp_path / name}"
        assert run(command, endpoint, "x") == (3, b"", error_line(command, f"{endpoint}: nobody listens there"))


@pytest.mark.usefixtures("fresh")
def test_refused_json() -> None:
    """With --json the one line is an object on standard output."""
    with refusing_port(socket.SOCK_STREAM) as port:
        status, output, errors = run("echo", "--json", "127.0.0.1", port, "x")
    assert (status, errors) == (3, "")
    assert output.endswith(b"}\n")
    assert json.loads(output) == {
        "error": f"127.0.0.1 port {port}: nobody listens there",
        "address": f"127.0.0.1 port {port}",
        "status": 3,
    }


@pytest.mark.parametrize("command", ["echo", "reverse", "letters", "wps"])
def test_timed_out(command: str) -> None:
    """Where no answer comes the status is 4."""
    with silent_server() as port:
        assert run(command, "--timeout", "0.2", "127.0.0.1", port, "x") == (
            4,
            b"",
            error_line(command, f"127.0.0.1 port {port}: no answer in 0.2 seconds"),
        )


@pytest.mark.parametrize("command", ["echo", "reverse", "letters"])
def test_timed_out_stream(command: str) -> None:
    """So it is where standard input is sent."""
    with silent_server() as port:
        assert run(command, "--timeout", "0.2", "127.0.0.1", port, stdin=b"hello\n") == (
            4,
            b"",
            error_line(command, f"127.0.0.1 port {port}: no answer in 0.2 seconds"),
        )


def test_timed_out_udp() -> None:
    """Over UDP each of the retries has its time."""
    with udp_socket() as server:
        port = server.getsockname()[1]
        assert run("udpok", "--timeout", "0.1", "--retries", "2", "127.0.0.1", port, "hello") == (
            4,
            b"",
            error_line("udpok", f"127.0.0.1 port {port}: no answer in 0.1 seconds"),
        )
        assert [server.recv(100) for _ in range(3)] == [b"hello"] * 3
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(100)


@pytest.mark.parametrize("address", [("echo.invalid", "2000"), ("udp:echo.invalid:2000",)])
def test_not_found(address: tuple[str, ...]) -> None:
    """Where there is no such name the status is 5."""
    named = " port ".join(address)
    assert run("echo", *address, "x") == (5, b"", error_line("echo", f"{named}: there is no such name"))


@pytest.mark.parametrize("command", ["echo", "reverse", "letters", "wps"])
def test_reset(command: str) -> None:
    """Where the connection breaks the status is 1."""

    def reset(connection: socket.socket) -> None:
        assert connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with tcp_server(reset) as port:
        status, output, errors = run(command, "127.0.0.1", port, "x")
    assert (status, output) == (1, b"")
    assert errors == error_line(
        command, f"127.0.0.1 port {port}: Connection to the other side was lost in a non-clean fashion."
    )


@pytest.mark.parametrize(
    ("command", "output"), [("echo", b"hel"), ("reverse", b"hel"), ("letters", b"")], ids=["echo", "reverse", "letters"]
)
def test_closed_early(command: str, output: bytes) -> None:
    """Where the server closes before it has answered, the status is 1, and what has come is printed."""

    def half_an_answer(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"hel")
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    with tcp_server(half_an_answer) as port:
        status, printed, errors = run(command, "127.0.0.1", port, stdin=b"hello\n")
    assert (status, printed) == (1, output)
    assert errors.startswith(f"twistednet {command}: 127.0.0.1 port {port}: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", ["echo", "letters"])
def test_unread_answer(accumulator: tuple[Path, int], servers: Servers, command: str, as_json: bool) -> None:
    """Where nobody reads standard output the status is 1, and one line says so."""
    port = servers.echo if command == "echo" else accumulator[1]
    with Program(command, *["--json"] * as_json, "127.0.0.1", port, "hello") as program:
        program.stdout.close()
        status, errors = program.wait()
    assert status == 1
    assert errors == ("" if as_json else error_line(command, "nobody reads standard output"))


@pytest.mark.parametrize("command", ["echo", "reverse", "letters", "udpok"])
@pytest.mark.usefixtures("fresh")
def test_unread_stream(accumulator: tuple[Path, int], servers: Servers, command: str) -> None:
    """Where the reader of standard output leaves, as ``head`` does, the command ends, though its input does not."""
    port = accumulator[1] if command == "letters" else getattr(servers, command)
    with Program(command, "--timeout", "1000", "127.0.0.1", port) as program:
        program.stdin.write(b"o\n")
        program.read(1)
        program.stdout.close()
        try:
            program.stdin.write(b"o\n" * 5)
        except BrokenPipeError:
            pass
        status, errors = program.wait()
    assert (status, errors) == (1, error_line(command, "nobody reads standard output"))


@pytest.mark.usefixtures("fresh")
def test_output_is_utf_8_or_bytes(servers: Servers) -> None:
    """Any byte can be sent and printed; in JSON those that are no text are escaped."""
    text = os.fsdecode(b"\xc3\xab\xff")
    assert run("echo", "127.0.0.1", servers.echo, text) == (0, b"\xc3\xab\xff\n", "")
    status, output, _ = run("echo", "--json", "127.0.0.1", servers.echo, text)
    assert status == 0
    assert json.loads(output)["answer"] == "\xeb\\xff"


@pytest.mark.parametrize("command", ["echo", "letters"])
@pytest.mark.usefixtures("fresh")
def test_interrupted(accumulator: tuple[Path, int], servers: Servers, command: str) -> None:
    """Interrupted, a client ends with the status of that, and without a word."""
    port = accumulator[1] if command == "letters" else servers.echo
    with Program(command, "127.0.0.1", port) as program:
        program.stdin.write(b"x\n")
        assert program.read(2) == b"x\n"
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == (130, "")
