"""The support line: its words, its conversations, both its wires, and its dialogues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.wire import OneWayWire, Wire, every_cut, pieces
from twistednet.protocols.dialogue import MAX_REPLY, Dialogue, DialogueError, parse_dialogue, words
from twistednet.protocols.support import (
    Conversation,
    SupportClient,
    SupportDatagramClient,
    SupportDatagramProtocol,
    SupportFactory,
    random_ticket,
)
from twistednet.services.support import load_dialogue

SMALL = """\
greeting = "Hello."
goodbye = "Bye."
start = "light"

[question.light]
text = "Is the light on?"
1 = { say = "yes", words = ["on"], next = "colour" }
2 = { say = "no", words = ["off"], next = "dead" }

[question.colour]
text = '''
Look at it.
What colour is it?'''
1 = { say = "red", words = ["dark red"], next = "hot" }
2 = { say = "green", words = ["light green", "dark"], next = "fine" }
3 = { say = "not sure", words = ["unsure"], next = "fine" }

[advice.fine]
text = "All is well."

[advice.hot]
text = "Let it cool down."

[ticket.dead]
text = "We will call you: {ticket}."
"""

LIGHT = "Is the light on?\n  1. yes\n  2. no\n"
COLOUR = "Look at it.\nWhat colour is it?\n  1. red\n  2. green\n  3. not sure\n"
OPENING = f"Hello.\n\n{LIGHT}"
HELP = (
    "Answer with the number of an option, or in your own words.\n"
    "back returns to the question before, quit ends the conversation.\n"
)
SORRY = "Sorry, I did not understand that. Please choose one of the options, by number or by word.\n"

DIALOGUE = parse_dialogue(SMALL, "small.toml")
SHIPPED = load_dialogue()


def paths(dialogue: Dialogue) -> list[tuple[list[str], str]]:
    """Every way through `dialogue`: the numbers to answer, and the name of the ending."""

    def walk(name: str, answered: list[str]) -> Iterator[tuple[list[str], str]]:
        if name in dialogue.endings:
            yield answered, name
        else:
            for number, answer in enumerate(dialogue.questions[name].answers, 1):
                yield from walk(answer.leads_to, [*answered, str(number)])

    return list(walk(dialogue.start, []))


PATHS = paths(SHIPPED)


def tickets() -> Callable[[], str]:
    """Ticket numbers: T1, T2, …."""
    numbers = count(1)
    return lambda: f"T{next(numbers)}"


def as_reactor(clock: Clock) -> IReactorTime:
    """`clock`, as what the protocols ask for."""
    return cast(IReactorTime, clock)


class WordsTests(SynchronousTestCase):
    """How answers are understood."""

    def understood(self, question: str, *messages: str) -> list[str | None]:
        """Which option of `question` each of `messages` is."""
        answers = [DIALOGUE.questions[question].understand(message) for message in messages]
        return [None if answer is None else answer.option for answer in answers]

    def test_words(self) -> None:
        """Case, punctuation, hyphens and apostrophes are no part of a word; a full stop within a number is."""
        self.assertEqual(words("Wi-Fi isn't ON: it\u2019s 2.4 GHz!?"), ("wifi", "isnt", "on", "its", "2.4", "ghz"))
        self.assertEqual(words(" ,_- "), ())

    def test_yes_and_no(self) -> None:
        """There are many ways to say so."""
        yes = ("yes", "y", "Yeah!", "YEP", "sure", "ok, yes", "of course", "it is on", "it's ON.")
        no = ("no", "n", "Nope", "no!!", "not yet", "it is not", "it's off", "not on", "no, it isn't on")
        self.assertEqual(set(self.understood("light", *yes)), {"yes"})
        self.assertEqual(set(self.understood("light", *no)), {"no"})

    def test_numbers(self) -> None:
        """The number of an option, alone or called one; any other number is no answer, however long."""
        self.assertEqual(self.understood("colour", "2", " 1. ", "3)", "option 2", "Answer 1!", "number 3"), [
            "green", "red", "not sure", "green", "red", "not sure",
        ])  # fmt: skip
        for wrong in ("0", "4", "-", "9" * 10000, "\u00b2", "01", "1 2", "option"):
            self.assertEqual(self.understood("colour", wrong), [None], wrong[:10])

    def test_keywords(self) -> None:
        """A keyword among other words is the answer, and the longest is; two answers at once are none."""
        self.assertEqual(self.understood("colour", "it is RED, I think", "a dark red one", "rather dark"), [
            "red", "red", "green",
        ])  # fmt: skip
        self.assertEqual(self.understood("colour", "red and green", "reddish", "", "purple"), [None] * 4)

    def test_denied(self) -> None:
        """What is denied is not said, unless a comma stands between."""
        self.assertEqual(self.understood("colour", "not red", "no red", "isn't green"), [None] * 3)
        self.assertEqual(self.understood("colour", "not red, green", "no, red", "not red but green"), [
            "green", "red", "green",
        ])  # fmt: skip

    def test_unsure(self) -> None:
        """Not to be sure is an answer where it is offered; it is never a yes."""
        unsure = ("not sure", "I'm not sure.", "don't know", "no idea!", "unsure")
        self.assertEqual(set(self.understood("colour", *unsure)), {"not sure"})
        self.assertEqual(set(self.understood("light", *unsure)), {None})

    @given(st.text(max_size=60))
    def test_anything(self, message: str) -> None:
        """Whatever is said, there is a reply, and the conversation can be left."""
        conversation = Conversation(DIALOGUE, tickets())
        self.assertTrue(conversation.answer(message))
        if not conversation.over:
            self.assertEqual(conversation.answer("quit"), ["Bye."])


class ConversationTests(SynchronousTestCase):
    """`Conversation`."""

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.conversation = Conversation(DIALOGUE, tickets())

    def say(self, *messages: str) -> str:
        """The reply to the last of `messages`."""
        for message in messages:
            reply = self.conversation.answer(message)
        return "".join(line + "\n" for line in reply)

    def logged(self) -> list[str | None]:
        """What has been logged."""
        return [formatEvent(event) for event in self.events if "support" in event.get("log_namespace", "")]

    def test_advice(self) -> None:
        """Question by question to advice; that is no ticket, and not logged."""
        self.assertEqual("\n".join([*self.conversation.open(), ""]), OPENING)
        self.assertEqual(self.say("yes"), COLOUR)
        self.assertFalse(self.conversation.over)
        self.assertEqual(self.say("red"), "Let it cool down.\n")
        self.assertTrue(self.conversation.over)
        self.assertEqual(self.logged(), [])

    def test_ticket(self) -> None:
        """A ticket has a number, and is logged with the names of the questions, not with what was said."""
        self.assertEqual(self.say("yes", "back", "it's off\x1b[2J"), "We will call you: T1.\n")
        self.assertTrue(self.conversation.over)
        self.assertEqual(self.logged(), ["ticket T1: light > dead"])

    def test_not_understood(self) -> None:
        """The question comes again, with a hint."""
        self.assertEqual(self.say("what?"), SORRY + LIGHT)
        self.assertEqual(self.say("yes"), COLOUR)

    def test_never_understood(self) -> None:
        """Who is not understood for the twentieth time, in however many questions, is left."""
        self.assertEqual(self.say(*["what?"] * 10), SORRY + LIGHT)
        self.assertEqual(self.say("yes", *[""] * 9), SORRY + COLOUR)
        self.assertEqual(self.say("help"), HELP + COLOUR)
        self.assertFalse(self.conversation.over)
        leaving = "Sorry, I can't make out what you need. Please call again, and ask for help.\nBye.\n"
        self.assertEqual((self.say(""), self.conversation.over), (leaving, True))

    def test_help(self) -> None:
        """Help comes with the question, anywhere."""
        for message in ("help", "HELP!", "?", " ? ", "help me please", "h"):
            self.assertEqual(self.say(message), HELP + LIGHT)
        self.assertEqual(self.say("yes", "help"), HELP + COLOUR)

    def test_back(self) -> None:
        """Back to the question before; there is none before the first."""
        self.assertEqual(self.say("back"), "This is the first question.\n" + LIGHT)
        self.assertEqual(self.say("yes", "Go back."), LIGHT)
        self.assertEqual(self.say("back"), "This is the first question.\n" + LIGHT)

    def test_quit(self) -> None:
        """Quit, however it is said."""
        for message in ("quit", "Exit", "bye!", "q", "please quit"):
            conversation = Conversation(DIALOGUE, tickets())
            self.assertEqual((conversation.answer(message), conversation.over), (["Bye."], True))

    def test_random_tickets(self) -> None:
        """Eight digits, another time others."""
        drawn = {random_ticket() for _ in range(20)}
        self.assertGreater(len(drawn), 15)
        self.assertEqual({(len(ticket), ticket.isdecimal()) for ticket in drawn}, {(8, True)})


class StreamTests(SynchronousTestCase):
    """`Support`: a connection is a conversation."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, dialogue: Dialogue = DIALOGUE) -> Wire:
        """A new connection."""
        return Wire.to(SupportFactory(dialogue, new_ticket=tickets(), reactor=as_reactor(self.clock)))

    def test_greeting(self) -> None:
        """It comes at connect, in one write; nobody has asked by then."""
        wire = self.connect()
        self.assertEqual(wire.writes, [OPENING.encode()])
        self.assertTrue(wire.no_delay)

    def test_conversation(self) -> None:
        """Question by question to advice, and the end."""
        wire = self.connect().send(b"yes\n")
        self.assertEqual(wire.received.decode(), OPENING + COLOUR)
        wire.send(b"green\n")
        self.assertEqual(wire.received.decode(), OPENING + COLOUR + "All is well.\n")
        self.assertTrue(wire.ended)
        self.assertFalse(wire.closed)
        wire.send(b"more\n").end()
        self.assertEqual(wire.received.decode(), OPENING + COLOUR + "All is well.\n")
        self.assertTrue(wire.closed)

    def test_endings(self) -> None:
        """A reply has the ending of its message."""
        wire = self.connect().send(b"?\r\nyes\nhelp\r\n")
        crlf = (HELP + LIGHT).replace("\n", "\r\n") + COLOUR + (HELP + COLOUR).replace("\n", "\r\n")
        self.assertEqual(wire.received.decode(), OPENING + crlf)

    def test_no_ending(self) -> None:
        """A client without line endings is answered after a pause; LF is between the lines only."""
        wire = self.connect().send(b"yes")
        self.assertEqual(wire.received.decode(), OPENING)
        self.clock.advance(0.25)
        wire.turn()
        self.assertEqual(wire.received.decode(), OPENING + COLOUR[:-1])
        wire.send(b"red")
        self.clock.advance(0.25)
        wire.turn()
        self.assertEqual(wire.received.decode(), OPENING + COLOUR[:-1] + "Let it cool down.")
        self.assertTrue(wire.ended)

    def test_half_close(self) -> None:
        """Who sends everything at once and no more has everything answered."""
        wire = self.connect()
        wire.arrive(b"what\nhelp\nyes\ngreen")
        wire.end()
        expected = OPENING + SORRY + LIGHT + HELP + LIGHT + COLOUR + "All is well."
        self.assertEqual((wire.received.decode(), wire.closed), (expected, True))

    def test_half_close_at_once(self) -> None:
        """Who says nothing at all hears the greeting; who stops in the middle, what there is to hear."""
        self.assertEqual(self.connect().end().received.decode(), OPENING)
        wire = self.connect().send(b"yes\n").end()
        self.assertEqual((wire.received.decode(), wire.closed), (OPENING + COLOUR, True))

    def test_cut_at_every_position(self) -> None:
        """Where the stream is cut changes nothing."""
        stream = "what?\r\nhelp\nback\nyes\r\nback\n1\n\u00e9\xff no, RED\nquit\n".encode("latin-1")
        whole = self.connect().send(stream).end().received
        self.assertTrue(whole.endswith(b"\nLet it cool down.\n"))
        for first, second in every_cut(stream):
            self.assertEqual(self.connect().send(first, second).end().received, whole)
        self.assertEqual(self.connect().send(*pieces(stream, [1] * len(stream))).end().received, whole)

    @given(
        st.lists(st.sampled_from([b"yes", b"1", b"2", b"red", b"back", b"help", b"x", b"", b"\xff", b"quit"])),
        st.lists(st.sampled_from([b"\n", b"\r\n"]), min_size=1),
        st.lists(st.integers(0, 9)),
    )
    def test_random_pieces(self, answers: list[bytes], endings: list[bytes], sizes: list[int]) -> None:
        """The conversation is a function of the stream."""
        stream = b"".join(answer + endings[i % len(endings)] for i, answer in enumerate(answers))
        conversation = Conversation(DIALOGUE, tickets())
        expected = "".join(line + "\n" for line in conversation.open()).encode()
        for i, answer in enumerate(answers):
            if not conversation.over:
                ending = endings[i % len(endings)]
                reply = conversation.answer(answer.decode(errors="replace"))
                expected += b"".join(line.encode() + ending for line in reply)
        wire = self.connect().send(*pieces(stream, sizes)).end()
        self.assertEqual((wire.received, wire.closed), (expected, True))

    def test_slow_reader(self) -> None:
        """Who does not read is not answered, and loses nothing."""
        wire = self.connect()
        wire.arrive(b"help\n" * 10000)
        self.assertLess(len(wire.waiting), 3 * 65536)
        self.assertEqual(wire.producerState, "paused")
        wire.arrive(b"yes\nred\n")
        wire.end()
        expected = OPENING + (HELP + LIGHT) * 10000 + COLOUR + "Let it cool down.\n"
        self.assertEqual((wire.received.decode(), wire.closed), (expected, True))

    def test_too_long(self) -> None:
        """A message that is too long gets its line, and the end."""
        wire = self.connect().send(b"x" * 16385 + b"\nyes\n")
        error = "error: a message is longer than 16384 bytes\n"
        self.assertEqual((wire.received.decode(), wire.ended), (OPENING + error, True))

    def test_two_at_once(self) -> None:
        """Each connection has its own conversation; the tickets are one row."""
        factory = SupportFactory(DIALOGUE, new_ticket=tickets(), reactor=as_reactor(self.clock))
        one, two = Wire.to(factory), Wire.to(factory)
        one.send(b"yes\n")
        two.send(b"no\n")
        one.send(b"back\n", b"no\n")
        self.assertEqual(one.received.decode(), OPENING + COLOUR + LIGHT + "We will call you: T2.\n")
        self.assertEqual(two.received.decode(), OPENING + "We will call you: T1.\n")

    def test_leaves(self) -> None:
        """Who leaves in the middle leaves nothing behind."""
        self.connect().send(b"yes").reset()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client(self) -> None:
        """Client and server understand each other, and the client knows when something is to come."""
        end = Wire.to(Factory.forProtocol(SupportClient))
        client = cast(SupportClient, end.protocol)
        server = self.connect()
        self.assertTrue(client.waiting)
        end.send(server.read())
        self.assertFalse(client.waiting)
        client.send(b"yes\n")
        self.assertTrue(client.waiting)
        client.end()
        server.arrive(end.read())
        server.end()
        end.send(server.received[len(OPENING) :])
        self.assertEqual((client.answer.decode(), client.waiting), (OPENING + COLOUR, False))
        self.assertTrue(end.ended)

    def test_client_that_can_not_half_close(self) -> None:
        """Over TLS, the client says that it has nothing more to say."""
        end = OneWayWire.to(Factory.forProtocol(SupportClient))
        cast(SupportClient, end.protocol).end()
        self.assertEqual(end.read(), b"quit\n")


ONE, TWO = ("192.0.2.1", 4000), ("192.0.2.2", 4000)


class DatagramTests(SynchronousTestCase):
    """`SupportDatagramProtocol`: an address is a conversation."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = self.make()
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))
        self.addCleanup(lambda: self.server.stopProtocol())

    def make(self, **options: Any) -> SupportDatagramProtocol:
        """A server."""
        server = SupportDatagramProtocol(DIALOGUE, new_ticket=tickets(), clock=as_reactor(self.clock), **options)
        server.transport = FakeDatagramTransport()
        return server

    def ask(self, datagram: bytes, address: Any = ONE) -> str:
        """The reply to `datagram`."""
        self.server.transport.written.clear()
        self.server.datagramReceived(datagram, address)
        ((reply, to),) = self.server.transport.written
        self.assertEqual(to, address)
        return cast(bytes, reply).decode()

    def test_conversation(self) -> None:
        """The first datagram, whatever it is, opens it; the next ones are answers, up to the end; then anew."""
        replies = [self.ask(datagram) for datagram in (b"yes\n", b"what\n", b"yes", b"red\n", b"hello")]
        self.assertEqual(replies, [OPENING, SORRY + LIGHT, COLOUR, "Let it cool down.\n", OPENING])

    def test_repeated(self) -> None:
        """The same again within a second is the same datagram; after that it is another."""
        self.assertEqual(self.ask(b""), OPENING)
        self.clock.advance(1)
        self.assertEqual(self.ask(b""), OPENING)
        self.clock.advance(1.1)
        self.assertEqual(self.ask(b""), SORRY + LIGHT)
        self.assertEqual(self.ask(b"yes"), COLOUR)
        self.assertEqual(self.ask(b"yes"), COLOUR)
        self.clock.advance(1.1)
        self.assertEqual(self.ask(b"yes"), SORRY + COLOUR)

    def test_repeated_end(self) -> None:
        """The last reply is repeated too, and there is only one ticket."""
        self.ask(b"")
        self.assertEqual([self.ask(b"no") for _ in range(3)], ["We will call you: T1.\n"] * 3)
        self.clock.advance(2)
        self.assertEqual(self.ask(b"no"), OPENING)

    def test_numbered(self) -> None:
        """The next number is an answer; the last one and any other get the last reply, with its own number."""
        self.assertEqual(self.ask(b"#0"), "#0\n" + OPENING)
        self.assertEqual(self.ask(b"#0 yes"), "#0\n" + OPENING)
        self.assertEqual(self.ask(b"#1 yes"), "#1\n" + COLOUR)
        self.clock.advance(100)
        for late in (b"#1 yes", b"#1 red", b"#0", b"#3 red", b"#999999999"):
            self.assertEqual(self.ask(late), "#1\n" + COLOUR)
        self.assertEqual(self.ask(b"#2\nred\r\n"), "#2 end\nLet it cool down.\n")
        for late in (b"#2 red", b"#1 yes", b"#3 yes"):
            self.assertEqual(self.ask(late), "#2 end\nLet it cool down.\n")
        self.assertEqual(self.ask(b"#0"), "#0\n" + OPENING)

    def test_numbered_in_between(self) -> None:
        """With and without numbers in one conversation: it goes on."""
        self.assertEqual(self.ask(b""), OPENING)
        self.assertEqual(self.ask(b"#7 yes"), "#7\n" + COLOUR)
        self.assertEqual(self.ask(b"back"), LIGHT)
        self.assertEqual(self.ask(b"#0 quit"), "#0 end\nBye.\n")
        self.assertEqual(self.ask(b"#0 quit"), "#0 end\nBye.\n")
        self.assertEqual(self.ask(b"well"), OPENING)

    def test_not_a_number(self) -> None:
        """What only looks like a number in front is an answer without one."""
        self.ask(b"")
        for datagram in (b"#", b"#x yes", b"#1yes", b"#1234567890 x", b" #1 what", b"\xff"):
            self.assertFalse(self.ask(datagram).startswith("#"))

    def test_two_at_once(self) -> None:
        """Addresses don't mix."""
        self.ask(b"#0", ONE)
        self.ask(b"#0", TWO)
        self.assertEqual(self.ask(b"#1 yes", ONE), "#1\n" + COLOUR)
        self.assertEqual(self.ask(b"#1 no", TWO), "#1 end\nWe will call you: T1.\n")
        self.assertEqual(self.ask(b"#2 green", ONE), "#2 end\nAll is well.\n")

    def test_expiry(self) -> None:
        """Ten minutes after its last datagram a conversation is forgotten, while others go on."""
        self.ask(b"#0", ONE)
        self.ask(b"#0", TWO)
        self.clock.advance(300)
        self.ask(b"#0", ONE)
        self.clock.advance(299.9)
        self.assertEqual(self.ask(b"#1 yes", TWO), "#1\n" + COLOUR)
        self.clock.advance(300.2)
        self.assertEqual(self.ask(b"#2 red", TWO), "#2 end\nLet it cool down.\n")
        self.assertEqual(len(self.server._callers), 1)
        self.assertEqual(self.ask(b"#1 yes", ONE), "#1\n" + OPENING)

    def test_silence(self) -> None:
        """One timer serves all, and there is none without conversations."""
        for port in range(1, 51):
            self.ask(b"#0", ("192.0.2.1", port))
            self.clock.advance(1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(598)
        self.assertEqual(len(self.server._callers), 50)
        self.clock.advance(1)
        self.assertEqual((len(self.server._callers), self.clock.getDelayedCalls()), (0, []))

    def test_stopped(self) -> None:
        """Nothing is left of a server that has stopped."""
        self.ask(b"#0")
        self.server.stopProtocol()
        self.assertEqual((len(self.server._callers), self.clock.getDelayedCalls()), (0, []))

    def test_busy(self) -> None:
        """Beyond the bound a newcomer is told so, and nothing is kept of it; others are still served."""
        self.server = self.make(max_conversations=2)
        busy = "All our lines are busy. Please try again in a few minutes.\n"
        self.ask(b"#0", ONE)
        self.ask(b"#0", TWO)
        for port in range(1, 100):
            self.assertEqual(self.ask(b"#0", ("192.0.2.3", port)), "#0 busy\n" + busy)
            self.assertEqual(self.ask(b"hello", ("192.0.2.3", port)), busy)
        self.assertEqual(self.ask(b"#1 yes", ONE), "#1\n" + COLOUR)
        self.assertEqual(len(self.server._callers), 2)
        self.clock.advance(599)
        self.ask(b"#1 yes", ONE)
        self.clock.advance(1)
        self.assertEqual(self.ask(b"#0", ("192.0.2.3", 1)), "#0\n" + OPENING)

    def test_a_thousand(self) -> None:
        """There are a thousand lines."""
        for port in range(1000):
            self.assertEqual(self.ask(b"", ("192.0.2.1", port)), OPENING)
        self.assertIn("busy", self.ask(b"", TWO))

    @given(st.lists(st.binary(max_size=20), max_size=20))
    def test_anything(self, datagrams: list[bytes]) -> None:
        """Whatever comes gets one short datagram back."""
        self.server = self.make()
        for datagram in datagrams:
            self.assertLessEqual(len(self.ask(datagram).encode()), MAX_REPLY)
        self.server.stopProtocol()


class Link:
    """A network between a client and a server that loses datagrams, doubles them, and delivers some again, late.

    :param fates: what happens to each datagram in turn; those after the last are delivered.
    """

    def __init__(self, clock: Clock, server: SupportDatagramProtocol, address: Any, fates: list[str]) -> None:
        self.address = address
        self.server = server
        self.client = SupportDatagramClient(as_reactor(clock), ("192.0.2.9", 9999))
        self.client.transport = self
        self._fates = iter(fates)
        self._late: Callable[[], None] | None = None

    def write(self, datagram: bytes, address: Any) -> None:
        """What the client sends, to the server; and the other way round."""
        if address == self.address:
            deliver = lambda: self.client.datagramReceived(datagram, None)  # noqa: E731
        else:
            deliver = lambda: self._to_server(datagram)  # noqa: E731
        fate = next(self._fates, "delivered")
        late, self._late = self._late, deliver if fate == "late again" else None
        for _ in range({"lost": 0, "doubled": 2}.get(fate, 1)):
            deliver()
        if late is not None:
            late()

    def _to_server(self, datagram: bytes) -> None:
        self.server.transport = self
        self.server.datagramReceived(datagram, self.address)


FATES = st.lists(st.sampled_from(["delivered", "lost", "doubled", "late again"]), max_size=40)


class LossTests(SynchronousTestCase):
    """The same advice over TCP, and over UDP on any network."""

    def setUp(self) -> None:
        self.clock = Clock()

    def over_tcp(self, answers: list[str]) -> str:
        """The last reply to `answers`."""
        wire = Wire.to(SupportFactory(SHIPPED, new_ticket=lambda: "T", reactor=as_reactor(self.clock)))
        for answer in answers:
            before = len(wire.received)
            wire.send(answer.encode() + b"\n")
        self.assertTrue(wire.ended)
        wire.end()
        return wire.received[before:].decode()

    def server(self) -> SupportDatagramProtocol:
        """A server."""
        return SupportDatagramProtocol(SHIPPED, new_ticket=lambda: "T", clock=as_reactor(self.clock))

    def say(self, client: SupportDatagramClient, *answer: bytes) -> bytes:
        """The reply to `answer`, sent as often as it takes."""
        replies: list[bytes] = []
        asked: Deferred[bytes] = client.say(*answer, timeout=1, retries=50)
        asked.addCallback(replies.append)
        while not replies and not asked.called:
            self.clock.advance(1)
        self.successResultOf(asked)
        return replies[0]

    def over_udp(self, link: Link, answers: list[str]) -> str:
        """The last reply to `answers`."""
        self.say(link.client)
        for answer in answers:
            self.assertEqual(link.client.state, "")
            reply = self.say(link.client, answer.encode())
        self.assertEqual(link.client.state, "end")
        return reply.decode()

    def test_every_way(self) -> None:
        """Every way through the shipped dialogue comes to its ending, over TCP and over UDP."""
        server = self.server()
        reached = set()
        for i, (answers, name) in enumerate(PATHS):
            reached.add(name)
            expected = "\n".join([*SHIPPED.endings[name].text, ""]).replace("{ticket}", "T")
            self.assertEqual(self.over_tcp(answers), expected)
            link = Link(self.clock, server, ("192.0.2.1", i), [])
            self.assertEqual(self.over_udp(link, answers), expected)
        self.assertEqual(reached, set(SHIPPED.endings))
        server.stopProtocol()

    @settings(max_examples=300)
    @given(st.sampled_from(PATHS), FATES)
    def test_losses(self, path: tuple[list[str], str], fates: list[str]) -> None:
        """What the network loses and repeats makes no difference."""
        server = self.server()
        link = Link(self.clock, server, ONE, fates)
        self.assertEqual(self.over_udp(link, path[0]), self.over_tcp(path[0]))
        server.stopProtocol()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.lists(st.sampled_from(PATHS), min_size=2, max_size=2), FATES, FATES, st.lists(st.booleans(), max_size=20))
    def test_two_at_once(
        self, ways: list[tuple[list[str], str]], first: list[str], second: list[str], turns: list[bool]
    ) -> None:
        """Two clients that speak in any order, each over a bad network, come each to its own advice."""
        server = self.server()
        links = [Link(self.clock, server, ONE, first), Link(self.clock, server, TWO, second)]
        answers = [["", *ways[0][0]], ["", *ways[1][0]]]
        last = [b"", b""]
        order = iter(turns)
        while any(answers):
            who = next(order, False)
            who = who if answers[who] else not who
            last[who] = self.say(links[who].client, answers[who].pop(0).encode())
        self.assertEqual([reply.decode() for reply in last], [self.over_tcp(way[0]) for way in ways])
        server.stopProtocol()

    def test_stale_replies(self) -> None:
        """The client takes the reply to what it said last, and no other."""
        client = SupportDatagramClient(as_reactor(self.clock), ONE)
        client.transport = FakeDatagramTransport()
        asked = client.say(timeout=1)
        for wrong in (b"#1\nlate\n", b"Hello\n", b"#0 what\n", b"#0", b""):
            client.datagramReceived(wrong, ONE)
        self.assertNoResult(asked)
        client.datagramReceived(b"#0 busy\nsorry\n", ONE)
        self.assertEqual((self.successResultOf(asked), client.state), (b"sorry\n", "busy"))
        self.assertEqual(client.transport.written, [(b"#0 ", ONE)])


class ShippedDialogueTests(SynchronousTestCase):
    """The dialogue of the package."""

    def test_size(self) -> None:
        """It asks enough to be of help, and never for long."""
        self.assertGreaterEqual(len(SHIPPED.questions), 15)
        self.assertLessEqual(max(len(answers) for answers, _ in PATHS), 12)

    def test_lines(self) -> None:
        """Its lines fit a terminal, and its replies a datagram."""
        texts = [question.lines for question in SHIPPED.questions.values()]
        texts += [list(ending.text) for ending in SHIPPED.endings.values()]
        for line in [line for text in [*texts, list(SHIPPED.greeting)] for line in text]:
            self.assertLessEqual(len(line), 86, line)

    def test_options_are_understood(self) -> None:
        """Every option is understood as itself: by its number, in its own words, and by each of its keywords."""
        for question in SHIPPED.questions.values():
            for number, answer in enumerate(question.answers, 1):
                self.assertIs(question.understand(str(number)), answer)
                self.assertIs(question.understand(answer.option.upper() + "!"), answer, answer.option)
                for keyword in answer.keywords:
                    self.assertIs(question.understand(" ".join(keyword)), answer, keyword)


class ParseTests(SynchronousTestCase):
    """`parse_dialogue`: what is wrong, and on which line."""

    def wrong(self, old: str, new: str) -> str:
        """What is said of the small dialogue where `old` is replaced by `new`."""
        self.assertIn(old, SMALL)
        return self.wrong_text(SMALL.replace(old, new, 1))

    def wrong_text(self, text: str) -> str:
        """What is said of `text`."""
        message = str(self.assertRaises(DialogueError, parse_dialogue, text, "my.toml"))
        self.assertTrue(message.startswith("my.toml: line "), message)
        self.assertNotIn("\n", message)
        # The same file with the other line endings has the same fault on the same line.
        crlf = str(self.assertRaises(DialogueError, parse_dialogue, text.replace("\n", "\r\n"), "my.toml"))
        self.assertEqual(crlf, message)
        return message.removeprefix("my.toml: line ")

    def test_right(self) -> None:
        """Questions, answers and endings are there as written, with either line ending."""
        self.assertEqual(parse_dialogue(SMALL.replace("\n", "\r\n"), ""), DIALOGUE)
        self.assertEqual(DIALOGUE.questions["colour"].lines, COLOUR.splitlines())
        self.assertEqual(DIALOGUE.questions["light"].answers[1].leads_to, "dead")
        self.assertTrue(DIALOGUE.endings["dead"].needs_ticket)

    def test_syntax(self) -> None:
        """What is no TOML."""
        self.assertEqual(self.wrong("goodbye = ", "goodbye "), "2: expected '=' after a key in a key/value pair")
        self.assertEqual(self.wrong('2 = { say = "no"', '1 = { say = "no"'), "8: cannot overwrite a value")
        self.assertTrue(self.wrong_text(SMALL + 'x = """\n\n').startswith("28: "))
        self.assertTrue(self.wrong_text("x = " + "[" * 100_000).startswith("1: "))
        self.assertIn("digits", self.wrong_text("x = " + "9" * 5000))

    def test_missing(self) -> None:
        """What has to be there, and is not."""
        self.assertEqual(self.wrong('greeting = "Hello."\n', ""), "1: the dialogue has no greeting")
        self.assertEqual(self.wrong('text = "Is the light on?"\n', ""), "5: question light has no text")
        self.assertEqual(self.wrong('say = "no", ', ""), "8: question light, answer 2 has no say")
        self.assertEqual(self.wrong(', next = "dead"', ""), "8: question light, answer 2 has no next")
        self.assertEqual(self.wrong('text = "All is well."', ""), "18: advice fine has no text")
        self.assertEqual(self.wrong_text(""), "1: the dialogue has no greeting")
        self.assertEqual(
            self.wrong_text('greeting = "a"\ngoodbye = "b"\n\nstart = "c"\n'), "4: start is 'c', which is no question"
        )

    def test_unknown(self) -> None:
        """What nobody knows."""
        self.assertEqual(
            self.wrong("[advice.fine]", "[avdice.fine]"),
            "18: the dialogue has an unknown key, 'avdice'; "
            "there are: greeting, goodbye, start, question, advice, ticket",
        )
        self.assertEqual(
            self.wrong('text = "All is well."', 'text = "All is well."\ntxet = 1'),
            "20: advice fine has an unknown key, 'txet'; there are: text",
        )
        self.assertEqual(
            self.wrong('2 = { say = "no"', 'two = { say = "no"'),
            "8: question light has an unknown key, 'two'; there are: text, 1, 2, …",
        )
        self.assertEqual(
            self.wrong('words = ["off"]', 'word = ["off"]'),
            "8: question light, answer 2 has an unknown key, 'word'; there are: say, words, next",
        )

    def test_types(self) -> None:
        """What is of another kind."""
        self.assertEqual(self.wrong('goodbye = "Bye."', "goodbye = 1"), "2: goodbye is not a string")
        self.assertEqual(
            self.wrong('words = ["on"]', 'words = "on"'), "7: question light, answer 1, words is not a list"
        )
        self.assertEqual(self.wrong('["on"]', "[1]"), "7: question light, answer 1: 1 is not a string")
        self.assertEqual(
            self.wrong('{ say = "no", words = ["off"], next = "dead" }', '"dead"'),
            "8: question light, answer 2 is not a table",
        )
        self.assertEqual(self.wrong("[advice.fine]", "[[advice.fine]]"), "18: advice fine is not a table")
        self.assertEqual(self.wrong_text('greeting = "a"\ngoodbye = "b"\nquestion = 1\n'), "3: question is not a table")

    def test_text(self) -> None:
        """Text that can't be shown."""
        self.assertEqual(self.wrong('"Hello."', '"\\n"'), "1: greeting is empty")
        self.assertEqual(self.wrong('"Bye."', '"a\\u001b[2J"'), "2: goodbye is not text that can be printed")
        self.assertEqual(
            self.wrong("What colour", "Wh\\at\tcolour"), "11: question colour, text is not text that can be printed"
        )
        self.assertEqual(
            self.wrong("[advice.fine]", '[advice."all right"]'),
            "18: 'all right' can't be a name: it is made of letters, digits, - and _",
        )

    def test_tickets(self) -> None:
        """A ticket has a number, and advice has none."""
        self.assertEqual(self.wrong("{ticket}", "soon"), "25: ticket dead, text lacks {ticket}")
        self.assertEqual(self.wrong("is well", "{ticket}"), "19: advice fine, text has {ticket}, and is no ticket")

    def test_keywords(self) -> None:
        """Keywords that can't be told from others."""
        self.assertEqual(
            self.wrong('["off"]', '["off", "On!"]'), "8: question light: 'on' is a keyword of answers 1 and 2"
        )
        self.assertEqual(
            self.wrong('["off"]', '["nah", "yep"]'), "8: question light: 'yep' is a keyword of answers 1 and 2"
        )
        self.assertEqual(self.wrong('["off"]', '["off", "OFF"]'), "8: question light, answer 2: 'OFF' is there twice")
        self.assertEqual(
            self.wrong('["off"]', '["back"]'), "8: question light, answer 2: 'back' can't be a keyword, it is a command"
        )
        self.assertEqual(
            self.wrong('["off"]', '["1"]'),
            "8: question light, answer 2: '1' can't be a keyword, it is an answer's number",
        )
        self.assertEqual(self.wrong('["off"]', '["?!"]'), "8: question light, answer 2: '?!' has no words in it")
        self.assertEqual(
            self.wrong('say = "no"', 'say = "no\\n"'),
            "8: question light, answer 2: what it says is not a line that can be printed",
        )

    def test_numbers(self) -> None:
        """Answers are numbered from 1."""
        self.assertEqual(self.wrong("3 = {", "4 = {"), "16: question colour has answer 4 where 3 is due")
        self.assertEqual(self.wrong("1 = {", "0 = {"), "7: question light has answer 0 where 1 is due")

    def test_ways(self) -> None:
        """Answers that lead nowhere, or in a circle, and questions and advice that none leads to."""
        self.assertEqual(
            self.wrong('next = "dead"', 'next = "deaf"'),
            "8: question light, answer 2 leads to 'deaf', which there is not",
        )
        self.assertEqual(
            self.wrong('next = "hot"', 'next = "light"'), "5: questions lead in a circle: light > colour > light"
        )
        self.assertEqual(self.wrong('next = "colour"', 'next = "dead"'), "10: question colour is led to by no answer")
        self.assertEqual(self.wrong('next = "hot"', 'next = "fine"'), "21: advice hot is led to by no answer")
        self.assertEqual(self.wrong('start = "light"', 'start = "hot"'), "3: start is 'hot', which is no question")
        self.assertEqual(
            self.wrong("[advice.hot]", "[question.hot]"), "21: question hot has no answers: it is a dead end"
        )
        self.assertEqual(self.wrong("[advice.hot]", "[advice.light]"), "21: there is another light")

    def test_longer_circle(self) -> None:
        """A circle is told in the order in which one goes round it."""
        third = SMALL + '[question.third]\ntext = "?"\n1 = { say = "x", next = "light" }\n'
        self.assertIn(
            self.wrong_text(third.replace('next = "hot"', 'next = "third"')).partition(": ")[2],
            {
                f"questions lead in a circle: {circle}"
                for circle in (
                    "light > colour > third > light",
                    "colour > third > light > colour",
                    "third > light > colour > third",
                )
            },
        )

    def test_sizes(self) -> None:
        """Every reply has to fit in a datagram, however it comes."""
        long = "x" * 1100
        self.assertTrue(self.wrong("Hello.", "x" * 1200).startswith("1: greeting makes a reply of 12"))
        self.assertTrue(self.wrong("Bye.", "x" * 1200).startswith("2: goodbye makes a reply of 12"))
        self.assertTrue(self.wrong("Look at it.", long).startswith("10: question colour makes a reply of "))
        self.assertTrue(self.wrong("All is well.", "x" * 1190).startswith("18: advice fine makes a reply of "))
        self.assertTrue(self.wrong("We will", "x" * 1190).startswith("24: ticket dead makes a reply of "))

    def test_lines_of_other_layouts(self) -> None:
        """Comments, strings of many lines with brackets in them, and dotted keys don't confuse the count."""
        text = SMALL.replace(
            "[advice.hot]", '# [x]\n\n[advice.fun]\ntext = """\n[advice.hot]\ntext = 1\n"""\n\n[advice.hot]'
        )
        self.assertEqual(self.wrong_text(text), "23: advice fun is led to by no answer")
        dotted = SMALL.replace("[advice.hot]\ntext", "[advice]\nhot.txet")
        self.assertEqual(self.wrong_text(dotted), "22: advice hot has an unknown key, 'txet'; there are: text")
