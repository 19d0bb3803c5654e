"""Every command in docs/textbook.md is typed, and prints what the page says; every program has its row."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import programs
from tests.services.running import free_port

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/textbook.md").read_text()
SCRIPTS = Path(sys.executable).parent
PATIENCE = 30


def sections() -> dict[str, str]:
    """The sections of the page that have commands, by heading."""
    parts = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)
    return {heading: text for heading, text in zip(parts[1::2], parts[2::2], strict=True) if "    $ " in text}


def anchor(heading: str) -> str:
    """What a link to `heading` looks like."""
    return "#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def localized(text: str, folder: Path) -> str:
    """`text` with ports of this run's own, and its files below `folder`."""
    for port in set(re.findall(r"(?:--port |tcp6:)(\d+)", text)):
        text = re.sub(rf"\b{port}\b", str(free_port()), text)
    return text.replace("/tmp/", f"{folder}/")


def test_every_row_leads_to_a_section() -> None:
    """Every row of the table names a section with commands, and every section is named."""
    linked = set(re.findall(r"\]\((#[\w-]+)\)", PAGE))
    assert linked == {anchor(heading) for heading in sections()}


def test_files_that_are_named() -> None:
    """Every file that the page names is there."""
    for name in re.findall(r"`(twistednet/[\w./]+)`", PAGE):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("heading", sections())
def test_commands(heading: str, tmp_path: Path) -> None:
    """The commands print what the page says, and succeed."""
    text = localized(sections()[heading], tmp_path)
    environment = {"PATH": f"{SCRIPTS}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "HOME": str(tmp_path)}
    block = re.findall(r"^    (.*)$", text, re.MULTILINE)
    servers: list[programs.Popen] = []
    try:
        while block:
            command = block.pop(0).removeprefix("$ ")
            expected = []
            while block and not block[0].startswith("$ "):
                expected.append(block.pop(0))
            if command.startswith("twistd"):
                servers.append(serve(command.removesuffix(" &"), tmp_path, environment))
                continue
            done = programs.run(
                ["bash", "-c", command], capture_output=True, timeout=PATIENCE, env=environment, cwd=tmp_path
            )
            assert done.returncode == 0, done
            assert done.stderr == b""
            pattern = "\n".join(re.escape(line).replace("…", "(?s:.+)") for line in expected)
            assert re.fullmatch(pattern, done.stdout.decode().replace("\r\n", "\n").rstrip("\n")), done.stdout
    finally:
        for server in servers:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(PATIENCE)


def serve(command: str, folder: Path, environment: dict[str, str]) -> programs.Popen:
    """Start `command`, and wait until it listens."""
    log = folder / "twistd.log"
    with log.open("wb") as output:
        server = programs.Popen(
            ["bash", "-c", f"exec {command}"],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    wanted = max(1, command.count("--listen")) + command.count("--udp")
    give_up = time.monotonic() + PATIENCE
    while log.read_text().count(" listening on ") < wanted:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.05)
    return server
