"""The load: one process with its share of the connections. It needs the standard library only, and starts fast.

It is told what to do, and tells what it has seen, in lines of JSON:

==========================  ========================================================================
standard input              standard output
==========================  ========================================================================
the fields of a `Load`      ``{"ready": true}``, once all connections are open
a line, whatever is in it   ``{"bursts": n}``, four times a second: how many have been answered
                            the fields of a `Tally`, in the end
==========================  ========================================================================

Instead of any of these it may write ``{"failed": kind, "message": text}``, and ends; the kinds are ``refused``,
``timed out`` and ``wrong``.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import string
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

SILENCE = 0.05
"""Seconds after which a datagram is sent again."""

REPORT_EVERY = 0.25
"""Seconds between two reports, and the shortest interval of a `Tally`."""

MOST_INTERVALS = 200
"""So that a `Tally` has a bounded size however long it took."""

READ_SIZE = 1 << 17
"""The most to read at once; more is slower, for the memory it takes anew each time."""

BUSY = 0.9
"""The share of its time above which a generator is taken to be what limits the rate."""


class Wrong(Exception):
    """The server has not answered as it should."""


@dataclass(frozen=True)
class Load:
    """What one generator does.

    :param addresses: where the server may be, as ``getaddrinfo`` has it: pairs of a family and a socket address.
    :param first: the number of its first connection; no two connections of a run ask the same question.
    :param size: of a message, in bytes; a stream's ends in a newline.
    :param burst: how many messages are written before the answers are awaited.
    :param duration: in seconds.
    :param timeout: how long to wait for a connection, and for any answer at all, in seconds.
    :param cores: on which the process may run, or none for all.
    :param tls: whether to connect with TLS; the certificate is not verified.
    """

    addresses: list[tuple[int, tuple[Any, ...]]]
    protocol: str
    udp: bool
    connections: int
    first: int
    size: int
    burst: int
    duration: float
    timeout: float
    cores: list[int]
    tls: bool = False

    @property
    def interval(self) -> float:
        """The length of the intervals into which the run is divided, in seconds."""
        return max(REPORT_EVERY, self.duration / MOST_INTERVALS)


@dataclass
class Tally:
    """What one generator has seen.

    :param seconds: how long it took.
    :param latencies: per interval, how many bursts took how many microseconds, in pairs.
    :param sent_again: datagrams that were not answered in time.
    :param late: answers to datagrams that had been sent again, and answered, already.
    :param busy: the share of the time in which it was on a core, or waiting for one.
    """

    seconds: float = 0.0
    latencies: list[list[tuple[int, int]]] = field(default_factory=list)
    sent_again: int = 0
    late: int = 0
    busy: float = 0.0


# Questions and answers


def answer_echo(message: bytes) -> bytes:
    """The message itself."""
    return message


def answer_reverse(message: bytes) -> bytes:
    """The message in reverse order; a newline stays where it is."""
    return message[-2::-1] + b"\n" if message.endswith(b"\n") else message[::-1]


def answer_udpok(message: bytes) -> bytes:
    """``OK...`` and the message."""
    return b"OK..." + message


WRITE = b"0123456789"
"""What `twistednet.bench.applications` writes several times for each message of the workload ``writes``."""

WRITES = 20
"""How many times."""


def answer_writes(_: bytes) -> bytes:
    """All that is written for a message."""
    return WRITE * WRITES


HELLO_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

HELLO_SERVER = b"TwistedWeb"
HELLO_DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
"""The headers that would else differ between releases, and from second to second."""

HELLO_RESPONSE = (
    b"HTTP/1.1 200 OK\r\n"
    b"Server: " + HELLO_SERVER + b"\r\n"
    b"Date: " + HELLO_DATE + b"\r\n"
    b"Content-Length: 5\r\n"
    b"Content-Type: text/html\r\n\r\n"
    b"hello"
)


def answer_web(_: bytes) -> bytes:
    """The page, with its headers."""
    return HELLO_RESPONSE


ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "echo": answer_echo,
    "reverse": answer_reverse,
    "udpok": answer_udpok,
    "writes": answer_writes,
    "web": answer_web,
}
"""What the answer to a message should be, by protocol."""


def message(load: Load, connection: int, turn: int = 0) -> bytes:
    """What a connection sends; with another `turn`, or from another connection, another one where `size` allows it.

    A request for a web page is always the same.
    """
    if load.protocol == "web":
        return HELLO_REQUEST
    size = load.size if load.udp else load.size - 1
    text = f"{turn:x}.{connection:x}.".encode() + string.ascii_letters.encode() * (size // 52 + 1)
    return text[:size] if load.udp else text[:size] + b"\n"


# The loop


class Connection:
    """One connection, or one UDP socket: its question, and how much of the answer is there."""

    __slots__ = (
        "again",
        "answer",
        "got",
        "number",
        "question",
        "recv",
        "send",
        "sent",
        "sock",
        "stale",
        "started",
        "turn",
    )

    def __init__(self, load: Load, number: int, sock: socket.socket) -> None:
        self.number, self.sock, self.recv, self.send = number, sock, sock.recv, sock.send
        self.sent = self.got = self.started = 0  # bytes, bytes, and nanoseconds of the monotonic clock
        self.again = 0  # how often the datagram under way has been sent again
        self.turn = -1
        self.answer = self.stale = b""
        self.renew(load)

    def renew(self, load: Load) -> None:
        """Ask something else from now on, so that a late answer to the old question is told from one to the new."""
        self.turn += 1
        self.stale = self.answer
        asked = message(load, self.number, self.turn)
        self.question, self.answer = asked * load.burst, ANSWERS[load.protocol](asked) * load.burst


def connect(load: Load) -> Iterator[socket.socket]:
    """The connections, not blocking.

    :raises OSError: where there is none to be had.
    """
    kind = socket.SOCK_DGRAM if load.udp else socket.SOCK_STREAM
    addresses = load.addresses
    for _ in range(load.connections):
        for at, (family, address) in enumerate(addresses):
            sock = socket.socket(family, kind)
            try:
                sock.settimeout(load.timeout)
                sock.connect(tuple(address))
                if load.tls:
                    from twistednet.bench.tls_socket import start_tls

                    sock = start_tls(sock)
            except OSError:
                sock.close()
                if at == len(addresses) - 1:
                    raise
                continue
            addresses = [(family, address)]
            break
        if not load.udp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        yield sock


class Generator:
    """Puts the load on the server.

    :raises OSError: where it can't connect.
    """

    def __init__(self, load: Load, report: Callable[[int], object]) -> None:
        self.load = load
        self.report = report
        self.tally = Tally()
        self.bursts = 0
        self._next_look = 0  # for datagrams that are overdue
        self.poll = select.epoll()
        self.connections = {
            sock.fileno(): Connection(load, load.first + n, sock) for n, sock in enumerate(connect(load))
        }
        # Room for an answer, and for a byte too many.
        self.read_size = min(READ_SIZE, max((len(each.answer) for each in self.connections.values()), default=0) + 1)
        for fd in self.connections:
            self.poll.register(fd, select.EPOLLIN)

    def close(self) -> None:
        """Close all connections."""
        for connection in self.connections.values():
            connection.sock.close()
        self.poll.close()

    def run(self) -> Tally:
        """Ask until the duration is over.

        :raises Wrong: at the first answer that is not what it should be.
        :raises TimeoutError: where no answer at all comes for the load's time-out.
        """
        turn, ask = (self.turn_datagrams, self.send_datagram) if self.load.udp else (self.turn_streams, self.push)
        load, tally, clock = self.load, self.tally, time.perf_counter_ns
        busy, start = busy_seconds(), clock()
        end, interval = start + int(load.duration * 1e9), int(load.interval * 1e9)
        next_interval, next_report = start + interval, start + int(REPORT_EVERY * 1e9)
        answered, bursts = start, 0
        latencies: dict[int, int] = defaultdict(int)
        for connection in self.connections.values():
            connection.started = clock()
            ask(connection)
        while (now := clock()) < end:
            while now >= next_interval:
                tally.latencies.append(list(latencies.items()))
                latencies.clear()
                next_interval += interval
            if now >= next_report:
                self.report(self.bursts)
                next_report += int(REPORT_EVERY * 1e9)
            if self.bursts != bursts:
                answered, bursts = now, self.bursts
            elif now - answered > load.timeout * 1e9:
                raise TimeoutError
            turn(latencies)
        tally.latencies.append(list(latencies.items()))
        tally.seconds = (clock() - start) / 1e9
        tally.busy = (busy_seconds() - busy) / tally.seconds
        return tally

    def turn_streams(self, latencies: dict[int, int]) -> None:
        """Take what has come in, and ask on."""
        clock, connections, size = time.perf_counter_ns, self.connections, self.read_size
        for fd, event in self.poll.poll(0.05, 256):
            connection = connections[fd]
            if event & select.EPOLLOUT:
                self.push(connection)
                if event == select.EPOLLOUT:
                    continue
            try:
                data = connection.recv(size)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            answer = connection.answer
            if data != answer:
                # In pieces, or wrong. `startswith` compares without a copy.
                if not data:
                    raise Wrong("closed by the server")
                if not answer.startswith(data, connection.got):
                    raise Wrong(mistake(answer[connection.got :], data))
                connection.got += len(data)
                if connection.got < len(answer):
                    continue
            elif connection.got:
                raise Wrong(mistake(answer[connection.got :], data))
            if connection.sent < len(connection.question):
                raise Wrong("answered before it was asked")
            now = clock()
            latencies[(now - connection.started) // 1000] += 1
            self.bursts += 1
            connection.got = 0
            connection.started = now
            # Nearly always all of it can be sent.
            try:
                sent = connection.sent = connection.send(connection.question)
            except BlockingIOError:
                sent = connection.sent = 0
            except ConnectionError:
                raise Wrong("closed by the server") from None
            if sent < len(connection.question):
                self.poll.modify(fd, select.EPOLLIN | select.EPOLLOUT)

    def push(self, connection: Connection) -> None:
        """Send what is left of the burst; wait for the socket to take more only while it is full."""
        try:
            while connection.sent < len(connection.question):
                connection.sent += connection.send(memoryview(connection.question)[connection.sent :])
        except BlockingIOError:
            self.poll.modify(connection.sock, select.EPOLLIN | select.EPOLLOUT)
        except ConnectionError:
            raise Wrong("closed by the server") from None
        else:
            self.poll.modify(connection.sock, select.EPOLLIN)

    def turn_datagrams(self, latencies: dict[int, int]) -> None:
        """Take what has come in, ask on, and ask again where nothing came."""
        clock, connections = time.perf_counter_ns, self.connections
        for fd, _ in self.poll.poll(SILENCE / 2, 256):
            connection = connections[fd]
            try:
                data = connection.recv(65536)
            except BlockingIOError:
                continue
            if data != connection.answer:
                if connection.turn and data == connection.stale:
                    self.tally.late += 1
                    continue
                raise Wrong(mistake(connection.answer, data))
            now = clock()
            latencies[(now - connection.started) // 1000] += 1
            self.bursts += 1
            if connection.again:
                connection.again = 0
                connection.renew(self.load)
            connection.started = now
            self.send_datagram(connection)
        self.ask_again()

    def send_datagram(self, connection: Connection) -> None:
        """Send the question. One that can't be sent is as good as lost."""
        try:
            connection.send(connection.question)
        except BlockingIOError:
            pass

    def ask_again(self) -> None:
        """Send again the datagrams that are overdue. The latency counts from the first sending."""
        now = time.perf_counter_ns()
        if now < self._next_look:
            return
        self._next_look = now + int(SILENCE * 1e9 / 5)
        for connection in self.connections.values():
            if now - connection.started > SILENCE * 1e9 * (connection.again + 1):
                connection.again += 1
                self.tally.sent_again += 1
                self.send_datagram(connection)


def mistake(expected: bytes, data: bytes) -> str:
    """How `data` is not what was `expected`, at most that long."""
    at = next((i for i, (a, b) in enumerate(zip(expected, data, strict=False)) if a != b), None)
    if at is None and len(data) > len(expected):
        return "a wrong answer: more than was asked for"
    if at is None:
        return f"a wrong answer: {len(expected) - len(data)} of {len(expected)} bytes are missing"
    return f"a wrong answer: {data[at : at + 20]!r} where {expected[at : at + 20]!r} should be"


def busy_seconds() -> float:
    """How long this thread has been on a core, or waiting for one (where the system says so: Linux), in seconds."""
    waited = 0.0
    try:
        with open("/proc/thread-self/schedstat") as statistics:
            waited = int(statistics.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        pass
    return time.thread_time() + waited


# The process


def say(**values: object) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Put the load on that standard input describes."""
    load = Load(**json.loads(sys.stdin.readline()))
    if load.cores:
        os.sched_setaffinity(0, load.cores)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, load.connections + 64)), hard))
    try:
        generator = Generator(load, lambda bursts: say(bursts=bursts))
        say(ready=True)
        sys.stdin.readline()
        tally = generator.run()
    except ConnectionRefusedError:
        say(failed="refused", message="")
    except TimeoutError:
        say(failed="timed out", message="")
    except (Wrong, OSError) as error:
        say(failed="wrong", message=str(getattr(error, "strerror", None) or error))
    else:
        generator.close()
        say(**asdict(tally))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # whoever started us got it too
        pass
