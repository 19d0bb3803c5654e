"""What a terminal or a log can be trusted with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from twistednet.protocols.printable import describe, plain_text, printable


class PrintableTests(SynchronousTestCase):
    """`printable`."""

    def test_escapes(self) -> None:
        """What a terminal would act on is escaped; letters are not."""
        self.assertEqual(printable("aé\x1b[2J\n\u202e".encode() + b"\xff"), "aé\\x1b[2J\\n\\u202e\\xff")

    def test_length(self) -> None:
        """A long one is cut, and said to be."""
        self.assertEqual(printable(b"abcdef", 6), "abcdef")
        self.assertEqual(printable(b"abcdefg", 6), "abcdef… (7 bytes)")


class PlainTextTests(SynchronousTestCase):
    """`plain_text`."""

    def test_text(self) -> None:
        """Text stays as it is, in any language, with its newlines and tabs."""
        text = "PID\tTTY\n1 ~!@[{é 日本\u00a0🙂\n\n".encode()
        self.assertEqual(plain_text(text), text)

    def test_sequences(self) -> None:
        """Escape sequences go, whole."""
        for sequence in (
            "\x1b[31m",
            "\x1b[38;5;1m",
            "\x1b[?25l",
            "\x1b[2 q",
            "\x9b31m",
            "\x1b]0;title\x07",
            "\x1b]8;;http://x/\x1b\\",
            "\x9d0;title\x9c",
            "\x1bP1$r\x1b\\",
            "\x1b_x\x1b\\",
            "\x1b(B",
            "\x1b7",
            "\x1bc",
        ):
            self.assertEqual(plain_text(f"a{sequence}b\n{sequence}".encode()), b"ab\n", sequence)

    def test_characters(self) -> None:
        """So do control and format characters, and what is not UTF-8."""
        self.assertEqual(plain_text(b"a\rb\0c\x08\x7f\xff\xc3"), b"abc")
        self.assertEqual(plain_text("a\x85\u202e\u2028\ufeffb".encode()), b"ab")

    def test_unfinished(self) -> None:
        """A sequence that does not end takes no more than its line."""
        self.assertEqual(plain_text(b"a\x1b]0;title\nb\x1b[3\nc\x1b"), b"a\nb\nc")

    @given(st.text(st.sampled_from("\x1b[]();0m\x07\\P\n\t\x9b\x9c\x9da")))
    def test_nothing_left(self, text: str) -> None:
        """Nothing that a terminal would obey is left, nor comes about by taking others out."""
        plain = plain_text(text.encode()).decode()
        self.assertEqual(set(plain) & {"\x1b", "\x07", "\x9b", "\x9c", "\x9d"}, set())
        self.assertEqual(plain_text(plain.encode()).decode(), plain)
        self.assertEqual(plain.count("\n"), text.count("\n"))

    def test_linear(self) -> None:
        """Long nonsense takes no longer than it is long."""
        for part in ("\x1b[", "\x1b]", "\x1b", "\x1b[0;", "\x9b "):
            self.assertEqual(plain_text((part * 100_000).encode() + b"\nend"), b"\nend")
        self.assertEqual(plain_text(b"\x1b[" + b"0" * 300_000 + b"\n"), b"\n")


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
            (None, "an unknown address"),
        ):
            self.assertEqual(describe(address), words)
