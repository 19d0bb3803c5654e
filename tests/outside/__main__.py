"""Run the suites, and say how our reactor differs; the status is 1 if it does so where it is not expected to.

A suite is named as in the table, or by the name of its project: ``twisted`` stands for all of Twisted's packages.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.outside.compare import exceptions, problems, unneeded
from tests.outside.run import CannotRun, run
from tests.outside.suites import REACTORS, SUITES, Suite

ROW = "{:<20} {:<14} {:>7} {:>8} {:>7} {:>8}"


def main(arguments: list[str]) -> int:
    """Do so; the exit status."""
    parser = argparse.ArgumentParser("python -m tests.outside", description=__doc__)
    parser.add_argument("--all", action="store_true", help="run the whole of each suite, and not only the sample")
    parser.add_argument("--on", choices=REACTORS, action="append", help="run on this loop, and the reference reactor")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="one of the suites (default: all that there are)")
    options = parser.parse_args(arguments)
    chosen = [suite for suite in SUITES if matches(suite, options.suites) and (options.all or suite.sample)]
    unknown = [name for name in options.suites if not any(matches(suite, [name]) for suite in SUITES)]
    if unknown or not chosen:
        names = ", ".join(suite.name for suite in SUITES)
        parser.error(f"no suite {', '.join(unknown)}; there are {names}" if unknown else "no sample: only with --all")
    # What has been started is ended with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="outside-"))
    folder.chmod(0o755)
    say(ROW.format("suite", "reactor", "passed", "skipped", "failed", "seconds"))
    wrong = [line for suite in chosen for line in compare(suite, options.on or REACTORS, folder, options.all)]
    say(*wrong or ["nothing unexpected"])
    if not wrong:
        shutil.rmtree(folder)
    return bool(wrong)


def matches(suite: Suite, names: list[str]) -> bool:
    """Whether `suite` is one of those called `names`."""
    return not names or suite.name in names or suite.name.partition(".")[0] in names


def compare(suite: Suite, reactors: list[str] | tuple[str, ...], folder: Path, whole: bool) -> list[str]:
    """Run `suite` on each reactor; what is wrong, a line for each thing."""
    wrong = []
    try:
        reference = None
        for reactor in (suite.reference, *reactors):
            ran = run(suite, reactor, folder, whole=whole)
            counts = (ran.count(status) for status in ("passed", "skipped", "failed"))
            say(ROW.format(suite.name, reactor, *counts, f"{ran.seconds:.1f}"))
            if reference is None:
                reference = ran
                continue
            allowed = exceptions(suite.name, reactor)
            lines = problems(ran, reference, allowed, suite.times if whole else None)
            wrong += [f"{suite.name} on {reactor}: {line}" for line in lines]
            if lines:
                wrong.append(f"{suite.name} on {reactor}: the output is in {ran.log}")
            for test in unneeded(ran, reference, allowed):
                say(f"{suite.name} on {reactor}: {test} is listed as an exception, and is none")
    except CannotRun as why:
        wrong.append(f"{suite.name}: {why}")
    return wrong


def say(*lines: str) -> None:
    """Print `lines`, at once."""
    print(*lines, sep="\n", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
