"""How a spec of method reinforcement is settled and mapped, on this machine and at a service."""

from __future__ import annotations

from typing import Any

import pytest

from ftbridge import providers
from ftbridge.errors import SpecError
from ftbridge.providers import resolve
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import FieldReport, Lowering

EXACT = {"type": "string_check", "name": "exact", "operation": "eq", "input": "{{sample.output_text}}",
         "reference": "{{item.answer}}"}  # fmt: skip
SPEC: dict[str, Any] = {
    "name": "practise",
    "method": "reinforcement",
    "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
    "model": {"openai": "o4-mini-2025-04-16", "local": "smollm2-135m-instruct"},
    "evaluation": {"graders": [EXACT], "max_completion_tokens": 32},
}


def lowered(provider: str = "local", prompts: int = 100, **changes: Any) -> Lowering:
    spec = JobSpec.from_dict({**SPEC, **changes})
    return providers.load(provider).lower(resolve(spec, prompts, provider))


def report(lowering: Lowering, field: str) -> FieldReport:
    (entry,) = [entry for entry in lowering.fields if entry.field == field]
    return entry


@pytest.mark.parametrize(
    ("prompts", "batch", "epochs"), [(10, 4, 10), (40, 4, 10), (100, 10, 10), (1000, 32, 4), (50_000, 32, 1)]
)
def test_steps_are_about_a_hundred_of_a_tenth_of_the_prompts(prompts: int, batch: int, epochs: int) -> None:
    settled = resolve(JobSpec.from_dict(SPEC), prompts, "local").spec.hyperparameters
    assert (settled.batch_size, settled.n_epochs) == (batch, epochs)
    there = JobSpec.from_dict({**SPEC, "openai": {"target": "nebius"}})
    assert resolve(there, prompts, "openai").spec.hyperparameters.n_epochs == epochs, "one rule"


def test_the_local_request_has_what_the_field_mapping_says() -> None:
    lowering = lowered()
    request, settings = lowering.request, lowering.request.reinforcement
    assert (request.learning_rate, request.lr_schedule, request.lora_dropout) == (1e-5, "constant", 0.0)
    assert (settings.group_size, settings.eval_interval, settings.eval_samples) == (8, "auto", 1)
    assert settings.max_completion_tokens == 32
    assert settings.grader.name == "exact"
    assert report(lowering, "openai.grader").outcome == "exact"
    assert lowered(local={"tuning": "full", "quantization": "none"}).request.learning_rate == 1e-6
    assert lowered(local={"lr_schedule": "cosine"}).request.lr_schedule == "cosine"
    assert "reinforcement" not in {entry.field for entry in lowering.fields if entry.outcome == "refused"}
    lowering.stop_if_refused()


@pytest.mark.parametrize(("multiplier", "size"), [(1.0, 8), (0.5, 4), (0.25, 2), (2.0, 16), (10.0, 64), ("auto", 8)])
def test_a_group_is_eight_times_the_compute_multiplier(multiplier: Any, size: int) -> None:
    lowering = lowered(hyperparameters={"compute_multiplier": multiplier})
    assert lowering.request.reinforcement.group_size == size
    entry = report(lowering, "hyperparameters.compute_multiplier")
    assert (entry.outcome, entry.sent) == ("approximated", size)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"hyperparameters": {"compute_multiplier": 0.1}}, "hyperparameters.compute_multiplier", "a group needs at least 2"),
        ({"data": {"train": "t.jsonl"}}, "data.validation", "held-out prompts"),
        ({"local": {"overlength": "truncate"}}, "local.overlength", "never cut"),
        ({"local": {"tuning": "full", "quantization": "none", "reinforcement": {"kl": 0.01}}}, "local.reinforcement.kl", "second copy"),
        ({"evaluation": {"graders": [EXACT, {**EXACT, "name": "other"}]}}, "openai.grader", "name the one"),
        ({"openai": {"grader": "nobody"}}, "openai.grader", "there is no grader 'nobody'"),
        ({"evaluation": {"graders": [{"type": "pairwise", "name": "p", "model": "m", "question": "q"}]}}, "openai.grader", "reward is for one"),
        ({"evaluation": {"graders": [{"type": "text_similarity", "name": "t", "evaluation_metric": "cosine",
                                      "input": "{{sample.output_text}}", "reference": "a"}]}}, "openai.grader", "cosine"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_here_is_refused_with_the_reason(changes: dict[str, Any], field: str, says: str) -> None:
    entry = report(lowered(**changes), field)
    assert entry.outcome == "refused"
    assert says in entry.how


def test_the_section_of_this_machine_belongs_to_the_method() -> None:
    with pytest.raises(SpecError, match=r"local\.reinforcement belongs to method reinforcement"):
        JobSpec.from_dict({**SPEC, "method": "supervised", "local": {"reinforcement": {"kl": 0.01}}})
    with pytest.raises(SpecError, match=r"local\.reinforcement\.kl"):
        JobSpec.from_dict({**SPEC, "local": {"reinforcement": {"kl": 0.5}}})


def test_one_spec_is_mapped_for_both_sides_with_the_same_grader_byte_for_byte() -> None:
    local, there = lowered("local"), lowered("openai")
    sent = there.request.body["method"]["reinforcement"]["grader"]
    settings = local.request.reinforcement.grader.model_dump(mode="json", exclude_none=True)
    assert settings == sent == EXACT
    for lowering in (local, there):
        lowering.stop_if_refused()


def test_the_budget_is_passed_on_to_the_judges_and_a_larger_one_replaces_it() -> None:
    backend = providers.load("local")
    request = lowered(budget={"max_usd": 2.0}).request
    assert request.reinforcement.max_usd == 2.0
    assert backend.with_budget(request, 9.0).reinforcement.max_usd == 9.0
