"""``twistednet fetch``."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, cast

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from twisted.internet.task import LoopingCall
from twisted.web.iweb import UNKNOWN_LENGTH

from twistednet.cli.client import Address, Call, ClientError, client_options, run
from twistednet.cli.http import Body, Wire, check_status, http_headers, http_url, read, request, status_line


class Output:
    """A file that appears under its name when it is complete, or else not at all."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self._part: str | None = None
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Begin.

        :raises ClientError: where it can't be written.
        """
        try:
            if os.path.exists(self.path) and not stat.S_ISREG(os.stat(self.path).st_mode):
                self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115
                return
            folder, name = os.path.split(self.path)
            part = os.path.join(folder, f".{name[:200]}.{os.getpid()}.part")
            self._file = open(part, "xb", buffering=0)  # noqa: SIM115
            self._part = part
        except OSError as error:
            self._fail(error)

    def write(self, data: bytes) -> None:
        """Append `data`.

        :raises ClientError: where there is no room for it.
        """
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[cast(BinaryIO, self._file).write(rest) :]
        except OSError as error:
            self._fail(error)

    def complete(self) -> None:
        """Give it its name."""
        cast(BinaryIO, self._file).close()
        try:
            if self._part is not None:
                os.replace(self._part, self.path)
                self._part = None
        except OSError as error:
            self._fail(error)

    def discard(self) -> None:
        """Remove what is not complete."""
        if self._file is not None:
            self._file.close()
        if self._part is not None:
            os.unlink(self._part)

    def _fail(self, error: OSError) -> NoReturn:
        raise ClientError(f"{self.path}: {error.strerror}") from None


def write_all(data: bytes) -> None:
    """Write `data` to standard output.

    It waits where the reader there is slow: there is nothing else to do meanwhile, and the server has to wait too.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


class Bar:
    """How far the body has come, on a terminal at standard error.

    It looks at the size ten times a second instead of being told of each piece.
    """

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        self._looks: LoopingCall | None = None

    def start(self, call: Call, name: str, length: int | None, body: Body) -> None:
        """Begin to show `body`."""
        self._progress.start()
        bar = self._progress.add_task(name, total=length)
        self._looks = LoopingCall(lambda: self._progress.update(bar, completed=body.size, refresh=True))
        self._looks.clock = call.reactor
        self._looks.start(0.1)

    def stop(self) -> None:
        """Clear the line."""
        if self._looks is not None and self._looks.running:
            self._looks.stop()
            self._progress.stop()


@dataclass
class Report:
    """What `fetch` has to say of an answer."""

    url: str
    status: int
    status_line: str
    size: int
    seconds: float
    first_byte_seconds: float
    headers: dict[str, str]

    @property
    def bytes_per_second(self) -> float:
        """The body's size by all the time that the call took."""
        return self.size / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, object]:
        """What ``--json`` prints."""
        return {
            "url": self.url,
            "status": self.status,
            "bytes": self.size,
            "seconds": round(self.seconds, 6),
            "first_byte_seconds": round(self.first_byte_seconds, 6),
            "bytes_per_second": round(self.bytes_per_second),
            "headers": self.headers,
        }

    def __str__(self) -> str:
        return (
            f"{self.status_line}: {self.size} bytes, first byte after {self.first_byte_seconds:.3f} s, "
            f"all after {self.seconds:.3f} s, {in_units(self.bytes_per_second)}/s"
        )


def in_units(size: float) -> str:
    """`size` bytes in the unit that suits it."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"


@click.command()
@click.argument("url")
@click.option("-o", "--output", metavar="FILE", help="Write the body to FILE, once all of it is there.")
@click.option("--head", is_flag=True, help="Ask for the headers only, and print them as they came.")
@click.option("--header", "lines", multiple=True, metavar="'NAME: VALUE'", help="A header to send; may be repeated.")
@click.option("--data", multiple=True, metavar="'NAME=VALUE'", help="A field of a form, to POST; may be repeated.")
@click.option("--raw", is_flag=True, help="Print the request and the answer as they stand on the wire.")
@client_options
def fetch(
    url: str,
    output: str | None,
    head: bool,
    lines: tuple[str, ...],
    data: tuple[str, ...],
    raw: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Get URL over HTTP or HTTPS, and print what is there.

    Redirects are followed. On standard error it says, in the end, how much that was and how fast it came. --timeout
    is how long to wait for the next byte. --json prints url, status, bytes, seconds, first_byte_seconds,
    bytes_per_second and headers instead of the body.

    The exit status is 1 where the server answers with an error, such as 404 Not Found, where its certificate can't
    be verified, and where the body is shorter than it should be; no FILE is left then.
    """
    wanted = http_url(url)
    headers = http_headers(lines)
    if raw and as_json:
        raise click.UsageError("--raw and --json: one or the other")
    if head and data:
        raise click.UsageError("--head and --data: one or the other")
    form = []
    for pair in data:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--data {pair!r}: not NAME=VALUE")
        form.append((name, value))
    saved = Output(output) if output not in (None, "-") else None
    bar = Bar()

    async def main(call: Call) -> None:
        os.set_blocking(1, True)
        if saved is not None:
            saved.open()
        started = call.reactor.seconds()
        wire = Wire(
            call.reactor, sent=write_all if raw else None, received=write_all if raw or (head and not as_json) else None
        )
        method = "HEAD" if head else "POST" if form else "GET"
        answered, response = await request(call, wire, method, wanted, headers, form or None)
        first_byte = cast(float, wire.first_byte) - started
        if not raw:
            check_status(response)

        prints = saved is None and not (raw or as_json or head)
        take = saved.write if saved is not None else write_all if prints else bytes
        body = Body(call, wire, take)
        if sys.stderr.isatty() and not ((prints or raw) and sys.stdout.isatty()):
            length = None if response.length is UNKNOWN_LENGTH else response.length
            bar.start(call, answered.host, length, body)
        try:
            await read(call, wire, response, body)
        finally:
            bar.stop()
        check_status(response)
        if saved is not None:
            saved.complete()
        report = Report(
            url=answered.to_text(),
            status=response.code,
            status_line=status_line(response),
            size=body.size,
            seconds=call.reactor.seconds() - started,
            first_byte_seconds=first_byte,
            headers=headers_of(response),
        )
        if as_json:
            call.print_json(**report.as_json())
        else:
            click.echo(str(report), err=True)

    try:
        run(Call(Address(endpoint=url), timeout, as_json), main)
    finally:
        # Whatever has ended it, an interrupt among others.
        bar.stop()
        if saved is not None:
            saved.discard()


def headers_of(response: Any) -> dict[str, str]:
    """The headers of `response`, several of a name as one, with commas between."""
    headers = {
        name.decode("latin-1"): ", ".join(value.decode("latin-1") for value in values)
        for name, values in response.headers.getAllRawHeaders()
    }
    # Twisted keeps it to itself where it says how long the body is.
    if response.length is not UNKNOWN_LENGTH and "Content-Length" not in headers:
        headers["Content-Length"] = str(response.length)
    return headers
