"""``twistednet greeter``."""

from __future__ import annotations

import click

from twistednet.cli.client import (
    Call,
    address_arguments,
    client_options,
    connect,
    run,
    split_text,
    until_closed,
)
from twistednet.protocols.flow import StreamClient

HELLO = b"Hello World"
"""What the textbook's client says."""


@click.command()
@address_arguments("[TEXT]")
@client_options
def greeter(arguments: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Say TEXT (Hello World unless you have something better) to a greeter, and print its greeting and goodbye."""
    address, text = split_text(arguments)

    async def main(call: Call) -> None:
        client = await connect(call, StreamClient)
        client.send((HELLO if text is None else text) + b"\n")
        answer = await until_closed(call, client)
        call.report(answer, ok=len(answer.splitlines()) > 1, wrong=f"{address}: not a greeting and a goodbye")

    run(Call(address, timeout, as_json), main)
