"""Budgets, the target and what was spent: a run stops in time, loses nothing, and goes on when the budget is raised."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftbridge.errors import GateNotMet, SpecError, UsageError
from ftbridge.evaluation.generate import read_predictions
from ftbridge.evaluation.spending import Budget, Dollars, Spent, _training_hours, changed_budget, over, spent
from ftbridge.runner import control, drive
from ftbridge.runner.start import create_run
from ftbridge.runs.journal import Event
from ftbridge.runs.run import Run
from ftbridge.server import simulating
from ftbridge.spec import SpecFile
from ftbridge.spec.sections import BudgetSpec

BASE = "gpt-4.1-mini-2025-04-14"
ANSWERS = [
    {"model": "ft:*", "match": r"Number (\d+)\?", "reply": r"It is \1."},
    {
        "model": "*",
        "match": r"Number (\d+)\?",
        "reply": r"It is \1, I should say, unless I am very much mistaken about it.",
    },
]


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-spending")
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(Budget, "EVERY", 0.0)
    with simulating({"speed": 50, "answers": ANSWERS}) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        yield running


@pytest.fixture
def prices(monkeypatch, tmp_path):
    """A price list: dollars a million tokens to train, read, and write."""

    def build(train, read, write):
        path = tmp_path / "prices.json"
        price = {"train": train, "input": read, "output": write}
        path.write_text(json.dumps({"as_of": "2026-11-01", "models": {BASE: price}}))
        monkeypatch.setenv("FTBRIDGE_PRICES", str(path))

    return build


@pytest.fixture
def spec(tmp_path):
    def build(**more):
        for name, first, count in (("train", 0, 12), ("test", 100, 20)):
            chats = [
                [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"It is {n}."}]
                for n in range(first, first + count)
            ]
            lines = [json.dumps({"messages": chat}) + "\n" for chat in chats]
            (tmp_path / f"{name}.jsonl").write_text("".join(lines))
        data = {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")}
        by_name = {
            "name": "numbers",
            "data": data,
            "model": {"openai": BASE},
            "hyperparameters": {"n_epochs": 2},
            **more,
        }
        by_name["evaluation"] = {"batch_size": 1, **more.get("evaluation", {})}
        return by_name

    return build


def start(job_spec: dict) -> Run:
    return create_run(SpecFile.of(job_spec), "openai")


def jobs(service) -> int:
    return service.requests.get("POST /fine_tuning/jobs", 0)


def test_nothing_is_uploaded_when_training_and_judging_together_cost_too_much(service, prices, spec):
    prices(1.0, 1.0, 1_000_000.0)  # training costs next to nothing, a written token a dollar
    run = start(spec(budget={"max_usd": 100.0}))
    with pytest.raises(GateNotMet, match="completions and judges included") as result:
        drive.drive(run)
    assert result.value.exit_code == 4
    assert run.state().state == "paused"
    assert jobs(service) == service.requests.get("POST /files", 0) == 0
    assert f"ftbridge resume {run.id} --set budget.max_usd=" in str(result.value.hint)


def test_answers_stop_in_the_middle_and_the_raised_budget_finishes_them_with_one_job(service, prices, spec):
    prices(0.0, 0.0, 1_000_000.0)
    # By the references the plan reckons 2 x 20 x 5 tokens; base alone says three times as much as that.
    run = start(spec(budget={"max_usd": 215.0}))
    with pytest.raises(GateNotMet, match=r"budget.max_usd = 215 is used up \(about \$2\d\d"):
        drive.drive(run)
    predictions = read_predictions(run.predictions("base"))
    assert 5 < len(predictions) < 20
    assert run.state().state == "paused"
    request = service.requests["POST /chat/completions"]
    control.change_budget(run, ["budget.max_usd=2000"])
    evaluation = control.resume(run)
    assert evaluation is not None
    assert run.state().state == "succeeded"
    assert jobs(service) == 1
    assert read_predictions(run.predictions("base"))[: len(predictions)] == predictions
    assert service.requests["POST /chat/completions"] - request == 40 - len(predictions)
    result = spent(run)
    assert result.known
    assert result.usd.answers == pytest.approx(sum(a.completion_tokens for a in evaluation.answered.values()))
    assert evaluation.answered["tuned"].usd == pytest.approx(evaluation.answered["tuned"].completion_tokens)
    assert run.spec().budget.max_usd == 215.0  # the spec as given stays


def test_a_managed_job_is_paused_when_its_hours_are_used_and_goes_on_as_the_same_job(service, prices, spec):
    prices(1.0, 1.0, 1.0)
    service.play({"speed": 0.2, "answers": ANSWERS})
    run = start(spec(budget={"max_hours": 1e-9}, hyperparameters={"n_epochs": 10}))
    with pytest.raises(GateNotMet, match="budget.max_hours = 1e-09 is used up"):
        drive.drive(run)
    assert run.state().state == "paused"
    assert run.state().tuned is None
    with pytest.raises(GateNotMet):  # not for as long again: hours are those of the whole run
        control.resume(run)
    assert jobs(service) == 1
    service.play({"speed": 100, "answers": ANSWERS})  # which counts requests anew
    control.change_budget(run, ["budget.max_hours=5"])
    control.resume(run)
    assert run.state().state == "succeeded"
    assert jobs(service) == 0


def test_a_run_tells_what_it_spent_in_json(service, prices, spec, tmp_path):
    prices(10.0, 1.0, 1.0)
    path = tmp_path / "job.json"
    path.write_text(json.dumps(spec()))
    done = subprocess.run(
        [sys.executable, "-m", "ftbridge", "run", str(path), "--provider", "openai", "--json"],
        capture_output=True, text=True, timeout=120, env=dict(os.environ), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    folder = Path(document["path"])
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    [billed] = [event["data"]["trained_tokens"] for event in events if event["type"] == "result"]
    assert document["spent"]["usd"]["training"] == pytest.approx(10.0 * billed / 1e6)
    assert document["spent"]["known"] is True
    planned = json.loads((folder / "plan.json").read_text())
    assert planned["splits"]["train"]["tokens"] * planned["epochs"] == billed


def test_only_the_budget_can_be_changed_and_only_to_something_sensible(service, spec):
    run = start(spec(budget={"max_usd": 5.0}))
    assert changed_budget(run, ["budget.max_usd=40"]) == BudgetSpec(max_usd=40)
    for override in ("seed=3", "hyperparameters.n_epochs=1", "budgets.max_usd=3"):
        with pytest.raises(UsageError, match="only budget"):
            control.change_budget(run, [override])
    for bad in ("-1", "0", ".nan", ".inf", "much", "[1]"):
        with pytest.raises(SpecError, match="budget.max_usd"):
            control.change_budget(run, [f"budget.max_usd={bad}"])
    with pytest.raises(SpecError, match="budget.max_eur"):
        control.change_budget(run, ["budget.max_eur=3"])
    assert run.state().budget is None


@pytest.mark.parametrize("bad", [-1, 0, float("nan"), float("inf"), "20", True])
def test_absurd_budgets_are_errors_of_the_spec(spec, bad):
    with pytest.raises(SpecError, match="budget.max_usd"):
        SpecFile.of(spec(budget={"max_usd": bad}))


# The target


def test_a_baseline_that_is_good_enough_stops_the_run_before_anything_is_paid(service, spec):
    service.play({"speed": 50, "answers": [{"model": "*", "match": r"Number (\d+)\?", "reply": r"It is \1."}]})
    run = start(spec(evaluation={"target": 0.9}))
    with pytest.raises(GateNotMet, match=r"base is good enough without training: base exact 100.0 %") as result:
        drive.drive(run)
    assert "--ignore-target" in str(result.value.hint)
    assert jobs(service) == service.requests.get("POST /files", 0) == 0
    assert run.state().state == "paused"
    control.waive_target(run)
    control.resume(run)
    assert run.state().state == "succeeded"
    assert jobs(service) == 1


def test_a_baseline_below_the_target_lets_the_run_go_on(service, spec):
    run = start(spec(evaluation={"target": 0.9}))
    drive.drive(run)
    assert run.state().state == "succeeded"


# Reckoning


def test_limits_are_told_by_name():
    result = Spent(usd=Dollars(training=3.0, answers=1.0, judges=0.5), known=True, hours=2.0, gpu_hours=0.5)
    assert over(result, BudgetSpec(max_usd=4.6, max_hours=2.1, max_gpu_hours=0.6)) is None
    assert (over(result, BudgetSpec(max_usd=4.5)) or "").startswith("budget.max_usd = 4.5 is used up (about $4.50")
    assert (over(result, BudgetSpec(max_hours=2.0)) or "").startswith("budget.max_hours")
    assert (over(result, BudgetSpec(max_gpu_hours=0.5)) or "").startswith("budget.max_gpu_hours")
    assert (result + result).usd.total == 9.0


def test_hours_count_while_the_job_works_and_not_while_it_stands():
    def event(moment, type, **data):
        return Event(seq=1, time=moment, type=type, data=data)

    def step(moment):
        return event(moment, "job_event", time=moment, metrics={"step": 1})

    lines = [
        event(0, "job_event", time=0, message="loading"),
        step(100), step(1000), event(1100, "paused"),
        event(90_000, "resume_requested"), event(90_010, "job_event", time=90_010, message="loading"), step(90_020), step(90_720),
        event(90_721, "status", state="queued"), event(95_000, "status", state="running"), step(95_010), step(95_015),
    ]  # fmt: skip
    assert _training_hours(lines) * 3600 == 900 + 10 + 700 + 5


def test_a_service_that_cannot_pause_has_its_job_cancelled(service, prices, spec, monkeypatch):
    from ftbridge.providers.openai.targets import TARGETS

    prices(1.0, 1.0, 1.0)
    service.play({"speed": 0.2, "answers": ANSWERS})
    run = start(spec(budget={"max_hours": 1e-9}, hyperparameters={"n_epochs": 10}))
    monkeypatch.setitem(TARGETS, "openai", dataclasses.replace(TARGETS["openai"], pause=False))
    with pytest.raises(GateNotMet, match="cancelled, since this service cannot pause a job"):
        drive.drive(run)
    assert run.state().state == "cancelled"


@pytest.mark.parametrize("status", [404, 405, 400])
def test_a_service_that_refuses_to_pause_has_its_job_cancelled(service, prices, spec, status):
    prices(1.0, 1.0, 1.0)
    fault = {"on": "POST /fine_tuning/jobs/{id}/pause", "fault": "error", "status": status, "message": "unknown route"}
    service.play({"speed": 3, "answers": ANSWERS, "faults": [fault]})
    run = start(spec(budget={"max_hours": 1e-9}, hyperparameters={"n_epochs": 10}))
    with pytest.raises(GateNotMet, match="cancelled, since this service cannot pause a job"):
        drive.drive(run)
    assert run.state().state == "cancelled"
