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
from twisted.trial.unittest import SynchronousTestCase

from tests import programs
from tests.bench.loads import seen
from tests.services.running import PATIENCE, free_port
from twistednet.bench import chart, report
from twistednet.bench.compare import circumstances, divide_cores, processor, reference, summaries, version_of
from twistednet.bench.measure import Settings
from twistednet.bench.models import MODELS
from twistednet.bench.servers import SERVERS, no_module


class SummaryTests(SynchronousTestCase):
    """Medians and ratios."""

    def test_medians(self) -> None:
        """Each server's median, and its ratio to the reference, which is 1."""
        rates = {"wire": (100, 300, 200), "uvloop": (900, 100, 500)}
        of = {name: [seen(each, messages=each) for each in several] for name, several in rates.items()}
        wire, uvloop = summaries(of)
        self.assertEqual((wire["median"]["messages_per_second"], wire["ratio"]), (200, 1))
        self.assertEqual((uvloop["median"]["messages_per_second"], uvloop["ratio"]), (500, 2.5))
        self.assertEqual((uvloop["median"]["p50"], uvloop["median"]["p99"]), (500, 500))
        self.assertEqual([each["messages_per_second"] for each in uvloop["rounds"]], [900, 100, 500])

    def test_other_reference(self) -> None:
        """Without the reference, the first is it."""
        found = summaries({"asyncio": [seen(1, messages=100)], "uvloop": [seen(1, messages=300)]})
        self.assertEqual([each["ratio"] for each in found], [1, 3])
        self.assertEqual(reference(["asyncio", "uvloop"]), "asyncio")
        self.assertEqual(reference(["asyncio", "wire"]), "wire")

    def test_generator_limited(self) -> None:
        """One round in which the generator was the limit is enough to say so."""
        found = summaries({"wire": [seen(1)], "uvloop": [seen(1), seen(1, busy=0.99)]})
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
def running(name: str) -> Iterator[tuple[str, int]]:
    """A server of the comparison, as it is started there."""
    if why := SERVERS[name].missing():
        pytest.skip(why)
    port = free_port()
    server = programs.Popen(SERVERS[name].command(port), stderr=subprocess.PIPE)
    assert server.stderr is not None
    try:
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
                break
            except ConnectionRefusedError:
                assert server.poll() is None, server.stderr.read()
                assert time.monotonic() < give_up
                time.sleep(0.02)
        yield "127.0.0.1", port
    finally:
        server.kill()
        server.wait(PATIENCE)
        server.stderr.close()


@pytest.mark.parametrize("name", SERVERS)
def test_server(name: str) -> None:
    """Each server echoes to several clients at once, after one that has left, and a large message whole."""
    large = os.urandom(3 << 20)
    with running(name) as address:
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
    assert set(MODELS) <= set(SERVERS)


@pytest.fixture
def compared() -> dict[str, Any]:
    """A comparison."""
    of = {
        "wire": [seen(600, messages=80_000), seen(620, messages=78_000)],
        "uvloop": [seen(200, messages=180_000, busy=0.99), seen(210, messages=178_000)],
    }
    left_out = {"twistd echo, our reactor": "there is none"}
    title = SERVERS["wire"].title
    return {**circumstances(Settings(), 2), "reference": title, "left_out": left_out, "servers": summaries(of)}


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
    assert "| twisted.protocols.wire.Echo, epoll reactor | 79,000 | 1.00 | 610 | 610 | 610 |" in lines
    assert r"| uvloop, a bare protocol | 179,000 \* | 2.27 | 205 | 205 | 205 |" in lines
    assert any(line.startswith(r"\* Here the load generator was the limit") for line in lines)
    assert "Left out: twistd echo, our reactor (there is none)." in lines
    assert "![Messages per second](performance.svg)" in lines
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
