"""``twistednet wps``."""

from __future__ import annotations

import os

import click

from twistednet.cli.client import Call, address_arguments, client_options, connect, run, split_address, until_closed
from twistednet.protocols.wps import CommandClient


@click.command()
@address_arguments("{w | ps | NAME}")
@client_options
def wps(arguments: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Have a wps service run the command it knows as NAME, and print the output.

    w and ps are the names, unless the service's operator has chosen others.
    """
    address, rest = split_address(arguments)
    if len(rest) != 1:
        raise click.UsageError("name one command: w or ps, for example")
    name = os.fsencode(rest[0])

    async def main(call: Call) -> None:
        client = await connect(call, CommandClient)
        client.send(name + b"\n")
        answer = await until_closed(call, client)
        call.report(answer, ok=not answer.startswith(b"error: "), wrong=f"{address}: {rest[0]!r} was not run", end=b"")

    run(Call(address, timeout, as_json), main)
