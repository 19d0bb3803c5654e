"""``twistednet repeat``."""

from __future__ import annotations

import os
import time

import click

from twistednet.cli.client import (
    Call,
    ClientError,
    address_arguments,
    client_options,
    connect,
    run,
    split_address,
    until_closed,
    write,
)
from twistednet.protocols.flow import StreamClient

SHOWN = 5
"""How many chunks the textbook's client shows."""


class Chunks:
    """Counts chunks, and shows the first ones."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.chunks = 0
        self.total = 0

    def add(self, data: bytes) -> None:
        """One has come."""
        self.chunks += 1
        self.total += len(data)
        if not self.quiet:
            write((data + b"\n" if self.chunks <= SHOWN else b"") + b"received %d bytes\n" % len(data))


@click.command()
@address_arguments("TEXT")
@client_options
def repeat(arguments: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Send TEXT to a repeat service, and count what comes back.

    The first five chunks are shown, the size of each is told, and in the end the total and the rate. --timeout is
    for the wait for each chunk; make it long where the service's operator has to give the go-ahead.
    """
    address, rest = split_address(arguments)
    if len(rest) != 1 or not rest[0]:
        raise click.UsageError("one TEXT is needed; quote it")
    text = os.fsencode(rest[0])

    async def main(call: Call) -> None:
        client = await connect(call, StreamClient)
        count = Chunks(quiet=as_json)
        client.received = count.add
        started = time.monotonic()
        client.send(text)
        client.end()
        await until_closed(call, client)
        seconds = time.monotonic() - started
        rate = count.total / seconds
        if as_json:
            call.print_json(
                address=str(address),
                bytes=count.total,
                chunks=count.chunks,
                seconds=round(seconds, 6),
                bytes_per_second=round(rate),
            )
        else:
            write(b"received %d bytes in %d chunks: " % (count.total, count.chunks))
            write(b"%.3f seconds, %.1f MB a second\n" % (seconds, rate / 1e6))
        if not count.total or count.total % len(text):
            raise ClientError(f"{address}: that is no number of copies of what was sent")

    run(Call(address, timeout, as_json), main)
