"""The servers that the client commands are tried on, in one process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services.running import Twistd

ACCUMULATORS = 32

SIMPLE = ("discard", "chargen", "daytime", "time", "qotd")

HAS_W = os.access("/usr/bin/w", os.X_OK)
"""Without it there is no systat service."""

CONFIGURATION = f"""
from twisted.application.service import Application

from twistednet.services import (
    accumulator, chargen, daytime, discard, echo, greeter, qotd, repeat, reverse, systat, time, udpok, wps
)

application = Application("all")


def serve(module, *arguments):
    options = module.Options()
    options.parseOptions(arguments)
    module.makeService(options).setServiceParent(application)


serve(echo, "--udp", "--port", "0", "--listen", "unix:echo", "--listen", "unixdgram:echo-datagrams")
serve(reverse, "--port", "0", "--listen", "unix:reverse")
serve(udpok, "--port", "0", "--listen", "unixdgram:udpok")
serve(wps, "--port", "0", "--command", r"hello=/usr/bin/printf 'hello\\nyou'", "--command", "none=/bin/true",
      "--command", "fails=/bin/false", "--command", "slow=/bin/sleep 60")
serve(greeter, "--port", "0", "--listen", "unix:greeter")
serve(repeat, "--port", "0", "--listen", "unix:repeat", "--copies", "1000")
for module in ({", ".join(SIMPLE)}):
    serve(module, "--udp", "--port", "0", "--listen", f"unixdgram:{{module.Options.command}}-datagrams")
if {HAS_W}:
    serve(systat, "--udp", "--port", "0", "--listen", "unix:systat")
for n in range({ACCUMULATORS}):
    serve(accumulator, "--port", "0", "--listen", f"unix:letters{{n}}", "--max-length", "20")
"""


@dataclass
class Servers:
    """Where the services listen; the ports are those of 127.0.0.1, the folder is that of the Unix sockets."""

    folder: Path
    echo: int
    echo_udp: int
    reverse: int
    udpok: int
    wps: int
    greeter: int
    repeat: int
    simple: dict[str, int]
    simple_udp: dict[str, int]
    accumulators: list[tuple[Path, int]]


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The services."""
    folder = tmp_path_factory.mktemp("servers")
    (folder / "all.py").write_text(CONFIGURATION)
    simple_at = 4 + 2 + 2 + 1 + 2 + 2
    simple = [*SIMPLE, *["systat"] * HAS_W]
    accumulators_at = simple_at + 3 * len(simple)
    endpoints = accumulators_at + 2 * ACCUMULATORS
    with Twistd(folder, "--no_save", "--python", "all.py", endpoints=endpoints) as twistd:
        yield Servers(
            folder,
            echo=twistd.port(2),
            echo_udp=twistd.port(3),
            reverse=twistd.port(5),
            udpok=twistd.port(7),
            wps=twistd.port(8),
            greeter=twistd.port(10),
            repeat=twistd.port(12),
            simple={name: twistd.port(simple_at + 3 * n + 1) for n, name in enumerate(simple)},
            simple_udp={name: twistd.port(simple_at + 3 * n + 2) for n, name in enumerate(simple)},
            accumulators=[
                (folder / f"letters{n}", twistd.port(accumulators_at + 2 * n + 1)) for n in range(ACCUMULATORS)
            ],
        )
        twistd.assert_stops_cleanly(-signal.SIGTERM)


@pytest.fixture
def accumulator(servers: Servers) -> tuple[Path, int]:
    """The Unix socket and the port of an accumulator whose string is empty."""
    return servers.accumulators.pop()
