"""Every service over the transports that only endpoint strings name: Unix sockets and IPv6, for streams and datagrams.

All of them run in one ``twistd``.
"""

from __future__ import annotations

import importlib
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IServiceMaker

from tests.programs import run_console
from tests.services.running import (
    APPLICATION,
    PATIENCE,
    Twistd,
    ask,
    ask_for_all,
    assert_one_line,
    connect,
    connect_unix,
    receive,
    receive_all,
    start,
)
from twisted.plugins import twistednet_plugin
from twistednet.protocols.simple import CHARGEN, EPOCH_1900
from twistednet.services.support import load_dialogue

HAS_W = os.access("/usr/bin/w", os.X_OK)

STREAMS: dict[str, tuple[str, ...]] = {
    "echo": (),
    "reverse": (),
    "wps": ("--command", "hello=/usr/bin/printf 'hello\\nyou'"),
    "accumulator": ("--max-length", "20"),
    "repeat": ("--copies", "3"),
    "greeter": (),
    "support": (),
    "discard": (),
    "chargen": (),
    "daytime": (),
    "time": (),
    "qotd": ("--quotes", "quotes"),
    "files": ("--root", "root"),
    **({"systat": ()} if HAS_W else {}),
}
"""The stream services, and their own options."""

DATAGRAMS: dict[str, tuple[str, ...]] = {
    "udpok": (),
    **{name: STREAMS[name] for name in ("echo", "discard", "chargen", "daytime", "time", "qotd", "support")},
    **({"systat": ()} if HAS_W else {}),
}
"""The same for datagrams."""

QUOTE = "Two lines,\nno more."
PAGE = b"<!DOCTYPE html><title>hello</title>\n"

STREAM_KINDS = {"unix": "unix:{name}", "tcp6": r"tcp6:0:interface=\:\:1"}
DATAGRAM_KINDS = {
    "udp": "udp:0:interface=127.0.0.1",
    "udp6": r"udp6:0:interface=\:\:1",
    "unixdgram": "unixdgram:{name}-datagrams",
}


@dataclass
class Services:
    """All the services, by name and kind of endpoint."""

    twistd: Twistd
    places: list[tuple[str, str]]

    def _port(self, name: str, kind: str) -> int:
        return self.twistd.port(self.places.index((name, kind)))

    def connect(self, name: str, kind: str) -> socket.socket:
        """A client that is connected to the stream service called `name`."""
        if kind == "unix":
            return connect_unix(self.twistd.folder / name)
        return connect(self._port(name, kind), "::1")

    def connect_datagram(self, name: str, kind: str, here: Path) -> socket.socket:
        """A socket whose peer is the datagram service called `name`; a Unix one is bound to `here`."""
        family = {"udp": socket.AF_INET, "udp6": socket.AF_INET6, "unixdgram": socket.AF_UNIX}[kind]
        client = socket.socket(family, socket.SOCK_DGRAM)
        client.settimeout(PATIENCE)
        if kind == "unixdgram":
            client.bind(str(here))
            client.connect(str(self.twistd.folder / f"{name}-datagrams"))
        else:
            client.connect(("127.0.0.1" if kind == "udp" else "::1", self._port(name, kind)))
        return client


def assert_plain(log: str) -> None:
    """There is no traceback in `log`, nor a byte as it came from the wire."""
    assert "Traceback" not in log
    assert [line for line in log.splitlines() if not line.isprintable()] == []


def serve(folder: Path) -> Iterator[Services]:
    """Start all services; at the end stop them, and look that nothing is left and no stranger was logged as it came."""
    (folder / "quotes").write_text(QUOTE)
    (folder / "root").mkdir()
    (folder / "root" / "index.html").write_bytes(PAGE)
    commands, places = [], []
    for services, kinds in ((STREAMS, STREAM_KINDS), (DATAGRAMS, DATAGRAM_KINDS)):
        for name, arguments in services.items():
            listens = [f"--listen={endpoint.format(name=name)}" for endpoint in kinds.values()]
            commands.append((name, *arguments, *listens))
            places += [(name, kind) for kind in kinds]
    (folder / "all.py").write_text(APPLICATION.format(commands=commands))
    with Twistd(folder, "--no_save", "--python", "all.py", endpoints=len(places)) as twistd:
        yield Services(twistd, places)
        # An application of several services is Twisted's to stop, and ends of the signal.
        twistd.assert_stops_cleanly(-signal.SIGTERM)
        assert_plain(twistd.log)
        # Unix datagram sockets stay, as Twisted has it; the next to listen there replaces them.
        left = {path.name for path in folder.iterdir()} - {f"{name}-datagrams" for name in DATAGRAMS}
        assert left == {"all.py", "quotes", "root", "stderr", "stdout", "twistd.log"}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """All the services."""
    yield from serve(tmp_path_factory.mktemp("services"))


# Answers


def is_daytime(answer: bytes) -> bool:
    """Whether `answer` is the local time of now, or of a few seconds ago."""
    then = time.mktime(time.strptime(answer.decode(), "%a %b %d %H:%M:%S %Y\r\n"))
    return abs(time.time() - then) < 5


def is_time(answer: bytes) -> bool:
    """Whether `answer` is the time of now, or of a few seconds ago."""
    (seconds,) = struct.unpack("!I", answer)
    return abs((int(time.time()) + EPOCH_1900) % 2**32 - int(seconds)) < 5


def is_users(answer: bytes) -> bool:
    """Whether `answer` is what w prints."""
    first, heading, *_ = answer.splitlines()
    return bool(
        re.fullmatch(rb" \d\d:\d\d:\d\d up .*,  load average: [\d.]+, [\d.]+, [\d.]+", first)
        and heading.startswith(b"USER ")
        and answer.endswith(b"\n")
    )


def is_page(answer: bytes) -> bool:
    """Whether `answer` is the page, over HTTP."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 200 OK\r\n") and body == PAGE


def opening() -> bytes:
    """What the support line begins with."""
    dialogue = load_dialogue()
    return "\n".join([*dialogue.greeting, "", *dialogue.questions[dialogue.start].lines, ""]).encode()


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
OUR_QUOTE = QUOTE.replace("\n", "\r\n").encode() + b"\r\n"

ANSWERS: dict[str, tuple[bytes, bytes | Callable[[bytes], bool]]] = {
    "echo": (b"stressed\0\xff", b"stressed\0\xff"),
    "reverse": (b"stressed\r\nno\xcc\x88l\n", b"desserts\r\nlo\xcc\x88n\n"),
    "wps": (b"hello\n", b"hello\nyou"),
    "repeat": (b"abc\r\n", b"abc\r\n" * 3),
    "greeter": (b"Hello World\n", b"Hello Yourself\nGoodbye\n"),
    "support": (b"quit\n", opening() + "".join(line + "\n" for line in load_dialogue().goodbye).encode()),
    "discard": (b"x" * 100_000, b""),
    "daytime": (b"", is_daytime),
    "time": (b"", is_time),
    "qotd": (b"", OUR_QUOTE),
    "systat": (b"", is_users),
    "files": (GET, is_page),
}
"""What to send to each stream service, and all that it answers until it closes; two others need tests of their own."""


def assert_answer(name: str, expected: bytes | Callable[[bytes], bool], answer: bytes) -> None:
    """`answer` is the one that is expected of the service called `name`."""
    assert expected(answer) if callable(expected) else answer == expected, (name, answer)


@pytest.mark.parametrize("kind", STREAM_KINDS)
@pytest.mark.parametrize("name", [name for name in STREAMS if name in ANSWERS])
def test_streams(services: Services, name: str, kind: str) -> None:
    """Each stream service answers over a Unix socket and over IPv6, and closes when its client ends its stream."""
    question, expected = ANSWERS[name]
    with services.connect(name, kind) as client:
        assert_answer(name, expected, ask_for_all(client, question))


@pytest.mark.parametrize("kind", STREAM_KINDS)
def test_chargen(services: Services, kind: str) -> None:
    """Chargen's lines come as they should, for as long as they are read."""
    with services.connect("chargen", kind) as client:
        assert receive(client, len(CHARGEN) * 50) == CHARGEN * 50


def test_accumulator(services: Services) -> None:
    """The clients of both kinds share one string."""
    with services.connect("accumulator", "unix") as one, services.connect("accumulator", "tcp6") as two:
        text = b""
        for client, letter in ((one, b"a"), (two, b"\xc3\xab"), (one, b"c")):
            text += letter
            assert ask(client, letter + b"\n", len(text) + 1) == text + b"\n"
        assert ask_for_all(two, b"d") == text + b"d"


@pytest.mark.parametrize("kind", STREAM_KINDS)
@pytest.mark.parametrize(
    ("name", "question", "answer"),
    [
        ("echo", b"x\n" * 500_000, b"x\n" * 500_000),
        ("reverse", b"ab\n" * 100_000 + b"last", b"ba\n" * 100_000 + b"tsal"),
        ("wps", b"hello", b"hello\nyou"),
        ("repeat", b"x" * 2**20, b"x" * 2**20 * 3),
        ("greeter", b"Hello World", b"Hello YourselfGoodbye"),
        ("support", b"help\nquit", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_half_close(services: Services, kind: str, name: str, question: bytes, answer: bytes | None) -> None:
    """The answer to a last message without an ending is delivered after the end of the client's stream, to its end."""
    with services.connect(name, kind) as client:
        received = exchange(client, question)
    if answer is None:
        assert received.startswith(opening())
        assert received.endswith("\n".join(load_dialogue().goodbye).encode())
    else:
        assert received == answer


@pytest.mark.parametrize("kind", STREAM_KINDS)
@pytest.mark.parametrize("name", [name for name in ("daytime", "time", "qotd", "systat") if name in STREAMS])
def test_no_question(services: Services, kind: str, name: str) -> None:
    """A service that asks nothing answers the client that waits, and closes first."""
    with services.connect(name, kind) as client:
        assert_answer(name, ANSWERS[name][1], receive_all(client))


# Datagrams

DATAGRAM_ANSWERS: dict[str, tuple[bytes, bytes | Callable[[bytes], bool]]] = {
    "echo": (b"stressed\0\xff\n", b"stressed\0\xff\n"),
    "udpok": (b"hello", b"OK...hello"),
    "chargen": (b"?", lambda answer: len(answer) <= 512 and CHARGEN.startswith(answer)),
    "daytime": (b"", is_daytime),
    "time": (b"", is_time),
    "qotd": (b"", OUR_QUOTE),
    "systat": (b"", is_users),
    "support": (b"#0", b"#0\n" + opening()),
}
"""For each datagram service a question, and its answer."""


def ask_datagram(client: socket.socket, question: bytes) -> bytes:
    """Send `question`, again where it was lost among others, and receive a datagram."""
    for _ in range(10):
        client.send(question)
        if select.select([client], [], [], PATIENCE / 10)[0]:
            break
    return client.recv(65536)


@pytest.mark.parametrize("kind", DATAGRAM_KINDS)
@pytest.mark.parametrize("name", [name for name in DATAGRAMS if name in DATAGRAM_ANSWERS])
def test_datagrams(services: Services, tmp_path: Path, name: str, kind: str) -> None:
    """Each datagram service answers over UDP, over IPv6 and over a Unix socket; the same question, the same answer."""
    question, expected = DATAGRAM_ANSWERS[name]
    with services.connect_datagram(name, kind, tmp_path / "client") as client:
        for _ in range(2):
            assert_answer(name, expected, ask_datagram(client, question))


def test_discard_datagrams(services: Services, tmp_path: Path) -> None:
    """Discard takes what it is sent, and answers none of it."""
    clients = [services.connect_datagram("discard", kind, tmp_path / "client") for kind in DATAGRAM_KINDS]
    try:
        for client in clients:
            for datagram in (b"", b"hello", b"x" * 65507):
                client.send(datagram)
        # A refusal would show here as well.
        assert select.select(clients, [], [], 0.3)[0] == []
    finally:
        for client in clients:
            client.close()


# Strangers


def exchange(client: socket.socket, question: bytes, *, enough: int = 2**30) -> bytes:
    """Send all of `question` and end the stream, receiving meanwhile; all that is received, or `enough` of it."""
    client.setblocking(False)
    unsent, answer, ended = memoryview(question), bytearray(), False
    while unsent or not ended:
        ready, writable, _ = select.select([] if ended else [client], [client] if unsent else [], [], PATIENCE)
        assert ready or writable, f"{len(unsent)} bytes are not taken"
        if ready:
            data = client.recv(262144)
            answer += data
            ended = not data or (len(answer) >= enough and not unsent)
        if writable:
            unsent = unsent[client.send(unsent) :]
            if not unsent:
                client.shutdown(socket.SHUT_WR)
    return bytes(answer)


JUNK = {"random": random.Random(7).randbytes(2**20), "newlines": b"\n" * 2**20}


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """All the services, for strangers only."""
    yield from serve(tmp_path_factory.mktemp("strangers"))


@pytest.mark.parametrize(("junk", "kind"), [("random", "unix"), ("newlines", "tcp6")])
@pytest.mark.parametrize("name", STREAMS)
def test_junk(strangers: Services, name: str, junk: str, kind: str) -> None:
    """Who sends a megabyte of junk can send it all, is logged in no traceback and no raw bytes; others are answered."""
    with strangers.connect(name, kind) as client:
        if name == "files":
            # HTTP's own way with a bad request is to break the connection.
            with suppress(OSError):
                exchange(client, JUNK[junk])
        else:
            answer = exchange(client, JUNK[junk], enough=2**21)
            assert name != "echo" or answer == JUNK[junk]
    with strangers.connect(name, kind) as client:
        if name == "chargen":
            assert receive(client, len(CHARGEN)) == CHARGEN
        elif name == "accumulator":
            assert ask_for_all(client, b"a\n").endswith((b"a\n", b"error: the text has reached its 20 bytes\n"))
        else:
            question, expected = ANSWERS[name]
            assert_answer(name, expected, ask_for_all(client, question))
    assert_plain(strangers.twistd.log)


@pytest.mark.parametrize("name", DATAGRAMS)
def test_junk_datagrams(strangers: Services, tmp_path: Path, name: str) -> None:
    """Nothing that fits in a datagram keeps a service from answering the next, or is logged."""
    for kind in DATAGRAM_KINDS:
        with strangers.connect_datagram(name, kind, tmp_path / "stranger") as client:
            for datagram in (b"", JUNK["random"][:1000], JUNK["random"][:65507], b"\n" * 65507, b"#" * 65507):
                client.send(datagram)
        with strangers.connect_datagram(name, kind, tmp_path / "other") as client:
            if name != "discard":
                question, expected = DATAGRAM_ANSWERS[name]
                assert_answer(name, expected, ask_datagram(client, question))
        for path in tmp_path.iterdir():
            path.unlink()
    assert_plain(strangers.twistd.log)


# The commands themselves

COMMANDS = sorted(name for name, maker in vars(twistednet_plugin).items() if IServiceMaker.providedBy(maker))


def assert_reads_well(name: str, text: str) -> None:
    """`text` is a usage line, a table of options that keeps its columns, and what the command is for."""
    make: Any = importlib.import_module(f"twistednet.services.{name}").Options
    usage, _, rest = text.partition("\n")
    assert usage == f"Usage: twistd [twistd's options] {name} [options]"
    assert rest.startswith("Options:\n")
    table, _, about = rest.removeprefix("Options:\n").partition("\n\n")
    column = min(line.index("Display this help") for line in table.splitlines() if "--help " in line)
    options = set()
    for line in table.splitlines():
        option, said = line[:column], line[column:]
        assert len(line) <= 80, line
        assert re.fullmatch(r"  (?:-\w, |    )--[a-z-]+=?  +| +", option), line
        assert re.fullmatch(r"\S+(?: \S+)*", said), line
        options |= {*re.findall(r"--[a-z-]+", option)}
    assert options == {f"--{option.rstrip('=')}" for option in make().longOpt}
    assert all(len(line) <= 80 for line in about.splitlines())
    assert " ".join(about.split()) == make.longdesc
    assert about.strip().endswith((".", ")."))


def test_help() -> None:
    """``twistd NAME --help`` reads well for every command."""

    def help_of(name: str) -> subprocess.CompletedProcess[str]:
        return run_console(
            *("twistd", name, "--help"),
            env={**os.environ, "COLUMNS": "80"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    assert set(STREAMS) | set(DATAGRAMS) | {"systat"} == set(COMMANDS)
    with ThreadPoolExecutor(4) as pool:
        for name, done in zip(COMMANDS, pool.map(help_of, COMMANDS), strict=True):
            assert (done.returncode, done.stderr) == (0, "")
            assert_reads_well(name, done.stdout)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("discard", "--port", "x"), "--port x: not a whole number from 0 to 65535 (see twistd discard --help)"),
        (("chargen", "--bogus"), "option --bogus not recognized (see twistd chargen --help)"),
        (("daytime", "--listen", "bogus:1"), "--listen bogus:1: Unknown endpoint type: 'bogus'"),
        (("time", "--listen", "udp:x"), "--listen udp:x: not udp:PORT[:interface=ADDRESS]"),
        (("qotd", "--quotes", "none"), "--quotes none: No such file or directory (see twistd qotd --help)"),
        (("systat", "now"), "now: systat takes options only (see twistd systat --help)"),
        (("greeter", "--listen", "udp:0"), "--listen udp:0: greeter has no datagram form; try tcp:"),
        (("repeat", "-n", "-1"), "--copies -1: not a whole number of 0 or more (see twistd repeat --help)"),
        (("support", "-d", "none"), "--dialogue none: No such file or directory"),
        (("files", "--root", "none"), "--root none: not a folder (see twistd files --help)"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_bad_option(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    """A bad option is one line, and status 1."""
    done = start(tmp_path, "--nodaemon", *arguments)
    assert_one_line(tmp_path, done, f"twistd {arguments[0]}: {line}")
    assert os.listdir(tmp_path) == []
