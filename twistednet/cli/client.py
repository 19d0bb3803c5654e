"""What every client command shares: its address, its options, its exit status, and how a failure is reported.

===============  =======================================================
exit status      meaning
===============  =======================================================
0 `ANSWERED`     answered as expected
1 `WRONG`        a wrong answer, or none before the connection was lost
2                wrong usage (click's own)
3 `REFUSED`      nobody listens there
4 `TIMED_OUT`    no connection, or no answer, in ``--timeout`` seconds
5 `NOT_FOUND`    there is no such name
130              interrupted, with Ctrl-C
===============  =======================================================
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from errno import ENOENT
from typing import Any, NoReturn, TypeVar, cast

import click
from OpenSSL import SSL
from rich.console import Console
from service_identity import VerificationError
from twisted.internet import defer, error, task
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint, _parse
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from twistednet.protocols.datagram import DatagramClient
from twistednet.protocols.echo import EchoClient
from twistednet.protocols.flow import StreamClient
from twistednet.protocols.framing import IdleTimer
from twistednet.services.stream_endpoints import client_endpoint_from_string

ANSWERED, WRONG, REFUSED, TIMED_OUT, NOT_FOUND, INTERRUPTED = 0, 1, 3, 4, 5, 130


class ClientError(Exception):
    """The exchange failed: what to tell the user, in one line, and the exit status."""

    def __init__(self, message: str, status: int = WRONG) -> None:
        super().__init__(message)
        self.status = status


# Addresses


@dataclass(frozen=True)
class Address:
    """Where the server is: a host and a port, or an endpoint string."""

    host: str = ""
    port: int = 0
    endpoint: str = ""

    @property
    def is_datagram(self) -> bool:
        """Whether it is an endpoint string for datagrams."""
        return self.endpoint.startswith(("udp:", "udp6:", "unixdgram:"))

    def __str__(self) -> str:
        return self.endpoint or f"{self.host} port {self.port}"


def split_address(arguments: tuple[str, ...]) -> tuple[Address, tuple[str, ...]]:
    """The address at the beginning of a command's `arguments`, and what follows it.

    :raises click.UsageError: where there is none.
    """
    if not arguments:
        raise click.UsageError("HOST PORT, or an endpoint such as unix:/path, is missing")
    first, *rest = arguments
    if ":" in first and not isIPv6Address(first):
        return Address(endpoint=first), tuple(rest)
    if not rest:
        raise click.UsageError(f"the port of {first} is missing")
    port, *rest = rest
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise click.UsageError(f"{port}: not a port, a whole number from 1 to 65535")
    return Address(host=first, port=int(port)), tuple(rest)


def split_text(arguments: tuple[str, ...]) -> tuple[Address, bytes | None]:
    """The address at the beginning of a command's `arguments`, and the one TEXT that may follow it.

    :raises click.UsageError: where there is no address, or more than one TEXT.
    """
    address, rest = split_address(arguments)
    if len(rest) > 1:
        raise click.UsageError("more than one TEXT; quote it")
    return address, os.fsencode(rest[0]) if rest else None


def stream_endpoint(reactor: Any, address: Address) -> IStreamClientEndpoint:
    """The endpoint to connect to.

    :raises click.UsageError: for a string that describes none.
    """
    if address.host:
        return HostnameEndpoint(reactor, address.host, address.port)
    try:
        return client_endpoint_from_string(reactor, address.endpoint)
    except Exception as error:  # whatever the parsers of Twisted and of its plugins make of a wrong string
        raise click.UsageError(f"{address.endpoint}: not an endpoint, such as unix:/path or tls:host:port") from error


def timed_out(result: object, timeout: float) -> object:
    """For `Deferred.addTimeout`: the result of what was cancelled.

    `HostnameEndpoint` fails with `DNSLookupError` if it is cancelled while it resolves the name.
    """
    return Failure(defer.TimeoutError(timeout, "Deferred")) if isinstance(result, Failure) else result


_Client = TypeVar("_Client", bound=IProtocol)


async def connect(call: Call, make: Callable[[], _Client]) -> _Client:
    """Connect a protocol that `make` makes."""
    factory: Factory[Any] = Factory.forProtocol(make)
    factory.noisy = False
    connecting = stream_endpoint(call.reactor, call.address).connect(factory)
    return cast(_Client, await connecting.addTimeout(call.timeout, call.reactor, timed_out))


async def until_closed(call: Call, client: StreamClient) -> bytes:
    """Receive until the server closes.

    :return: what it sent, unless ``client.received`` keeps none.
    :raises TimeoutError: when nothing has come for the call's time-out.
    """
    failure: Exception | None = None

    def give_up(reason: Exception) -> None:
        nonlocal failure
        failure = reason
        client.transport.abortConnection()

    def received(data: bytes) -> None:
        timer.mark()
        try:
            keep(data)
        except BrokenPipeError as broken:
            give_up(broken)

    keep, client.received = client.received, received
    timer = IdleTimer(call.reactor, call.timeout, lambda: give_up(error.TimeoutError()))
    timer.mark()
    try:
        await client.finished()
    except error.ConnectionAborted:
        raise failure or error.ConnectionAborted() from None
    finally:
        timer.cancel()
    return client.answer


async def open_datagram(call: Call, make: Callable[..., DatagramClient] = DatagramClient) -> DatagramClient:
    """A client for the server at the address, given as host and port or as ``udp:`` or ``unixdgram:``.

    :param make: makes it, as `DatagramClient` is made.
    """
    address, reactor = call.address, call.reactor
    if address.endpoint:
        (kind, *arguments), _ = _parse(address.endpoint)
        if kind == "unixdgram" and len(arguments) == 1:
            client = make(reactor, arguments[0])
            # An abstract name of our own, for the answer to come back to.
            reactor.listenUNIXDatagram(f"\0twistednet-{os.getpid()}", client)
            return client
        if kind not in ("udp", "udp6"):
            raise click.UsageError(f"{address.endpoint}: not udp:HOST:PORT or unixdgram:PATH")
        address, rest = split_address(tuple(arguments))
        if rest:
            raise click.UsageError(f"{call.address}: not udp:HOST:PORT or unixdgram:PATH")
    resolving = deferToThread(socket.getaddrinfo, address.host, address.port, type=socket.SOCK_DGRAM)
    found = await resolving.addTimeout(call.timeout, reactor)
    host, port = str(found[0][4][0]), found[0][4][1]
    client = make(reactor)
    reactor.listenUDP(0, client, interface="" if isIPAddress(host) else "::")
    client.transport.connect(host, port)
    return client


def check_all_back(call: Call, client: EchoClient) -> None:
    """See that as many bytes came back as were sent.

    :raises ClientError: otherwise.
    """
    if client.owed > 0:
        raise ClientError(f"{call.address}: {client.owed} bytes have not come back")
    if client.owed < 0:
        raise ClientError(f"{call.address}: more came back than was sent")


# Options


def client_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add to `command` the options that every client has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead."),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=10,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for a connection, and for an answer.",
        ),
    ):
        command = option(command)
    return command


def address_arguments(rest: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the address, and what the command takes after it."""
    return click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar=f"{{HOST PORT | ENDPOINT}} {rest}")


retries_option = click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="How often to send again, each time after --timeout, where no answer comes.",
)


# Running


@dataclass
class Call:
    """One call of a client command."""

    address: Address
    timeout: float
    as_json: bool
    reactor: Any = None
    reported: bool = False
    """The one JSON object has been printed."""

    def report(self, answer: bytes, *, ok: bool, wrong: str, end: bytes = b"\n") -> None:
        """Print the answer to one exchange.

        :raises ClientError: where it is not `ok`; `wrong` says why.
        """
        if self.as_json:
            self.print_json(answer=answer.decode(errors="backslashreplace"), address=str(self.address), ok=ok)
        else:
            write(answer if answer.endswith(b"\n") else answer + end)
        if not ok:
            raise ClientError(wrong)

    def print_json(self, **values: object) -> None:
        """Print the call's one JSON object."""
        self.reported = True
        write(json.dumps(values, ensure_ascii=False).encode() + b"\n")

    def no_json(self) -> None:
        """Refuse ``--json`` where standard output is the stream of answers itself."""
        if self.as_json:
            raise click.UsageError("--json needs one exchange: say what to send on the command line")


def write(data: bytes) -> None:
    """Write `data` to standard output, now.

    :raises BrokenPipeError: where nobody reads it.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # What Python still has in its buffer it would try to write at its end, and complain.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise


def run(call: Call, main: Callable[[Call], Coroutine[Any, Any, None]]) -> NoReturn:
    """Run `main` in the reactor, and exit with the status that it comes to."""
    ended = interrupted = False

    def stopping() -> None:
        nonlocal interrupted
        interrupted = not ended

    async def reported(reactor: Any) -> None:
        nonlocal ended
        call.reactor = reactor
        reactor.addSystemEventTrigger("before", "shutdown", stopping)
        try:
            await main(call)
        except click.UsageError as wrong:
            wrong.ctx = click.get_current_context()
            wrong.show()
            raise SystemExit(wrong.exit_code) from None
        except Exception as failure:
            if interrupted:
                return  # whatever the end of the reactor has broken
            message, status = explain(failure, call)
            if call.as_json:
                if not call.reported:
                    call.print_json(error=message, address=str(call.address), status=status)
            else:
                Console(stderr=True, highlight=False).print(
                    f"{click.get_current_context().command_path}: {message}", style="red", markup=False, soft_wrap=True
                )
            raise SystemExit(status) from None
        finally:
            ended = True

    try:
        task.react(lambda reactor: defer.ensureDeferred(reported(reactor)))
    finally:
        if interrupted:
            raise SystemExit(INTERRUPTED)


def explain(failure: Exception, call: Call) -> tuple[str, int]:
    """What to tell the user about `failure`, and the exit status."""
    if isinstance(failure, ClientError):
        return str(failure), failure.status
    if isinstance(failure, error.DNSLookupError | socket.gaierror):
        return f"{call.address}: there is no such name", NOT_FOUND
    refusals = error.ConnectionRefusedError | ConnectionRefusedError | FileNotFoundError
    if isinstance(failure, refusals) or getattr(failure, "osError", None) == ENOENT:
        return f"{call.address}: nobody listens there", REFUSED
    # Cancelled by our own time-out, which Twisted's endpoints answer with an error of their own.
    if isinstance(failure, defer.TimeoutError | error.TimeoutError | error.ConnectingCancelledError):
        return f"{call.address}: no answer in {call.timeout:g} seconds", TIMED_OUT
    if isinstance(failure, VerificationError):
        return f"{call.address}: TLS: the certificate is not for this name", WRONG
    if isinstance(failure, SSL.Error):
        words = failure.args[0][-1][-1] if failure.args and failure.args[0] else "the connection was ended"
        return f"{call.address}: TLS: {words}", WRONG
    if isinstance(failure, BrokenPipeError):
        return "nobody reads standard output", WRONG
    return f"{call.address}: {str(failure) or type(failure).__name__}", WRONG
