"""The comparison: what is said of servers, and the servers themselves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests import programs
from tests.bench.loads import load, seen
from tests.services.running import PATIENCE, free_port
from twistednet.bench import chart, report
from twistednet.bench.applications import APPLICATIONS, Lines, ManyWrites
from twistednet.bench.compare import circumstances, divide_cores, processor, reference, summaries, version_of
from twistednet.bench.generator import WRITE, WRITES, Generator
from twistednet.bench.measure import Settings
from twistednet.bench.models import MODELS
from twistednet.bench.servers import ECHO_SERVERS, WORKLOADS, Server, Workload, no_module

ECHO = WORKLOADS["echo"]


class SummaryTests(SynchronousTestCase):
    """Medians and ratios."""

    def test_medians(self) -> None:
        """Each server's median, and its ratio to the reference, which is 1."""
        rates = {"wire": (100, 300, 200), "uvloop": (900, 100, 500)}
        of = {name: [seen(each, messages=each) for each in several] for name, several in rates.items()}
        wire, uvloop = summaries(ECHO, of)
        self.assertEqual((wire["median"]["messages_per_second"], wire["ratio"]), (200, 1))
        self.assertEqual((uvloop["median"]["messages_per_second"], uvloop["ratio"]), (500, 2.5))
        self.assertEqual((uvloop["median"]["p50"], uvloop["median"]["p99"]), (500, 500))
        self.assertEqual([each["messages_per_second"] for each in uvloop["rounds"]], [900, 100, 500])
        self.assertEqual((uvloop["least"], uvloop["most"]), (100, 900))

    def test_unclear(self) -> None:
        """A ratio says little if the rounds of either server differ by more than the two servers do."""
        for wire, uvloop, unclear in (
            ((100, 110), (200, 210), False),
            ((100, 110), (105, 111), True),
            ((100, 110), (150, 250), True),
            ((100, 300), (250, 251), True),
            ((100,), (101,), False),  # one round has no spread
        ):
            of = {"wire": wire, "uvloop": uvloop}
            found = summaries(ECHO, {name: [seen(1, messages=each) for each in of[name]] for name in of})
            self.assertEqual([each["unclear"] for each in found], [False, unclear], of)

    def test_other_reference(self) -> None:
        """Without the reference, the first is it."""
        found = summaries(ECHO, {"asyncio": [seen(1, messages=100)], "uvloop": [seen(1, messages=300)]})
        self.assertEqual([each["ratio"] for each in found], [1, 3])
        self.assertEqual(reference(ECHO, ["asyncio", "uvloop"]), "asyncio")
        self.assertEqual(reference(ECHO, ["asyncio", "wire"]), "wire")
        self.assertEqual(reference(WORKLOADS["web"], WORKLOADS["web"].servers), "epoll")

    def test_generator_limited(self) -> None:
        """One round in which the generator was the limit is enough to say so."""
        found = summaries(ECHO, {"wire": [seen(1)], "uvloop": [seen(1), seen(1, busy=0.99)]})
        self.assertEqual([each["generator_limited"] for each in found], [False, True])

    def test_cores(self) -> None:
        """The server has a core of its own where there are two."""
        self.assertEqual(divide_cores([3, 1, 2]), ([1], [2, 3]))
        self.assertEqual(divide_cores([0]), ([], []))

    def test_circumstances(self) -> None:
        """When, where and with what."""
        found = circumstances(Settings(), 5)
        self.assertTrue(found["versions"]["twisted"])
        self.assertTrue(processor())
        self.assertEqual(version_of("no-such-package-here"), "")
        self.assertEqual(found["settings"]["rounds"], 5)

    def test_missing(self) -> None:
        """What can't be had here is said."""
        self.assertEqual(no_module("json")(), "")
        self.assertEqual(no_module("nonsense")(), "nonsense is not installed")


@contextmanager
def running(server: Server) -> Iterator[tuple[str, int]]:
    """A server of the comparison, as it is started there."""
    if why := server.missing():
        pytest.skip(why)
    port = free_port()
    process = programs.Popen(server.command(port), stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < give_up
                time.sleep(0.02)
        yield "127.0.0.1", port
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stderr.close()


@pytest.mark.parametrize("name", ECHO_SERVERS)
def test_server(name: str) -> None:
    """Each server echoes to several clients at once, after one that has left, and a large message whole."""
    large = os.urandom(3 << 20)
    with running(ECHO_SERVERS[name]) as address:
        clients = [socket.create_connection(address, PATIENCE) for _ in range(5)]
        try:
            for n, client in enumerate(clients):
                client.sendall(b"%d\n" % n)
            for n, client in enumerate(clients):
                assert client.recv(100) == b"%d\n" % n
            clients.pop().close()
            received = bytearray()
            for at in range(0, len(large), 65536):
                piece = large[at : at + 65536]
                clients[0].sendall(piece)
                wanted = len(received) + len(piece)
                while len(received) < wanted:
                    data = clients[0].recv(65536)
                    assert data
                    received += data
            assert received == large
        finally:
            for client in clients:
                client.close()


def test_models_known() -> None:
    """Every model is in the comparison."""
    assert set(MODELS) <= set(ECHO_SERVERS)


def ask(workload: Workload, server: Server) -> int:
    """How many bursts of three messages a server answers, each byte as it should be, in a moment."""
    with running(server) as (_, port):
        asked = load(port, protocol=workload.protocol, tls=workload.tls, connections=3, burst=3, timeout=PATIENCE)
        generator = Generator(asked, lambda _: None)
        try:
            tally = generator.run()
        finally:
            generator.close()
    return sum(times for part in tally.latencies for _, times in part)


@pytest.mark.parametrize("reactor", ["epoll", "uvloop"])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_application(name: str, reactor: str) -> None:
    """Each application answers what the workload expects, as does its bare protocol."""
    workload = WORKLOADS[name]
    if reactor in workload.servers:
        assert ask(workload, workload.servers[reactor]) > 0


@pytest.mark.parametrize("reactor", ["ours", "ours-asyncio"])
def test_application_on_our_reactors(reactor: str) -> None:
    """An application runs on our reactors, too."""
    assert ask(WORKLOADS["web"], WORKLOADS["web"].servers[reactor]) > 0


@pytest.mark.parametrize("make", [Lines, ManyWrites])
def test_application_in_pieces(make: type[Protocol]) -> None:
    """However messages are cut, the answers are the same."""
    answers = {Lines: b"one\n\ntwo\n", ManyWrites: WRITE * WRITES * 3}
    for size in range(1, 10):
        transport = StringTransport()
        protocol = make()
        protocol.makeConnection(transport)
        for at in range(0, 9, size):
            protocol.dataReceived(b"one\n\ntwo\n"[at : at + size])
        assert transport.value() == answers[make]


@pytest.fixture
def compared() -> dict[str, Any]:
    """A comparison."""
    of = {
        "wire": [seen(600, messages=80_000), seen(620, messages=78_000)],
        "uvloop": [seen(200, messages=180_000, busy=0.99), seen(210, messages=178_000)],
    }
    left_out = {"twistd echo, our reactor": "there is none"}
    return {
        "workload": "echo",
        **circumstances(Settings(), 2),
        "reference": ECHO_SERVERS["wire"].title,
        "left_out": left_out,
        "servers": summaries(ECHO, of),
    }


def test_page(compared: dict[str, Any], tmp_path: Path) -> None:
    """The page has a row per server, marks where the generator was the limit, and says where and when."""
    import json

    file = tmp_path / "compared.json"
    file.write_text(json.dumps(compared))
    done = programs.run(
        [sys.executable, "-m", "twistednet.bench.report", file, "performance.svg"],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    page = done.stdout.decode()
    assert page == report.page(compared, "performance.svg")
    lines = page.splitlines()
    assert (
        "| twisted.protocols.wire.Echo, epoll reactor | 79,000 | 78,000 to 80,000 | 1.00 | 610 | 610 | 610 |" in lines
    )
    assert r"| uvloop, a bare protocol | 179,000 \* | 178,000 to 180,000 | 2.27 | 205 | 205 | 205 |" in lines
    assert any(line.startswith(r"\* Here the load generator was the limit") for line in lines)
    assert "Left out: twistd echo, our reactor (there is none)." in lines
    assert "![Messages per second](performance.svg)" in lines
    assert lines[2].startswith("Echo, 50 connections, messages of 64 bytes: ")
    assert "?" not in page
    assert compared["date"][:10] in page
    assert "--connections 50 --size 64 --burst 1 --duration 5 --processes 1 --rounds 2" in page


def test_plain_page(compared: dict[str, Any]) -> None:
    """What there is not is not mentioned."""
    compared["left_out"] = {}
    compared["pinned"] = None
    compared["servers"] = compared["servers"][:1]
    page = report.page(compared)
    assert "server and load on one core" in page
    for word in ("Left out", "generator", "![", r"\*"):
        assert word not in page


def test_page_of_workload(compared: dict[str, Any]) -> None:
    """The page names the workload, leaves out the size of messages that are all the same, and marks what is noise."""
    compared["workload"] = "web"
    compared["settings"]["burst"] = 4
    compared["servers"][1]["unclear"] = True
    page = report.page(compared)
    assert "Requests for a small page of twisted.web, 50 connections, bursts of 4: " in page
    assert "| 2.27 ? |" in page
    assert "? Too noisy for this ratio" in page
    assert "`twistednet bench --compare --workload web --connections 50 --burst 4 --duration 5 " in page


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_charts(compared: dict[str, Any], tmp_path: Path, suffix: str) -> None:
    """Charts of a run, intervals without an answer and all, and of a comparison."""
    pytest.importorskip("matplotlib")
    from twistednet.bench.generator import Tally
    from twistednet.bench.measure import result

    run = result(Settings(), [Tally(3.0, [[(100, 10)], [], [(200, 20)]])], 1.0)
    for name, draw in (
        ("run", lambda path: chart.draw_run(path, run, "127.0.0.1 port 7")),
        ("comparison", lambda path: chart.draw_comparison(path, compared)),
    ):
        path = tmp_path / (name + suffix)
        chart.check(path)
        draw(path)
        if suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_no_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be drawn is refused before anything is measured."""
    for path, words in (
        (tmp_path / "chart.gif", "not a file named"),
        (tmp_path / "none" / "chart.svg", "no such folder"),
    ):
        with pytest.raises(chart.ChartError, match=words):
            chart.check(path)
    monkeypatch.setattr(chart, "find_spec", lambda _: None)
    with pytest.raises(chart.ChartError, match=r"pip install 'twistednet\[bench\]'"):
        chart.check(tmp_path / "chart.svg")
