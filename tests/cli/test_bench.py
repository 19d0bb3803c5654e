"""``twistednet bench``."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from tests import programs
from tests.bench.loads import seen
from tests.cli.conftest import Servers
from tests.cli.running import Program, Terminal, refusing_port, run, silent_server, tcp_server
from tests.services.running import PATIENCE
from twistednet.bench import chart, compare
from twistednet.bench.generator import Tally
from twistednet.bench.measure import Settings, result
from twistednet.bench.servers import WORKLOADS
from twistednet.cli import bench as module
from twistednet.cli.client import Address

SHORT = ("--duration", "0.2", "--connections", "5")


def measured(*arguments: object) -> dict[str, Any]:
    """The one JSON object of a run that went well."""
    status, output, errors = run("bench", *SHORT, "--json", *arguments)
    assert (status, errors) == (0, ""), output
    found: dict[str, Any] = json.loads(output)
    return found


def test_json(servers: Servers) -> None:
    """With --json, what was asked for and what was seen."""
    found = measured("127.0.0.1", servers.echo, "--size", "100", "--burst", "3", "--duration", "0.6")
    assert {key: found[key] for key in ("address", "protocol", "udp", "connections", "size", "burst", "processes")} == {
        "address": f"127.0.0.1 port {servers.echo}",
        "protocol": "echo",
        "udp": False,
        "connections": 5,
        "size": 100,
        "burst": 3,
        "processes": 1,
    }
    assert found["messages"] > 0
    assert found["messages"] % 3 == 0
    assert found["seconds"] >= found["duration"] == 0.6
    assert found["messages_per_second"] == pytest.approx(found["messages"] / found["seconds"], rel=0.01)
    assert found["bytes_per_second"] == pytest.approx(100 * found["messages_per_second"], rel=0.01)
    assert list(found["latency_us"]) == ["min", "mean", "p50", "p90", "p99", "p99.9", "max"]
    assert (found["sent_again"], found["late"]) == (0, 0)
    assert len(found["busy"]) == 1
    assert isinstance(found["generator_limited"], bool)
    assert 2 <= len(found["over_time"]) <= 3
    assert set(found["over_time"][0]) == {"at", "messages_per_second", "p50_us", "p99_us"}


def test_protocols(servers: Servers) -> None:
    """Every protocol, over what it has; the name of a host will do."""
    assert measured("localhost", servers.echo)["messages"] > 0
    assert measured("127.0.0.1", servers.reverse, "--protocol", "reverse", "--burst", "10")["messages"] > 0
    assert measured("127.0.0.1", servers.udpok, "--protocol", "udpok")["udp"] is True
    assert measured("127.0.0.1", servers.echo_udp, "--udp")["messages"] > 0


def test_processes(servers: Servers) -> None:
    """Several processes share the connections."""
    found = measured("127.0.0.1", servers.echo, "--processes", "2")
    assert len(found["busy"]) == 2


def test_text(servers: Servers) -> None:
    """Without --json, a few lines; no progress where nobody watches."""
    status, output, errors = run("bench", *SHORT, "127.0.0.1", servers.udpok, "--protocol", "udpok")
    assert status == 0
    assert errors == "" or "generator was the limit" in errors
    rate, latency, busy, again = output.decode().splitlines()
    assert re.fullmatch(r"[\d,]+ messages/s  [\d.,]+ MB/s each way", rate)
    assert latency.startswith("latency in µs: min ")
    assert re.fullmatch(r"[\d,]+ messages in 0\.\d\d s, generators busy \d+%", busy)
    assert re.fullmatch(r"\d+ datagrams sent again, \d+ answers came late", again)


def test_progress(servers: Servers) -> None:
    """At a terminal a line shows how far it is, and is gone in the end."""
    with Terminal("bench", "127.0.0.1", str(servers.echo), "--duration", "0.7", "--connections", "2") as terminal:
        assert terminal.wait() == 0
    before, _, after = terminal.transcript.decode().rpartition("\x1b[2K")
    assert "messages/s" in before
    assert "latency in µs" in after


@pytest.mark.parametrize(("busy", "limited"), [(0.5, False), (0.95, True)])
def test_generator_limited(busy: float, limited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The word that the generator was the limit, and only where it was."""

    class FakeCall:
        as_json = False
        reactor = None
        address = Address("127.0.0.1", 7)

    async def measure(*_: object, **__: object) -> Any:
        return result(Settings(), [Tally(1.0, [[(100, 10)]], busy=busy)], 1.0)

    said: list[str] = []
    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(module, "warn", said.append)
    monkeypatch.setattr(module, "write", lambda _: None)
    call: Any = FakeCall()
    with pytest.raises(StopIteration):
        module.single(call, Settings(), None).send(None)
    assert said == [module.LIMITED] * limited


def test_wrong_answers(servers: Servers) -> None:
    """A server of another protocol, or one that closes, is one line and status 1."""
    for arguments, words in (
        ((servers.echo, "--protocol", "reverse"), "a wrong answer: b'0."),
        ((servers.reverse,), "a wrong answer: b'"),
        ((servers.echo_udp, "--protocol", "udpok"), "a wrong answer: b'0."),
        ((servers.simple["daytime"],), "a wrong answer: b'"),
        ((servers.reverse, "--protocol", "reverse", "--size", "20000"), "a wrong answer: b'error"),
    ):
        status, output, errors = run("bench", *SHORT, "127.0.0.1", *arguments)
        assert (status, output) == (1, b""), (arguments, errors)
        assert errors.startswith(f"twistednet bench: 127.0.0.1 port {arguments[0]}: {words}"), errors
        assert errors.count("\n") == 1


def test_closed() -> None:
    """A server that closes is one line and status 1."""
    with tcp_server(lambda connection: connection.recv(100)) as port:
        expected = f"twistednet bench: 127.0.0.1 port {port}: closed by the server\n"
        assert run("bench", "--connections", "1", "127.0.0.1", port) == (1, b"", expected)


def test_no_answer() -> None:
    """The exit statuses of every client: refused, timed out, no such name; and with --json, an object."""
    with refusing_port(socket.SOCK_STREAM) as port:
        address = f"127.0.0.1 port {port}"
        expected = f"twistednet bench: {address}: nobody listens there\n"
        assert run("bench", *SHORT, "127.0.0.1", port) == (3, b"", expected)
        status, output, errors = run("bench", *SHORT, "--json", "--processes", "3", "127.0.0.1", port)
        assert (status, errors) == (3, "")
        assert json.loads(output) == {"error": f"{address}: nobody listens there", "address": address, "status": 3}
    with silent_server() as port:
        status, _, errors = run("bench", "--timeout", "0.2", "127.0.0.1", port)
        assert (status, errors) == (4, f"twistednet bench: 127.0.0.1 port {port}: no answer in 0.2 seconds\n")
        status, _, errors = run("bench", "--duration", "0.2", "127.0.0.1", port)
        assert (status, errors) == (1, f"twistednet bench: 127.0.0.1 port {port}: nothing came back\n")
    status, _, errors = run("bench", *SHORT, "nosuchhost.invalid", "7")
    assert (status, errors) == (5, "twistednet bench: nosuchhost.invalid port 7: there is no such name\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "HOST PORT"),
        (("127.0.0.1",), "the port of 127.0.0.1 is missing"),
        (("127.0.0.1", "70000"), "not a port"),
        (("unix:/tmp/x",), "not HOST PORT"),
        (("127.0.0.1", "7", "x"), "x: not HOST PORT"),
        (("127.0.0.1", "7", "--connections", "0"), "--connections"),
        (("127.0.0.1", "7", "--duration", "0"), "--duration"),
        (("127.0.0.1", "7", "--protocol", "http"), "--protocol"),
        (("127.0.0.1", "7", "--udp", "--burst", "2"), "--burst is for streams"),
        (("127.0.0.1", "7", "--udp", "--size", "65508"), "--size 65508: over UDP, echo has 65507 bytes at most"),
        (("127.0.0.1", "7", "--protocol", "udpok", "--size", "65503"), "udpok has 65502 bytes at most"),
        (("127.0.0.1", "7", "--plot", "x.gif"), "--plot x.gif: not a file named .svg or .png"),
        (("127.0.0.1", "7", "--server", "wire"), "--server goes with --compare"),
        (("127.0.0.1", "7", "--workload", "echo"), "--workload goes with --compare"),
        (("127.0.0.1", "7", "--protocol", "web"), "--protocol"),
        (("127.0.0.1", "7", "--compare"), "--compare starts its own servers"),
        (("--compare", "--udp"), "--compare starts its own servers"),
        (("--compare", "--udp", "--workload", "web"), "--compare starts its own servers"),
        (("--compare", "--server", "x"), "--server"),
        (("--compare", "--workload", "x"), "--workload"),
        (("--compare", "--server", "epoll"), "--server epoll: --workload echo has only ours, "),
        (("--compare", "--workload", "web", "--server", "uvloop"), "has only ours, ours-asyncio, epoll"),
        (
            ("--compare", "--workload", "web", "--size", "64"),
            "--size 64: with --workload web all messages are the same",
        ),
        (("--compare", "--workload", "lines", "--size", "16386"), "--workload lines has 16385 bytes at most"),
    ],
)
def test_usage(arguments: tuple[str, ...], words: str) -> None:
    """What makes no sense is refused, with status 2."""
    status, output, errors = run("bench", *arguments)
    assert (status, output) == (2, b"")
    assert errors.startswith("Usage: twistednet bench ")
    assert words in errors


def test_no_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without matplotlib --plot says what to install."""
    monkeypatch.setattr(chart, "find_spec", lambda _: None)
    done = CliRunner().invoke(module.bench, ["127.0.0.1", "7", "--plot", str(tmp_path / "x.svg")])
    assert done.exit_code == 2
    assert "needs matplotlib: pip install 'twistednet[bench]'" in done.output


def test_plot(servers: Servers, tmp_path: Path) -> None:
    """--plot draws a chart."""
    pytest.importorskip("matplotlib")
    measured("127.0.0.1", servers.echo, "--plot", tmp_path / "x.svg")
    assert b"<svg" in (tmp_path / "x.svg").read_bytes()


COMPARE = ("bench", "--compare", *SHORT, "--rounds", "1", "--server", "threads", "--server", "wire")


def test_compare(tmp_path: Path) -> None:
    """--compare starts servers, measures them, and says when, where and with what; nothing of it is left."""
    status, output, errors = run(*COMPARE, "--json", "--plot", tmp_path / "x.png")
    assert (status, errors) == (0, ""), output
    found = json.loads(output)
    assert set(found) == {
        "workload",
        "date",
        "machine",
        "versions",
        "settings",
        "pinned",
        "reference",
        "left_out",
        "servers",
    }
    wire, threads = found["servers"]
    assert (wire["name"], wire["ratio"], threads["name"]) == ("wire", 1, "threads")
    for server in (wire, threads):
        assert len(server["rounds"]) == 1
        assert server["median"]["messages_per_second"] == server["rounds"][0]["messages_per_second"] > 0
        assert server["least"] == server["most"] == server["median"]["messages_per_second"]
        assert set(server["median"]) == {"messages_per_second", "p50", "p90", "p99", "p99.9"}
    assert found["settings"] == {
        "connections": 5,
        "size": 64,
        "burst": 1,
        "duration": 0.2,
        "processes": 1,
        "rounds": 1,
    }
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert not programs.descendants("twistednet.bench.")


def test_compare_table() -> None:
    """A table of medians, the least and the most of the rounds, and ratios."""
    status, output, errors = run(*COMPARE)
    assert status == 0, errors
    title, headings, wire, threads = output.decode().splitlines()
    assert title == ("echo, 5 connections, messages of 64 bytes; ratios to: twisted.protocols.wire.Echo, epoll reactor")
    assert headings.split() == ["server", "messages/s", "least", "most", "ratio", "p50", "µs", "p99", "µs"]
    number = r" +[\d,]+"
    assert re.fullmatch(
        rf"twisted\.protocols\.wire\.Echo, epoll reactor{number}\*?{number}{number} +1\.00{number}{number} *", wire
    )
    assert threads.startswith("a thread per client ")


def test_compare_workload() -> None:
    """--workload has other servers, and another reference."""
    names = ("--server", "uvloop", "--server", "epoll")
    status, output, errors = run("bench", "--compare", "--workload", "tls", *SHORT, "--rounds", "1", *names, "--json")
    assert (status, errors) == (0, "")
    found = json.loads(output)
    epoll, uvloop = found["servers"]
    assert (found["workload"], found["reference"]) == ("tls", "Twisted's epoll reactor")
    assert (epoll["name"], epoll["ratio"], uvloop["name"]) == ("epoll", 1, "uvloop")
    assert uvloop["median"]["messages_per_second"] > 0


@pytest.mark.parametrize(("rates", "noisy"), [((100, 102), False), ((100, 250), True)])
def test_noisy(rates: tuple[int, int], noisy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio that is smaller than the noise is marked, and the mark explained."""
    of = {
        "wire": [seen(1, messages=each) for each in (120, 121)],
        "uvloop": [seen(1, messages=each) for each in rates],
    }
    workload = WORKLOADS["echo"]

    async def compared(*_: object, **__: object) -> Any:
        return {
            "workload": "echo",
            **compare.circumstances(Settings(), 2),
            "reference": workload.servers["wire"].title,
            "left_out": {},
            "servers": compare.summaries(workload, of),
        }

    class FakeCall:
        as_json = False
        reactor = None

    said: list[str] = []
    monkeypatch.setattr(compare, "compare", compared)
    monkeypatch.setattr(module, "warn", said.append)
    call: Any = FakeCall()
    with CliRunner().isolation() as (output, *_), pytest.raises(StopIteration):
        module.comparison(call, "echo", Settings(), 2, ("wire", "uvloop"), None).send(None)
    assert (f"? {module.UNCLEAR}" in said) == noisy
    ratio = "1.45?" if noisy else "0.84 "
    assert ratio in output.getvalue().decode()


def bench_processes() -> list[psutil.Process]:
    """Generators and servers that run."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any("twistednet.bench." in word for word in process.info["cmdline"] or ())
    ]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(how: signal.Signals) -> None:
    """Interrupted, it leaves no generator and no server behind."""
    with Program("bench", "--compare", "--duration", "60", "--server", "threads") as program:
        children = both_children(program)
        program.process.send_signal(how)
        assert program.wait() == (130, "")
        _, alive = psutil.wait_procs(children, PATIENCE)
        assert not alive


def test_killed() -> None:
    """Killed, it leaves no generator and no server behind either."""
    with Program("bench", "--compare", "--duration", "60", "--server", "wire") as program:
        children = both_children(program)
        program.process.kill()
        program.wait()
        give_up = time.monotonic() + PATIENCE
        while any(runs(child) for child in children):
            assert time.monotonic() < give_up
            time.sleep(0.02)


def both_children(program: Program) -> list[psutil.Process]:
    """The server and the generator of a comparison, once both run as what they are to be."""
    parent = psutil.Process(program.process.pid)
    for _ in range(int(PATIENCE * 50)):
        children = parent.children()
        if len(children) == 2 and not any("tied.py" in word for child in children for word in child.cmdline()):
            return children
        with pytest.raises(subprocess.TimeoutExpired):
            program.process.wait(0.02)
    raise AssertionError("they don't start")


def runs(process: psutil.Process) -> bool:
    """Whether it still runs; one that has ended may not have been waited for."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_server_fails() -> None:
    """A server that does not start is named, with its last words."""
    code = (
        "from twistednet.bench import servers; from twistednet.cli.bench import bench;"
        "servers.ECHO_SERVERS['wire'] = servers.Server('the broken one',"
        " lambda port: [*servers.PYTHON, '-c', 'raise SystemExit(\"no can do\")']);"
        "bench(['--compare', '--server', 'wire'], prog_name='bench')"
    )
    done = programs.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "bench: the broken one: no can do\n")
