"""udpok: ``OK...`` and what was sent.

========  ====================================================
datagram  is answered by the five bytes ``OK...`` and itself
========  ====================================================

::

    C: hello    S: OK...hello
    C:          S: OK...

Bad input: a datagram longer than 65,502 bytes, whose answer would not fit in one, is dropped and counted.

Sources: seed 004 figures 8.4 to 8.6 (whose server stops at an empty datagram; this one answers it).
"""

from __future__ import annotations

from twistednet.protocols.datagram import AnsweringDatagramProtocol

PREFIX = b"OK..."


class UdpOkProtocol(AnsweringDatagramProtocol):
    """Answers each datagram with ``OK...`` and itself."""

    def answer(self, datagram: bytes) -> bytes:
        return PREFIX + datagram
