"""The clients of the simple services: discard, chargen, daytime, time, qotd and systat."""

from __future__ import annotations

import hashlib
import time as wall
from datetime import UTC, datetime

import click
from twisted.internet.error import TimeoutError

from twistednet.cli.client import (
    Address,
    Call,
    ClientError,
    address_arguments,
    client_options,
    connect,
    open_datagram,
    retries_option,
    run,
    split_address,
    split_text,
    until_closed,
    write,
)
from twistednet.cli.stdio import stream
from twistednet.protocols.flow import StreamClient
from twistednet.protocols.simple import DiscardClient, from_time_1900

SILENCE = 0.5
"""Seconds without an answer after which a datagram counts as discarded."""

udp_option = click.option("--udp", is_flag=True, help="Ask with a datagram.")


def only_address(arguments: tuple[str, ...]) -> Address:
    """The address, where a command takes nothing else."""
    address, rest = split_address(arguments)
    if rest:
        raise click.UsageError(f"nothing is sent to this service; what is {rest[0]!r}?")
    return address


async def announcement(call: Call, *, udp: bool, retries: int) -> bytes:
    """What the service says when it is asked."""
    if udp or call.address.is_datagram:
        return await (await open_datagram(call)).ask(b"", timeout=call.timeout, retries=retries)
    return await until_closed(call, await connect(call, StreamClient))


def announcement_command(name: str, text: str) -> click.Command:
    """The client of a service that says something and closes: it prints what that is."""

    @click.command(name, help=text)
    @address_arguments("")
    @udp_option
    @retries_option
    @client_options
    def command(arguments: tuple[str, ...], udp: bool, retries: int, timeout: float, as_json: bool) -> None:
        address = only_address(arguments)

        async def main(call: Call) -> None:
            answer = await announcement(call, udp=udp, retries=retries)
            call.report(answer, ok=bool(answer), wrong=f"{address}: nothing was said", end=b"")

        run(Call(address, timeout, as_json), main)

    return command


daytime = announcement_command("daytime", "Print the date and the time that a daytime service tells.")
qotd = announcement_command("qotd", "Print the quotation of the day of a qotd service.")
systat = announcement_command("systat", "Print who is logged in where a systat service runs.")


@click.command()
@address_arguments("")
@udp_option
@retries_option
@client_options
def time(arguments: tuple[str, ...], udp: bool, retries: int, timeout: float, as_json: bool) -> None:
    """Print the time that a time service tells, and how far this machine's clock is from it."""
    address = only_address(arguments)

    async def main(call: Call) -> None:
        answer = await announcement(call, udp=udp, retries=retries)
        here = wall.time()
        try:
            there = from_time_1900(answer, here)
        except ValueError as wrong:
            raise ClientError(f"{address}: not a time: {wrong}") from None
        date = datetime.fromtimestamp(there, UTC)
        # The answer has whole seconds: it is right when it is the second that this machine's clock is in.
        offset = int(there - int(here))
        if as_json:
            call.print_json(address=str(address), time=date.isoformat(), seconds=there, offset=offset)
        else:
            where = f"{abs(offset)} s {'ahead of' if offset > 0 else 'behind'}" if offset else "the same as"
            write(f"{date:%a %Y-%m-%d %H:%M:%S} UTC, {where} this machine's clock\n".encode())

    run(Call(address, timeout, as_json), main)


@click.command()
@address_arguments("[TEXT]")
@click.option("--udp", is_flag=True, help="Send TEXT as a datagram.")
@client_options
def discard(arguments: tuple[str, ...], udp: bool, timeout: float, as_json: bool) -> None:
    """Send TEXT, or standard input, to a discard service.

    The exit status is 1 where anything comes back.
    """
    address, text = split_text(arguments)

    async def main(call: Call) -> None:
        answered = f"{address}: it was answered"
        answer: bytes | None = None
        if udp or address.is_datagram:
            if text is None:
                raise click.UsageError("over UDP, TEXT is needed")
            try:
                answer = await (await open_datagram(call)).ask(text, timeout=min(timeout, SILENCE))
            except TimeoutError:
                pass  # as it should be
        elif text is not None:
            client = await connect(call, DiscardClient)
            client.send(text)
            client.end()
            answer = await until_closed(call, client) or None
        else:
            call.no_json()
            _, received = await stream(call, await connect(call, DiscardClient))
            if received != hashlib.blake2b().digest():
                raise ClientError(answered)
            return
        call.report(answer or b"", ok=answer is None, wrong=answered, end=b"")

    run(Call(address, timeout, as_json), main)


@click.command()
@address_arguments("")
@click.option("--bytes", "limit", type=click.IntRange(min=1), metavar="N", help="Stop after N bytes.")
@udp_option
@retries_option
@client_options
def chargen(
    arguments: tuple[str, ...], limit: int | None, udp: bool, retries: int, timeout: float, as_json: bool
) -> None:
    """Print what a chargen service sends, until you interrupt it."""
    address = only_address(arguments)

    async def main(call: Call) -> None:
        if udp or address.is_datagram:
            answer = await announcement(call, udp=udp, retries=retries)
            call.report(answer[:limit], ok=True, wrong="")
            return
        call.no_json()
        client = await connect(call, StreamClient)
        count = 0

        def received(data: bytes) -> None:
            nonlocal count
            data = data if limit is None else data[: limit - count]
            write(data)
            count += len(data)
            if count == limit:
                client.received = lambda _: None
                client.close()

        client.received = received
        await until_closed(call, client)
        if count != limit:
            raise ClientError(f"{address}: closed after {count} bytes")

    run(Call(address, timeout, as_json), main)
