"""The wire protocols: for each a Protocol and its Factory, a datagram protocol where it has one, and a client.

They know nothing of options, endpoints or files, and work with any endpoint, in any Twisted application, as often
in one process as you like::

    endpoints.serverFromString(reactor, "tcp:2000").listen(EchoFactory())

Each module's docstring is the specification of what goes over the wire.
"""

from twistednet.protocols.accumulator import (
    Accumulator,
    AccumulatorFactory,
    ISharedText,
    LettersClient,
    SharedText,
    TextFull,
)
from twistednet.protocols.datagram import AnsweringDatagramProtocol, DatagramClient
from twistednet.protocols.echo import Echo, EchoClient, EchoDatagramProtocol, EchoFactory
from twistednet.protocols.flow import StreamClient, StreamFactory, StreamProtocol
from twistednet.protocols.framing import LineClient, MessageFactory, MessageProtocol
from twistednet.protocols.reverse import Reverse, ReverseClient, ReverseFactory
from twistednet.protocols.udpok import UdpOkProtocol
from twistednet.protocols.wps import Command, CommandClient, CommandFactory

__all__ = [
    "Accumulator",
    "AccumulatorFactory",
    "AnsweringDatagramProtocol",
    "Command",
    "CommandClient",
    "CommandFactory",
    "DatagramClient",
    "Echo",
    "EchoClient",
    "EchoDatagramProtocol",
    "EchoFactory",
    "ISharedText",
    "LettersClient",
    "LineClient",
    "MessageFactory",
    "MessageProtocol",
    "Reverse",
    "ReverseClient",
    "ReverseFactory",
    "SharedText",
    "StreamClient",
    "StreamFactory",
    "StreamProtocol",
    "TextFull",
    "UdpOkProtocol",
]
