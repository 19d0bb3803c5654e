"""``twistednet lookup``."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.names import client, common, dns, error, server

from tests.cli.running import run, udp_socket
from tests.services.running import PATIENCE
from twistednet.cli.client import NOT_FOUND, WRONG, Address, Call, ClientError
from twistednet.cli.lookup import Resolution, encoded, hosts_addresses, hosts_names, server_address

ZONE: dict[bytes, list[Any]] = {
    b"both.example": [
        dns.Record_AAAA("2001:db8::1"),
        dns.Record_A("192.0.2.1"),
        dns.Record_A("192.0.2.2"),
        dns.Record_AAAA("2001:db8::2"),
    ],
    b"four.example": [dns.Record_A("192.0.2.4")],
    b"six.example": [dns.Record_AAAA("2001:db8::6")],
    b"none.example": [dns.Record_TXT(b"no address")],
    b"alias.example": [dns.Record_CNAME("other.example")],
    b"other.example": [dns.Record_CNAME("both.example")],
    b"loop.example": [dns.Record_CNAME("pool.example")],
    b"pool.example": [dns.Record_CNAME("loop.example")],
    b"short.inside.example": [dns.Record_A("192.0.2.9")],
    b"xn--bcher-kva.example": [dns.Record_A("192.0.2.7")],
    b"1.2.0.192.in-addr.arpa": [dns.Record_PTR("both.example"), dns.Record_PTR("second.example")],
    b"2.2.0.192.in-addr.arpa": [dns.Record_CNAME("2.delegated.example")],
    b"2.delegated.example": [dns.Record_PTR("odd\x1b[31m.example")],
    ipaddress.ip_address("2001:db8::1").reverse_pointer.encode(): [dns.Record_PTR("both.example")],
}


class Zone(common.ResolverBase):
    """Knows `ZONE`."""

    def _lookup(self, name: bytes, cls: int, kind: int, timeout: Any = None) -> Deferred[Any]:
        name = name.lower()
        if name not in ZONE:
            return fail(error.AuthoritativeDomainError(name))
        found = [record for record in ZONE[name] if kind in (record.TYPE, dns.ALL_RECORDS) or record.TYPE == dns.CNAME]
        return succeed(([dns.RRHeader(name, record.TYPE, payload=record, auth=True) for record in found], [], []))


@pytest_twisted.async_yield_fixture()
async def name_server(live_reactor: Any) -> Any:
    """The address of a name server."""
    port = live_reactor.listenUDP(0, dns.DNSDatagramProtocol(server.DNSServerFactory(clients=[Zone()])), "127.0.0.1")
    yield f"127.0.0.1:{port.getHost().port}"
    await port.stopListening()


Look = Callable[..., Deferred[tuple[int, bytes, str]]]


@pytest.fixture
def look(name_server: str) -> Look:
    """Runs the command with that name server, while that answers."""
    return lambda *arguments: deferToThread(run, "lookup", "--server", name_server, *arguments)


@pytest_twisted.ensureDeferred
async def test_addresses(look: Look) -> None:
    """All addresses of a name are printed, IPv4 first, whatever aliases it goes through."""
    both = b"192.0.2.1\n192.0.2.2\n2001:db8::1\n2001:db8::2\n"
    for name, expected in (
        ("both.example", both),
        ("BOTH.Example.", both),
        ("alias.example", both),
        ("four.example", b"192.0.2.4\n"),
        ("six.example", b"2001:db8::6\n"),
        ("bücher.example", b"192.0.2.7\n"),
    ):
        assert await look(name) == (0, expected, ""), name


@pytest_twisted.ensureDeferred
async def test_names(look: Look) -> None:
    """All names of an address are printed, with nothing in them that plays with the terminal."""
    for address, expected in (
        ("192.0.2.1", b"both.example\nsecond.example\n"),
        ("2001:DB8:0::1", b"both.example\n"),
        ("192.0.2.2", b"odd\\x1b[31m.example\n"),
    ):
        assert await look(address) == (0, expected, ""), address


@pytest_twisted.ensureDeferred
async def test_json(look: Look) -> None:
    """With --json it is one object."""
    _, output, _ = await look("--json", "four.example")
    assert json.loads(output) == {"name": "four.example", "addresses": ["192.0.2.4"]}
    _, output, _ = await look("--json", "192.0.2.1")
    assert json.loads(output) == {"address": "192.0.2.1", "names": ["both.example", "second.example"]}


@pytest_twisted.ensureDeferred
async def test_not_found(look: Look) -> None:
    """A name that is not there, has no address, or is an alias of itself, and an address without a name, are 5."""
    for name in ("nothing.example", "none.example", "loop.example"):
        expected = f"twistednet lookup: {name}: there is no such name, or it has no address\n"
        assert await look(name) == (5, b"", expected)
    assert await look("192.0.2.99") == (5, b"", "twistednet lookup: 192.0.2.99: has no name\n")


def test_server_fails() -> None:
    """A name server that can't say is 1: the name may well be there."""
    with udp_socket() as server:

        def fail_twice() -> None:
            for _ in range(2):
                query, client = server.recvfrom(512)
                server.sendto(query[:2] + b"\x81\x82" + query[4:], client)

        thread = threading.Thread(target=fail_twice, daemon=True)
        thread.start()
        where = f"127.0.0.1:{server.getsockname()[1]}"
        expected = "twistednet lookup: x.example: the name server can't say: server error\n"
        assert run("lookup", "--server", where, "x.example") == (1, b"", expected)
        thread.join(PATIENCE)


def test_silence() -> None:
    """A name server that says nothing is 4; it was asked more than once."""
    with udp_socket() as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        for name in ("four.example", "192.0.2.1"):
            status, output, errors = run("lookup", "--timeout", "0.6", "--server", where, name)
            assert (status, output) == (4, b"")
            assert errors == f"twistednet lookup: {name}: no answer in 0.6 seconds\n"
        silent.setblocking(False)
        for _ in range(6):  # for an IPv4 address, an IPv6 address, and a name, each twice
            assert silent.recv(512)


def test_hosts_file() -> None:
    """What is in /etc/hosts is there without a name server."""
    status, output, errors = run("lookup", "localhost")
    assert (status, errors) == (0, "")
    assert output.split() == [address.encode() for address in hosts_addresses(Path("/etc/hosts"), b"localhost")]
    assert b"127.0.0.1" in output.split()
    status, output, _ = run("lookup", "127.0.0.1")
    assert (status, b"localhost" in output.split()) == (0, True)


def test_this_host() -> None:
    """Without a name, this machine's is printed first."""
    status, output, errors = run("lookup", "--timeout", "2")
    first, *addresses = output.decode().splitlines()
    assert first == socket.gethostname()
    assert status == 0, errors
    assert all(map(ipaddress.ip_address, addresses))
    _, output, _ = run("lookup", "--timeout", "2", "--json")
    assert json.loads(output) == {"name": first, "addresses": addresses}


def test_usage() -> None:
    """What is no name, and no address of a name server, is wrong usage."""
    for arguments in (
        ("a..b",),
        (".",),
        ("a" * 64 + ".example",),
        ("é" * 64 + ".example",),
        (".".join(["abcdefg"] * 40),),
        ("--server", "x", "example"),
        ("--server", "127.0.0.1:0", "example"),
        ("--server", "127.0.0.1:x", "example"),
        ("--server", "[::1", "example:1"),
        ("example", "example"),
    ):
        status, output, errors = run("lookup", *arguments)
        assert (status, output) == (2, b""), arguments
        assert "Traceback" not in errors


def test_server_address() -> None:
    """A name server is given as it is written elsewhere."""
    for text, expected in (
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("localhost:5353", ("127.0.0.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ):
        assert server_address(text) == expected
    with pytest.raises(click.UsageError):
        server_address("[::1]x")


def test_encoded() -> None:
    """A name is asked for in ASCII, without the dot at its end."""
    assert encoded("Bücher.example.") == b"xn--bcher-kva.example"
    assert encoded("_service._tcp.example") == b"_service._tcp.example"


class Names:
    """Answers each question out of `answers`, and remembers what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, bytes]] = []

    def __getattr__(self, kind: str) -> Callable[..., Deferred[Any]]:
        def lookup(name: bytes, timeout: object) -> Deferred[Any]:
            assert timeout
            self.asked.append((kind, name))
            answer = self.answers.get(kind, error.DNSNameError())
            return fail(answer) if isinstance(answer, Exception) else succeed((answer, [], []))

        return lookup


def call() -> Call:
    """A call."""
    return Call(Address(endpoint="example"), 1, False, Clock())


A = dns.RRHeader(b"x.example", dns.A, payload=dns.Record_A("192.0.2.1"))


@pytest_twisted.ensureDeferred
async def test_hosts_first(tmp_path: Path) -> None:
    """What the hosts file has is not asked of a name server, not even for the other kind of address."""
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "# comment\n::5 Name other # not this\n192.0.2.5\tNAME\n\nnonsense\nx.y.z name\n192.0.2.5 name third\n\xff\n"
    )
    names = Names(lookupAddress=[A])
    resolution = Resolution(call(), names, hosts)
    assert await resolution.addresses_of("name") == ["192.0.2.5", "::5"]
    assert await resolution.names_of(ipaddress.ip_address("192.0.2.5")) == ["NAME", "name", "third"]
    assert await resolution.names_of(ipaddress.ip_address("0::5")) == ["Name", "other"]
    assert names.asked == []
    assert await resolution.addresses_of("this.example") == ["192.0.2.1"]
    assert names.asked == [("lookupAddress", b"this.example"), ("lookupIPV6Address", b"this.example")]
    assert hosts_names(tmp_path / "none", ipaddress.ip_address("::1")) == []
    assert hosts_addresses(tmp_path / "none", b"name") == []


@pytest_twisted.ensureDeferred
async def test_search() -> None:
    """A name without a dot is looked for in the domains that the machine is set up with, then as it is."""
    names = Names()
    with pytest.raises(ClientError) as raised:
        await Resolution(call(), names, None, [b"a.example", b"b.example"]).addresses_of("host")
    assert raised.value.status == NOT_FOUND
    assert [name for kind, name in names.asked if kind == "lookupAddress"] == [
        b"host.a.example",
        b"host.b.example",
        b"host",
    ]
    names.asked.clear()
    with pytest.raises(ClientError):
        await Resolution(call(), names, None, [b"a.example"]).addresses_of("host.b")
    assert {name for _, name in names.asked} == {b"host.b"}


@pytest_twisted.ensureDeferred
async def test_half_an_answer() -> None:
    """Addresses of one kind are an answer, though the question for the other failed; without any, the failure is."""
    for failure in (TimeoutError(), error.DNSServerError()):
        names = Names(lookupAddress=[A], lookupIPV6Address=failure)
        assert await Resolution(call(), names).addresses_of("x.example") == ["192.0.2.1"]
    with pytest.raises(TimeoutError):
        await Resolution(call(), Names(lookupIPV6Address=TimeoutError())).addresses_of("x.example")
    with pytest.raises(ClientError) as raised:
        await Resolution(call(), Names(lookupPointer=error.DNSQueryRefusedError())).names_of(
            ipaddress.ip_address("::1")
        )
    assert (str(raised.value), raised.value.status) == (
        "1." + "0." * 31 + "ip6.arpa: the name server can't say: queryrefused error",
        WRONG,
    )


def test_resolvers_option() -> None:
    """The machine's own configuration is what `client.Resolver` reads: its class has what we take from it."""
    resolver = client.Resolver(servers=[("127.0.0.1", 53)], reactor=Clock())
    resolver.parseConfig([b"nameserver 192.0.2.53\n", b"search a.example b.example\n"])
    assert resolver.search == [b"a.example", b"b.example"]
