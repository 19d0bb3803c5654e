"""Greeter: a greeting and a goodbye, to whatever comes.

.. code-block:: abnf

    question = message ending                ; see twistednet.protocols.framing
    answer   = greeting ending goodbye ending    ; the question's ending, then the server closes

::

    C: Hello World LF    S: Hello Yourself LF Goodbye LF (close)
    C: Hello World       S: Hello YourselfGoodbye (close)

Only the first message of a connection is looked at, and only for its end. Bad input: a message longer than 16,384
bytes is answered by a line ``error: …``, and the connection closed.

Sources: seed 000 ("An example of a basic server"). Its client takes each ``recv`` for one of the two answers; a
stream has no such border, so a client that wants to tell them apart sends a line and reads lines.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from twistednet.protocols.framing import MESSAGE_GAP, MessageFactory, OneMessageProtocol

GREETING = "Hello Yourself"
GOODBYE = "Goodbye"


class Greeter(OneMessageProtocol):
    """Answers its one message with two."""

    factory: GreeterFactory

    def answer_message(self, message: bytes) -> None:
        self.send_lines([self.factory.greeting.encode(), self.factory.goodbye.encode()])
        self.close()


class GreeterFactory(MessageFactory[Greeter]):
    """Serves `Greeter`.

    :param greeting: the first line of the answer.
    :param goodbye: the second.
    :param message_gap: see `MessageFactory`.
    :param reactor: see `MessageFactory`.
    """

    protocol = Greeter

    def __init__(
        self,
        *,
        greeting: str = GREETING,
        goodbye: str = GOODBYE,
        message_gap: float = MESSAGE_GAP,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(message_gap=message_gap, reactor=reactor)
        self.greeting = greeting
        self.goodbye = goodbye
