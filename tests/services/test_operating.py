"""What an operator is told: a log for machines, and a word on privileges."""

from __future__ import annotations

import io
import json
import os
import pwd
import random
import re
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogLevel, capturedLogs, eventsFromJSONLogFile, formatEvent, globalLogPublisher
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from tests.services.options import MemoryReactor
from tests.services.running import (
    PATIENCE,
    REACTOR,
    Twistd,
    ask,
    ask_for_all,
    assert_one_line,
    connect,
    receive_all,
    start,
)
from twistednet.services import echo
from twistednet.services.base import StartError
from twistednet.services.operating import log, log_as_json, warn_of_privileges


class LogAsJSONTests(SynchronousTestCase):
    """`log_as_json`."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def log_as_json(self, path: str) -> None:
        """Log there until the test ends."""
        observer = log_as_json(path)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        if path != "-":
            self.addCleanup(observer._outFile.close)

    def test_file(self) -> None:
        """Each event is an object on a line of its own, after those that are there, whatever is in it."""
        path = self.folder / "log.json"
        path.write_text('{"log_format": "first"}\n')
        self.log_as_json(str(path))
        log.info("{what}\n", what="caf\xe9\n", more=b"\xff", unknown=object())
        first, second = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
        self.assertEqual(first, {"log_format": "first"})
        self.assertEqual((second["what"], second["log_level"]["name"]), ("caf\xe9\n", "info"))
        with path.open() as file:
            events = list(eventsFromJSONLogFile(file))
        self.assertEqual([formatEvent(event) for event in events], ["first", "caf\xe9\n\n"])

    def test_standard_output(self) -> None:
        """- is the standard output that there was at the time."""
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        self.log_as_json("-")
        self.patch(sys, "stdout", io.StringIO())
        log.info("hello")
        self.assertEqual(json.loads(output.getvalue())["log_format"], "hello")

    def test_option(self) -> None:
        """A file that can't be written, and a daemon's standard output, are one line."""

        def start_error(*arguments: str) -> Any:
            options = echo.Options()
            options.parent = usage.Options()
            options.parseOptions(["--port", "0", *arguments])
            return self.assertRaises(StartError, echo.makeService, options, MemoryReactor()).code

        folder = self.folder / "nowhere"
        why = f"twistd echo: --log-json {folder}/x: No such file or directory"
        self.assertEqual(start_error("--log-json", f"{folder}/x"), why)
        why = "twistd echo: --log-json -: a daemon has no standard output"
        self.assertEqual(start_error("--log-json", "-"), why)


class WarnOfPrivilegesTests(SynchronousTestCase):
    """`warn_of_privileges`."""

    def warnings(self, uid: int, euid: int) -> list[tuple[LogLevel, str]]:
        """What is logged where the process has these user ids."""
        self.patch(os, "getuid", lambda: uid)
        self.patch(os, "geteuid", lambda: euid)
        with capturedLogs() as events:
            warn_of_privileges("echo")
        return [(event["log_level"], formatEvent(event)) for event in events]

    def test_root(self) -> None:
        """Root is told how not to be, in one line."""
        [(level, line)] = self.warnings(0, 0)
        self.assertEqual(level, LogLevel.warn)
        self.assertIn("echo runs as root", line)

    def test_effective(self) -> None:
        """So is who can be root again."""
        [(level, line)] = self.warnings(0, 65534)
        self.assertEqual(level, LogLevel.warn)
        self.assertIn("echo runs with --euid", line)

    def test_others(self) -> None:
        """Others are told nothing."""
        self.assertEqual(self.warnings(1000, 1000), [])


# Live


def test_log_json(tmp_path: Path) -> None:
    """The whole life of the service is in the file, in the folder where twistd was started, and in twistd's log."""
    (tmp_path / "elsewhere").mkdir()
    with Twistd(
        tmp_path, "--rundir", "elsewhere", "echo", "--port", "0", "--log-json", "log.json", endpoints=1
    ) as twistd:
        with connect(twistd.port()) as client:
            assert ask_for_all(client, b"hello") == b"hello"
        twistd.assert_stops_cleanly()
        [port] = re.findall(r"listening on TCP 127.0.0.1:(\d+)", twistd.log)
    events = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()]
    [listening] = [event for event in events if event.get("address")]
    assert (listening["name"], listening["address"]) == ("echo", f"TCP 127.0.0.1:{port}")
    assert (listening["log_format"], listening["log_level"]["name"]) == ("{name} listening on {address}", "info")
    [stopped] = [event for event in events if "finished" in event]
    assert (stopped["idle"], stopped["finished"], stopped["reset"]) == (0, 0, 0)
    assert "Server Shut Down" in str(events[-1])


def test_log_json_on_standard_output(tmp_path: Path) -> None:
    """- is standard output, where nothing else is while twistd's own log is in a file."""
    with Twistd(tmp_path, "echo", "--port", "0", "--log-json", "-", endpoints=1) as twistd:
        assert twistd.stop() == 0
        assert twistd.errors == b""
        lines = twistd.output.splitlines()
    assert any(json.loads(line).get("name") == "echo" for line in lines)


def test_log_json_refused(tmp_path: Path) -> None:
    """A file that can't be written is one line, and status 1, and so is the standard output of a daemon."""
    done = start(tmp_path, "--nodaemon", "echo", "--port", "0", "--log-json", "nowhere/x")
    assert_one_line(tmp_path, done, "twistd echo: --log-json nowhere/x: No such file or directory")
    done = start(tmp_path, "echo", "--port", "0", "--log-json", "-")
    assert_one_line(tmp_path, done, "twistd echo: --log-json -: a daemon has no standard output")
    assert os.listdir(tmp_path) == []


# As root


def nobody() -> tuple[str, int, int]:
    """A user without privileges, and its numbers; the test is skipped where there is none, or we can't become it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    try:
        user = pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("there is no nobody here")
    return "nobody", user.pw_uid, user.pw_gid


def low_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A free port below 1024."""
    for port in random.SystemRandom().sample(range(600, 1024), 400):
        with socket.socket(type=kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip("no port below 1024 is free")


def ids(pid: int) -> dict[str, set[int]]:
    """The user and group ids of a process: real, effective, saved and of the file system; and its other groups."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        name: {int(number) for number in numbers.split()}
        for name, numbers in re.findall(r"^(Uid|Gid|Groups):(.*)$", status, re.MULTILINE)
    }


def capabilities(pid: int) -> int:
    """The capabilities that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^CapEff:\s*(\w+)$", status, re.MULTILINE)[0], 16)


def test_uid(tmp_path: Path) -> None:
    """With --uid and --gid a service listens below 1024, and serves as somebody who can do nothing, whom it keeps on
    being; TCP and UDP, and a log for machines that only root could open."""
    user, uid, gid = nobody()
    port = str(low_port())
    shed = "--uid", user, "--gid", str(gid)
    command = "echo", "--port", port, "--udp", "--log-json", "log.json"
    with Twistd(tmp_path, *shed, "--pidfile=", *command, endpoints=2) as twistd:
        twistd.wait_until_logged("set uid/gid")
        with connect(int(port)) as client:
            assert ask_for_all(client, b"hello" * 10_000) == b"hello" * 10_000
            assert ids(twistd.process.pid) == {"Uid": {uid}, "Gid": {gid}, "Groups": {gid}}
            assert capabilities(twistd.process.pid) == 0
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.sendto(b"hello", ("127.0.0.1", int(port)))
            assert client.recv(100) == b"hello"
        twistd.assert_stops_cleanly()
        assert "runs as root" not in twistd.log
        assert "--euid" not in twistd.log
    assert "Server Shut Down" in (tmp_path / "log.json").read_text()


def test_uid_of_daemon(tmp_path: Path) -> None:
    """So it does as a daemon."""
    user, uid, gid = nobody()
    port = low_port()
    done = start(tmp_path, *REACTOR, "--uid", user, "--gid", str(gid), "echo", "--port", str(port), "--log-json", "j")
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        with connect(port) as client:
            assert ask_for_all(client, b"hello") == b"hello"
            assert ids(pid)["Uid"] == {uid}
        os.kill(pid, signal.SIGTERM)
        give_up = time.monotonic() + PATIENCE
        while "Server Shut Down" not in (tmp_path / "j").read_text():
            assert time.monotonic() < give_up
            time.sleep(0.01)
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert "Traceback" not in (tmp_path / "twistd.log").read_text()


def test_commands_of_somebody_else(tmp_path: Path) -> None:
    """What wps runs is nobody too."""
    user, uid, _ = nobody()
    arguments = "wps", "--port", "0", "--command", "id=/usr/bin/id -u"
    with Twistd(tmp_path, "--uid", user, "--pidfile=", *arguments, endpoints=1) as twistd:
        twistd.wait_until_logged("set uid/gid")
        with connect(twistd.port()) as client:
            client.sendall(b"id\n")
            assert receive_all(client) == b"%d\n" % uid
        twistd.assert_stops_cleanly()


@pytest.mark.parametrize(
    ("shed", "line"), [((), "echo runs as root"), (("--euid", "--uid", "nobody"), "echo runs with --euid")]
)
def test_warnings(tmp_path: Path, shed: tuple[str, ...], line: str) -> None:
    """A service that is root, or can be, says so, once, and serves."""
    nobody()
    with Twistd(tmp_path, *shed, "--pidfile=", "echo", "--port", "0", endpoints=1) as twistd:
        twistd.wait_until_logged(line)
        with connect(twistd.port()) as client:
            assert ask(client, b"hello", 5) == b"hello"
        assert twistd.stop() == 0
        assert twistd.log.count(" runs ") == 1
