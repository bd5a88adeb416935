"""What a service chooses for "auto": sent as it is, recorded from the job, shown, and held to the budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import GateNotMet
from ftbridge.evaluation.spending import Budget, spent
from ftbridge.planning.actual import compared
from ftbridge.planning.plan import read_plan
from ftbridge.report.html import reproduce
from ftbridge.report.html.sources import source_of
from ftbridge.report.terminal.console import SafeConsole
from ftbridge.report.terminal.runs import run_panel
from ftbridge.report.terminal.tables import lowering_table
from ftbridge.runner import control, drive
from ftbridge.runner.start import create_run
from ftbridge.runner.summary import read_lowering, summary
from ftbridge.runs.run import Run
from ftbridge.server import Simulator, simulating
from ftbridge.spec import SpecFile

BASE = "gpt-4.1-mini-2025-04-14"
EXAMPLES = 12
PLANNED = 8
"""Epochs by the cookbook's rule for so many examples: 100 // 12."""
GRADER = {
    "type": "string_check", "name": "exact", "operation": "eq",
    "input": "{{sample.output_text}}", "reference": "{{item.reference}}",
}  # fmt: skip
Starts = Callable[..., Run]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-choosing")
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(Budget, "EVERY", 0.0)
    with simulating({"speed": 50}) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Starts:
    """A run of so many examples, nothing settled but what `changes` settle."""

    def create(method: str = "supervised", **changes: Any) -> Run:
        for split, first in (("train", 0), ("validation", 50)):
            lines = [_line(method, number) for number in range(first, first + EXAMPLES)]
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        data = {"train": str(tmp_path / "train.jsonl")}
        graders = {}
        if method == "reinforcement":
            data |= {"validation": str(tmp_path / "validation.jsonl"), "keep": ["reference"]}
            graders = {"evaluation": {"graders": [GRADER]}}
        document = {"name": "chosen", "method": method, "data": data, "model": {"openai": BASE}, **graders, **changes}
        return create_run(SpecFile.of(document), "openai", lint=False)

    return create


@pytest.fixture
def price(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> float:
    """Dollars of a million trained tokens; completions cost nothing."""
    document = {"as_of": "2026-11-01", "models": {BASE: {"train": 1e6, "input": 0.0, "output": 0.0}}}
    (tmp_path / "prices.json").write_text(json.dumps(document))
    monkeypatch.setenv("FTBRIDGE_PRICES", str(tmp_path / "prices.json"))
    return 1e6


def _line(method: str, number: int) -> dict[str, Any]:
    prompt = [{"role": "user", "content": f"Number {number}?"}]
    if method == "dpo":
        sides = {
            side: [{"role": "assistant", "content": f"It is {words}{number}."}]
            for side, words in (("preferred_output", ""), ("non_preferred_output", "not "))
        }
        return {"input": {"messages": prompt}, **sides}
    if method == "reinforcement":
        return {"messages": prompt, "reference": f"It is {number}."}
    return {"messages": [*prompt, {"role": "assistant", "content": f"It is {number}."}]}


def _printed(*parts: Any) -> str:
    console = SafeConsole(highlight=False, width=200, no_color=True)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get()


@pytest.mark.parametrize(
    ("method", "chosen"),
    [
        ("supervised", {"n_epochs": 8, "batch_size": 1, "learning_rate_multiplier": 1.0}),
        ("dpo", {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.0, "beta": 0.1}),
        (
            "reinforcement",
            {
                "n_epochs": 10, "batch_size": 4, "learning_rate_multiplier": 1.0,
                "compute_multiplier": 1.0, "eval_interval": 5, "eval_samples": 1,
            },
        ),
    ],
)  # fmt: skip
def test_auto_reaches_the_service_and_what_it_chose_is_recorded(
    service: Simulator, start: Starts, method: str, chosen: dict[str, float]
) -> None:
    run = start(method)
    drive.drive(run)
    sent = json.loads(run.lowering_path.read_text())["request"]["body"]["method"][method]["hyperparameters"]
    assert set(sent.values()) == {"auto"}
    assert run.state().chosen == chosen
    assert summary(run)["chosen"] == chosen
    assert run.epochs == chosen["n_epochs"]
    reported = {report.field: report for report in read_lowering(run).fields}
    for name in ("n_epochs", "batch_size", "learning_rate_multiplier"):
        report = reported[f"hyperparameters.{name}"]
        assert (report.requested, report.sent, report.chosen) == ("auto", "auto", chosen[name])


def test_the_run_shows_what_was_chosen_wherever_it_shows_hyperparameters(service: Simulator, start: Starts) -> None:
    service.play({"speed": 50, "jobs": {"chooses": {"n_epochs": 2, "batch_size": 4}}})
    run = start()
    drive.drive(run)
    plan = read_plan(run)
    assert plan is not None
    assert plan.openai is not None
    assert (plan.schedule("openai").epochs, plan.schedule("openai").estimated) == (PLANNED, True)
    assert any("are an estimate" in note for note in plan.openai.money.notes)
    rows = {row.what: row for row in compared(run)}
    assert (rows["epochs"].planned, rows["epochs"].actual, rows["epochs"].met) == ((PLANNED, PLANNED), 2, True)
    assert "2 epochs, 4 examples a step" in rows["steps"].why
    assert (rows["steps"].planned, rows["steps"].actual) == ((96.0, 96.0), 6)
    printed = _printed(run_panel(run.state()), lowering_table(read_lowering(run)))
    assert "n_epochs 2 · batch_size 4 · learning_rate_multiplier 1, by the provider" in printed
    assert "auto → 2, chosen by the provider" in printed
    source = source_of(run)
    assert ("hyperparameters.n_epochs", "2", f"chosen by the provider (planned with {PLANNED})") in source.settled
    (reproduction,) = reproduce.reproductions([source])
    assert reproduction.command.endswith(
        "--set hyperparameters.n_epochs=2 --set hyperparameters.batch_size=4 "
        "--set hyperparameters.learning_rate_multiplier=1"
    )
    (mapping,) = reproduce.mappings([source]) or []
    assert ("hyperparameters.n_epochs", "exact", "auto", "auto", "chosen by the provider: 2") in mapping.rows


def test_what_the_spec_sets_is_not_called_chosen(service: Simulator, start: Starts) -> None:
    run = start(hyperparameters={"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5})
    drive.drive(run)
    assert run.state().chosen == {}
    assert "epochs" not in {row.what for row in compared(run)}


def test_a_job_that_chose_too_many_epochs_is_paused_before_the_budget_is_spent(
    service: Simulator, start: Starts, price: float
) -> None:
    planned = _tokens(start()) * PLANNED * price / 1e6
    chooses = {"n_epochs": 3 * PLANNED}
    service.play({"speed": 1, "jobs": {"chooses": chooses, "walk": [["running", 300], "succeeded"]}})
    run = start(budget={"max_usd": 1.5 * planned})
    with pytest.raises(
        GateNotMet, match=f"the service chose {3 * PLANNED} epochs where {PLANNED} were planned"
    ) as stop:
        drive.drive(run)
    assert stop.value.exit_code == 4
    assert run.state().state == "paused"
    assert spent(run).usd.training < 1.5 * planned
    service.play({"speed": 300, "jobs": {"chooses": chooses}})
    control.change_budget(run, [f"budget.max_usd={4 * planned}"])
    control.resume(run)
    assert run.state().state == "succeeded"
    assert spent(run).usd.training == pytest.approx(3 * planned, rel=0.05)


def test_fewer_epochs_than_planned_are_within_the_budget(service: Simulator, start: Starts, price: float) -> None:
    planned = _tokens(start()) * PLANNED * price / 1e6
    service.play({"speed": 50, "jobs": {"chooses": {"n_epochs": 1}}})
    run = start(budget={"max_usd": 1.1 * planned})
    drive.drive(run)
    assert run.state().state == "succeeded"


def _tokens(run: Run) -> int:
    train = run.state().split("train")
    assert train is not None
    return train.tokens
