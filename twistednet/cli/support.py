"""``twistednet support``."""

from __future__ import annotations

import os
from typing import cast

import click

from twistednet.cli.client import (
    Call,
    ClientError,
    address_arguments,
    client_options,
    connect,
    open_datagram,
    retries_option,
    run,
    split_address,
    until_closed,
)
from twistednet.cli.stdio import open_terminal, stream
from twistednet.protocols.support import SupportClient, SupportDatagramClient


@click.command()
@address_arguments("[ANSWER]...")
@click.option("--udp", is_flag=True, help="Talk in datagrams.")
@retries_option
@client_options
def support(arguments: tuple[str, ...], udp: bool, retries: int, timeout: float, as_json: bool) -> None:
    """Talk to the support line of an internet provider: it asks, you answer, until it knows what to advise.

    Each line of standard input is an answer; at a terminal, you type them. With ANSWERs, those are given one after
    another, and the whole conversation is printed.
    """
    address, rest = split_address(arguments)
    answers = [os.fsencode(answer) for answer in rest]
    if any("\n" in answer for answer in rest):
        raise click.UsageError("an ANSWER is one line")

    async def main(call: Call) -> None:
        if not answers:
            call.no_json()
        if udp or address.is_datagram:
            await talk_in_datagrams(call, answers, retries)
        elif answers:
            client = await connect(call, SupportClient)
            client.send(b"".join(answer + b"\n" for answer in answers))
            client.end()
            said = await until_closed(call, client)
            call.report(said, ok=bool(said), wrong=f"{address}: nothing was said")
        else:
            await stream(call, await connect(call, SupportClient))

    run(Call(address, timeout, as_json), main)


async def talk_in_datagrams(call: Call, answers: list[bytes], retries: int) -> None:
    """Open a conversation and give `answers`, or those from standard input where there are none."""
    client = cast(SupportDatagramClient, await open_datagram(call, SupportDatagramClient))
    said = await client.say(timeout=call.timeout, retries=retries)
    if answers:
        for answer in answers:
            if not client.state:
                said += await client.say(answer, timeout=call.timeout, retries=retries)
        call.report(said, ok=client.state != "busy", wrong=f"{call.address}: all lines are busy", end=b"")
        return
    terminal = open_terminal(call)
    terminal.say(said.removesuffix(b"\n"))
    while not client.state and (line := await terminal.ask("")) is not None:
        said = await client.say(line, timeout=call.timeout, retries=retries)
        terminal.say(said.removesuffix(b"\n"))
    await terminal.close()
    if client.state == "busy":
        raise ClientError(f"{call.address}: all lines are busy")
