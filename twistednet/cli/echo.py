"""``twistednet echo``."""

from __future__ import annotations

import click

from twistednet.cli.client import (
    Call,
    ClientError,
    address_arguments,
    check_all_back,
    client_options,
    connect,
    open_datagram,
    retries_option,
    run,
    split_text,
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
    address, text = split_text(arguments)

    async def main(call: Call) -> None:
        if udp or address.is_datagram:
            if text is None:
                raise click.UsageError("over UDP, TEXT is needed")
            answer = await (await open_datagram(call)).ask(text, timeout=timeout, retries=retries)
        elif text is not None:
            client = await connect(call, EchoClient)
            answer = await client.ask(text).addTimeout(timeout, call.reactor)
        else:
            call.no_json()
            client = await connect(call, EchoClient)
            sent, received = await stream(call, client)
            check_all_back(call, client)
            if sent != received:
                raise ClientError(f"{address}: other bytes came back than were sent")
            return
        call.report(answer, ok=answer == text, wrong=f"{address}: that is not what was sent")

    run(Call(address, timeout, as_json), main)
