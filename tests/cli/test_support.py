"""``twistednet support``, against a server of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import programs
from tests.programs import Console, run_console

SERVER = """
import sys
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twistednet.services.support import Options, makeService
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
options = Options()
options.parseOptions(["--listen=tcp:0:interface=127.0.0.1", "--listen=udp:0:interface=127.0.0.1"])
service = makeService(options)
service.startService()
reactor.run()
"""

GREETING = "Hello, this is the support line of your internet provider."
ADVICE = "Then the trouble is theirs, not your line's."


@dataclass
class Server:
    """A running one."""

    process: programs.Popen
    tcp: str
    udp: str
    log: list[str]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A service on two ports of loopback."""
    process = programs.Popen([sys.executable, "-u", "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    log: list[str] = []
    reader = threading.Thread(target=log.extend, args=[process.stdout])
    try:
        ports: dict[str, str] = {}
        while len(ports) < 2:
            line = process.stdout.readline()
            assert line, "the server has ended"
            if match := re.search(r"listening on (TCP|UDP) 127.0.0.1:(\d+)", line):
                ports[match[1]] = match[2]
        reader.start()
        yield Server(process, ports["TCP"], ports["UDP"], log)
    finally:
        process.terminate()
        process.wait(10)
        reader.join(10)
        process.stdout.close()


def run(*arguments: str, typed: str | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the client."""
    run = run_console("twistednet", "support", *arguments, input=typed or "", capture_output=True, text=True)
    assert run.returncode == status, (run.stdout, run.stderr)
    assert "Traceback" not in run.stderr
    return run


@pytest.mark.parametrize("udp", [False, True])
def test_piped(server: Server, udp: bool) -> None:
    """Each line of standard input is an answer, and the whole conversation is printed."""
    arguments = ["127.0.0.1", server.udp, "--udp"] if udp else ["127.0.0.1", server.tcp]
    run_ = run(*arguments, typed="what?\nonly some sites\nNOPE\nleft over\n")
    assert run_.stdout.startswith(GREETING)
    assert "Sorry, I did not understand that." in run_.stdout
    assert ADVICE in run_.stdout
    assert "Sorry" not in run_.stdout.partition(ADVICE)[2]
    assert run_.stderr == ""


def test_same(server: Server) -> None:
    """What is said over UDP is what is said over TCP."""
    answers = "everything\nhelp\nback\non\nmobile\nzero\nno\nback\nnot\nquit\n"
    over_tcp = run("127.0.0.1", server.tcp, typed=answers).stdout
    assert run(f"udp:127.0.0.1:{server.udp}", typed=answers).stdout == over_tcp
    assert run("127.0.0.1", server.tcp, *answers.split()).stdout == over_tcp
    assert run("--udp", "127.0.0.1", server.udp, *answers.split()).stdout == over_tcp


def test_ticket(server: Server) -> None:
    """A ticket's number is in the server's log, with the way to it."""
    for udp in (["127.0.0.1", server.tcp], ["127.0.0.1", server.udp, "--udp"]):
        said = run(*udp, "everything", "off", "only the lamp").stdout
        number = re.findall(r"Your ticket is (\d{8})\.", said)[0]
        deadline = time.monotonic() + 10
        expected = f"ticket {number}: scope > power > socket > dead-box\n"
        while not any(line.endswith(expected) for line in list(server.log)):
            assert time.monotonic() < deadline, server.log
            time.sleep(0.05)


def test_end_of_input(server: Server) -> None:
    """Who stops in the middle has heard all there is so far."""
    assert run("127.0.0.1", server.tcp).stdout.startswith(GREETING)
    assert "Which of them come on?" in run("127.0.0.1", server.tcp, "everything", "off").stdout
    assert "Which of them come on?" in run("127.0.0.1", server.udp, "everything", "off", "--udp").stdout
    assert run("127.0.0.1", server.udp, "--udp").stdout.startswith(GREETING)


def test_json(server: Server) -> None:
    """One object, where the answers are given beforehand."""
    for arguments in ([server.tcp], [server.udp, "--udp"]):
        said = json.loads(run("127.0.0.1", *arguments, "--json", "sites", "no").stdout)
        assert said["ok"] is True
        assert said["answer"].startswith(GREETING)
        assert ADVICE in said["answer"]
    assert "--json needs one exchange" in run("127.0.0.1", server.tcp, "--json", status=2).stderr
    assert "one line" in run("127.0.0.1", server.tcp, "a\nb", status=2).stderr


def test_terminal(server: Server) -> None:
    """At a terminal, the client ends when the conversation does, without another key."""
    for arguments in ([server.tcp], [server.udp, "--udp"]):
        leader, follower = os.openpty()
        with Console(
            "twistednet", "support", "127.0.0.1", *arguments, stdin=follower, stdout=subprocess.PIPE, text=True
        ) as process:
            os.write(leader, b"sites\n")
            os.write(leader, b"no\n")
            stdout, _ = process.communicate(timeout=30)
        assert ADVICE in stdout
        assert process.returncode == 0
        os.close(leader)
        os.close(follower)


class Lossy(threading.Thread):
    """A UDP relay that loses every third datagram, and doubles the others, both ways."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.server = ("127.0.0.1", port)
        self.relayed = self.lost = 0

    def run(self) -> None:
        client = None
        for i in range(10000):
            datagram, sender = self.socket.recvfrom(65535)
            if datagram == b"stop":
                break
            if sender != self.server:
                client = sender
            if i % 3 == 0:
                self.lost += 1
                continue
            for _ in range(2):
                self.relayed += 1
                self.socket.sendto(datagram, client if sender == self.server else self.server)  # type: ignore[arg-type]

    def stop(self) -> None:
        """End it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopping:
            stopping.sendto(b"stop", self.socket.getsockname())
        self.join(10)
        self.socket.close()


def test_losses(server: Server) -> None:
    """Over a network that loses and doubles datagrams, it is the same conversation."""
    answers = ("everything", "yes", "mobile", "two", "no", "no", "no", "no", "nothing", "yes")
    direct = run("127.0.0.1", server.udp, "--udp", *answers).stdout
    lossy = Lossy(int(server.udp))
    lossy.start()
    try:
        port = str(lossy.socket.getsockname()[1])
        relayed = run("127.0.0.1", port, "--udp", "--timeout", "0.2", "--retries", "20", *answers).stdout
    finally:
        lossy.stop()
    assert relayed == direct
    assert lossy.lost > 5
    assert "it is us" in direct


def test_nobody(tmp_path: Path) -> None:
    """Nobody there, and a server that says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = str(silent.getsockname()[1])
        assert "nobody listens" in run("127.0.0.1", port, "x", status=3).stderr
        silent.listen()
        assert "no answer in 0.3 seconds" in run("127.0.0.1", port, "--timeout", "0.3", "x", status=4).stderr
        assert "no answer in 0.3 seconds" in run("127.0.0.1", port, "--timeout", "0.3", status=4).stderr
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = str(silent.getsockname()[1])
        arguments = ["127.0.0.1", port, "--udp", "--timeout", "0.2", "--retries", "2"]
        assert "no answer" in run(*arguments, status=4).stderr
        assert [silent.recv(100) for _ in range(3)] == [b"#0 "] * 3
    assert "nobody listens" in run("127.0.0.1", port, "--udp", status=3).stderr
    assert "nobody listens" in run(f"unix:{tmp_path}/none", "x", status=3).stderr


def test_busy() -> None:
    """All lines busy is not what was hoped for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as busy:
        busy.bind(("127.0.0.1", 0))

        def answer() -> None:
            for _ in range(2):
                _, sender = busy.recvfrom(100)
                busy.sendto(b"#0 busy\nAll our lines are busy.\n", sender)

        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        port = str(busy.getsockname()[1])
        for arguments in ([], ["x"]):
            run_ = run("127.0.0.1", port, "--udp", *arguments, status=1)
            assert run_.stdout == "All our lines are busy.\n"
            assert "all lines are busy" in run_.stderr
        answering.join(10)
