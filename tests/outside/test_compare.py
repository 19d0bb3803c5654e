"""What counts as a difference between two runs of a suite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.outside.compare import EXCEPTIONS, Outcome, Run, differences, exceptions, problems, read, unneeded
from tests.outside.suites import REACTORS, SUITES

PASSED, SKIPPED, FAILED = (
    Outcome("passed"),
    Outcome("skipped", "no such thing"),
    Outcome("failed", "a\nValueError: b\n"),
)


def complete(**outcomes: Outcome) -> Run:
    """A run that came to its end."""
    return Run(outcomes, complete=True, seconds=1.0)


@pytest.mark.parametrize(
    ("here", "there", "difference"),
    [
        (PASSED, PASSED, None),
        (PASSED, SKIPPED, None),
        (PASSED, FAILED, None),
        (PASSED, None, None),
        (SKIPPED, PASSED, "skipped: no such thing"),
        (SKIPPED, SKIPPED, None),
        (SKIPPED, FAILED, None),
        (FAILED, PASSED, "failed: ValueError: b"),
        (FAILED, SKIPPED, "failed: ValueError: b"),
        (FAILED, FAILED, None),
        (FAILED, None, "failed: ValueError: b"),
        (None, PASSED, "was not run"),
        (None, SKIPPED, None),
        (None, FAILED, None),
    ],
)
def test_differences(here: Outcome | None, there: Outcome | None, difference: str | None) -> None:
    """A test that passes on the reference reactor has to pass, and none may fail that doesn't fail there."""
    run = complete(**{"test": here} if here else {})
    reference = complete(**{"test": there} if there else {})
    assert differences(run, reference) == ({"test": difference} if difference else {})


def test_exceptions_are_no_problem() -> None:
    """What is listed is no problem; what is listed and passes is told."""
    run, reference = complete(a=FAILED, b=FAILED, c=PASSED), complete(a=PASSED, b=PASSED, c=PASSED)
    assert problems(run, reference, {"b": "", "c": "", "d": ""}) == ["a failed: ValueError: b"]
    assert unneeded(run, reference, ["b", "c", "d"]) == ["c"]


def test_cut_short() -> None:
    """A run that was cut short is a problem; the tests that it didn't come to are none."""
    run, reference = Run({"a": PASSED}, running="b"), complete(a=PASSED, b=PASSED, c=PASSED)
    assert problems(run, reference, {}) == ["the run was cut short, in b"]
    assert problems(reference, run, {}) == ["the reference run was cut short, in b"]


def test_nothing_ran() -> None:
    """A run in which no test passed shows nothing."""
    assert problems(complete(), complete(), {}) == ["no test passed in the run", "no test passed in the reference run"]


def test_time() -> None:
    """A run may not take too many times as long as the reference's."""
    run, reference = complete(a=PASSED), complete(a=PASSED)
    run.seconds = 1.6
    assert problems(run, reference, {}, 1.5) == ["took 1.6 s, more than 1.5 times the 1.0 s of the reference"]
    assert problems(run, reference, {}, 1.7) == []


def test_read() -> None:
    """The worst outcome of a test counts, and a line that was cut off doesn't."""
    events: list[dict[str, object]] = [
        {"begins": "a"},
        {"ends": "a", "status": "failed", "why": "1"},
        {"ends": "a", "status": "passed", "why": ""},
        {"begins": "b"},
    ]
    lines = [json.dumps(event) + "\n" for event in events]
    run = read([*lines, '{"ends": "b", "sta'])
    assert (run.outcomes, run.complete, run.running) == ({"a": Outcome("failed", "1")}, False, "b")
    run = read([*lines, '{"complete": true}\n'])
    assert (run.complete, run.running) == (True, "")


def test_listed(tmp_path: Path) -> None:
    """An entry is of one suite, of all reactors or some, and has a reason."""
    path = tmp_path / "exceptions.toml"
    path.write_text(
        '[[exception]]\nsuite = "s"\ntests = ["a", "b"]\nreason = "r"\n'
        '[[exception]]\nsuite = "s"\ntests = ["c"]\non = ["uvloop"]\nreason = "q"\n'
    )
    assert exceptions("s", "uvloop", path) == {"a": "r", "b": "r", "c": "q"}
    assert exceptions("s", "asyncio", path) == {"a": "r", "b": "r"}
    assert exceptions("t", "uvloop", path) == {}
    path.write_text('[[exception]]\nsuite = "s"\ntests = ["a"]\nreason = ""\n')
    with pytest.raises(ValueError, match="no reason"):
        exceptions("s", "uvloop", path)


def test_exceptions_are_few() -> None:
    """There is no other suite in the file than in the table, and few exceptions for Twisted's own tests of reactors."""
    listed = {suite.name: exceptions(suite.name, reactor) for suite in SUITES for reactor in REACTORS}
    assert EXCEPTIONS.read_text().count("[[exception]]") > 0
    assert len(listed["twisted.internet"]) <= 10
