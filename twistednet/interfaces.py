"""The interfaces that the reactor, the protocols and the policies share.

Twisted's transports and protocols don't say how far a connection has come: what waits to be sent, what the peer has
acknowledged, whether a message is incomplete. Limits need to know. Transports and protocols that can tell provide the
interfaces of this module; `twistednet.policies.transports` answers for Twisted's own.

Twisted's wrappers of connections (TLS, PROXY) claim to provide whatever the transport beneath provides. So ask of a
transport's class (``IOctetCounter.implementedBy(type(transport))``), not of the transport.
"""

# ruff: noqa: N805 (the methods of an Interface have no self)

from __future__ import annotations

from zope.interface import Attribute, Interface


class IOutputPending(Interface):
    """A transport that knows how much it holds."""

    def bytes_waiting() -> int:
        """How many octets were written that the system has not taken yet."""


class IEndObserver(Interface):
    """Is told of the end of a connection."""

    def transport_lost(received: int, written: int) -> None:
        """The connection has ended, and ``connectionLost`` of its protocol has returned.

        :param received: the octets of payload that were received in all.
        :param written: and those that were written.
        """


class IOctetCounter(IOutputPending):
    """A transport that knows how far it has come, so that nothing needs to be wrapped around its protocol."""

    protocol = Attribute("The protocol that data is delivered to; it may be replaced.")

    def octets() -> tuple[int, int, int, int]:
        """How far the connection has come.

        :return: the octets of payload received; those written; a number that changes whenever the peer has
            acknowledged something; and the octets written that the peer has not acknowledged.
        """

    def observe_end(observer: IEndObserver) -> None:
        """Have `observer`, the only one, told of the end of the connection and of its last octets."""


class IMessageInput(Interface):
    """A protocol whose input is messages."""

    messages: int = Attribute("How many messages have come.")
    unfinished: int | None = Attribute(
        "The number of the message that has begun and not ended, counted from 0; None between messages."
    )
    input_paused: bool = Attribute("Whether the server itself has stopped reading, so that no message can end.")


class IFinishable(Interface):
    """A protocol that can be brought to an end in good order."""

    owing: bool = Attribute(
        "Whether an answer to what has been read is still to be written. Not counted is what the transport holds, and "
        "what nobody will give any more once the service stops."
    )

    def finish() -> None:
        """Read no more, answer what has been read, and close; as at the end of the peer's stream."""
