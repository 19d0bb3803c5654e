"""Run a suite on a reactor: its environment, its process, and what is left of it."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.outside.compare import Run, read
from tests.outside.suites import UVLOOP, Suite

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

SET_CHILD_SUBREAPER = 36
"""``PR_SET_CHILD_SUBREAPER`` of Linux: the orphans among our descendants become our children."""

NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
NO_CAPABILITIES = ("--inh-caps=-all", "--bounding-set=-all")
READING = (
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)


class CannotRun(Exception):
    """A suite can't be run here; the text says why."""


# The environment


def cache_folder() -> Path:
    """Where the environments are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twistednet-outside"


def environment(suite: Suite) -> Path:
    """The folder of an environment with what `suite` needs, which is made if there is none yet.

    :raises CannotRun: where it can't be made.
    """
    requirements = (*suite.requirements, f"uvloop=={UVLOOP}")
    identity = repr((ROOT, sys.version, requirements, suite.source))
    folder = cache_folder() / f"{suite.name.partition('.')[0]}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True, symlinks=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    log = folder / "pip.log"
    with log.open("wb") as output:
        commands = [[*pip, "install", *requirements]]
        if suite.source:
            name = suite.source.partition("==")[0]
            commands.append([*pip, "download", "--no-deps", "--no-binary", name, "--dest", str(folder), suite.source])
        for command in commands:
            try:
                subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, timeout=900, check=True)
            except subprocess.SubprocessError as why:
                raise CannotRun(f"pip can't make its environment: see {log}") from why
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "unpacked", filter="data")
    packages = next(folder.glob("lib/python*/site-packages"))
    substitute = (
        f"import os, runpy; os.environ.get('TWISTEDNET_SUBSTITUTE') and runpy.run_path({str(HERE / 'substitute.py')!r})"
    )
    (packages / "twistednet-outside.pth").write_text(f"{ROOT}\n{substitute}\n")
    (folder / "complete").touch()
    return folder


def unprivileged(python: str, folder: Path) -> list[str]:
    """What to put before a command with `python`, to run it in `folder` as a user who can't do harm.

    :raises CannotRun: where there is no such way.
    """
    if os.geteuid() != 0:
        return []
    # The second way is for a Python, or a copy of this project, below a folder that only root may look into.
    for capabilities in NO_CAPABILITIES, READING:
        prefix = [*NOBODY, *capabilities]
        with contextlib.suppress(FileNotFoundError):
            # The first process may be more than its children: setpriv keeps what root may do until it has started it.
            look = f"import os, twistednet.reactor; os.listdir({str(folder)!r})"
            start = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {look!r}]))"
            if subprocess.run([*prefix, python, "-c", start], capture_output=True, cwd="/").returncode == 0:
                return prefix
    raise CannotRun("it must not run as root, and setpriv can't change the user")


# The process


@contextlib.contextmanager
def no_process_left() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Kill, in the end, every process that has been started meanwhile by us or by one of those.

    The list that is yielded takes those that we have started.
    """
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    us = psutil.Process()
    before = set(us.children(recursive=True))
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield started
    finally:
        while left := set(us.children(recursive=True)) - before:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=1)
        for popen in started:
            popen.wait()


@contextlib.contextmanager
def null_device_kept() -> Iterator[None]:
    """Mend the mode of ``/dev/null``, without which nothing works, if somebody changes it."""
    try:
        yield
    finally:
        mode = stat.S_IMODE(os.stat(os.devnull).st_mode)
        if mode != 0o666:
            os.chmod(os.devnull, 0o666)
            print(f"{os.devnull} had the mode {mode:o}, and has 666 again", file=sys.stderr)  # noqa: T201


def run(suite: Suite, reactor: str, folder: Path, *, whole: bool = True, python: str | None = None) -> Run:
    """Run `suite`, or only its sample, on `reactor`.

    :param folder: a new one is made in it, where the suite runs and leaves its output.
    :param python: one that has what the suite needs; that of the suite's environment when left out.
    :raises CannotRun: where that is so.
    """
    source: Path | None = None
    if python is None:
        made = environment(suite)
        python = str(made / "bin/python")
        source = next(made.glob("unpacked/*"), None)
    folder = folder / f"{suite.name}-{reactor}"
    (folder / "tmp").mkdir(parents=True)
    prefix = unprivileged(python, folder)
    place = folder if source is None else folder / "source"
    if source is not None:
        shutil.copytree(source, place)
    variables = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder / "tmp"), **dict(suite.environment)}
    # Each suite is to be found by its own name, and none by a neighbour's.
    variables.pop("PYTHONPATH", None)
    variables["PATH"] = os.pathsep.join([str(Path(python).parent), variables.get("PATH", os.defpath)])
    if suite.substitute and not reactor.startswith("stock"):
        variables["TWISTEDNET_SUBSTITUTE"] = reactor
    events, log = folder / "events", folder / "log"
    tests = suite.tests if whole else suite.sample
    options = [option for test in suite.left_out for option in ("--leave-out", test)]
    command = [python, "-P", str(HERE / "driver.py"), reactor, str(events), suite.runner]
    command += [*options, *tests] if suite.runner == "trial" else tests
    with null_device_kept(), no_process_left() as started, log.open("wb") as output:
        port = 0
        if suite.redis:
            redis, port = start_redis(prefix, folder)
            started.append(redis)
        for name, old, new in suite.edits:
            text = (place / name).read_text()
            if old not in text:
                raise CannotRun(f"{name} is not as expected: it has no {old}")
            (place / name).write_text(text.replace(old, new.format(port=port, folder=folder)))
        if prefix:
            own(folder)
        began = time.monotonic()
        process = subprocess.Popen(
            [*prefix, *command],
            cwd=place,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        started.append(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(suite.limit)
        seconds = time.monotonic() - began
    result = Run()
    if events.exists():
        with events.open(encoding="utf-8") as lines:
            result = read(lines)
    result.seconds, result.log = seconds, log
    return result


def own(folder: Path) -> None:
    """Give `folder` and all in it to the user nobody."""
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")


def start_redis(prefix: list[str], folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a Redis server that keeps nothing; its process, and the port that it listens on.

    :raises CannotRun: where there is none.
    """
    if shutil.which("redis-server") is None:
        raise CannotRun("it needs redis-server, of Debian's package of that name")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "save": "",
        "appendonly": "no",
        "dir": folder,
        "unixsocket": folder / "redis.sock",
        "unixsocketperm": 777,
    }
    if prefix:
        own(folder)
    with (folder / "redis.log").open("wb") as output:
        process = subprocess.Popen(
            [*prefix, "redis-server", *(word for name, value in options.items() for word in (f"--{name}", str(value)))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    for _ in range(100):
        time.sleep(0.1)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return process, port
    raise CannotRun(f"the Redis server does not answer: see {folder / 'redis.log'}")
