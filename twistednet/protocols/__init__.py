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
from twistednet.protocols.commands import CommandError, CommandRunner
from twistednet.protocols.datagram import AnsweringDatagramProtocol, DatagramClient
from twistednet.protocols.dialogue import Dialogue, DialogueError, parse_dialogue
from twistednet.protocols.echo import Echo, EchoClient, EchoDatagramProtocol, EchoFactory
from twistednet.protocols.flow import StreamClient, StreamFactory, StreamProtocol
from twistednet.protocols.framing import LineClient, MessageFactory, MessageProtocol, OneMessageProtocol
from twistednet.protocols.greeter import Greeter, GreeterFactory
from twistednet.protocols.repeat import Repeat, RepeatFactory
from twistednet.protocols.reverse import Reverse, ReverseClient, ReverseFactory
from twistednet.protocols.simple import (
    Announcement,
    AnnouncementDatagramProtocol,
    AnnouncementFactory,
    Chargen,
    ChargenDatagramProtocol,
    ChargenFactory,
    DaytimeDatagramProtocol,
    DaytimeFactory,
    Discard,
    DiscardClient,
    DiscardDatagramProtocol,
    DiscardFactory,
    QotdDatagramProtocol,
    QotdFactory,
    Systat,
    SystatDatagramProtocol,
    SystatFactory,
    TimeDatagramProtocol,
    TimeFactory,
)
from twistednet.protocols.support import (
    Conversation,
    Support,
    SupportClient,
    SupportDatagramClient,
    SupportDatagramProtocol,
    SupportFactory,
)
from twistednet.protocols.udpok import UdpOkProtocol
from twistednet.protocols.wps import Command, CommandClient, CommandFactory

__all__ = [
    "Accumulator",
    "AccumulatorFactory",
    "Announcement",
    "AnnouncementDatagramProtocol",
    "AnnouncementFactory",
    "AnsweringDatagramProtocol",
    "Chargen",
    "ChargenDatagramProtocol",
    "ChargenFactory",
    "Command",
    "CommandClient",
    "CommandError",
    "CommandFactory",
    "CommandRunner",
    "Conversation",
    "DatagramClient",
    "DaytimeDatagramProtocol",
    "DaytimeFactory",
    "Dialogue",
    "DialogueError",
    "Discard",
    "DiscardClient",
    "DiscardDatagramProtocol",
    "DiscardFactory",
    "Echo",
    "EchoClient",
    "EchoDatagramProtocol",
    "EchoFactory",
    "Greeter",
    "GreeterFactory",
    "ISharedText",
    "LettersClient",
    "LineClient",
    "MessageFactory",
    "MessageProtocol",
    "OneMessageProtocol",
    "QotdDatagramProtocol",
    "QotdFactory",
    "Repeat",
    "RepeatFactory",
    "Reverse",
    "ReverseClient",
    "ReverseFactory",
    "SharedText",
    "StreamClient",
    "StreamFactory",
    "StreamProtocol",
    "Support",
    "SupportClient",
    "SupportDatagramClient",
    "SupportDatagramProtocol",
    "SupportFactory",
    "Systat",
    "SystatDatagramProtocol",
    "SystatFactory",
    "TextFull",
    "TimeDatagramProtocol",
    "TimeFactory",
    "UdpOkProtocol",
    "parse_dialogue",
]
