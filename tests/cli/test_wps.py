"""``twistednet wps``."""

from __future__ import annotations

from tests.cli.conftest import Servers
from tests.cli.running import run


def test_output(servers: Servers) -> None:
    """The output is printed, with nothing added."""
    assert run("wps", "127.0.0.1", servers.wps, "hello") == (0, b"hello\nyou", "")
    assert run("wps", f"tcp:localhost:{servers.wps}", "none") == (0, b"", "")


def test_standard_input_is_left_alone(servers: Servers) -> None:
    """Standard input is not sent."""
    assert run("wps", "127.0.0.1", servers.wps, "hello", stdin=b"fails\n") == (0, b"hello\nyou", "")


def test_json(servers: Servers) -> None:
    """With --json the output is in an object."""
    expected = f'{{"answer": "hello\\nyou", "address": "127.0.0.1 port {servers.wps}", "ok": true}}\n'
    assert run("wps", "--json", "127.0.0.1", servers.wps, "hello") == (0, expected.encode(), "")


def test_not_run(servers: Servers) -> None:
    """A command that the server does not know, or that fails, gives status 1."""
    for name, answer in (
        ("w", b"error: no such command; there are: fails, hello, none, slow\n"),
        ("fails", b"error: the command failed with status 1\n"),
    ):
        expected = f"twistednet wps: 127.0.0.1 port {servers.wps}: '{name}' was not run\n"
        assert run("wps", "127.0.0.1", servers.wps, name) == (1, answer, expected)


def test_timed_out(servers: Servers) -> None:
    """A command that takes too long gives status 4."""
    expected = f"twistednet wps: 127.0.0.1 port {servers.wps}: no answer in 0.2 seconds\n"
    assert run("wps", "--timeout", "0.2", "127.0.0.1", servers.wps, "slow") == (4, b"", expected)
