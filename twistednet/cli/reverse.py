"""``twistednet reverse``."""

from __future__ import annotations

import os
import sys

import click

from twistednet.cli.client import (
    Call,
    ClientError,
    address_arguments,
    check_all_back,
    client_options,
    connect,
    run,
    split_address,
)
from twistednet.cli.stdio import open_terminal, stream
from twistednet.protocols.reverse import ReverseClient, units

SENTENCE = b"SNS is the best course ever !"
"""What the textbook's client sends (seed 004 figure 8.10)."""


@click.command()
@address_arguments("[TEXT]")
@client_options
def reverse(arguments: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Send TEXT to a reverse service, and print it reversed.

    Without TEXT, the lines of standard input are reversed, any number of them; at a terminal, one after another
    for as long as you like.
    """
    address, rest = split_address(arguments)
    if len(rest) > 1 or any("\n" in text or text.endswith("\r") for text in rest):
        raise click.UsageError("TEXT is one line; quote it")

    async def main(call: Call) -> None:
        if rest:
            text = os.fsencode(rest[0])
            client = await connect(call, ReverseClient)
            answer = (await ask(call, client, text)).removesuffix(b"\n")
            call.report(answer, ok=is_reversed(text, answer), wrong=f"{address}: that is not what was sent, reversed")
        else:
            call.no_json()
            client = await connect(call, ReverseClient)
            if sys.stdin.isatty():
                await converse(call, client)
                return
            await stream(call, client)
            check_all_back(call, client)

    run(Call(address, timeout, as_json), main)


def is_reversed(text: bytes, answer: bytes) -> bool:
    """Whether `answer` is `text` reversed in one way or another."""
    return any(answer == way(text) for way in units.values())


async def ask(call: Call, client: ReverseClient, text: bytes) -> bytes:
    """One exchange."""
    return await client.ask(text + b"\n").addTimeout(call.timeout, call.reactor)


async def converse(call: Call, client: ReverseClient) -> None:
    """The textbook's conversation."""
    terminal = open_terminal(call)
    again: bytes | None = b"y"
    while again == b"y":
        text = await terminal.ask(f"Message to send [{SENTENCE.decode()}]: ")
        if text is None:
            break
        text = text or SENTENCE
        answer = (await ask(call, client, text)).removesuffix(b"\n")
        terminal.say(b"Received from the server : " + answer)
        if not is_reversed(text, answer):
            await terminal.close()
            raise ClientError(f"{call.address}: that is not what was sent, reversed")
        again = await terminal.ask("\nDo you want to continue (y/n) :")
    await terminal.close()
