"""Which client addresses a service accepts: networks in CIDR notation, and the rules made of them.

An IPv4-mapped IPv6 address (``::ffff:192.0.2.1``, RFC 4291 section 2.5.5.2) is an IPv4 client on a socket that listens
on both families. It is treated as the IPv4 address everywhere here: in networks, in rules, and when connections of one
host are counted.

The objects are immutable. To change the rules of a running service, replace the object::

    factory.rules = AddressRules(deny=Networks.parse("192.0.2.0/24", "2001:db8::/32"))
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from twistednet.protocols.printable import describe

_MAPPED = IPv6Network("::ffff:0:0/96")


@lru_cache(maxsize=4096)
def parse_host(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` is, an IPv4-mapped one as IPv4; ``None`` if it is not an IP address.

    :param host: an address as the system or a PROXY header gives it, with or without a scope (``fe80::1%eth0``).
    """
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def _number(host: str) -> tuple[int, int]:
    """The version and the number of the address `host`; version 0 for what is no address."""
    address = parse_host(host)
    return (0, 0) if address is None else (address.version, int(address))


def client_host(address: Any) -> str | None:
    """The host of `address`, an `IAddress`, in one spelling for each host; ``None`` for a Unix socket."""
    host: str | None = getattr(address, "host", None)
    if host is None:
        return None
    parsed = parse_host(host)
    return host if parsed is None else str(parsed)


def describe_client(address: Any) -> str:
    """`address`, an `IAddress` or ``None``, in words for the log; its host is spelled as `client_host` spells it."""
    if address is None:
        return "an unknown address"
    host = client_host(address)
    return describe(address if host is None else type(address)(address.type, host, address.port))


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """The network that `text` describes in CIDR notation; a single address is a network of one.

    :raises ValueError: for anything else; its text says what is accepted.
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        try:
            nearest = ip_network(text, strict=False)
        except ValueError:
            raise ValueError("not a network; write for example 192.0.2.0/24 or 2001:db8::/32") from error
        raise ValueError(f"not a network, as bits beyond the prefix are set; write {nearest}") from error
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


class Networks:
    """An immutable set of networks. ``host in networks`` tells whether one of them contains the address `host`.

    The time that takes depends on how many different prefix lengths there are, not on how many networks.

    :param networks: as `parse_network` returns them.
    """

    __slots__ = ("_prefixes", "_texts")

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network] = ()) -> None:
        distinct = dict.fromkeys(networks)
        self._texts = tuple(str(network) for network in distinct)
        prefixes: dict[tuple[int, int], set[int]] = {}
        for network in distinct:
            shift = network.max_prefixlen - network.prefixlen
            prefixes.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
        self._prefixes = tuple((*key, frozenset(members)) for key, members in prefixes.items())

    @classmethod
    def parse(cls, *texts: str) -> Networks:
        """The networks that `texts` describe in CIDR notation.

        :raises ValueError: if one of them is wrong.
        """
        return cls(map(parse_network, texts))

    def __contains__(self, host: str) -> bool:
        version, number = _number(host)
        for of_version, shift, members in self._prefixes:
            if of_version == version and number >> shift in members:
                return True
        return False

    def __bool__(self) -> bool:
        return bool(self._prefixes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and set(self._texts) == set(other._texts)

    def __hash__(self) -> int:
        return hash(frozenset(self._texts))

    def __repr__(self) -> str:
        return f"Networks.parse({', '.join(map(repr, self._texts))})"


NONE = Networks()
"""No network."""

LOOPBACK = Networks.parse("127.0.0.0/8", "::1")
"""The addresses of this machine for itself."""


@dataclass(frozen=True)
class AddressRules:
    """Which hosts may connect, or send datagrams.

    `deny` wins over `allow`. Where `allow` has any network, all hosts outside of it are refused.

    :param allow: the hosts to accept; all, if it is empty.
    :param deny: the hosts to refuse.
    """

    allow: Networks = NONE
    deny: Networks = NONE

    def refusal(self, host: str) -> str:
        """The list that refuses `host`, ``"deny"`` or ``"allow"``; an empty string if it is accepted."""
        if host in self.deny:
            return "deny"
        return "allow" if self.allow and host not in self.allow else ""
