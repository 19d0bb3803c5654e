"""What the text services owe, written the slow and plain way: functions of all that was sent, however it was cut."""

from __future__ import annotations

from collections.abc import Callable

from twistednet.protocols.dialogue import Dialogue
from twistednet.protocols.support import Conversation


def messages(stream: bytes, max_length: int, *, ended: bool) -> tuple[list[tuple[bytes, bytes]], bool]:
    """The messages of `stream`, each with its ending, and whether the one after them is too long.

    :param ended: whether the stream has ended; if not, what follows its last LF is no message yet.
    """
    found: list[tuple[bytes, bytes]] = []
    *lines, last = stream.split(b"\n")
    for line in lines:
        message, ending = (line[:-1], b"\r\n") if line.endswith(b"\r") else (line, b"\n")
        if len(message) > max_length:
            return found, True
        found.append((message, ending))
    # Until the next octet it may be the CR of an ending that is one too many.
    if len(last) > max_length + (last.endswith(b"\r") and not ended):
        return found, True
    if ended and last:
        found.append((last, b""))
    return found, False


def answers(
    stream: bytes, answer: Callable[[bytes, bytes], bytes], max_length: int = 16384, *, ended: bool, first: bool = False
) -> bytes:
    """What is owed for `stream`.

    :param answer: what is owed for a message, of it and of its ending.
    :param first: only the first message is answered.
    """
    found, too_long = messages(stream, max_length, ended=ended)
    if first and found:
        return answer(*found[0])
    owed = b"".join(answer(*message) for message in found)
    if too_long:
        ending = found[-1][1] if found else b""
        owed += f"error: a message is longer than {max_length} bytes".encode() + (ending or b"\n")
    return owed


def support(stream: bytes, dialogue: Dialogue, ticket: str, *, ended: bool) -> bytes:
    """What a conversation over TCP is, for `stream`."""
    conversation = Conversation(dialogue, lambda: ticket)
    owed = "".join(line + "\n" for line in conversation.open()).encode()
    found, too_long = messages(stream, 16384, ended=ended)
    ending = b"\n"
    for message, ending in found:
        lines = [line.encode() for line in conversation.answer(message.decode(errors="replace"))]
        owed += (ending or b"\n").join(lines) + ending
        if conversation.over:
            return owed
    if too_long:
        owed += b"error: a message is longer than 16384 bytes" + ending
    return owed
