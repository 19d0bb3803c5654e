"""``twistd support``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientCreator, DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python import usage

from tests.services.options import behind_guard
from twistednet.protocols.dialogue import DialogueError
from twistednet.protocols.support import SupportClient, SupportDatagramClient, SupportDatagramProtocol, SupportFactory
from twistednet.services.base import ListeningService, StartError
from twistednet.services.support import Options, load_dialogue, makeService

DIALOGUE = """\
greeting = "Hello."
goodbye = "Bye."
start = "one"
question.one = { text = "Which?", 1 = { say = "this", next = "that" } }
advice.that = { text = "Do." }
"""


def make(*arguments: str, reactor: Any = None) -> list[ListeningService]:
    """The services that ``twistd support`` with `arguments` is made of."""
    options = Options()
    options.parseOptions(arguments)
    service = makeService(options, reactor=reactor or MemoryReactorClock())
    return cast("list[ListeningService]", list(cast(MultiService, service)))


def test_default() -> None:
    """TCP only, on loopback, port 9999, with the dialogue of the package."""
    (service,) = make()
    assert service.description == "tcp:9999:interface=127.0.0.1"
    served = cast(Any, service.target).wrapped
    assert isinstance(served, SupportFactory)
    assert served.dialogue == load_dialogue()


def test_global_reactor() -> None:
    """Without a reactor of its own, it uses the global one."""
    options = Options()
    options.parseOptions([])
    assert IService.providedBy(makeService(options))


def test_udp() -> None:
    """UDP where it is asked for."""
    stream, datagram = make("--udp", "--port", "1234")
    assert (stream.description, datagram.description) == (
        "tcp:1234:interface=127.0.0.1",
        "udp:1234:interface=127.0.0.1",
    )
    assert isinstance(behind_guard(cast(DatagramProtocol, datagram.target)), SupportDatagramProtocol)


def test_own_dialogue(tmp_path: Path) -> None:
    """One's own dialogue, with a byte order mark or without."""
    path = tmp_path / "own.toml"
    for mark in ("", "\ufeff"):
        path.write_text(mark + DIALOGUE, encoding="utf-8")
        (service,) = make("--dialogue", str(path))
        assert cast(Any, service.target).wrapped.dialogue.greeting == ("Hello.",)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (DIALOGUE.replace('"that" }', '"nowhere" }').encode(), "line 4: question one, answer 1 leads to 'nowhere'"),
        (DIALOGUE.replace("Bye.", "B\udce9e.").encode(errors="surrogateescape"), "line 2: not UTF-8"),
        (b"", "line 1: the dialogue has no greeting"),
        (b"greeting = 'a'\n= 3\n", "line 2: invalid statement"),
    ],
)
def test_wrong_dialogue(tmp_path: Path, content: bytes, wrong: str) -> None:
    """What is wrong with a dialogue is one line with its file and its line, and the status is 1."""
    path = tmp_path / "own.toml"
    path.write_bytes(content)
    with pytest.raises(StartError) as error:
        make("--dialogue", str(path))
    (message,) = error.value.args
    assert message.startswith(f"twistd support: --dialogue {path}: {wrong}")
    assert "\n" not in message


def test_no_file(tmp_path: Path) -> None:
    """A file that can't be read is one line too."""
    for path, why in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(DialogueError, match=f"^{path}: {why}$"):
            load_dialogue(str(path))


def test_bad_options() -> None:
    """What is no option."""
    with pytest.raises(usage.UsageError, match="--port 99999"):
        make("--port", "99999")
    with pytest.raises(usage.UsageError, match="options only"):
        make("now")


@pytest_twisted.ensureDeferred
async def test_live(live_reactor: Any, tmp_path: Path) -> None:
    """Over TCP, IPv6 where there is any, a Unix socket, UDP and a Unix datagram socket: the same advice."""
    unix, unixdgram = str(tmp_path / "s"), str(tmp_path / "d")
    addresses = ["tcp:0:interface=127.0.0.1", f"unix:{unix}", "udp:0:interface=127.0.0.1", f"unixdgram:{unixdgram}"]
    if os.path.exists("/proc/net/if_inet6"):
        addresses.append("tcp6:0:interface=\\:\\:1")
    services = make(*(f"--listen={address}" for address in addresses), reactor=live_reactor)
    for service in services:
        service.startService()
    ports: list[Any] = [service.port for service in services]
    advice = b"try\nagain in an hour.\n"
    try:
        creator = ClientCreator(live_reactor, SupportClient)
        connecting = [
            creator.connectTCP("127.0.0.1", ports[0].getHost().port),
            creator.connectUNIX(unix),
            *(creator.connectTCP("::1", port.getHost().port) for port in ports[4:]),
        ]
        for connected in connecting:
            client = cast(SupportClient, await connected)
            client.send(b"some sites only\nno\n")
            client.end()
            await client.finished().addTimeout(10, live_reactor)
            assert client.answer.startswith(b"Hello, this is the support line")
            assert client.answer.endswith(advice)
        one = SupportDatagramClient(live_reactor, ("127.0.0.1", ports[2].getHost().port))
        two = SupportDatagramClient(live_reactor, unixdgram)
        bound = [
            live_reactor.listenUDP(0, one, interface="127.0.0.1"),
            live_reactor.listenUNIXDatagram(str(tmp_path / "c"), two),
        ]
        for asking in (one, two):
            said = await asking.say(timeout=5)
            assert said.startswith(b"Hello, this is the support line")
            await asking.say(b"some sites only", timeout=5)
            assert asking.state == ""
        for asking in (one, two):
            said = await asking.say(b"no", timeout=5)
            assert (said.endswith(advice), asking.state) == (True, "end")
        for port in bound:
            await cast("Deferred[None]", port.stopListening())
    finally:
        for service in services:
            await cast("Deferred[None]", service.stopService())
