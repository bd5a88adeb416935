from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import RunBusy, RunNotFound
from ftbridge.runs.journal import Event
from ftbridge.runs.run import Run, RunState, fold
from ftbridge.runs.store import find, runs

CREATED = ("created", {"id": "a-local-1", "name": "a", "provider": "local"})
SPEC = "name: a\ndata: {train: t.jsonl}\nmodel: {local: m}\n"


def make(home: Path, name: str = "a") -> Run:
    return Run.create(home, name=name, provider="local", spec_text=SPEC.replace("a\n", f"{name}\n", 1), spec_suffix=".yaml")


def state(*events: tuple[str, dict[str, Any]]) -> RunState:
    return fold([Event(seq=n, time=float(n), type=kind, data=data) for n, (kind, data) in enumerate(events, 1)])


def job_event(number: int, **metrics: float) -> tuple[str, dict[str, Any]]:
    return "job_event", {"id": str(number), "time": 1.0, "message": "m", "metrics": metrics}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([CREATED], {"state": "prepared", "stage": "preparing", "id": "a-local-1"}),
        ([CREATED, ("evaluating", {"candidate": "base"})], {"state": "running", "stage": "answering with base"}),
        ([CREATED, ("evaluated", {"candidate": "base"})], {"evaluated": frozenset({"base"})}),
        ([CREATED, ("submit_intended", {"token": "t"})], {"state": "queued", "token": "t", "handle": None}),
        ([CREATED, ("status", {"state": "running"})], {"state": "running"}),
        ([CREATED, ("status", {"state": "warming_up"})], {"state": "warming_up", "finished": None}),
        ([CREATED, ("result", {"model": {"id": "x"}})], {"state": "running", "tuned": {"id": "x"}}),
        ([CREATED, ("succeeded", {})], {"state": "succeeded", "stage": "done", "finished": 2.0}),
        ([CREATED, ("failed", {"error": {"kind": "k"}})], {"state": "failed", "error": {"kind": "k"}}),
        ([CREATED, ("paused", {})], {"state": "paused", "finished": None}),
        (
            [CREATED, ("cancel_requested", {}), ("cancelled", {}), ("resume_requested", {})],
            {"state": "queued", "cancel_requested": False, "finished": None},
        ),
        (
            [CREATED, job_event(4, step=1, valid_loss=2.0), job_event(9, step=2, train_loss=1.0), job_event(11, valid_loss=3)],
            {"cursor": "11", "metrics": {"step": 2, "valid_loss": 3, "train_loss": 1.0}, "best_valid_loss": 2.0},
        ),
        ([CREATED, ("an_event_of_a_later_version", {"x": 1})], {"state": "prepared"}),
    ],
)
def test_state_is_what_the_events_say(events: list[tuple[str, dict[str, Any]]], expected: dict[str, Any]) -> None:
    folded = state(*events)
    assert {name: getattr(folded, name) for name in expected} == expected


def test_folding_in_pieces_gives_the_same_state() -> None:
    events = [Event(seq=1, time=1, type=CREATED[0], data=CREATED[1])]
    events += [Event(seq=n, time=n, type="job_event", data=job_event(n, step=n)[1]) for n in range(2, 9)]
    for cut in range(len(events)):
        assert fold(events[cut:], fold(events[:cut])) == fold(events)


def test_a_run_folder_is_whole_from_its_first_moment(home: Path) -> None:
    run = make(home)
    assert run.id.startswith("a-local-2")
    assert run.spec_path.read_text() == SPEC
    assert run.spec().name == "a"
    assert run.state().state == "prepared"
    assert [path.name for path in (home / "runs").iterdir()] == [run.id]


def test_one_process_drives_and_the_kernel_lets_go_when_it_is_killed(home: Path) -> None:
    run = make(home)
    hold = (
        "import sys, time\nfrom pathlib import Path\nfrom ftbridge.runs.run import Run\n"
        "with Run(Path(sys.argv[1])).drive():\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert run.is_driven()
    with pytest.raises(RunBusy, match=str(holder.pid)), run.drive():
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not run.is_driven()
    with run.drive():
        assert Run(run.path).is_driven()


def test_runs_are_found_by_id_prefix_folder_and_latest(home: Path) -> None:
    first, second = make(home, "alpha"), make(home, "beta")
    assert find(home, first.id).id == first.id
    assert find(home, "bet").id == second.id
    assert find(home, str(first.path)).id == first.id
    assert find(home, "latest").id == second.id
    with pytest.raises(RunNotFound, match="did you mean|Did you mean"):
        find(home, first.id[:-1] + "zz")
    make(home, "beta")
    with pytest.raises(RunNotFound, match="begins the ids of 2 runs"):
        find(home, "beta")


def test_a_broken_run_does_not_hide_the_others(home: Path) -> None:
    good, bad = make(home, "good"), make(home, "bad")
    bad.append("x")
    bad.append("y")
    bad.journal.path.write_bytes(b"rubbish\n" + b"".join(bad.journal.path.read_bytes().splitlines(keepends=True)[1:]))
    (home / "runs" / "notes").mkdir()
    assert [run.id for run in runs(home)] == [good.id]
