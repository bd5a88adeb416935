from __future__ import annotations

from pathlib import Path

import pytest

from ftbridge.cli.cancel import stop
from ftbridge.errors import UsageError
from ftbridge.runs.run import Run

SPEC = "name: a\ndata: {train: t.jsonl}\nmodel: {local: m}\n"
ERROR = {"kind": "out_of_memory", "message": "m", "hint": None}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, name="a", provider="local", spec_text=SPEC, spec_suffix=".yaml")


@pytest.mark.parametrize("end", ["cancelled", "paused"])
@pytest.mark.parametrize(("ending", "data"), [("succeeded", {}), ("failed", {"error": ERROR})])
def test_a_run_that_ends_at_that_moment_is_not_called_stopped(
    run: Run, end: str, ending: str, data: dict[str, object]
) -> None:
    with pytest.raises(UsageError, match=f"{run.id} is {ending}: it ended before it could be {end}"):
        stop(run, lambda run: run.append(ending, **data), end)


def test_a_run_that_is_cancelled_while_it_was_to_be_paused_says_so(run: Run) -> None:
    with pytest.raises(UsageError, match="is cancelled: it ended before it could be paused"):
        stop(run, lambda run: run.append("cancelled"), "paused")


def test_what_was_requested_is_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    stop(run, lambda run: run.append("cancelled"), "cancelled")
    assert capsys.readouterr().out == f"{run.id} is cancelled.\n"
