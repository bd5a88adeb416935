"""What a side refuses is in every plan, with the exit code of a run, and costs nothing; a budget has the rule of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import GateNotMet, LoweringRefused
from ftbridge.planning.plan import Plan, plan, plan_of_run
from ftbridge.runner import drive
from ftbridge.runner.start import create_run
from ftbridge.spec import SpecFile

BASE = "gpt-4.1-mini-2025-04-14"
LOCAL = "smollm2-135m-instruct"


def chat(number: int) -> dict[str, Any]:
    question = {"role": "user", "content": f"Number {number}?"}
    return {"messages": [question, {"role": "assistant", "content": f"It is {number}."}]}


def pair(number: int) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": f"Number {number}?"}]},
        "preferred_output": [{"role": "assistant", "content": f"It is {number}."}],
        "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
    }


def spec(folder: Path, line: Any = chat, **more: Any) -> dict[str, Any]:
    for name, first, count in (("train", 0, 40), ("test", 100, 8)):
        lines = [json.dumps(line(number)) + "\n" for number in range(first, first + count)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    data = {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")}
    return {"name": "numbers", "data": data, "model": {"openai": BASE}, **more}


def without_test(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "data": {"train": document["data"]["train"]}}


def planned(document: dict[str, Any]) -> Plan:
    return plan(SpecFile.of(document))


def refused(estimate: Plan) -> list[tuple[str, str]]:
    return [(gate.side, gate.field) for gate in estimate.gates if gate.refused]


def ask(folder: Path, document: dict[str, Any], *command: str) -> subprocess.CompletedProcess[str]:
    (folder / "job.json").write_text(json.dumps(document))
    words = [sys.executable, "-m", "ftbridge", command[0], str(folder / "job.json"), *command[1:]]
    return subprocess.run(words, capture_output=True, text=True, timeout=100, check=False, env=dict(os.environ))


def test_a_job_that_the_service_refuses_is_not_ok_and_has_no_price(tmp_path: Path) -> None:
    document = spec(tmp_path, pair, method="dpo", openai={"target": "nebius"})
    estimate = planned(document)
    assert refused(estimate) == [("openai", "method"), ("openai", "data.test")]
    assert not estimate.ok
    assert estimate.openai is not None
    money = estimate.openai.money
    assert (money.training, money.evaluation, money.total, money.batch_saves) == (None, None, None, None)
    assert "No cost applies" in money.notes[0]
    with pytest.raises(LoweringRefused):
        create_run(SpecFile.of(document), "openai")


def test_the_command_shows_what_is_refused_without_fields_and_exits_as_run_does(tmp_path: Path) -> None:
    document = spec(tmp_path, pair, method="dpo", openai={"target": "nebius"})
    shown = ask(tmp_path, document, "plan")
    text = " ".join(shown.stdout.split())
    assert "openai refuses method = 'dpo': Nebius trains supervised only." in text
    assert "openai refuses data.test" in text
    assert "$" not in text
    assert shown.returncode == ask(tmp_path, document, "run", "--provider", "openai", "--yes").returncode == 2
    assert json.loads(ask(tmp_path, document, "plan", "--json").stdout)["ok"] is False


def test_the_side_that_can_run_keeps_its_figures_and_the_other_is_named(tmp_path: Path) -> None:
    dpo = {"method": "dpo", "model": {"openai": BASE, "local": LOCAL}, "local": {"dpo": {"nll_weight": 1.0}}}
    estimate = planned(spec(tmp_path, pair, **dpo))
    assert refused(estimate) == [("openai", "local.dpo.nll_weight")]
    assert estimate.local is not None
    assert estimate.local.memory is not None


def test_what_a_run_can_be_allowed_to_go_without_has_figures_that_say_so(tmp_path: Path) -> None:
    hours = {"budget": {"max_hours": 2.0}, "openai": {"target": "nebius", "batch": True}}
    prices = {"as_of": "2026-11-20", "models": {BASE: {"train": 2, "input": 1, "output": 4}}}
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    document = without_test(spec(tmp_path, **hours))
    from ftbridge.prices import load_prices

    estimate = plan(SpecFile.of(document), prices=load_prices(tmp_path / "prices.json"))
    assert not estimate.ok
    assert set(refused(estimate)) == {("openai", "openai.batch"), ("openai", "budget.max_hours")}
    assert estimate.openai is not None
    assert estimate.openai.money.total is not None
    assert estimate.openai.money.batch_saves is None
    assert "--allow openai.batch" in estimate.openai.money.notes[0]
    shown = ask(tmp_path, document, "plan")
    assert shown.returncode == 2
    assert "--allow openai.batch" in shown.stderr


def test_the_plan_of_a_run_that_was_allowed_to_go_without_holds_its_money_for_the_budget(tmp_path: Path) -> None:
    document = spec(tmp_path, pair, method="dpo", local={"dpo": {"nll_weight": 1.0}})
    run = create_run(SpecFile.of(document), "openai", allow=["local.dpo.nll_weight"])
    estimate = plan_of_run(run)
    assert estimate.ok
    assert estimate.openai is not None
    assert estimate.openai.money.total is not None
    assert not any("--allow" in note for note in estimate.openai.money.notes)


@pytest.mark.parametrize("target", ["nebius", "custom", "azure"])
def test_without_its_own_price_another_service_costs_what_is_not_known(tmp_path: Path, target: str) -> None:
    estimate = planned(without_test(spec(tmp_path, openai={"target": target, "base_url": "http://127.0.0.1:9/v1"})))
    assert estimate.openai is not None
    money = estimate.openai.money
    assert (money.training, money.total, money.serving_per_million, money.batch_saves) == (None, None, None, None)
    assert f"No price is known for {BASE} at {target}" in " ".join(money.notes)
    assert estimate.ok


def test_plan_and_run_agree_that_a_budget_without_a_price_cannot_be_enforced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftbridge.server import simulating

    with simulating() as service:
        settings = {"target": "custom", "base_url": service.base_url}
        document = without_test(spec(tmp_path, openai=settings, budget={"max_usd": 20.0}))
        monkeypatch.setenv("OPENAI_API_KEY", "sk-any")
        estimate = planned(document)
        assert [(gate.field, gate.refused) for gate in estimate.gates] == [("budget.max_usd", False)]
        assert "cannot be enforced" in estimate.gates[0].message
        with pytest.raises(GateNotMet, match="cannot be enforced"):
            drive.drive(create_run(SpecFile.of(document), "openai"))
        assert service.jobs == []
        prices = {"as_of": "2026-11-20", "models": {BASE: {"train": 2, "input": 1, "output": 4}}}
        (tmp_path / "prices.json").write_text(json.dumps(prices))
        monkeypatch.setenv("FTBRIDGE_PRICES", str(tmp_path / "prices.json"))
        priced = planned(document)
        assert priced.ok
        assert priced.openai is not None
        assert priced.openai.money.total is not None
