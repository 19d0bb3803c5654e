"""``python -m tests.fuzz SECONDS [TARGET]``: look for input that breaks an invariant, for so many seconds a target.

It needs atheris (``pip install -e '.[fuzz]'``). Without a target it takes them all, one after another, and says a line
about each. At the first input that breaks one it shows how, keeps the input in a file ``crash-…`` of this folder, and
ends with a status other than 0. Such an input belongs into ``tests/fuzz/targets.py``, among the seeds.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

USAGE = "usage: python -m tests.fuzz SECONDS [TARGET]"


def main(seconds: str, *chosen: str) -> int:
    """Fuzz each target in a process of its own, which libFuzzer ends as it pleases; the exit status."""
    from tests.fuzz.targets import SEEDS, TARGETS

    if len(chosen) > 1 or not set(chosen) <= set(TARGETS):
        print(f"{USAGE}; there are: {', '.join(TARGETS)}", file=sys.stderr)  # noqa: T201
        return 2
    for name in chosen or TARGETS:
        with TemporaryDirectory() as corpus:
            for i, seed in enumerate(SEEDS[name]):
                (Path(corpus) / str(i)).write_bytes(seed)
            command = [sys.executable, "-m", "tests.fuzz", "--child", seconds, name, corpus]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
        if done.returncode != 0:
            print(done.stderr, f"{name}: broken", sep="\n", file=sys.stderr)  # noqa: T201
            return 1
        inputs, found = re.findall(r"stat::(?:number_of_executed|new)_units\w*:\s+(\d+)", done.stderr)
        print(f"{name}: held for {inputs} inputs, {found} of which went new ways", flush=True)  # noqa: T201
    return 0


def fuzz(seconds: str, name: str, corpus: str) -> None:
    """Fuzz one target; it doesn't return."""
    import atheris

    # What is to be seen by the fuzzer must be imported under its eyes.
    include = ["twistednet", "twisted.protocols.haproxy", "twisted.internet.endpoints", "tomllib"]
    with atheris.instrument_imports(include=include, enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    options = [
        f"-max_total_time={seconds}",
        "-verbosity=0",
        "-print_final_stats=1",
        "-timeout=10",
        "-rss_limit_mb=1024",
    ]
    atheris.Setup([sys.argv[0], *options, corpus], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--child", seconds, name, corpus]:
            fuzz(seconds, name, corpus)
        case [seconds, *chosen] if seconds.isdigit():
            sys.exit(main(seconds, *chosen))
        case _:
            sys.exit(USAGE)
