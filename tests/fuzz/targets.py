"""The targets: each takes any bytes, and fails an assertion where an invariant does not hold.

A stream is given whole, and cut in up to five pieces; both ways the answers must be those of the model. The first four
octets of the input are the lengths of the first four pieces.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import regex
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport

from tests import models
from tests.processes import ProcessReactor, ProcessRunner
from tests.wire import Wire, pieces
from twistednet.cli.links import links_of
from twistednet.policies.proxy_header import HalfClosingProxyFactory
from twistednet.protocols import (
    AccumulatorFactory,
    CommandFactory,
    EchoFactory,
    SharedText,
    SupportDatagramProtocol,
    SupportFactory,
)
from twistednet.protocols.dialogue import MAX_REPLY, Dialogue, DialogueError, parse_dialogue
from twistednet.protocols.framing import MessageFactory, MessageProtocol
from twistednet.protocols.printable import plain_text, printable
from twistednet.protocols.support import Conversation
from twistednet.services.datagram_endpoints import (
    UDPEndpoint,
    datagram_endpoint_from_string,
)
from twistednet.services.support import load_dialogue

TICKET = "12345678"


def both_ways(data: bytes, factory: Callable[[], Factory[Any]]) -> tuple[bytes, Wire]:
    """The stream in `data`, and a connection that had all of it, and its end, and answered the same however cut."""
    stream, sizes = data[4:], data[:4]
    whole = Wire.to(factory()).send(stream).end()
    cut = Wire.to(factory()).send(*pieces(stream, sizes)).end()
    assert cut.received == whole.received, (whole.received, cut.received)
    assert whole.closed
    assert cut.closed
    return stream, whole


class Marking(MessageProtocol):
    """Answers each message with itself and its length."""

    MAX_LENGTH = 20

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(b"%d %b" % (len(line), line))


class MarkingFactory(MessageFactory[Marking]):
    protocol = Marking


def framing(data: bytes) -> None:
    """`MessageProtocol`: messages are what its grammar says."""
    stream, wire = both_ways(data, lambda: MarkingFactory(reactor=Clock()))
    assert wire.received == models.answers(
        stream, lambda message, ending: b"%d %b%b" % (len(message), message, ending), Marking.MAX_LENGTH, ended=True
    )


def accumulator(data: bytes) -> None:
    """The accumulator: each letter is answered with all so far, and each octet is in a letter."""
    stream, wire = both_ways(data, lambda: AccumulatorFactory(text=SharedText(max_length=40), reactor=Clock()))
    owed, text, line_is_empty = b"", b"", True
    for letter in stream.decode(errors="surrogateescape"):
        octets = letter.encode(errors="surrogateescape")
        if letter in "\r\n":
            owed += octets
            if letter == "\n" and line_is_empty:
                break
            line_is_empty = line_is_empty or letter == "\n"
        else:
            line_is_empty = False
            full = len(text) + len(octets) > 40
            text += b"" if full else octets
            owed += b"error: the text has reached its 40 bytes" if full else text
    assert wire.received == owed


@functools.cache
def dialogue() -> Dialogue:
    """The one that is shipped."""
    return load_dialogue()


def support(data: bytes) -> None:
    """A conversation over TCP."""
    stream, wire = both_ways(
        data, lambda: SupportFactory(dialogue(), new_ticket=lambda: TICKET, reactor=Clock(), message_gap=0)
    )
    assert wire.received == models.support(stream, dialogue(), TICKET, ended=True)


def support_datagrams(data: bytes) -> None:
    """A conversation over UDP, a datagram a line: each has a reply, its number with it, and sent again, the same."""
    protocol = SupportDatagramProtocol(dialogue(), clock=Clock(), new_ticket=lambda: TICKET, max_conversations=2)
    transport = FakeDatagramTransport()
    protocol.makeConnection(transport)
    for datagram in data.split(b"\n"):
        # Three addresses, one of which is too many.
        address = ("192.0.2.1", 1024 + (datagram[-1] % 3 if datagram else 0))
        for _ in range(2):
            protocol.datagramReceived(datagram, address)
        (reply, to), again = transport.written
        transport.written.clear()
        assert (reply, to) == again
        assert to == address
        assert reply.endswith(b"\n")
        assert len(reply) <= MAX_REPLY
        # A reply has a number where the datagram that it is the reply to has one: not this one, where this is late.
        number = regex.match(rb"#(\d{1,9})(?:\s|\Z)", datagram)
        replied = regex.match(rb"#(\d+)(?: (?:end|busy))?\n", reply)
        assert number or not replied
        assert replied is None or int(replied[1]) < 10**9
    protocol.stopProtocol()


def dialogues(data: bytes) -> None:
    """A dialogue in TOML is one that can be had to every end, or one line says where it is none."""
    try:
        read = parse_dialogue(data.decode(errors="ignore"), "dialogue.toml")
    except DialogueError as error:
        assert regex.match(r"dialogue\.toml: line \d+: [^\n]+\Z", str(error)), error  # noqa: PT017  (nor this)
        return
    for question in read.questions.values():
        for i, answer in enumerate(question.answers, 1):
            assert question.understand(str(i)) is answer
            assert answer.leads_to in read.questions or answer.leads_to in read.endings
    conversation = Conversation(read, lambda: TICKET)
    conversation.open()
    for _ in range(len(read.questions)):
        if not conversation.over:
            conversation.answer("1")
    assert conversation.over


def endpoints(data: bytes) -> None:
    """A datagram endpoint string is one that can be listened on, or a ``ValueError``."""
    for description in (data.decode(errors="surrogateescape"), "udp:" + data.decode(errors="surrogateescape")):
        try:
            endpoint = datagram_endpoint_from_string(None, description)
        except ValueError as error:
            assert str(error).startswith("not "), error  # noqa: PT017  (it needn't be raised)
        else:
            assert not isinstance(endpoint, UDPEndpoint) or 0 <= endpoint.port <= 65535


def proxy(data: bytes) -> None:
    """A PROXY header is taken with what follows it, or the connection is reset, however it is cut."""
    stream, sizes = data[4:], data[:4]
    seen = []
    for cut in ([stream], pieces(stream, sizes), [stream[i : i + 1] for i in range(len(stream))]):
        wire = Wire.to(HalfClosingProxyFactory(EchoFactory(reactor=Clock()), reactor=Clock()))
        wire.send(*cut)
        protocol: Any = wire.protocol
        seen.append((wire.received, wire.closed, str(protocol.getPeer())))
        wire.end()
        assert wire.closed
        assert stream.endswith(wire.received)
    assert seen[0] == seen[1] == seen[2], seen


def wps(data: bytes) -> None:
    """Of what the client says nothing but an exact name has a command run, one that is in the table."""
    ran: list[list[str]] = []

    def factory() -> CommandFactory:
        reactor = ProcessReactor()
        runner = ProcessRunner(reactor)
        run = runner.run

        def run_and_end(argv: Any) -> Any:
            ran.append(argv)
            asked = run(argv)
            reactor.processes[-1].write(b"output")
            reactor.processes[-1].end(0)
            return asked

        runner.run = run_and_end  # type: ignore[method-assign]
        return CommandFactory(
            commands={"w": ("/bin/w",), "ps -a": ("/bin/ps", "-a")}, runner=runner, message_gap=0, reactor=reactor
        )

    stream, wire = both_ways(data, factory)
    commands = {b"w": ["/bin/w"], b"ps -a": ["/bin/ps", "-a"]}

    def answer(message: bytes, ending: bytes) -> bytes:
        return b"output" if message in commands else b"error: no such command; there are: ps -a, w" + (ending or b"\n")

    assert wire.received == models.answers(stream, answer, ended=True, first=True)
    found, _ = models.messages(stream, 16384, ended=True)
    assert ran == [commands[name] for name, _ in found[:1] if name in commands] * 2


def links(data: bytes) -> None:
    """Whatever a page is, its links are addresses in ASCII, without anything that a terminal would obey."""
    for charset in (None, "utf-8", "shift_jis", "utf-16le"):
        for link in links_of(data, "http://example.com/a/b?c", http_charset=charset, every=True):
            assert link.url.isascii()
            assert link.url.isprintable(), link
            assert urlsplit(link.url).scheme, link


def plain(data: bytes) -> None:
    """Nothing is left that a terminal would obey; what is plain stays as it is; a line is a line."""
    text = plain_text(data)
    assert plain_text(text) == text
    for c in text.decode():
        assert c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp"), (data, text)
    if data.isascii() and all(32 <= octet < 127 or octet in b"\n\t" for octet in data):
        assert text == data
    for length in (None, 3):
        assert printable(data, length).isprintable()


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "framing": framing,
    "accumulator": accumulator,
    "support": support,
    "support-datagrams": support_datagrams,
    "dialogue": dialogues,
    "endpoints": endpoints,
    "proxy": proxy,
    "wps": wps,
    "links": links,
    "plain-text": plain,
}
"""By the name that ``python -m tests.fuzz`` knows them by."""

_CUT = b"\3\1\2\1"

SEEDS: Mapping[str, list[bytes]] = {
    "framing": [
        _CUT + b"ab\r\ncd\n\r\n\rlast",
        _CUT + b"x" * 20 + b"\r\n" + b"x" * 21 + b"\n",
        _CUT + b"x" * 20 + b"\r",
    ],
    "accumulator": [_CUT + "aë\nb\r\n\nc".encode(), _CUT + b"\xe2\x28\xff\xf0\x9f\n" * 9],
    "support": [_CUT + b"1\n2\r\nback\nhelp\n?\nnot sure\nquit\n1"],
    "support-datagrams": [b"#0\n#1 yes\n#1 yes\n#3 no\n1\nquit\n#0\nhello\n#999999999 x\n#0000000001\n#0\t"],
    "dialogue": [
        b'greeting = "Hello."\ngoodbye = "Goodbye."\nstart = "power"\n[question.power]\ntext = "Is it on?"\n'
        b'1 = { say = "yes", next = "restart" }\n2 = { say = "no", words = ["off"], next = "dead" }\n'
        b'[advice.restart]\ntext = "Restart it."\n[ticket.dead]\ntext = "Your ticket is {ticket}."\n'
    ],
    "endpoints": [b"udp:8888:interface=127.0.0.1", rb"udp6:8888:interface=\:\:1", rb"unixdgram:/a\:b\\", b"1:x=y"],
    "proxy": [
        _CUT + b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nhello",
        _CUT + b"PROXY UNKNOWN\r\nhello",
        _CUT + b"PROXY UNKNOWN " + b"x" * 100 + b"\r\nhello",
        _CUT + b"PROXY TCP6 ::1 ::1 65535 0\r\nhello",
        _CUT + b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1\0\1\0\2hello",
        _CUT + b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0hello",
    ],
    "wps": [_CUT + b"w\r\nps -a\n", _CUT + b"ps -a", _CUT + b"ls\n"],
    "links": [
        b"<base href=mailto:x><a href=y>",
        b'<base href=/x><a href="\xc3\xab?\xe2\x82\xac#y">text</a><img srcset="a 1x, b 2x" alt=c><form action=javascript:x>',  # noqa: E501
        b'<meta charset=shift_jis><a href="http://[::1"><a href=//\xc3\xab.example/><a href="\x1b]0;x\x07">',
        b'<a href="http://[::0"><a href=//(\xabxe\x81m.al//[:fb 2x" alt:1"\x01\x00\x00\x00\x00\x00\x00\x00=//ampl\xc1">',  # noqa: E501
    ],
    "plain-text": ["a\x1b[31mb\x1b]0;title\x07c\u202ed\u2028\x9b1m\t\n".encode(), b"\x1b\x1b[\x9b\xff\xc2\x9b1m"],
}
"""What each begins with."""
