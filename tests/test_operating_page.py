"""What docs/operating.md says of defaults, what it prints, and the systemd units beside it."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.services.running import PATIENCE, Twistd, ask_for_all, connect_started
from twistednet.services import echo, systat
from twistednet.services.base import RESERVE

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/operating.md").read_text()
UNITS = ROOT / "docs/systemd"
EXAMPLES: list[str] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_defaults() -> None:
    """Every option that limits something has its row, with its default."""
    found = re.findall(r"^\| `--([\w-]+)` \|([^|]*)\|", PAGE, re.MULTILINE)
    rows = {name: value.strip() for name, value in found}
    assert rows.pop("max-connections") == f"`ulimit -n` less {RESERVE}; of `files`, half of that"
    assert (rows.pop("no-share"), rows.pop("plain")) == ("", "")
    options: dict[str, Any] = {**echo.Options(), **systat.Options()}
    about_where_and_how = {"port", "interface", "listen", "log-json", "udp", "no-guard", "no-share", "plain"}
    about_where_and_how |= {"allow", "deny", "proxy-from"}
    assert {name: float(value.replace(",", "")) for name, value in rows.items()} == {
        name: float(value) for name, value in options.items() if name not in {*about_where_and_how, "max-connections"}
    }


def test_embedding(tmp_path: Path) -> None:
    """The example of embedding serves, under its limits, and ends in good order."""
    code = EXAMPLES[1].replace("tcp:2000:interface=127.0.0.1", "unix:socket")
    assert code != EXAMPLES[1]
    with (tmp_path / "output").open("wb") as output:
        server = programs.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=output, stderr=output)
    try:
        with connect_started(tmp_path / "socket", server) as client:
            assert ask_for_all(client, b"hello" * 10_000) == b"hello" * 10_000
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE)
    finally:
        server.kill()
        server.wait(PATIENCE)
    counters = (tmp_path / "output").read_text()
    assert re.fullmatch(r"Counters\(connections=1, .*bytes_received=50000, bytes_sent=50000, .*\)\n", counters)


def test_log_reader(tmp_path: Path) -> None:
    """The example reads what --log-json writes."""
    with Twistd(tmp_path, "echo", "--port", "0", "--log-json", "log.json", endpoints=1) as twistd:
        assert twistd.stop() == 0
    done = programs.run([sys.executable, "-c", EXAMPLES[0]], cwd=tmp_path, capture_output=True, timeout=PATIENCE)
    assert done.stderr == b""
    assert f"echo listening on {twistd.addresses[0]}\n" in done.stdout.decode()


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, for an installation that is here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/twistednet/bin/", f"{Path(sys.executable).parent}/")
        (tmp_path / unit.name).write_text(text)
    shutil.copy(tmp_path / "twistednet@.service", tmp_path / "twistednet@daytime.service")
    return tmp_path


def analyze(*arguments: str, folder: Path) -> str:
    """What ``systemd-analyze`` writes."""
    done = programs.run(
        ["systemd-analyze", *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done
    return str(done.stdout + done.stderr)


def test_units(units: Path) -> None:
    """systemd understands every line of the units."""
    names = ["./twistednet-echo.service", "./twistednet-echo.socket", "./twistednet@daytime.service"]
    assert analyze("verify", "--man=no", *names, folder=units) == ""


@pytest.mark.parametrize(("unit", "said"), [("twistednet-echo", "echo"), ("twistednet@daytime", "the template")])
def test_exposure(units: Path, unit: str, said: str) -> None:
    """The units are no more exposed than the page says."""
    [rate] = re.findall(rf"{said} (\d\.\d)", PAGE)
    lines = analyze("security", "--no-pager", "--offline=true", f"./{unit}.service", folder=units).splitlines()
    [exposure] = re.findall(r"Overall exposure level for .*: (\d+\.\d)", lines[-1])
    assert float(exposure) <= float(rate)


def test_drain_is_shorter(units: Path) -> None:
    """systemd waits longer than a service drains."""
    for unit in units.glob("*.service"):
        [patience] = re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
        drains = re.findall(r"--drain (\d+)", unit.read_text()) or [str(int(echo.Options()["drain"]))]
        assert int(drains[0]) < int(patience)
