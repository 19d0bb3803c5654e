"""The load: what is asked, what is taken for an answer, and what is counted."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests import programs
from tests.bench.loads import load
from tests.cli.running import refusing_port, silent_server, tcp_server, udp_socket
from tests.services.running import PATIENCE
from twistednet.bench.applications import throwaway_certificate
from twistednet.bench.generator import (
    ANSWERS,
    READ_SIZE,
    SILENCE,
    Generator,
    Load,
    Tally,
    Wrong,
    busy_seconds,
    message,
    mistake,
)


class QuestionTests(SynchronousTestCase):
    """What is sent, and what should come back."""

    def test_stream(self) -> None:
        """A stream's message has its size, its newline included, and no other newline."""
        for size in (1, 2, 16, 64, 1000):
            asked = message(load(size=size), 3)
            self.assertEqual((len(asked), asked.index(b"\n")), (size, size - 1))

    def test_datagram(self) -> None:
        """A datagram has its size, and no newline."""
        for size in (1, 16, 1000):
            asked = message(load(size=size, udp=True), 3)
            self.assertEqual((len(asked), b"\n" in asked), (size, False))

    def test_different(self) -> None:
        """No two connections, and no two turns of one, ask the same; none asks what is its own reverse."""
        asked = {message(load(), connection, turn) for connection in range(40) for turn in range(40)}
        self.assertEqual(len(asked), 1600)
        for each in asked:
            self.assertNotEqual(ANSWERS["reverse"](each), each)

    def test_answers(self) -> None:
        """Each protocol's answer."""
        for protocol, asked, answer in (
            ("echo", b"stressed\n", b"stressed\n"),
            ("reverse", b"stressed\n", b"desserts\n"),
            ("reverse", b"\n", b"\n"),
            ("reverse", b"ab", b"ba"),
            ("udpok", b"hello", b"OK...hello"),
        ):
            self.assertEqual(ANSWERS[protocol](asked), answer)

    def test_mistakes(self) -> None:
        """What is wrong is said in one line, without raw bytes."""
        self.assertEqual(mistake(b"hello", b"hel\x1bo"), r"a wrong answer: b'\x1bo' where b'lo' should be")
        self.assertEqual(mistake(b"hello", b"hello you"), "a wrong answer: more than was asked for")
        self.assertEqual(mistake(b"hello", b"hell"), "a wrong answer: 1 of 5 bytes are missing")

    def test_interval(self) -> None:
        """A long run has no more intervals than a short one."""
        self.assertEqual(load(duration=5).interval, 0.25)
        self.assertEqual(load(duration=3600).interval, 18)


Talk = Callable[[socket.socket], object]


def generate(talk: Talk, **changes: object) -> tuple[Tally, list[int]]:
    """What a generator sees with a server that talks to its only client so, and what it has reported."""
    reports: list[int] = []
    with tcp_server(talk) as port:
        generator = Generator(load(port, **changes), reports.append)
        try:
            return generator.run(), reports
        finally:
            generator.close()


def echo(connection: socket.socket) -> None:
    """Echo until the client leaves."""
    try:
        while data := connection.recv(65536):
            connection.sendall(data)
    except ConnectionError:
        pass


def count(tally: Tally) -> int:
    """How many bursts it has counted."""
    return sum(times for part in tally.latencies for _, times in part)


@pytest.mark.parametrize(
    ("size", "burst"), [(1, 1), (16, 1), (16, 100), (1000, 7), (3 * READ_SIZE + 1, 1), (8 << 20, 1)]
)
def test_echo(size: int, burst: int) -> None:
    """Messages and bursts of any size come back whole, those larger than any buffer too."""
    asked = 0

    def talk(connection: socket.socket) -> None:
        nonlocal asked
        try:
            while data := connection.recv(65536):
                asked += len(data)
                connection.sendall(data)
        except ConnectionError:
            pass

    tally, reports = generate(talk, size=size, burst=burst, duration=0.6)
    bursts = count(tally)
    assert bursts > 0
    assert 0.6 <= tally.seconds < PATIENCE
    assert 0 < tally.busy <= 1.05
    assert 2 <= len(tally.latencies) <= 3
    assert reports == sorted(reports)
    assert 1 <= len(reports) <= 3
    assert bursts >= reports[-1]
    # Nothing is counted that was not asked; what was under way in the end is not counted.
    assert bursts * size * burst <= asked <= (bursts + 1) * size * burst


@pytest.fixture
def tls_server(tmp_path: Path) -> ssl.SSLContext:
    """The server's side of TLS."""
    file = tmp_path / "certificate.pem"
    file.write_bytes(throwaway_certificate())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize(("size", "burst"), [(16, 1), (16, 100), (3 * READ_SIZE + 1, 1)])
def test_tls(size: int, burst: int, tls_server: ssl.SSLContext) -> None:
    """Over TLS, answers of one record or of many come back whole."""

    def talk(connection: socket.socket) -> None:
        with tls_server.wrap_socket(connection, server_side=True) as encrypted:
            # By turns, as both directions of one TLS connection can't be used by two threads at once.
            try:
                while data := receive(encrypted, size * burst):
                    encrypted.sendall(data)
            except OSError:  # the client has closed: one of several errors of TLS, or of the connection
                pass

    assert count(generate(talk, size=size, burst=burst, tls=True)[0]) > 0


def receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or nothing where the connection has ended."""
    data = b""
    while len(data) < size:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    return data


def test_tls_refused() -> None:
    """A server that does not speak TLS is an error."""
    with pytest.raises(OSError, match=r"(?i)wrong.version|record layer"):
        generate(lambda connection: connection.sendall(b"hello, this is no TLS\n" * 10), tls=True)


def test_pieces() -> None:
    """An answer in pieces is one answer."""

    def talk(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := connection.recv(65536):
                for at in range(len(data)):
                    connection.sendall(data[at : at + 1])
        except ConnectionError:
            pass

    assert count(generate(talk)[0]) > 0


def test_latency() -> None:
    """A server that takes its time is seen to."""

    def talk(connection: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                pause.wait(0.03)
                connection.sendall(data)
        except ConnectionError:
            pass

    pause = threading.Event()
    tally, _ = generate(talk)
    assert min(microseconds for part in tally.latencies for microseconds, _ in part) >= 30_000
    assert tally.busy < 0.5


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (lambda connection: connection.sendall(connection.recv(100)[::-1]), "a wrong answer: b'\\\\n"),
        (lambda connection: connection.sendall(connection.recv(100) + b"!!"), "more than was asked for"),
        (lambda connection: (connection.sendall(connection.recv(100)[:5]), connection.recv(100)), None),
        (lambda connection: connection.recv(100), "closed by the server"),
        (lambda _: None, "closed by the server"),
    ],
    ids=["reversed", "too many", "too few", "closed", "closed at once"],
)
def test_wrong(talk: Talk, words: str | None) -> None:
    """The first wrong answer ends it; half an answer is waited for, but not forever."""
    if words is None:
        with pytest.raises(TimeoutError):
            generate(talk, timeout=0.2, duration=20)
    else:
        with pytest.raises(Wrong, match=words):
            generate(talk, duration=20)


def test_early_answer() -> None:
    """Who answers before all is asked only guesses."""
    seen = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(message(asked, 0))
        seen.wait(PATIENCE)

    with tcp_server(talk) as port:
        asked = load(port, size=32 << 20, duration=20)
        generator = Generator(asked, lambda _: None)
        try:
            with pytest.raises(Wrong, match="answered before it was asked"):
                generator.run()
        finally:
            seen.set()
            generator.close()


def test_silence() -> None:
    """A server that never answers is not waited for longer than the time-out."""
    with silent_server() as port:
        generator = Generator(load(port, timeout=0.2, duration=20), lambda _: None)
        with pytest.raises(TimeoutError):
            generator.run()
        generator.close()


def test_datagram_lost() -> None:
    """A datagram without an answer is sent again; answers to both are one answer, and one that came late."""
    received: list[bytes] = []

    def talk() -> None:
        while len(received) < 4:
            data, client = server.recvfrom(100)
            received.append(data)
            if len(received) == 2:
                server.sendto(data, client)
            if len(received) >= 2:
                server.sendto(data, client)

    with udp_socket() as server:
        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        generator = Generator(load(server.getsockname()[1], udp=True, duration=0.6), lambda _: None)
        tally = generator.run()
        thread.join(PATIENCE)
        generator.close()
    first, second, third, fourth = received
    assert first == second != third == fourth
    assert (count(tally), tally.late) == (3, 1)
    assert tally.sent_again >= 1
    # From the first sending.
    assert max(microseconds for part in tally.latencies for microseconds, _ in part) >= SILENCE * 1e6


def test_datagram_wrong() -> None:
    """A datagram that is no answer to any question is wrong."""
    with udp_socket() as server:
        generator = Generator(load(server.getsockname()[1], udp=True, protocol="udpok"), lambda _: None)

        def talk() -> None:
            data, client = server.recvfrom(100)
            server.sendto(data, client)

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        with pytest.raises(Wrong, match=r"a wrong answer: b'0\.0"):
            generator.run()
        thread.join(PATIENCE)
        generator.close()


def test_second_address() -> None:
    """Where the first address refuses, the next is tried; where all do, it is refused."""
    with tcp_server(echo) as port, refusing_port(socket.SOCK_STREAM) as refusing:
        good, bad = load(port), load(refusing)
        both = Load(**{**asdict(good), "addresses": bad.addresses + good.addresses})
        generator = Generator(both, lambda _: None)
        assert count(generator.run()) > 0
        generator.close()
        with pytest.raises(ConnectionRefusedError):
            Generator(bad, lambda _: None)


def test_busy() -> None:
    """Working makes busy, and waiting does not."""
    before = busy_seconds()
    threading.Event().wait(0.1)
    assert busy_seconds() - before < 0.09
    before = busy_seconds()
    while busy_seconds() - before < 0.02:
        pass


def converse(asked: Load) -> list[dict[str, object]]:
    """What a generator process says."""
    done = programs.run(
        [sys.executable, "-m", "twistednet.bench.generator"],
        input=json.dumps(asdict(asked)) + "\ngo\n",
        capture_output=True,
        timeout=PATIENCE,
        text=True,
        check=True,
    )
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_process() -> None:
    """A generator process is told what to do, and tells what it has seen, in lines of JSON."""
    with tcp_server(echo) as port:
        first, *reports, last = converse(load(port, duration=0.3))
    assert first == {"ready": True}
    assert all(set(report) == {"bursts"} for report in reports)
    assert set(last) == {"seconds", "latencies", "sent_again", "late", "busy"}


def test_process_failures() -> None:
    """What went wrong it says in a line too."""
    with refusing_port(socket.SOCK_STREAM) as port:
        assert converse(load(port)) == [{"failed": "refused", "message": ""}]
    with silent_server() as port:
        assert converse(load(port, timeout=0.1, duration=20))[-1] == {"failed": "timed out", "message": ""}
    with tcp_server(lambda connection: connection.recv(100)) as port:
        assert converse(load(port))[-1] == {"failed": "wrong", "message": "closed by the server"}
