"""``twistednet echo``."""

from __future__ import annotations

import os

import click

from twistednet.cli.client import (
    Call,
    address_arguments,
    client_options,
    connect,
    open_datagram,
    retries_option,
    run,
    split_address,
)
from twistednet.cli.stdio import stream
from twistednet.protocols.echo import EchoClient


@click.command()
@address_arguments("[TEXT]")
@click.option("--udp", is_flag=True, help="Send TEXT as a datagram.")
@retries_option
@client_options
def echo(arguments: tuple[str, ...], udp: bool, retries: int, timeout: float, as_json: bool) -> None:
    """Send TEXT to an echo service, and print what comes back.

    Without TEXT, everything from standard input goes there and comes back on standard output, any amount of it.
    The exit status is 1 where something else comes back than was sent.
    """
    address, rest = split_address(arguments)
    if len(rest) > 1:
        raise click.UsageError("more than one TEXT; quote it")

    async def main(call: Call) -> None:
        if udp or address.endpoint.startswith(("udp:", "udp6:", "unixdgram:")):
            if not rest:
                raise click.UsageError("over UDP, TEXT is needed")
            asked = os.fsencode(rest[0])
            answer = await (await open_datagram(call)).ask(asked, timeout=timeout, retries=retries)
        elif rest:
            asked = os.fsencode(rest[0])
            client = await connect(call, EchoClient)
            answer = await client.ask(asked).addTimeout(timeout, call.reactor)
        else:
            call.no_json()
            await stream(call, await connect(call, EchoClient), same=True)
            return
        call.report(answer, ok=answer == asked, wrong=f"{address}: that is not what was sent")

    run(Call(address, timeout, as_json), main)
