from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftbridge import providers
from ftbridge.errors import LoweringRefused, UsageError
from ftbridge.providers import resolve
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import FieldReport, Lowering, fields

SPEC: dict[str, Any] = {"name": "a", "data": {"train": "t.jsonl"}, "model": {"local": "m"}}


def lowered(**changes: Any) -> Lowering:
    return providers.load("local").lower(resolve(JobSpec.from_dict({**SPEC, **changes}), 400, "local"))


def report(lowering: Lowering, field: str) -> FieldReport:
    (result,) = [one for one in lowering.fields if one.field == field]
    return result


@pytest.mark.parametrize("provider", providers.names())
@pytest.mark.parametrize(
    "changes", [{}, {"local": {"tuning": "full"}}, {"local": {"early_stopping": {"patience": 2}}, "data": {"train": "t", "validation": 0.1}}]
)  # fmt: skip
def test_every_field_of_a_spec_has_an_entry_for_every_provider(provider: str, changes: dict[str, Any]) -> None:
    spec = resolve(JobSpec.from_dict({**SPEC, **changes}), 400, provider)
    lines = [entry.field for entry in providers.load(provider).lower(spec).fields]
    assert lines == [field for field, _ in fields(spec.spec)]


def test_a_field_without_an_entry_is_a_bug_that_names_it() -> None:
    with pytest.raises(AssertionError, match="does not report name"):
        Lowering(provider="x", request={}, fields=[]).complete(JobSpec.from_dict(SPEC))


@pytest.mark.parametrize(
    ("changes", "field", "outcome", "how"),
    [
        ({"hyperparameters": {"learning_rate_multiplier": 5}}, "hyperparameters.learning_rate_multiplier", "translated", "5 x 0.0005 x (2000 / width)^0.781"),
        ({"local": {"base_learning_rate": 2e-4}}, "hyperparameters.learning_rate_multiplier", "translated", "1 x 0.0002 = 0.0002"),
        ({"local": {"tuning": "full"}}, "hyperparameters.learning_rate_multiplier", "translated", "1 x 5e-05 x (2000 / width)"),
        ({"local": {"tuning": "full"}}, "local.lora.r", "unused", "no adapter"),
        ({}, "local.quantization", "exact", "QLoRA"),
        ({"openai": {"target": "nebius"}}, "openai.target", "unused", "hosted providers"),
        ({"fallback": "openai"}, "fallback", "exact", "a new run there with the same bytes"),
    ],
)  # fmt: skip
def test_how_a_field_fares_is_told(changes: dict[str, Any], field: str, outcome: str, how: str) -> None:
    entry = report(lowered(**changes), field)
    assert entry.outcome == outcome
    assert how in entry.how


def test_a_refused_field_stops_the_run_unless_it_is_allowed_by_name() -> None:
    lowering = lowered(method="dpo", local={"overlength": "truncate"})
    with pytest.raises(LoweringRefused, match="a pair is compared whole") as caught:
        lowering.stop_if_refused()
    assert "--allow local.overlength" in str(caught.value)
    assert caught.value.exit_code == 2
    lowering.stop_if_refused(["local.overlength"])


@pytest.mark.parametrize(
    ("provider", "changes", "field"),
    [
        ("local", {"model": {"openai": "gpt-4.1-mini-2025-04-14"}}, "model.local"),
        ("openai", {"model": {"local": "m"}}, "model.openai"),
        ("openai", {"method": "dpo", "openai": {"target": "nebius"}}, "method"),
        ("local", {"method": "reinforcement", "openai": {"grader": "nobody"}}, "openai.grader"),
        ("local", {"local": {"workers": 2, "sharding": "fsdp2", "optimizer": "adamw_8bit"}}, "local.optimizer"),
    ],
)
def test_what_no_job_can_be_without_is_not_offered_to_be_waived(
    provider: str, changes: dict[str, Any], field: str
) -> None:
    lowering = providers.load(provider).lower(resolve(JobSpec.from_dict({**SPEC, **changes}), 400, provider))
    assert report(lowering, field).outcome == "refused"
    with pytest.raises(LoweringRefused, match=field) as caught:
        lowering.stop_if_refused()
    assert f"--allow {field}" not in str(caught.value)
    with pytest.raises(LoweringRefused, match="--allow does not help"):
        lowering.stop_if_refused([field])


def test_an_unknown_provider_is_told_which_there_are() -> None:
    with pytest.raises(UsageError, match="local"):
        providers.load("cloud")


@pytest.mark.parametrize(("requested", "computed"), [("auto", "bf16"), ("fp32", "fp32")])
def test_completions_of_the_evaluation_have_an_arithmetic_of_their_own(
    requested: str, computed: str, tmp_path: Path
) -> None:
    lowering = lowered(local={"precision": "bf16"}, evaluation={"precision": requested})
    local = providers.load("local")
    sampler: Any = local.sampler(lowering, None, tmp_path)
    assert sampler._model.request.precision == local.identity(lowering)["precision"] == computed
    assert lowering.request.precision == "bf16", "training keeps its own"
