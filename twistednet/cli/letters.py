"""``twistednet letters``: the accumulator's client."""

from __future__ import annotations

import os

import click

from twistednet.cli.client import (
    Call,
    ClientError,
    address_arguments,
    client_options,
    connect,
    run,
    split_address,
)
from twistednet.cli.stdio import open_terminal
from twistednet.protocols.accumulator import LettersClient


@click.command()
@address_arguments("[LETTERS]")
@client_options
def letters(arguments: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Send LETTERS, one after another, to an accumulator, and print the string that it has then.

    Without LETTERS, they are taken from standard input, and the string is printed after each; at a terminal, you
    are asked for one after another. An empty line ends it.
    """
    address, rest = split_address(arguments)
    if len(rest) > 1 or any(not text or "\n" in text or "\r" in text for text in rest):
        raise click.UsageError("LETTERS is one word; quote it")

    async def main(call: Call) -> None:
        client = await connect(call, LettersClient)
        if rest:
            for letter in rest[0]:
                answer = await add(call, client, letter)
            ok = is_added(rest[0][-1], answer)
            call.report(answer, ok=ok, wrong=f"{address}: the string has no room for all of {rest[0]!r}")
            return
        call.no_json()
        terminal = open_terminal(call)
        while line := await terminal.ask("enter a letter:"):
            for letter in line.rstrip(b"\r").decode(errors="surrogateescape"):
                answer = await add(call, client, letter)
                terminal.say(answer)
                if not is_added(letter, answer):
                    await terminal.close()
                    raise ClientError(f"{address}: {letter!r} was not added")
        await terminal.close()

    run(Call(address, timeout, as_json), main)


def is_added(letter: str, answer: bytes) -> bool:
    """Whether `answer` is a string to which `letter` has been added."""
    return answer.endswith(os.fsencode(letter)) and not answer.startswith(b"error: ")


async def add(call: Call, client: LettersClient, letter: str) -> bytes:
    """One exchange."""
    return await client.add(os.fsencode(letter)).addTimeout(call.timeout, call.reactor)
