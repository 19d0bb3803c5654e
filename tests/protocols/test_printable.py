"""What a terminal or a log can be trusted with."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from twistednet.protocols.printable import describe, printable


class PrintableTests(SynchronousTestCase):
    """`printable`."""

    def test_escapes(self) -> None:
        """What a terminal would act on is escaped; letters are not."""
        self.assertEqual(printable("aé\x1b[2J\n\u202e".encode() + b"\xff"), "aé\\x1b[2J\\n\\u202e\\xff")

    def test_length(self) -> None:
        """A long one is cut, and said to be."""
        self.assertEqual(printable(b"abcdef", 6), "abcdef")
        self.assertEqual(printable(b"abcdefg", 6), "abcdef… (7 bytes)")


class DescribeTests(SynchronousTestCase):
    """`describe`."""

    def test_describe(self) -> None:
        """Every kind of address in words that can be copied."""
        for address, words in (
            (IPv4Address("TCP", "127.0.0.1", 80), "TCP 127.0.0.1:80"),
            (IPv6Address("UDP", "::1", 80), "UDP [::1]:80"),
            (UNIXAddress(b"/run/x"), "UNIX /run/x"),
            (UNIXAddress(b"\xff"), "UNIX \\xff"),
            (UNIXAddress(None), "UNIX "),
        ):
            self.assertEqual(describe(address), words)
