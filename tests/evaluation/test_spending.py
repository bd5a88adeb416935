"""What was spent, against what a service bills: jobs that were stopped, hours in which nobody looked, judges, base and tuned models."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import GateNotMet
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.spending import billed_tokens, service_hours, spent
from ftbridge.graders.budget import JudgeBudget
from ftbridge.graders.calls import CallRecord
from ftbridge.graders.chat import JudgeResponse
from ftbridge.prices import PriceList, Rates, load_prices
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.runs.journal import Event
from ftbridge.runs.run import Run

MINI = "gpt-4.1-mini-2025-04-14"


def event(moment: float, type: str, **data: Any) -> Event:
    return Event(seq=1, time=moment, type=type, data=data)


def submitted(moment: float, job: str) -> Event:
    return event(moment, "submitted", handle={"provider": "openai", "id": job, "folder": "x"})


def step(moment: float, number: int, *, total: int = 10, by_service: float | None = None) -> Event:
    time = moment if by_service is None else by_service
    return event(
        moment, "job_event", id=str(number), time=time, message="", metrics={"step": number, "total_steps": total}
    )


def ledger_of(folder: Path, *states: tuple[float, str, str], **fields: Any) -> Ledger:
    """A ledger whose states have the times that are asked for."""
    path = folder / "openai" / "journal.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {
            "seq": where,
            "time": moment,
            "type": "status",
            "data": {"job": job, "state": state, **fields.get(f"{job}_{state}", {})},
        }
        for where, (moment, job, state) in enumerate(states, 1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Ledger(folder)


@pytest.mark.parametrize(
    ("state", "message", "billed"),
    [
        ("succeeded", {}, 1000),
        ("failed", {}, 0),
        ("cancelled", {}, 300),
        ("cancelled", {"trained_tokens": 340}, 340),
        ("running", {}, 300),
        ("paused", {}, 300),
    ],
)
def test_a_job_costs_what_it_trained(tmp_path: Path, state: str, message: dict[str, Any], billed: int) -> None:
    events = [submitted(0, "a"), step(1, 1), step(2, 3)]
    ledger = ledger_of(tmp_path, (0, "a", "running"), (3, "a", state), **{f"a_{state}": message})
    assert billed_tokens(events, ledger, 1000) == (billed, True)


def test_every_job_of_a_run_counts_by_what_the_service_counted_of_a_whole_one(tmp_path: Path) -> None:
    events = [
        submitted(0, "a"), step(1, 2), submitted(10, "b"), step(11, 10),
        event(12, "result", model={}, trained_tokens=2000),
    ]  # fmt: skip
    ledger = ledger_of(tmp_path, (1, "a", "cancelled"), (12, "b", "succeeded"))
    assert billed_tokens(events, ledger, 1000) == (400 + 2000, True)


def test_a_stopped_job_that_told_no_figures_is_not_known(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, (0, "a", "running"), (9, "a", "cancelled"))
    events = [submitted(0, "a"), event(1, "status", state="running")]
    assert billed_tokens(events, ledger, 1000) == (0, False)


@pytest.mark.parametrize(
    ("states", "events", "now", "seconds"),
    [
        # a service that tells no figures: by the clock of whoever saw it at work
        ([(0, "a", "queued"), (100, "a", "running")], [], 700, 600),
        ([(100, "a", "running"), (400, "a", "succeeded")], [], 9_000, 300),
        # queues do not count
        ([(0, "a", "validating_files"), (10, "a", "queued")], [], 9_000, 0),
        # nobody looked while it trained: its own clock tells
        ([(5_000, "a", "running")], [step(5_000, 1, by_service=1_000), step(5_001, 9, by_service=4_600)], 5_002, 3_600),
        # nobody looked for long after it had ended
        (
            [(0, "a", "running"), (90_000, "a", "succeeded")],
            [step(1, 1, by_service=0), step(90_000, 10, by_service=1_200)],
            90_001,
            1_200,
        ),
        # a pause is not work
        ([(0, "a", "running"), (100, "a", "paused"), (900, "a", "running")], [], 1_000, 200),
        # a word that is not known is work
        ([(0, "a", "evaluating_safety")], [], 50, 50),
    ],
)
def test_hours_at_a_service_count_whoever_looked(
    tmp_path: Path, states: list[Any], events: list[Event], now: float, seconds: float
) -> None:
    result = service_hours([submitted(0, "a"), *events], ledger_of(tmp_path, *states), now)
    assert result * 3600 == pytest.approx(seconds)


def test_ctrl_c_is_no_pause_of_a_paid_job(tmp_path: Path) -> None:
    events = [
        submitted(0, "a"), step(10, 1), event(11, "interrupted"), event(500, "resume_requested"), step(510, 2, by_service=510),
    ]  # fmt: skip
    ledger = ledger_of(tmp_path, (5, "a", "running"))
    assert service_hours(events, ledger, 510) * 3600 == pytest.approx(505)


# Prices


def test_a_list_of_ones_own_extends_the_built_in_one(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"as_of": "2026-11-01", "models": {"host-1": {"train": 1, "input": 2, "output": 3}}}))
    prices = load_prices(path)
    assert prices.training_usd("host-1", 1_000_000, 2) == 2
    assert prices.completions_usd("gpt-4o-mini", 1_000_000, 0, tuned=False) == 0.15
    assert (str(prices.date_of("host-1")), prices.date_of("gpt-4o-mini")) == ("2026-11-01", load_prices().as_of)
    assert [prices.holds_at(name, "custom") for name in ("host-1", "gpt-4o-mini")] == [True, False]
    assert prices.holds_at("gpt-4o-mini", "openai")
    assert prices.batch_discount == load_prices().batch_discount


@pytest.mark.parametrize(
    ("model", "tuned", "dollars"),
    [
        ("gpt-4o-mini", False, 0.6),
        ("gpt-4o-mini", True, 1.2),
        ("ft:gpt-4o-mini:o::1", False, 1.2),
        (MINI, False, 1.6),
        ("gpt-5-mini", False, 2),
    ],
)
def test_a_base_model_is_not_priced_as_a_tuned_one(model: str, tuned: bool, dollars: float) -> None:
    assert load_prices().completions_usd(model, 0, 1_000_000, tuned=tuned) == dollars


@pytest.mark.parametrize(
    ("endpoint", "dollars"),
    [
        (None, 0.6),
        ("https://api.openai.com/v1", 0.6),
        ("https://eu.api.openai.com/v1", 0.6),
        ("https://gateway.example/v1", 1.2),
        ("https://api.openai.com.evil.example/v1", 1.2),
        ("http://127.0.0.1:8000/v1", 0),
    ],
)
def test_a_judge_is_priced_as_what_it_is_and_at_the_dearest_where_that_is_not_known(
    endpoint: str | None, dollars: float
) -> None:
    assert load_prices().judge_usd("gpt-4o-mini", endpoint, 0, 1_000_000) == dollars
    assert load_prices().judge_rates("gpt-99", "https://gateway.example/v1") is None


# Budgets stop judges


def prices() -> PriceList:
    listed = load_prices()
    return listed.model_copy(
        update={
            "models": {
                **listed.models,
                "j": listed.models["gpt-4.1"].model_copy(update={"base": Rates(input=0, output=1)}),
            }
        }
    )


def call(dollars: float) -> CallRecord:
    tokens = round(dollars * 1e6)
    reply = JudgeResponse(prompt_tokens=0, completion_tokens=tokens, tokens=tokens)
    return CallRecord(question="q", model="j", endpoint="https://api.openai.com/v1", reply=reply)


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize(("limit", "most"), [(30.0, 30.0), (5.0, 12.0), (1000.0, 240.0)])
def test_judges_stop_at_the_budget_however_many_are_asked_at_once(workers: int, limit: float, most: float) -> None:
    meter = JudgeBudget(limit, on_used_up=GateNotMet, prices=prices())
    paid: list[float] = []
    lock = threading.Lock()

    def ask(_: int) -> None:
        meter.before()
        time.sleep(0.002)
        with lock:
            paid.append(12.0)
        meter.after(call(12.0))

    with ThreadPoolExecutor(workers) as pool:
        requests = [pool.submit(ask, n) for n in range(20)]
    refused = [future for future in requests if future.exception() is not None]
    assert sum(paid) <= most
    assert all(isinstance(future.exception(), GateNotMet) for future in refused)
    assert len(refused) == 20 - len(paid)
    assert len({id(future.exception()) for future in refused}) <= 1, "the run is stopped once"


def test_a_question_without_a_reply_costs_nothing_and_lets_the_next_go() -> None:
    meter = JudgeBudget(1.0, on_used_up=GateNotMet, prices=prices())
    for _ in range(5):
        meter.before()
        meter.after(None)
    meter.before()
    meter.after(call(1.0))
    with pytest.raises(GateNotMet, match=r"budget.max_usd = 1 is used up \(about \$1.00"):
        meter.before()


def test_hours_of_completing_here_are_those_of_the_batches_however_full(tmp_path: Path) -> None:
    spec = {"name": "n", "data": {"train": "t.jsonl"}, "model": {"local": "m"}, "local": {"device": "cuda"}}
    run = Run.create(tmp_path, name="n", provider="local", spec_text=json.dumps(spec), spec_suffix=".json")
    run.append("job_event", id="1", message="", time=0.0, metrics={"step": 1, "device": "cuda"})
    seconds = [36.0] * 16 + [18.0] * 2  # a full batch, and one of two
    lines = [
        Prediction(
            key=str(where), index=where, prompt_sha256=str(where), output_text="", finish_reason="stop",
            prompt_tokens=1, completion_tokens=1, seconds=took,
        ).model_dump_json()
        for where, took in enumerate(seconds)
    ]  # fmt: skip
    run.predictions("base").parent.mkdir(parents=True, exist_ok=True)
    run.predictions("base").write_text("".join(line + "\n" for line in lines))
    assert spent(run).gpu_hours == pytest.approx((36 + 18) / 3600)


@pytest.mark.parametrize(("workers", "gpus"), [(None, 1), (1, 1), (4, 4)])
def test_gpu_hours_of_training_count_every_worker(tmp_path: Path, workers: int | None, gpus: int) -> None:
    spec = {"name": "n", "data": {"train": "t.jsonl"}, "model": {"local": "m"}, "local": {"device": "cuda"}}
    run = Run.create(tmp_path, name="n", provider="local", spec_text=json.dumps(spec), spec_suffix=".json")
    for step in (1, 2, 3):
        figures = {"step": step, "device": "cuda", "workers": workers}
        run.append("job_event", id=str(step), message="", time=1800.0 * step, metrics=figures)
    assert spent(run).hours == pytest.approx(1.0)
    assert spent(run).gpu_hours == pytest.approx(gpus)
