r"""Reverse: each message comes back, reversed.

.. code-block:: abnf

    question = message ending       ; see twistednet.protocols.framing
    answer   = reversed ending      ; the same ending, as many bytes

=============  =====================================================================================
unit           what is put in reverse order
=============  =====================================================================================
``character``  what a reader sees as characters (extended grapheme clusters) where the message is
               valid UTF-8, else its bytes
``byte``       the bytes: the textbook's ``data[::-1]``
=============  =====================================================================================

::

    C: stressed LF                    S: desserts LF
    C: 6E 6F 65 CC 88 6C LF  (noël)   S: 6C 65 CC 88 6F 6E LF  (lëon), the diaeresis still on its e

Bad input: a message longer than 16,384 bytes is answered by a line ``error: …``, and the connection closed.

Sources: seed 004 figures 8.8 to 8.10; Unicode Standard Annex 29 (grapheme clusters).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import regex
from twisted.internet.interfaces import IReactorTime

from twistednet.protocols.echo import EchoClient
from twistednet.protocols.framing import MESSAGE_GAP, MessageFactory, MessageProtocol

_graphemes = regex.compile(r"\X").findall


def reverse_bytes(message: bytes) -> bytes:
    """The bytes of `message` in reverse order."""
    return message[::-1]


def reverse_characters(message: bytes) -> bytes:
    """The characters of `message` in reverse order where it is UTF-8, else its bytes."""
    if message.isascii():
        return message[::-1]
    try:
        text = message.decode()
    except UnicodeDecodeError:
        return message[::-1]
    return "".join(reversed(_graphemes(text))).encode()


units: Mapping[str, Callable[[bytes], bytes]] = {"character": reverse_characters, "byte": reverse_bytes}
"""What can be put in reverse order, and how."""


class Reverse(MessageProtocol):
    """Answers each message with its reverse."""

    factory: ReverseFactory

    def messages_received(self, messages: Iterator[bytes]) -> None:
        # All at once, several times as fast as each: LF is in none of them, and a part of no longer character.
        together = b"\n".join(messages)
        if self.factory.unit == "byte" or together.isascii():
            answers = together[::-1].split(b"\n")
            answers.reverse()
        else:
            answers = [reverse_characters(message) for message in together.split(b"\n")]
        self.send_lines(answers)


class ReverseFactory(MessageFactory[Reverse]):
    """Serves `Reverse`.

    :param unit: what is put in reverse order, ``"character"`` or ``"byte"``.
    :param message_gap: see `MessageFactory`.
    :param reactor: see `MessageFactory`.
    :raises ValueError: for another unit.
    """

    protocol = Reverse

    def __init__(
        self,
        *,
        unit: str = "character",
        message_gap: float = MESSAGE_GAP,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(message_gap=message_gap, reactor=reactor)
        if unit not in units:
            raise ValueError(f"unit is {unit!r}, not one of {', '.join(units)}")
        self.unit = unit


class ReverseClient(EchoClient):
    """Sends messages and receives them reversed: answers are as long as questions, as an echo's are."""

    def send(self, data: bytes) -> None:
        _, ending, rest = data.rpartition(b"\n")
        self.begun = len(rest) if ending else self.begun + len(data)
        super().send(data)
