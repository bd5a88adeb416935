from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ftbridge import __version__
from ftbridge.data.manifest import Manifest
from ftbridge.errors import DiskFull, JournalCorrupt, RunBusy, RunNotFound
from ftbridge.runs.journal import Event
from ftbridge.runs.metrics import Metrics
from ftbridge.runs.records import JobHandle, Origin, Refusal, TunedModel
from ftbridge.runs.run import TERMINAL, Run, RunState, fold
from ftbridge.spec.sections import BudgetSpec
from support.paths import REPOSITORY

CREATED = ("created", {"id": "a-local-1", "name": "a", "provider": "local"})
DATA = Manifest(splits={}, notes=[], recipe="r", lines_sha256="l")
HANDLE = JobHandle(provider="openai", id="j", folder=Path("runs/x"))
TUNED = TunedModel(provider="openai", id="x", base="b")
ERROR = {"kind": "out_of_memory", "message": "m", "hint": None}
SPEC = "name: a\ndata: {train: t.jsonl}\nmodel: {local: m}\n"
Recorded = tuple[str, dict[str, Any]]


def make(home: Path, name: str = "a") -> Run:
    text = SPEC.replace("a\n", f"{name}\n", 1)
    return Run.create(home, name=name, provider="local", spec_text=text, spec_suffix=".yaml")


def events_of(*recorded: Recorded) -> list[Event]:
    return [Event(seq=n, time=float(n), type=kind, data=data) for n, (kind, data) in enumerate(recorded, 1)]


def state(*recorded: Recorded) -> RunState:
    return fold(events_of(*recorded))


def job_event(number: int, **metrics: float | None) -> Recorded:
    return "job_event", {"id": str(number), "time": 1.0, "message": "m", "metrics": metrics}


CASES: list[tuple[list[Recorded], dict[str, Any]]] = [
    ([], {"id": "", "state": "prepared", "stage": "preparing", "created": 1.0, "finished": None}),
    ([("prepared", {"data": DATA.model_dump()})], {"state": "prepared", "data": DATA}),
    ([("resolved", {}), ("lowered", {})], {"state": "prepared", "stage": "preparing", "updated": 3.0}),
    ([("evaluating", {"candidate": "base"})], {"state": "running", "stage": "generating completions with base"}),
    ([("evaluated", {"candidate": "base"})], {"evaluated": frozenset({"base"})}),
    ([("submit_intended", {"token": "t"})], {"state": "queued", "token": "t", "handle": None, "stage": "training"}),
    ([("submitted", {"handle": HANDLE.model_dump(mode="json")})], {"state": "queued", "handle": HANDLE}),
    ([("status", {"state": "validating"})], {"state": "validating", "stage": "training"}),
    ([("status", {"state": "running"})], {"state": "running"}),
    ([("status", {"state": "pausing"})], {"state": "pausing"}),
    ([("status", {"state": "warming_up"})], {"state": "warming_up", "finished": None}),
    ([("status", {"state": "succeeded"})], {"state": "running", "finished": None}),
    ([("status", {"state": "failed", "error": ERROR})], {"state": "running", "finished": None}),
    ([("status", {"state": "cancelled"})], {"state": "running", "finished": None}),
    ([("result", {"model": TUNED.model_dump()})], {"state": "running", "tuned": TUNED, "finished": None}),
    ([("result", {"model": TUNED.model_dump(), "trained_tokens": 5})], {"state": "running", "tuned": TUNED}),
    ([("budget_changed", {"budget": {"max_usd": 2.0}})], {"state": "prepared", "budget": BudgetSpec(max_usd=2.0)}),
    ([("gate_waived", {"gate": "target"})], {"state": "prepared", "waived": frozenset({"target"})}),
    (
        [("continues", {"run": "b", "provider": "openai", "reason": "refused"})],
        {"continues": Origin(run="b", provider="openai", reason="refused")},
    ),
    ([("continued_by", {"run": "c"})], {"continued_by": "c"}),
    ([("succeeded", {})], {"state": "succeeded", "stage": "done", "finished": 2.0}),
    ([("failed", {"error": ERROR})], {"state": "failed", "error": ERROR, "finished": 2.0}),
    ([("cancelled", {})], {"state": "cancelled", "finished": 2.0}),
    ([("paused", {})], {"state": "paused", "finished": None}),
    ([("status", {"state": "running"}), ("interrupted", {})], {"state": "running", "finished": None}),
    ([("pause_requested", {})], {"state": "prepared", "pause_requested": True, "cancel_requested": False}),
    (
        [("cancel_requested", {}), ("request_refused", {"request": "cancel", "reason": "no"})],
        {"state": "prepared", "cancel_requested": False, "refused": Refusal(request="cancel", reason="no")},
    ),
    ([("stopped", {"error": ERROR})], {"state": "prepared", "error": ERROR, "finished": None}),
    (
        [("stopped", {"error": ERROR}), ("submitted", {"handle": HANDLE.model_dump(mode="json")})],
        {"state": "queued", "error": None, "finished": None},
    ),
    ([("failed", {"error": ERROR}), ("retry_requested", {"job": "j"})], {"state": "failed", "retried": "j"}),
    ([("cancel_requested", {})], {"state": "prepared", "cancel_requested": True, "pause_requested": False}),
    (
        [("cancel_requested", {}), ("pause_requested", {}), ("cancelled", {}), ("resume_requested", {})],
        {"state": "queued", "cancel_requested": False, "pause_requested": False, "finished": None},
    ),
    (
        [("failed", {"error": ERROR}), ("resume_requested", {})],
        {"state": "queued", "error": None, "finished": None},
    ),
    ([("failed", {"error": ERROR}), ("succeeded", {})], {"state": "succeeded", "error": None, "finished": 3.0}),
    ([("succeeded", {}), ("cancelled", {})], {"state": "succeeded", "stage": "done", "finished": 2.0}),
    ([("succeeded", {}), ("resume_requested", {})], {"state": "succeeded", "finished": 2.0}),
    (
        [("succeeded", {}), ("evaluating", {"candidate": "later"}), ("evaluated", {"candidate": "later"})],
        {"state": "succeeded", "stage": "done", "evaluated": frozenset({"later"})},
    ),
    (
        [
            job_event(4, step=1, total_steps=9, valid_loss=2.0),
            job_event(9, step=2, train_loss=1.0, valid_loss=None),
            ("job_event", {"id": "10", "time": 1.0, "message": "no figures"}),
            job_event(11, step=2, valid_loss=3),
        ],
        {
            "cursor": "11",
            "metrics": Metrics(step=2, total_steps=9, valid_loss=3, train_loss=1.0),
            "best_valid_loss": 2.0,
            "step": 2,
            "total_steps": 9,
        },
    ),
    (
        [("hyperparameters_chosen", {"job": "ftjob-1", "chosen": {"n_epochs": 3, "batch_size": 4}})],
        {"chosen": {"n_epochs": 3, "batch_size": 4}},
    ),
    ([("an_event_of_a_later_version", {"x": 1})], {"state": "prepared", "updated": 2.0}),
]


@pytest.mark.parametrize(("message", "expected"), CASES)
def test_state_is_what_the_events_say(message: list[Recorded], expected: dict[str, Any]) -> None:
    folded = state(CREATED, *message)
    expected = {**expected, "id": "a-local-1", "provider": "local", "name": "a"}
    assert {name: getattr(folded, name) for name in expected} == expected


@pytest.mark.parametrize(("message", "expected"), CASES)
def test_folding_is_pure_and_the_same_in_any_pieces(message: list[Recorded], expected: dict[str, Any]) -> None:
    events = events_of(CREATED, *message)
    before = [event.model_dump_json() for event in events]
    complete = fold(events)
    for cut in range(len(events) + 1):
        assert fold(events[cut:], fold(events[:cut])) == complete
    assert [event.model_dump_json() for event in events] == before


def test_only_its_own_event_ends_a_run() -> None:
    others = [(kind, data) for result, _ in CASES for kind, data in result if kind not in TERMINAL]
    assert state(CREATED, *others).state not in TERMINAL


def test_the_documentation_lists_every_event_with_its_data() -> None:
    page = (REPOSITORY / "docs" / "run-folder.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page.split("## Events")[1].split("\n## ")[0], re.MULTILINE))
    used: dict[str, set[str]] = {}
    for kind, data in [CREATED, *(event for result, _ in CASES for event in result)]:
        used.setdefault(kind, set()).update(data)
    used.pop("an_event_of_a_later_version")
    assert rows.keys() == used.keys()
    for kind, fields in used.items():
        assert fields <= set(re.findall(r"`(\w+)\??`", rows[kind])), kind


@pytest.mark.parametrize(
    ("kind", "data"), [("created", {}), ("job_event", {"id": "1", "metrics": 3}), ("submitted", {}), ("failed", {})]
)
def test_an_event_without_its_fields_is_damage(home: Path, kind: str, data: dict[str, Any]) -> None:
    run = make(home)
    run.append(kind, **data)
    with pytest.raises(JournalCorrupt, match=rf"journal\.jsonl, line 2, event {kind}, lacks"):
        run.state()


def test_a_run_folder_is_whole_from_its_first_moment(home: Path) -> None:
    run = make(home)
    assert re.fullmatch(r"a-local-\d{8}-[0-9a-f]{4}", run.id)
    assert run.spec_path.read_text() == SPEC
    assert run.spec().name == "a"
    assert run.state().state == "prepared"
    assert [path.name for path in (home / "runs").iterdir()] == [run.id]
    (created,) = run.journal.read()
    digest = hashlib.sha256(SPEC.encode()).hexdigest()
    by_name = {"id": run.id, "name": "a", "provider": "local", "spec_sha256": digest, "version": __version__}
    assert (created.type, created.data) == ("created", by_name)
    umask = os.umask(0o022)
    os.umask(umask)
    assert run.path.stat().st_mode & 0o777 == 0o777 & ~umask


def test_an_id_that_is_taken_is_drawn_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(drawn))
    first, second = make(home), make(home)
    assert [run.id[-4:] for run in (first, second)] == ["aaaa", "bbbb"]
    assert second.state().id == second.id
    assert len(first.journal.read()) == 1


def test_a_run_that_does_not_fit_on_the_disk_leaves_nothing(home: Path) -> None:
    child = os.fork()
    if child == 0:  # the limit is for the child alone
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
        try:
            make(home)
        except DiskFull:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert list((home / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "text", "stored"),
    [
        (".toml", 'name = "a"\n[data]\ntrain = "t"\n[model]\nlocal = "m"\n', "spec.toml"),
        (".JSON", json.dumps({"name": "a", "data": {"train": "t"}, "model": {"local": "m"}}), "spec.json"),
        (".yml", SPEC.replace("\n", "\r\n"), "spec.yml"),
        ("", SPEC, "spec.yaml"),
    ],
)
def test_the_spec_is_kept_as_given_in_its_own_language(home: Path, suffix: str, text: str, stored: str) -> None:
    run = Run.create(home, name="a", provider="openai", spec_text=text, spec_suffix=suffix)
    (run.path / f"{stored}.bak").write_text("an editor's copy")
    assert run.spec_path == run.path / stored
    assert run.spec_path.read_bytes() == text.encode()
    assert run.spec().name == "a"


def test_an_opened_run_knows_its_paths(home: Path) -> None:
    created = make(home)
    run = Run.open(created.path)
    contract = {
        "journal_path": "journal.jsonl", "spec_path": "spec.yaml", "resolved_path": "resolved.json",
        "lowering_path": "lowering.json", "data": "data", "checkpoints": "checkpoints", "adapter": "adapter",
        "evaluation_path": "evaluation.json",
    }  # fmt: skip
    assert {name: getattr(run, name) for name in contract} == {
        name: created.path / path for name, path in contract.items()
    }
    with pytest.raises(RunNotFound, match="is not a run folder"):
        Run.open(home)
    run.spec_path.unlink()
    with pytest.raises(RunNotFound, match=r"contains no spec\.yaml"):
        run.spec()


@pytest.mark.parametrize("candidate", ["base", "run:a-1", "http://127.0.0.1:8000/v1#m", "../../x", "a/b", "a%2Fb"])
def test_every_candidate_has_a_file_of_its_own_in_predictions(home: Path, candidate: str) -> None:
    run = make(home)
    path = run.predictions(candidate)
    assert path.resolve().parent == run.path / "predictions"
    assert path.suffix == ".jsonl"
    assert (path.name == "base.jsonl") == (candidate == "base")
    assert run.predictions("a/b") != run.predictions("a%2Fb")


def test_state_follows_what_others_append(home: Path) -> None:
    run = make(home)
    other = Run.open(run.path)
    assert run.state().state == "prepared"
    other.append("submit_intended", token="t")
    assert run.state().token == "t"
    other.append("status", state="running")
    assert run.state().state == "running"
    assert run.state() == other.state() == Run.open(run.path).state()


def test_state_forgets_an_event_that_was_taken_back(home: Path) -> None:
    run = make(home)
    size = run.journal_path.stat().st_size
    run.append("cancelled")
    assert run.state().state == "cancelled"
    os.truncate(run.journal_path, size)  # as an append does whose flush failed
    assert run.state().state == "prepared"
    run.append("paused")
    assert run.state().state == "paused"


DRIVER = """
import subprocess, sys, time
from pathlib import Path
from ftbridge.runs.run import Run
with Run(Path(sys.argv[1])).drive():
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    print(worker.pid, flush=True)
    time.sleep(60)
"""


def test_one_process_drives_and_the_kernel_lets_go_when_it_is_killed(home: Path) -> None:
    run = make(home)
    assert not run.is_driven()
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    worker = int(driver.stdout.readline())
    try:
        assert run.is_driven()
        result = (
            rf"{run.id} is being driven by another process \(PID {driver.pid}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\)"
        )
        with pytest.raises(RunBusy, match=result) as caught, run.drive():
            pass
        assert f"ftbridge watch {run.id}" in str(caught.value)
        run.append("cancel_requested")  # others may append all the while
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        os.kill(worker, 0)  # the worker that it started lives on, and does not hold the lock
        assert not run.is_driven()
        with run.drive():
            assert Run(run.path).is_driven()
    finally:
        driver.kill()
        os.kill(worker, signal.SIGKILL)
        driver.stdout.close()
    assert not run.is_driven()


def test_the_lock_is_let_go_when_driving_ends_in_an_error(home: Path) -> None:
    run = make(home)
    with pytest.raises(ValueError, match="the work failed"), run.drive():
        raise ValueError("the work failed")
    with run.drive(), pytest.raises(RunBusy, match=rf"this process already \(PID {os.getpid()}"), Run(run.path).drive():
        pass
    assert not run.is_driven()


def test_asking_who_drives_never_stands_in_the_way_of_a_driver_or_of_another_who_asks(home: Path) -> None:
    run = make(home)
    with run.drive():
        pass
    done = threading.Event()
    wrong: list[str] = []

    def ask() -> None:
        mine = Run(run.path)
        while not done.is_set():
            if mine.is_driven():
                wrong.append("driven")

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for _ in range(150):
        assert Run(run.path).is_driven() is False
    done.set()
    for asker in askers:
        asker.join()
    assert wrong == []

    done.clear()
    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(30):
            with Run(run.path).drive():
                pass
    finally:
        done.set()
        for asker in askers:
            asker.join()
