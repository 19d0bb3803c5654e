"""What came from a stranger, and who that is, as text that a terminal or a log can be trusted with."""

from __future__ import annotations

from typing import Any

import regex
from twisted.internet.address import UNIXAddress

_NOT_PLAIN = regex.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]?"  # control sequences: colours, the cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*+(?:\x07|\x1b\\|\x9c)?"  # strings: the title, links
    r"|\x1b[ -/]*+[0-~]?"  # other escape sequences
    r"|[\p{C}\p{Zl}\p{Zp}--[\n\t]]",  # control and format characters
    regex.VERSION1,
)
"""What `plain_text` takes out: the sequences of ECMA-48, and whatever else is not shown but changes what is."""


def printable(text: bytes, length: int | None = None) -> str:
    """`text` as one line that a terminal or a log can be trusted with: what can't be printed is escaped.

    :param length: how many bytes of it to show, with a note of how many there are; all when left out.
    """
    shown = text[:length].decode("utf-8", "backslashreplace")
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return line if length is None or len(text) <= length else f"{line}… ({len(text)} bytes)"


def plain_text(text: bytes) -> bytes:
    """`text` without what a terminal would obey instead of showing, and without what is not UTF-8; newlines and tabs
    stay."""
    return _NOT_PLAIN.sub("", text.decode("utf-8", "ignore")).encode()


def describe(address: Any) -> str:
    """`address`, an `IAddress`, in words."""
    if isinstance(address, UNIXAddress):
        name = address.name or b""
        return f"UNIX {printable(name)}"
    if not hasattr(address, "host"):
        return "an unknown address"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{address.type} {host}:{address.port}"
