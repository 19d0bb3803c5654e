"""What the README prints can be run as printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests import programs
from tests.services.running import connect_started

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_embedding(tmp_path: Path) -> None:
    """The example of embedding serves what it says, and shares its string."""
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    server = programs.Popen([sys.executable, "-c", code], cwd=tmp_path)
    try:
        answers = []
        for letters in (b"ab\n", b"c\n"):
            with connect_started(tmp_path / "letters.sock", server) as client:
                client.sendall(letters)
                answers.append(client.recv(100))
        assert answers == [b"aab\n", b"abc\n"]
    finally:
        server.terminate()
        server.wait(10)


def test_commands() -> None:
    """Both commands of the set-up are there, and every service of the table is a command of the plugin."""
    assert "    python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/twistd -n echo --port 2000\n" in README
    assert "    python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest\n" in README
    plugin = (Path(__file__).parent.parent / "twisted/plugins/twistednet_plugin.py").read_text()
    served = re.findall(r"^(\w+) = ServiceMaker", plugin, re.MULTILINE)
    assert sorted(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == sorted(served)
