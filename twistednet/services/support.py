"""``twistd support``."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from twisted.application.service import IService

from twistednet.protocols.dialogue import Dialogue, DialogueError, parse_dialogue
from twistednet.protocols.support import SupportDatagramProtocol, SupportFactory
from twistednet.services.base import UDP_FLAG, DatagramServiceOptions, StartError, StreamServiceOptions, make_service


class Options(DatagramServiceOptions, StreamServiceOptions):
    command = "support"
    default_port = 9999
    longdesc = (
        "The automated support line of an internet provider: asks what is wrong with a home connection until it "
        "knows what to advise, or opens a ticket, which is logged."
    )
    optFlags = [UDP_FLAG]
    optParameters = [
        ["dialogue", "d", None, "A TOML file with the questions and the advice. [default: the package's own]"],
    ]


def load_dialogue(path: str | None = None) -> Dialogue:
    """The dialogue in the file at `path`; the one that is shipped with the package when left out.

    :raises DialogueError: one line, where it can't be read or is no dialogue.
    """
    file = resources.files("twistednet.services").joinpath("dialogue.toml") if path is None else Path(path)
    try:
        content = file.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise DialogueError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DialogueError(f"{path}: line {line}: not UTF-8") from error
    return parse_dialogue(text, path or file.name)


def makeService(options: Options, reactor: Any = None) -> IService:
    if reactor is None:
        from twisted.internet import reactor
    try:
        dialogue = load_dialogue(options["dialogue"])
    except DialogueError as error:
        raise StartError(f"twistd support: --dialogue {error}") from error
    return make_service(
        options,
        factory=SupportFactory(dialogue, reactor=reactor),
        datagram=lambda: SupportDatagramProtocol(dialogue, clock=reactor),
        reactor=reactor,
    )
