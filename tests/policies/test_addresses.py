"""Networks in CIDR notation, and the rules made of them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from twistednet.policies.addresses import (
    LOOPBACK,
    AddressRules,
    Networks,
    client_host,
    describe_client,
    parse_network,
)


class NetworksTests(SynchronousTestCase):
    """`Networks` and `parse_network`."""

    def test_members(self) -> None:
        """A network contains its first and its last address, and not those beside them."""
        for network, inside, outside in (
            ("192.0.2.0/24", ("192.0.2.0", "192.0.2.255"), ("192.0.1.255", "192.0.3.0", "2001:db8::1")),
            ("192.0.2.1", ("192.0.2.1",), ("192.0.2.0", "192.0.2.2")),
            ("0.0.0.0/0", ("0.0.0.0", "255.255.255.255"), ("::", "2001:db8::1")),
            ("2001:db8::/32", ("2001:db8::", "2001:db8:ffff::1"), ("2001:db7::", "2001:db9::")),
            ("::1", ("::1",), ("::", "::2", "0.0.0.1")),
            ("::/0", ("::", "ffff::", "fe80::1%eth0"), ("192.0.2.1",)),
        ):
            networks = Networks.parse(network)
            self.assertEqual([host for host in (*inside, *outside) if host in networks], [*inside])

    def test_mapped(self) -> None:
        """An IPv4 address that is mapped into IPv6 is the IPv4 address, as a host and as a network."""
        for network in ("192.0.2.0/24", "::ffff:192.0.2.0/120", "::ffff:c000:200/120"):
            for host in ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207", "0:0:0:0:0:ffff:c000:207"):
                self.assertIn(host, Networks.parse(network))
        self.assertIn("192.0.2.7", Networks.parse("::ffff:0:0/96"))
        self.assertNotIn("::ffff:192.0.2.7", Networks.parse("::/0"))

    def test_none(self) -> None:
        """No network contains nothing, and nothing contains what is no address."""
        self.assertFalse(Networks())
        self.assertNotIn("192.0.2.1", Networks())
        self.assertNotIn("localhost", Networks.parse("0.0.0.0/0", "::/0"))

    def test_wrong(self) -> None:
        """What is no network is an error that shows one; bits beyond the prefix are named."""
        for text in ("", "x", "192.0.2.0/33", "192.0.2/24", "2001:db8::/129", "192.0.2.0/24/1", " 192.0.2.0", "/8"):
            error = self.assertRaises(ValueError, parse_network, text)
            self.assertEqual(str(error), "not a network; write for example 192.0.2.0/24 or 2001:db8::/32")
        for text, right in (("192.0.2.1/24", "192.0.2.0/24"), ("2001:db8::1/32", "2001:db8::/32")):
            error = self.assertRaises(ValueError, parse_network, text)
            self.assertEqual(str(error), f"not a network, as bits beyond the prefix are set; write {right}")

    def test_value(self) -> None:
        """Networks are values, and can be shown."""
        self.assertEqual(Networks.parse("::1", "10.0.0.0/8", "::1"), Networks.parse("10.0.0.0/8", "::1"))
        self.assertEqual(len({Networks.parse("::1"), Networks.parse("::1"), LOOPBACK}), 2)
        self.assertEqual(repr(Networks.parse("10.0.0.0/8", "::1")), "Networks.parse('10.0.0.0/8', '::1/128')")

    @given(
        st.lists(st.tuples(st.ip_addresses(), st.integers(0, 128)), max_size=8),
        st.ip_addresses(),
    )
    def test_as_the_library(self, prefixes: list[tuple[object, int]], host: object) -> None:
        """An address is in the networks of which `ipaddress` finds it in one."""
        addresses = [ip_address(str(address)) for address, _ in prefixes]
        networks = [
            ip_network((int(address), min(length, address.max_prefixlen)), strict=False)
            if address.version == 4
            else ip_network(f"{address}/{length}", strict=False)
            for address, (_, length) in zip(addresses, prefixes, strict=True)
        ]
        if any(network.version == 6 and network.prefixlen > 90 for network in networks):
            return  # It may be a mapped one, of which the library makes nothing.
        tested = [ip_address(str(host)), *addresses]
        for address in tested:
            expected = any(address in network for network in networks)
            if address.version == 6 and address.ipv4_mapped is not None:
                continue
            self.assertEqual(str(address) in Networks(networks), expected)


class RulesTests(SynchronousTestCase):
    """`AddressRules`."""

    def test_everybody(self) -> None:
        """Without lists, all are accepted."""
        self.assertEqual(AddressRules().refusal("192.0.2.1"), "")

    def test_deny(self) -> None:
        """With --deny alone, all others are accepted."""
        rules = AddressRules(deny=Networks.parse("192.0.2.0/24"))
        self.assertEqual((rules.refusal("192.0.2.1"), rules.refusal("192.0.3.1")), ("deny", ""))

    def test_allow(self) -> None:
        """With --allow, all others are refused, of the other family too."""
        rules = AddressRules(allow=Networks.parse("192.0.2.0/24"))
        self.assertEqual(
            [rules.refusal(host) for host in ("192.0.2.1", "192.0.3.1", "::1", "localhost")], ["", *["allow"] * 3]
        )

    def test_both(self) -> None:
        """A host in both is denied, however narrow the network that allows it."""
        rules = AddressRules(allow=Networks.parse("192.0.2.1", "10.0.0.0/8"), deny=Networks.parse("192.0.2.0/24"))
        self.assertEqual(
            [rules.refusal(host) for host in ("192.0.2.1", "10.0.0.1", "192.0.3.1")], ["deny", "", "allow"]
        )


class ClientTests(SynchronousTestCase):
    """How a client is called."""

    def test_host(self) -> None:
        """Each host has one spelling; a Unix socket has none."""
        for host, spelled in (
            ("2001:0DB8:0:0::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
        ):
            self.assertEqual(client_host(IPv6Address("TCP", host, 1)), spelled)
        self.assertEqual(client_host(IPv4Address("TCP", "192.0.2.1", 1)), "192.0.2.1")
        self.assertIsNone(client_host(UNIXAddress(b"socket")))
        self.assertIsNone(client_host(None))

    def test_in_words(self) -> None:
        """For the log."""
        for address, words in (
            (IPv6Address("TCP", "::ffff:192.0.2.1", 7), "TCP 192.0.2.1:7"),
            (IPv6Address("TCP", "0:0:0:0:0:0:0:1", 7), "TCP [::1]:7"),
            (UNIXAddress(b"socket"), "UNIX socket"),
            (None, "an unknown address"),
        ):
            self.assertEqual(describe_client(address), words)
