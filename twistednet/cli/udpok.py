"""``twistednet udpok``."""

from __future__ import annotations

import click

from twistednet.cli.client import (
    Call,
    ClientError,
    address_arguments,
    client_options,
    open_datagram,
    retries_option,
    run,
    split_text,
)
from twistednet.cli.stdio import open_terminal
from twistednet.protocols.udpok import PREFIX


@click.command()
@address_arguments("[TEXT]")
@retries_option
@client_options
def udpok(arguments: tuple[str, ...], retries: int, timeout: float, as_json: bool) -> None:
    """Send TEXT to a udpok service as a datagram, and print the answer, OK... and TEXT.

    Without TEXT, each line of standard input is a datagram; at a terminal, you are asked for one after another.
    """
    address, text = split_text(arguments)

    async def main(call: Call) -> None:
        client = await open_datagram(call)
        if text is not None:
            answer = await client.ask(text, timeout=timeout, retries=retries)
            call.report(answer, ok=answer == PREFIX + text, wrong=f"{address}: that is not OK... and what was sent")
            return
        call.no_json()
        terminal = open_terminal(call)
        while (line := await terminal.ask("Enter message to send : ")) is not None:
            answer = await client.ask(line, timeout=timeout, retries=retries)
            terminal.say((b"Server reply : " if terminal.interactive else b"") + answer)
            if answer != PREFIX + line:
                await terminal.close()
                raise ClientError(f"{address}: that is not OK... and what was sent")
        await terminal.close()

    run(Call(address, timeout, as_json), main)
