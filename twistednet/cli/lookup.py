"""``twistednet lookup``."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.names import client, dns, error
from twisted.names.dns import CNAME
from twisted.names.hosts import searchFileForAll
from twisted.python.filepath import FilePath

from twistednet.cli.client import NOT_FOUND, Address, Call, ClientError, client_options, run, write
from twistednet.protocols.printable import printable

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

HOSTS = Path("/etc/hosts")

MAX_ALIASES = 16
"""How many aliases in a row are followed; BIND's limit."""


def server_address(text: str) -> tuple[str, int]:
    """The address of a name server, given as ``HOST``, ``HOST:PORT`` or, for IPv6, ``[HOST]:PORT``.

    :raises click.UsageError: for anything else.
    """
    host, port = text, "53"
    if bracketed := re.fullmatch(r"\[(.*)\](?::(.*))?", text):
        host, port = bracketed[1], bracketed[2] or port
    elif text.count(":") == 1:
        host, port = text.split(":")
    try:
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)), int(port)
    except ValueError:
        raise click.UsageError(f"--server {text}: not the address of a name server, such as 192.0.2.1:53") from None


def encoded(name: str) -> bytes:
    """`name` as it is asked for.

    :raises click.UsageError: for what can't be one.
    """
    try:
        text = name.removesuffix(".").encode("ascii" if name.isascii() else "idna")
    except UnicodeError:
        text = b""
    if len(text) > 253 or not all(1 <= len(label) <= 63 for label in text.split(b".")):
        raise click.UsageError(f"{name}: not a name")
    return text


@dataclass(frozen=True)
class Resolution:
    """Whom to ask.

    :param names: the name servers.
    :param hosts: the hosts file: what is in there is not asked of anyone else.
    :param search: domains in which a name without a dot is looked for first.
    """

    call: Call
    names: Any
    hosts: Path | None = None
    search: Sequence[bytes] = ()

    async def addresses_of(self, name: str) -> list[str]:
        """All addresses of `name`, IPv4 first.

        :raises ClientError: where it has none, or the name server can't say.
        """
        asked = encoded(name)
        candidates = [asked] if b"." in asked else [*(asked + b"." + domain for domain in self.search), asked]
        if self.hosts is not None and (found := hosts_addresses(self.hosts, asked)):
            return found
        for candidate in candidates:
            if found := await self._addresses(candidate):
                return found
        raise ClientError(f"{name}: there is no such name, or it has no address", NOT_FOUND)

    async def _addresses(self, name: bytes) -> list[str]:
        asking: Any = [
            ensureDeferred(self._records(self.names.lookupAddress, name, dns.A)),
            ensureDeferred(self._records(self.names.lookupIPV6Address, name, dns.AAAA)),
        ]
        answers = await DeferredList(asking, consumeErrors=True)
        found = [
            str(ipaddress.ip_address(record.payload.address)) for ok, records in answers if ok for record in records
        ]
        failures = [answer for ok, answer in answers if not ok]
        if failures and not found:
            raise failures[0].value
        return list(dict.fromkeys(found))

    async def names_of(self, address: IPAddress) -> list[str]:
        """All names of `address`.

        :raises ClientError: where it has none, or the name server can't say.
        """
        if self.hosts is not None and (found := hosts_names(self.hosts, address)):
            return found
        records = await self._records(self.names.lookupPointer, address.reverse_pointer.encode(), dns.PTR)
        if not records:
            raise ClientError(f"{address}: has no name", NOT_FOUND)
        return list(dict.fromkeys(printable(record.payload.name.name) for record in records))

    async def _records(self, lookup: Callable[..., Any], name: bytes, kind: int) -> list[Any]:
        """The records of `kind` that `name` has, or that what it is an alias of has."""
        timeout = self.call.timeout
        for _ in range(MAX_ALIASES):
            asking = lookup(name, timeout=(timeout / 4, timeout * 3 / 4))
            try:
                answers, _authority, _additional = await asking.addTimeout(timeout, self.call.reactor)
            except error.DNSNameError:
                return []
            except error.DomainError as failure:
                reason = type(failure).__name__.removeprefix("DNS").removesuffix("Error").lower()
                raise ClientError(f"{printable(name)}: the name server can't say: {reason} error") from None
            if found := [record for record in answers if record.type == kind]:
                return found
            aliases = {record.name.name.lower(): record.payload.name.name for record in answers if record.type == CNAME}
            if name.lower() not in aliases:
                return []
            while name.lower() in aliases:
                name = aliases.pop(name.lower())
        return []


def make_resolution(call: Call, server: tuple[str, int] | None) -> Resolution:
    """`server` alone or, without one, this machine's hosts file and the name servers that it is set up with."""
    if server is not None:
        return Resolution(call, client.Resolver(servers=[server], reactor=call.reactor))
    names = client.Resolver("/etc/resolv.conf", reactor=call.reactor)
    return Resolution(call, names, HOSTS, getattr(names, "search", None) or ())


def hosts_addresses(path: Path, name: bytes) -> list[str]:
    """The addresses that a hosts file has for `name`, IPv4 first; none where there is no file."""
    return sorted(dict.fromkeys(searchFileForAll(FilePath(str(path)), name)), key=lambda address: ":" in address)


def hosts_names(path: Path, address: IPAddress) -> list[str]:
    """The names that a hosts file has for `address`; none where there is no file."""
    try:
        lines = path.read_text(errors="backslashreplace").splitlines()
    except OSError:
        return []
    rows = [line.partition("#")[0].split() for line in lines]
    return [name for row in rows if row and _same(row[0], address) for name in row[1:]]


def _same(text: str, address: IPAddress) -> bool:
    try:
        return ipaddress.ip_address(text) == address
    except ValueError:
        return False


@click.command()
@click.argument("name", required=False)
@click.option("--server", metavar="HOST[:PORT]", help="Ask this name server, and nothing else.")
@client_options
def lookup(name: str | None, server: str | None, timeout: float, as_json: bool) -> None:
    """Print all addresses of NAME, IPv4 and IPv6, or, where NAME is an address, all names of it.

    They come from /etc/hosts or, where nothing is there, from the name servers in /etc/resolv.conf. Without NAME,
    it is this machine's own name that is printed, and its addresses.
    """
    asked = server_address(server) if server is not None else None
    own = name is None
    wanted = socket.gethostname() if name is None else name
    try:
        address = ipaddress.ip_address(wanted.partition("%")[0])
    except ValueError:
        address = None
        encoded(wanted)

    async def main(call: Call) -> None:
        resolution = make_resolution(call, asked)
        if own and not as_json:
            write(wanted.encode() + b"\n")
        if address is None:
            found = await resolution.addresses_of(wanted)
            answer: dict[str, object] = {"name": wanted, "addresses": found}
        else:
            found = await resolution.names_of(address)
            answer = {"address": str(address), "names": found}
        if as_json:
            call.print_json(**answer)
        else:
            write("\n".join(found).encode() + b"\n")

    run(Call(Address(endpoint=wanted), timeout, as_json), main)
