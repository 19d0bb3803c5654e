"""Every time-out of every stream service, on every kind of endpoint and two reactors, with real clients.

Theory of operation
===================

For each reactor, one twistd runs a service instance for each `Case`: a service, an endpoint, one time-out, and a kind
of client. The other time-outs of the instance are off. All clients run at the same time, each in a thread, and mostly
wait.

==============  ==================================================================  ===================================
client          what it does                                                        what has to happen
==============  ==================================================================  ===================================
``stops``       does nothing (idle), never ends its message (message), or never     the time-out, in time
                reads (write)
``steady``      sends a byte every half second (idle); ends each message in time    no time-out
                (message)
``paused``      sends more whole messages than the server takes, or one message     no time-out, and all the answers
                and bytes that nobody looks at, and reads slowly
``80 KB/s``     reads at this rate, though more output always waits                 no time-out
==============  ==================================================================  ===================================

The application file records each time-out that is logged, with the monotonic clock that the clients use too. A time-out
has to come no earlier than promised after the last progress, and no later than two sweeps after that. The client has
to see the end of the connection then, or a sweep later: a connection that does not close is reset by the next sweep.
`MARGIN` is added on the late side only, for a machine that is busy.

Several workers of pytest-xdist share one run of each reactor: the first runs it, and the others read its outcomes.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import ssl
import termios
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.services import running
from tests.services.running import PATIENCE, Twistd
from twistednet.policies.limits import SWEEP
from twistednet.protocols.framing import MESSAGE_GAP
from twistednet.protocols.support import Conversation
from twistednet.services.support import load_dialogue

MARGIN = 1.5
"""Seconds that a busy machine may be late."""

SECONDS = {"idle": 2.0, "message": 2.0, "write": 2.5}
"""Each time-out. With two sweeps, it is over before `twistednet.protocols.flow.LINGER` closes a connection."""

WATCHED = 5.0
"""Seconds for which a client makes progress: more than each time-out and two sweeps."""

SLOW_SECONDS = 20.0
"""The write time-out of the slow tests; the rates of the others are as much higher as their time-out is shorter."""

MEGABYTES = 4_000_000
"""How much output is asked for, of services that can give so much: more than all buffers on the way hold."""

REACTORS = {"uvloop": "twistednet", "epoll": "epoll"}
"""The reactors, and their names for twistd."""

ENDPOINTS = ("tcp", "tls", "haproxy", "unix")

SERVICES: dict[str, tuple[str, ...]] = {
    "echo": (),
    "reverse": (),
    "wps": (
        f"--command=the-long-command=/usr/bin/head -c {MEGABYTES} /dev/zero",
        f"--max-output={2 * MEGABYTES}",
    ),
    "accumulator": (),
    "repeat": (f"--copies={MEGABYTES // 1000}",),
    "greeter": (),
    "support": (),
    "discard": (),
    "chargen": (),
    "daytime": (),
    "time": (),
    "qotd": (),
    "systat": (),
    "files": ("--root=root",),
}
"""The services, and their options."""

NO_W = not os.access("/usr/bin/w", os.X_OK)
"""Without it there is no systat service."""

ANNOUNCING = ("daytime", "time", "qotd", "systat")
"""Services that say one thing, and end their stream."""

ONE_MESSAGE = ("wps", "repeat", "greeter")
"""Services that answer one message. A pause ends it, so its bytes have to come fast."""

MANY_MESSAGES = ("reverse", "support", "files")
"""Services that answer any number of messages."""

PLENTIFUL = ("echo", "reverse", "wps", "accumulator", "repeat", "support", "chargen", "files")
"""Services that give more output than all buffers hold."""

HELP = "".join(line + "\n" for line in Conversation(load_dialogue(), str).answer("help")).encode()
"""What support answers to ``help``."""

GET = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET_BIG = b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n"

QUESTIONS: dict[str, bytes] = {
    "echo": b"x" * MEGABYTES,
    "reverse": b"%099d\n" % 1 * (MEGABYTES // 100),
    "wps": b"the-long-command\n",
    "accumulator": b"x" * 2800,
    "repeat": b"x" * 999 + b"\n",
    "greeter": b"Hello World\n",
    "support": b"help\n" * (MEGABYTES // len(HELP)),
    "files": GET_BIG,
}
"""What makes a service write much, or as much as it can."""

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 2000\r\n"

APPLICATION = """
import json
import re
import time
from importlib import import_module

from twisted.application.service import Application
from twisted.logger import globalLogPublisher

application = Application("all")
cases = []

for name, arguments in {commands}:
    service = import_module("twistednet.services." + name)
    options = service.Options()
    options.parseOptions(arguments)
    made = service.makeService(options)
    made.setServiceParent(application)
    # wps and systat have their service in a service of their own.
    cases.append((made if hasattr(made, "factory") else next(iter(made))).factory)

record = open("time-outs", "w", buffering=1)


def observe(event):
    limit = re.search(r"\\((\\w+)-timeout\\)", event.get("log_format") or "")
    if limit is not None:
        record.write(json.dumps([cases.index(event["log_source"]), limit[1], time.monotonic()]) + "\\n")


globalLogPublisher.addObserver(observe)
"""
"""What ``twistd --python`` reads. It writes the number of the case, the limit, and the time of each time-out."""


@dataclass(frozen=True)
class Case:
    """One client of one instance.

    :param service: the service.
    :param endpoint: one of `ENDPOINTS`.
    :param limit: the time-out that is on.
    :param client: what the client does: see the module.
    :param rate: for a client that reads at a rate, its bytes a second.
    :param slow: it is of the slow run.
    """

    service: str
    endpoint: str
    limit: str
    client: str
    rate: int = 0
    slow: bool = False

    def __str__(self) -> str:
        return f"{self.service}-{self.endpoint}-{self.limit}-{self.client}".replace(" ", "")

    @property
    def seconds(self) -> float:
        """The time-out."""
        return SLOW_SECONDS if self.slow else SECONDS[self.limit]

    def arguments(self, number: int, certificates: Path) -> list[str]:
        """The command line of the instance."""
        endpoint = {
            "tcp": "tcp:0:interface=127.0.0.1",
            "tls": f"tls:{certificates}:port=0:interface=127.0.0.1",
            "haproxy": "haproxy:tcp:0:interface=127.0.0.1",
            "unix": f"unix:{number}",
        }[self.endpoint]
        limits = [f"--{limit}-timeout={self.seconds if limit == self.limit else 0}" for limit in SECONDS]
        return [*SERVICES[self.service], *limits, "--drain=0.1", f"--listen={endpoint}"]


@dataclass
class Outcome:
    """What became of a case.

    :param problem: what the client found wrong.
    :param since: a time before its last progress.
    :param settled: a time after its last progress.
    :param ended: when it saw the end of the connection.
    :param timed_out: the time-outs of the instance, and when they came.
    """

    problem: str
    since: float
    settled: float
    ended: float | None
    timed_out: list[tuple[str, float]]


class TooSlow(Exception):
    """This machine was too busy for the client to keep its pace."""


class Client:
    """The client of a case.

    :param case: the case.
    :param address: where its instance listens.
    :param context: for TLS.
    """

    def __init__(self, case: Case, address: Any, context: ssl.SSLContext) -> None:
        self.case = case
        self.since = time.monotonic()
        self.ended: float | None = None
        self._sent = 0
        unix = case.endpoint == "unix"
        self.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        if case.endpoint == "haproxy":
            self.socket.sendall(HEADER)
        elif case.endpoint == "tls":
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.settled = time.monotonic()

    def run(self) -> None:
        """Do what the case says."""
        try:
            getattr(self, "rate" if self.case.rate else f"{self.case.limit}_{self.case.client}")()
        finally:
            self.socket.close()

    # Steps

    def send(self, data: bytes) -> None:
        """Send `data`: the last progress so far."""
        self.since = time.monotonic()
        self.socket.sendall(data)
        self.settled = time.monotonic()

    def receive(self, size: int) -> bytes:
        """The next `size` bytes."""
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more, f"the stream ended after {len(data)} of {size} bytes"
            data += more
        self.settled = time.monotonic()
        return data

    def receive_all(self) -> int:
        """Read to the end of the stream; return how many bytes that was."""
        size = 0
        while data := self.socket.recv(65536):
            size += len(data)
        return size

    def read_until_end(self) -> None:
        """Read, and note the end."""
        try:
            self.receive_all()
        finally:
            self.ended = time.monotonic()

    def watch(self, seconds: float, events: int = select.EPOLLRDHUP) -> bool:
        """Read nothing; return whether the connection ends in the next `seconds`."""
        with select.epoll() as poll:
            poll.register(self.socket.fileno(), events)
            if poll.poll(seconds):
                self.ended = time.monotonic()
                return True
        return False

    def settle(self) -> None:
        """Read nothing; wait until the output of the server fills the buffers, and nothing moves any more."""
        least = 2048 if self.case.service in PLENTIFUL else 1  # the tickets of TLS are no output
        unread = array("i", [0])
        before = 0
        while unread[0] < least or time.monotonic() - self.settled < 0.3:
            assert not self.watch(0.05, 0), "the connection ended before there was any output"
            fcntl.ioctl(self.socket.fileno(), termios.FIONREAD, unread)
            if unread[0] != before:
                before = unread[0]
                self.settled = time.monotonic()
            assert time.monotonic() < self.since + PATIENCE, "there is no output"

    def ask(self, question: bytes) -> None:
        """Send the next of `question`, as much as the system takes."""
        self.socket.setblocking(False)
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self._sent < len(question):
                self._sent += self.socket.send(question[self._sent : self._sent + 16384])
        self.socket.settimeout(PATIENCE)

    def read_at(self, rate: int, seconds: float, question: bytes) -> int:
        """Ask, and read at `rate`; return how many bytes that was."""
        begun = time.monotonic()
        size = 0
        while (passed := time.monotonic() - begun) < seconds:
            self.ask(question)
            due = int(rate * passed) - size
            if due > 0:
                data = self.socket.recv(min(due, rate // 4))
                assert data, f"the stream ended after {size} bytes"
                size += len(data)
            else:
                time.sleep(0.125)
        return size

    def drip(self, data: bytes, gap: float) -> bool:
        """Send `data`, one byte after each `gap`; return whether the connection is still there then.

        :raises TooSlow: if a pause was so long that it ends a message.
        """
        last = time.monotonic()
        for i in range(len(data)):
            self.socket.settimeout(gap)
            try:
                if i:
                    with suppress(TimeoutError):
                        if not self.socket.recv(65536):
                            self.ended = time.monotonic()
                            return False
                        if gap < MESSAGE_GAP:  # an answer: the server has seen a pause
                            raise TooSlow
                if gap < MESSAGE_GAP and time.monotonic() - last > 0.8 * MESSAGE_GAP:
                    raise TooSlow
                last = time.monotonic()
                self.socket.sendall(data[i : i + 1])
            except (ConnectionError, ssl.SSLError):
                self.ended = time.monotonic()
                return False
        self.socket.settimeout(PATIENCE)
        return True

    # idle

    def idle_stops(self) -> None:
        """Say something that leaves the connection open, where there is such, and then nothing."""
        service = self.case.service
        longest = self.case.seconds + 3 * SWEEP + MARGIN
        if service == "chargen":
            self.settle()  # Who reads it isn't idle.
            self.watch(longest)
        elif service in ANNOUNCING:
            self.read_until_end()
            self.settled, self.ended = time.monotonic(), None
            if not self.watch(self.case.seconds + 3 * SWEEP, 0):
                # The kernel doesn't tell the end of the other direction until something is sent.
                with suppress(ConnectionError, ssl.SSLError):
                    self.socket.sendall(b"x")
                assert self.watch(MARGIN, 0), "the connection is still there"
                self.ended = None  # nobody knows
        else:
            first = {"echo": b"x", "reverse": b"x\n", "accumulator": b"x", "files": GET, "discard": b"x"}.get(service)
            if first is not None:
                self.send(first)
            self.read_until_end()

    def idle_steady(self) -> None:
        """Send a byte every half second."""
        service = self.case.service
        request = GET.ljust(20, b" ") if service == "files" else b"x" * 20
        begun = time.monotonic()
        for i in range(int(WATCHED * 2) - 1):  # the server's own time is over at `LINGER`
            self.send(request[i : i + 1])
            time.sleep(max(0.0, begun + (i + 1) / 2 - time.monotonic()))
        if service == "files":
            self.send(request[i + 1 :])
            assert self.receive(12) == b"HTTP/1.1 200"
        elif service == "echo":
            assert self.receive(i + 1) == b"x" * (i + 1)

    # message

    def message_stops(self) -> None:
        """Send a message, if there can be another, and then the bytes of one that doesn't end."""
        service = self.case.service
        if service in ("reverse", "support"):
            self.send(b"help\n")
            self.receive(5)
        self.since = self.settled = time.monotonic()
        gap = 0.1 if service in ONE_MESSAGE else 0.5
        longest = self.case.seconds + 3 * SWEEP + MARGIN
        begun = b"GET / HTTP/1.1\r\nX: " if service == "files" else b""
        assert not self.drip(begun + b"x" * int(longest / gap), gap), "the connection is still there"

    def message_steady(self) -> None:
        """Send messages that take three quarters of the time."""
        service = self.case.service
        if service in ONE_MESSAGE:
            message = b"the-long-command"
            assert self.drip(message, 0.1)
            self.send(b"\n")
            sizes = {"wps": MEGABYTES, "repeat": 17 * (MEGABYTES // 1000), "greeter": len(b"Hello Yourself\nGoodbye\n")}
            assert self.receive_all() == sizes[service]
            return
        if service in ("reverse", "support"):
            self.send(b"x\n")
        pieces = [GET[:10], GET[10:20], GET[20:30], GET[30:]] if service == "files" else [b"h", b"e", b"l", b"p\n"]
        for _ in range(3):
            for piece in pieces:
                self.send(piece)
                time.sleep(0.5 if piece is not pieces[-1] else 0.1)
        end = {"reverse": b"pleh\n", "support": HELP, "files": b"small"}[service]
        self.socket.settimeout(1)
        answers = b""
        with suppress(TimeoutError):
            while data := self.socket.recv(65536):
                answers += data
        assert answers.count(end) == 3

    def message_paused(self) -> None:
        """Ask for more than the server can send at once, and read slowly for a while, and then all."""
        service = self.case.service
        if service == "files":
            question, size = GET_BIG * 2, 2 * MEGABYTES
        elif service in ONE_MESSAGE:
            question, size = QUESTIONS[service] + b"more", MEGABYTES
        else:
            question = QUESTIONS[service]
            size = len(question) if service == "reverse" else len(question) // 5 * len(HELP)
        read = self.read_at(65536, WATCHED, question)
        while read < size:
            self.ask(question)
            data = self.socket.recv(65536)
            assert data, f"the stream ended after {read} of {size} bytes"
            read += len(data)
        assert self._sent == len(question)

    # write

    def write_stops(self) -> None:
        """Ask for as much as there is, and don't read."""
        self.ask(QUESTIONS.get(self.case.service, b""))
        self.settle()
        # An end of the stream, which may come after a short answer, is not the end of the connection.
        self.watch(self.case.seconds + 3 * SWEEP + MARGIN, 0)

    def rate(self) -> None:
        """Read at the rate."""
        seconds = SLOW_SECONDS + 2 * SWEEP + 5 if self.case.slow else WATCHED
        read = self.read_at(self.case.rate, seconds, QUESTIONS.get(self.case.service, b""))
        assert read > self.case.rate * seconds / 2, "this machine is too busy"


# All of them


def cases() -> Iterator[Case]:
    """All cases of the normal run."""
    for service in SERVICES:
        for endpoint in ENDPOINTS:
            yield Case(service, endpoint, "idle", "stops")
            if service != "chargen":
                yield Case(service, endpoint, "idle", "steady")
            if service in ONE_MESSAGE + MANY_MESSAGES:
                yield Case(service, endpoint, "message", "stops")
                yield Case(service, endpoint, "message", "steady")
            if service in MANY_MESSAGES or service in ("wps", "repeat"):
                yield Case(service, endpoint, "message", "paused")
            # The answers of the other services fit into any receive buffer of TCP. On a Unix socket, they are unread.
            if service in PLENTIFUL or (endpoint == "unix" and service != "discard"):
                yield Case(service, endpoint, "write", "stops")
            if service in PLENTIFUL:
                for rate in (10_000, 20_000):
                    rate = int(rate * SLOW_SECONDS / SECONDS["write"])
                    yield Case(service, endpoint, "write", f"{rate // 1000} KB/s", rate)


def slow_cases() -> Iterator[Case]:
    """All cases of the slow run."""
    for service in PLENTIFUL:
        for endpoint in ENDPOINTS:
            for rate in (10_000, 20_000):
                yield Case(service, endpoint, "write", f"{rate // 1000} KB/s", rate, slow=True)


def run(folder: Path, reactor: str, chosen: Sequence[Case]) -> list[Outcome]:
    """Run the clients of all the `chosen` cases on `reactor`, in `folder`."""
    authority = trustme.CA()
    certificates = folder / "certificates"
    certificates.mkdir(parents=True)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificates / "localhost.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    (folder / "root").mkdir()
    (folder / "root" / "small").write_bytes(b"small")
    (folder / "root" / "big").write_bytes(bytes(MEGABYTES))
    commands = [(case.service, case.arguments(i, certificates)) for i, case in enumerate(chosen)]
    (folder / "all.py").write_text(APPLICATION.format(commands=commands))

    def client(number: int, case: Case, address: Any) -> tuple[str, float, float, float | None]:
        time.sleep(number / len(chosen))  # not all of them at once
        problem = "this machine is too busy"
        made = None
        for _ in range(4):
            try:
                made = Client(case, address, context)
                made.run()
                problem = ""
            except TooSlow:
                continue
            except (AssertionError, OSError) as error:
                problem = f"{type(error).__name__}: {error}"
            break
        return (problem, made.since, made.settled, made.ended) if made else (problem, 0.0, 0.0, None)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(running, "REACTOR", [f"--reactor={REACTORS[reactor]}"])
        twistd = Twistd(folder, "--no_save", "--python", "all.py", endpoints=len(chosen))
    with twistd, ThreadPoolExecutor(len(chosen)) as threads:
        found = [
            str(folder / str(i)) if case.endpoint == "unix" else ("127.0.0.1", int(address.rpartition(":")[2]))
            for i, (case, address) in enumerate(zip(chosen, twistd.addresses, strict=True))
        ]
        results = list(threads.map(client, range(len(chosen)), chosen, found))
        twistd.assert_stops_cleanly(-signal.SIGTERM)
    timed_out: list[list[tuple[str, float]]] = [[] for _ in chosen]
    for line in (folder / "time-outs").read_text().splitlines():
        number, limit, at = json.loads(line)
        timed_out[number].append((limit, at))
    return [Outcome(*result, each) for result, each in zip(results, timed_out, strict=True)]


Run = Callable[[str], list[Outcome]]


def shared_run(factory: pytest.TempPathFactory, name: str, chosen: Sequence[Case], reactor: str) -> dict[Case, Outcome]:
    """What `run` finds out, run once for all the workers of pytest-xdist."""
    own = factory.getbasetemp()
    common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    results = common / f"{name}-{reactor}.json"
    with (common / f"{name}-{reactor}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if results.exists():
            outcomes = [Outcome(*values) for values in json.loads(results.read_text())]
        else:
            # A short path: it has Unix sockets in it. And in the worker's own folder, for `tests.guard`.
            outcomes = run(factory.mktemp("limits"), reactor, chosen)
            values = [[each.problem, each.since, each.settled, each.ended, each.timed_out] for each in outcomes]
            results.write_text(json.dumps(values))
    return dict(zip(chosen, outcomes, strict=True))


CASES = [case for case in cases() if not (case.service == "systat" and NO_W)]
SLOW_CASES = list(slow_cases())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[Case, Outcome]:
    """What became of each of `CASES` on the reactor that is the parameter."""
    return shared_run(tmp_path_factory, "limits", CASES, request.param)


@pytest.fixture(scope="module")
def slow_outcomes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[Case, Outcome]:
    """What became of each of `SLOW_CASES` on the reactor that is the parameter."""
    return shared_run(tmp_path_factory, "slow-limits", SLOW_CASES, request.param)


def check(case: Case, outcome: Outcome) -> None:
    """The promise holds for `case`."""
    assert outcome.problem == ""
    if case.client != "stops":
        assert outcome.timed_out == []
        return
    # Those before the last are of connections that the client gave up, because it could not keep its pace.
    assert outcome.timed_out
    limit, at = outcome.timed_out[-1]
    assert limit == case.limit
    assert at - outcome.since >= case.seconds
    assert at - outcome.settled <= case.seconds + 2 * SWEEP + MARGIN
    if outcome.ended is None:
        # Visible is only the end of both directions. An announcing service has ended one of them before.
        assert case.service in ANNOUNCING
    else:
        assert outcome.ended - outcome.since >= case.seconds
        assert outcome.ended - outcome.settled <= case.seconds + 3 * SWEEP + MARGIN


@pytest.mark.skipif(shutil.which("head", path="/usr/bin") is None, reason="there is no /usr/bin/head here")
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("outcomes", REACTORS, indirect=True)
def test_limit(outcomes: dict[Case, Outcome], case: Case) -> None:
    """A time-out comes in time, and never to a client that makes progress."""
    check(case, outcomes[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_CASES, ids=str)
@pytest.mark.parametrize("slow_outcomes", REACTORS, indirect=True)
def test_slow_reader(slow_outcomes: dict[Case, Outcome], case: Case) -> None:
    """A client that reads 10 or 20 KB/s keeps its connection."""
    check(case, slow_outcomes[case])
