"""Lowering to a service: every field accounted for, per target; all three methods passed through whole."""

from __future__ import annotations

from typing import Any

import pytest

from ftbridge.errors import LoweringRefused
from ftbridge.providers import resolve
from ftbridge.providers.openai.lower import TOKEN_KEY, lower, suffix_of
from ftbridge.providers.openai.targets import TARGETS
from ftbridge.spec.lowering import fields
from support.openai_jobs import lowered, spec

AZURE = {"target": "azure", "base_url": "https://r.services.ai.azure.com/api/projects/p/openai/v1/"}
CUSTOM = {"target": "custom", "base_url": "https://gateway.example/v1"}
NEBIUS = {"target": "nebius"}
ALL_TARGETS = [{"target": "openai"}, AZURE, NEBIUS, CUSTOM]
SIMILAR = {"type": "text_similarity", "name": "similar", "input": "{{sample.output_text}}", "reference": "{{item.answer}}", "evaluation_metric": "bleu"}  # fmt: skip


@pytest.mark.parametrize("target", ALL_TARGETS, ids=lambda target: target["target"])
@pytest.mark.parametrize("method", ["supervised", "dpo", "reinforcement"])
def test_every_field_has_an_entry_that_says_how_it_fared(target: dict[str, Any], method: str) -> None:
    full = {
        "method": method,
        "openai": {**target, "integrations": [{"project": "p"}], "deployment": "d", "batch": True},
        "data": {"train": "t.jsonl", "validation": 0.1, "test": "e.jsonl"},
        "local": {"early_stopping": {"patience": 2}},
        "budget": {"max_usd": 3.0, "max_hours": 2.0},
    }
    lowering = lowered(**full)
    assert [report.field for report in lowering.fields] == [field for field, _ in fields(spec(**full))]
    for report in lowering.fields:
        assert report.outcome in ("exact", "translated", "approximated", "refused", "unused")
        assert report.how or report.outcome == "exact", report.field


@pytest.mark.parametrize(
    ("changes", "field", "outcome", "says"),
    [
        ({}, "hyperparameters.n_epochs", "exact", "left to the service, which reports its choice; planned with 3, an estimate: 3 epochs for"),
        ({"openai": NEBIUS}, "hyperparameters.n_epochs", "exact", "3 epochs for"),
        ({}, "hyperparameters.batch_size", "exact", "planned with 1, an estimate: 0.2 % of 100"),
        ({}, "hyperparameters.learning_rate_multiplier", "exact", "left to the service"),
        ({"hyperparameters": {"learning_rate_multiplier": 2.0}}, "hyperparameters.learning_rate_multiplier", "exact", "not published"),
        ({"openai": NEBIUS, "hyperparameters": {"learning_rate_multiplier": 2.0}}, "hyperparameters.learning_rate_multiplier", "refused", "absolute rate"),
        ({"openai": NEBIUS, "hyperparameters": {"learning_rate_multiplier": 2.0}, "local": {"base_learning_rate": 1e-4}}, "hyperparameters.learning_rate_multiplier", "translated", "2 x 0.0001 = 0.0002"),
        ({"openai": NEBIUS, "method": "dpo"}, "method", "refused", "supervised only"),
        ({"openai": NEBIUS, "local": {"lora": {"r": 8}}}, "local.lora.r", "translated", "hyperparameters.lora_r"),
        ({"local": {"lora": {"r": 8}}}, "local.lora.r", "unused", "chooses its adapter"),
        ({"local": {"packing": False}}, "local.packing", "unused", "own way"),
        ({"model": {"local": "m"}}, "model.openai", "refused", "name the service's base model"),
        ({"suffix": "Triage_V2!"}, "suffix", "translated", "every host takes"),
        ({"suffix": "triage-2"}, "suffix", "exact", ""),
        ({"suffix": "???"}, "suffix", "refused", "nothing is left"),
        ({"metadata": {f"k{n}": "v" for n in range(16)}}, "metadata", "refused", "needed to find it again"),
        ({"openai": AZURE, "data": {"train": "t", "test": "e"}}, "data.test", "refused", "deployed"),
        ({"openai": {**AZURE, "deployment": "d"}, "data": {"train": "t", "test": "e"}}, "data.test", "exact", ""),
        ({"openai": {"training_type": "standard"}}, "openai.training_type", "unused", "concerns azure"),
        ({"openai": {**NEBIUS, "batch": True}}, "openai.batch", "refused", "no Batch API"),
        ({"openai": NEBIUS, "budget": {"max_hours": 1.0}}, "budget.max_hours", "refused", "cannot pause"),
        ({"budget": {"max_usd": 5.0}}, "budget.max_usd", "approximated", "dated price list"),
        ({"method": "reinforcement", "budget": {"max_usd": 5.0}}, "budget.max_usd", "refused", "by the hour"),
        ({"fallback": "local"}, "fallback", "exact", "a new run of the same bytes"),
        ({"method": "reinforcement"}, "openai.grader", "translated", "method.reinforcement.grader"),
        ({"method": "reinforcement", "openai": {"grader": "other"}}, "openai.grader", "refused", "no grader 'other'"),
        ({"openai": {"grader": "exact"}}, "openai.grader", "unused", "reinforcement only"),
    ],
)  # fmt: skip
def test_a_field_fares_as_the_service_allows(changes: dict[str, Any], field: str, outcome: str, says: str) -> None:
    (report,) = [report for report in lowered(**changes).fields if report.field == field]
    assert (report.outcome, says in report.how) == (outcome, True), report


def test_a_supervised_job_is_passed_through_whole() -> None:
    body = lowered(
        hyperparameters={"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5},
        seed=7, suffix="triage", metadata={"team": "support"},
        openai={"integrations": [{"project": "p", "name": "n", "tags": ["a", "b"]}]},
    ).request.body  # fmt: skip
    assert body == {
        "model": "gpt-test",
        "seed": 7,
        "suffix": "triage",
        "metadata": {"team": "support"},
        "integrations": [{"type": "wandb", "wandb": {"project": "p", "name": "n", "tags": ["a", "b"]}}],
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}}},
    }  # fmt: skip


def test_a_preference_job_carries_beta() -> None:
    method = lowered(method="dpo", hyperparameters={"beta": 0.2}).request.body["method"]
    assert (method["type"], method["dpo"]["hyperparameters"]["beta"]) == ("dpo", 0.2)


def test_a_reinforcement_job_carries_its_grader_in_openais_own_keys_and_its_response_format() -> None:
    judge = {"type": "score_model", "name": "judge", "model": "gpt-4o", "input": [{"role": "user", "content": "{{sample.output_text}}"}], "base_url": "http://127.0.0.1:1/v1"}  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
    method = lowered(
        method="reinforcement",
        hyperparameters={"reasoning_effort": "low", "eval_interval": 5, "compute_multiplier": 1.5, "eval_samples": 2},
        evaluation={"graders": [SIMILAR, judge]},
        openai={"grader": "judge", "response_format": form},
    ).request.body["method"]["reinforcement"]
    assert method["response_format"] == form
    assert method["grader"]["type"] == "score_model"
    assert "base_url" not in method["grader"]
    assert {"reasoning_effort": "low", "eval_interval": 5, "compute_multiplier": 1.5, "eval_samples": 2}.items() <= method["hyperparameters"].items()  # fmt: skip


def test_several_graders_need_a_choice_and_ours_cannot_reward() -> None:
    with pytest.raises(LoweringRefused, match="name the one that rewards"):
        lowered(method="reinforcement", evaluation={"graders": [SIMILAR, {**SIMILAR, "name": "b"}]}).stop_if_refused()
    ours = {"type": "json_schema", "name": "form", "json_schema": {"type": "object"}}
    with pytest.raises(LoweringRefused, match="not one of OpenAI's rewards"):
        lowered(method="reinforcement", evaluation={"graders": [ours]}).stop_if_refused()


def test_nebius_takes_hyperparameters_at_the_top_and_only_what_the_spec_gives() -> None:
    settings = {"lora": {"r": 8, "alpha": 16.0}, "base_learning_rate": 1e-4, "tuning": "lora"}
    body = lowered(
        openai=NEBIUS, local=settings, hyperparameters={"n_epochs": 2, "learning_rate_multiplier": 2.0}
    ).request.body
    assert "method" not in body
    assert body["hyperparameters"] == {"n_epochs": 2, "batch_size": 1, "learning_rate": 2e-4, "lora_r": 8, "lora_alpha": 16.0, "lora": True}  # fmt: skip


def test_a_refused_field_that_is_allowed_by_name_is_left_out() -> None:
    lowering = lowered(metadata={f"k{n}": "v" for n in range(16)})
    lowering.stop_if_refused(["metadata"])
    assert lowering.request.body["metadata"] == {}
    assert TOKEN_KEY not in lowering.request.body["metadata"]


def test_the_general_rules_settle_what_is_sent_to_a_service_that_does_not_choose() -> None:
    one = spec(model={"openai": "m", "local": "n"}, openai=NEBIUS)
    local, there = (resolve(one, 1000, provider).spec.hyperparameters for provider in ("local", "openai"))
    assert (local.batch_size, there.batch_size) == (25, 2), "each provider has a rule of its own"
    body = lower(resolve(one, 1000, "openai")).request.body
    assert body["hyperparameters"] == {"n_epochs": there.n_epochs, "batch_size": 2}


@pytest.mark.parametrize(("method", "epochs"), [("supervised", 3), ("dpo", 3), ("reinforcement", 10)])
@pytest.mark.parametrize("target", [{}, AZURE, {"target": "custom", "base_url": "http://there.invalid/v1"}])
def test_auto_is_sent_as_it_is_and_reckoned_with_an_estimate(method: str, epochs: int, target: dict[str, Any]) -> None:
    lowering = lowered(method=method, openai=target)
    sent = lowering.request.body["method"][method]["hyperparameters"]
    assert sent == {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert lowering.request.n_epochs == epochs
    for name in sent:
        (report,) = [report for report in lowering.fields if report.field == f"hyperparameters.{name}"]
        assert (report.outcome, report.requested, report.sent, report.chosen) == ("exact", "auto", "auto", None)


@pytest.mark.parametrize(("requested", "value"), [("A  b", "a-b"), ("ü", ""), ("x" * 60, "x" * 40), ("-a-", "a")])
def test_a_suffix_is_brought_to_what_every_host_takes(requested: str, value: str) -> None:
    assert suffix_of(requested, TARGETS["openai"]) == value
