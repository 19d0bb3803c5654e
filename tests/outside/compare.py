"""What came out of a suite, and how two runs of it differ."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

EXCEPTIONS = Path(__file__).with_name("exceptions.toml")

WORSE = ("passed", "skipped", "failed")
"""What can become of a test. If more than one does, the last of these counts."""


@dataclass(frozen=True)
class Outcome:
    """What became of a test, and why."""

    status: str
    why: str = ""

    @property
    def essence(self) -> str:
        """The last line of `why`, which names the exception."""
        lines = [line for line in self.why.splitlines() if line.strip()] or [""]
        return lines[-1].strip()[:200]


@dataclass
class Run:
    """One run of a suite on one reactor."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    complete: bool = False
    running: str = ""
    """The test during which an incomplete run was ended."""
    seconds: float = 0.0
    log: Path = Path()

    def count(self, status: str) -> int:
        """How many tests have `status`."""
        return sum(outcome.status == status for outcome in self.outcomes.values())


def read(lines: Iterable[str]) -> Run:
    """The run of which the driver has written `lines`; the last of them may have been cut off."""
    run = Run()
    for line in lines:
        if not line.endswith("\n"):
            break
        event = json.loads(line)
        if "begins" in event:
            run.running = event["begins"]
        elif "ends" in event:
            test, outcome = event["ends"], Outcome(event["status"], event["why"])
            known = run.outcomes.setdefault(test, outcome)
            if WORSE.index(outcome.status) > WORSE.index(known.status):
                run.outcomes[test] = outcome
        elif event.get("complete"):
            run.complete, run.running = True, ""
    return run


def exceptions(suite: str, reactor: str, path: Path = EXCEPTIONS) -> dict[str, str]:
    """The tests of `suite` that need not pass on `reactor`, each with the reason.

    :raises ValueError: for an entry without a reason.
    """
    with path.open("rb") as file:
        entries = tomllib.load(file)["exception"]
    listed = {}
    for entry in entries:
        if not entry.get("reason"):
            raise ValueError(f"{path}: no reason for {entry}")
        if entry["suite"] == suite and reactor in entry.get("on", [reactor]):
            listed.update(dict.fromkeys(entry["tests"], entry["reason"]))
    return listed


def differences(run: Run, reference: Run) -> dict[str, str]:
    """The tests that fail in `run` and not in `reference`, or pass in `reference` and don't run in `run`; how each."""
    found = {}
    for test in run.outcomes.keys() | reference.outcomes.keys():
        here, there = run.outcomes.get(test), reference.outcomes.get(test)
        passes = there is not None and there.status == "passed"
        if here is None:
            # Where a run was cut short, that is what is wrong, and not each test after it.
            if passes and run.complete:
                found[test] = "was not run"
        elif here.status == "failed" and (there is None or there.status != "failed"):
            found[test] = f"failed: {here.essence}"
        elif here.status == "skipped" and passes:
            found[test] = f"skipped: {here.essence}"
    return dict(sorted(found.items()))


def problems(run: Run, reference: Run, allowed: Mapping[str, str], times: float | None = None) -> list[str]:
    """What is wrong with `run`, a line for each thing.

    :param allowed: the tests that may differ from `reference`.
    :param times: how many times as long as `reference` it may take.
    """
    lines = [f"{test} {how}" for test, how in differences(run, reference).items() if test not in allowed]
    for what, ran in ("the run", run), ("the reference run", reference):
        if not ran.complete:
            lines.append(f"{what} was cut short" + (f", in {ran.running}" if ran.running else ""))
        elif not ran.count("passed"):
            lines.append(f"no test passed in {what}")
    if times is not None and run.complete and run.seconds > times * reference.seconds:
        lines.append(
            f"took {run.seconds:.1f} s, more than {times:g} times the {reference.seconds:.1f} s of the reference"
        )
    return lines


def unneeded(run: Run, reference: Run, allowed: Iterable[str]) -> list[str]:
    """Those of `allowed` that `run` did not need, of the tests that were run."""
    differ = differences(run, reference)
    return sorted(test for test in allowed if test in run.outcomes and test not in differ)
