"""What came from a stranger, and who that is, as text that a terminal or a log can be trusted with."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress


def printable(text: bytes, length: int | None = None) -> str:
    """`text` as one line that a terminal or a log can be trusted with: what can't be printed is escaped.

    :param length: how many bytes of it to show, with a note of how many there are; all when left out.
    """
    shown = text[:length].decode("utf-8", "backslashreplace")
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return line if length is None or len(text) <= length else f"{line}… ({len(text)} bytes)"


def describe(address: Any) -> str:
    """`address`, an `IAddress`, in words."""
    if isinstance(address, UNIXAddress):
        name = address.name or b""
        return f"UNIX {printable(name)}"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{address.type} {host}:{address.port}"
