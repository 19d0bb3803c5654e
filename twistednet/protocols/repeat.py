"""Repeat: one message comes back, many times.

.. code-block:: abnf

    question = message ending               ; see twistednet.protocols.framing, but up to 1,048,576 bytes
    answer   = *(message ending)            ; as many as the server's operator says, then it closes

::

    C: abc       S: abcabcabc··· (30,000 bytes, then close)
    C: abc LF    S: abc LF abc LF ··· (40,000 bytes, then close)

The copies are made as the client reads them: what waits in the server is never more than 64 KiB, however long
the message and however many its copies. Where the operator wants to give the go-ahead, nothing is sent until
then; the client that has waited longest goes first.

Bad input: a message that is longer is answered by a line ``error: …``, and the connection closed.

Sources: seed 002 §2 (``tms.py`` and ``tmc.py``), whose server joins the 10,000 copies in memory, and takes one
``recv`` for the message.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistednet.protocols.flow import RepeatingProducer
from twistednet.protocols.framing import MESSAGE_GAP, MessageFactory, OneMessageProtocol
from twistednet.protocols.printable import describe

COPIES = 10_000
"""How many copies the textbook's server sends."""


class Repeat(OneMessageProtocol):
    """Sends its one message again and again, as fast as the peer reads."""

    MAX_LENGTH = 2**20
    factory: RepeatFactory

    def answer_message(self, message: bytes) -> None:
        message += self.delimiter
        length = len(message) * self.factory.copies
        self._copies = RepeatingProducer(self.transport, message, length, self.close)
        self.factory.client_asks(self)

    @property
    def owing(self) -> bool:
        # No go-ahead comes once the service stops.
        return super().owing and not self.factory.holds(self)

    def go_ahead(self) -> None:
        """Begin to send."""
        self.produce(self._copies, streaming=False)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.factory.client_left(self)


class RepeatFactory(MessageFactory[Repeat]):
    """Serves `Repeat`.

    :param copies: how many copies to send.
    :param wait: send nothing to a client until `go_ahead` is called for it.
    :param message_gap: see `MessageFactory`.
    :param reactor: see `MessageFactory`.
    """

    protocol = Repeat
    log = Logger()

    def __init__(
        self,
        *,
        copies: int = COPIES,
        wait: bool = False,
        message_gap: float = MESSAGE_GAP,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(message_gap=message_gap, reactor=reactor)
        self.copies = copies
        self.wait = wait
        self._waiting: dict[Repeat, None] = {}  # in the order in which they asked

    @property
    def waiting(self) -> int:
        """How many clients wait for the go-ahead."""
        return len(self._waiting)

    def go_ahead(self) -> IAddress | None:
        """Begin to send to the client that has waited longest.

        :return: who that is; ``None`` where nobody waits.
        """
        if not self._waiting:
            return None
        client = next(iter(self._waiting))
        del self._waiting[client]
        client.go_ahead()
        return client.transport.getPeer()

    def client_asks(self, client: Repeat) -> None:
        """The message of `client` is there."""
        if self.wait:
            self._waiting[client] = None
            self.log.info("{client} waits for the go-ahead", client=describe(client.transport.getPeer()))
        else:
            client.go_ahead()

    def holds(self, client: Repeat) -> bool:
        """Whether `client` waits for the go-ahead."""
        return client in self._waiting

    def client_left(self, client: Repeat) -> None:
        """The connection of `client` is gone."""
        self._waiting.pop(client, None)
