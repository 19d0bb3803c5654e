"""Loads and results to test with."""

from __future__ import annotations

import socket
from typing import Any

from twistednet.bench.generator import Load, Tally
from twistednet.bench.measure import Result, Settings, result


def load(port: int = 9, **changes: Any) -> Load:
    """A small load on a port of 127.0.0.1."""
    values: dict[str, Any] = {
        "protocol": "echo",
        "udp": False,
        "connections": 1,
        "first": 0,
        "size": 16,
        "burst": 1,
        "duration": 0.2,
        "timeout": 2.0,
        "cores": [],
    }
    return Load(addresses=[(socket.AF_INET, ("127.0.0.1", port))], **{**values, **changes})


def seen(microseconds: int, *, messages: int = 1000, busy: float = 0.5) -> Result:
    """What one second with so many messages, each answered in so many microseconds, has shown."""
    return result(Settings(), [Tally(1.0, [[(microseconds, messages)]], busy=busy)], 1.0)
