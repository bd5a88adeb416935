"""What becomes of each field of a preference spec, on this machine and at a service, and its rules for "auto"."""

from __future__ import annotations

from typing import Any

import pytest

from ftbridge import providers
from ftbridge.errors import LoweringRefused, SpecError
from ftbridge.providers import resolve
from ftbridge.providers.local.request import LocalRequest
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import FieldReport, Lowering, fields

SPEC: dict[str, Any] = {
    "name": "a",
    "method": "dpo",
    "data": {"train": "t.jsonl"},
    "model": {"local": "m", "openai": "gpt-4.1-mini-2025-04-14"},
}


def lowered(provider: str = "local", pairs: int = 400, **changes: Any) -> Lowering:
    return providers.load(provider).lower(resolve(JobSpec.from_dict({**SPEC, **changes}), pairs, provider))


def field(lowering: Lowering, name: str) -> FieldReport:
    (result,) = [one for one in lowering.fields if one.field == name]
    return result


@pytest.mark.parametrize("provider", ["local", "openai"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"local": {"dpo": {"loss": "ipo"}}},
        {"local": {"tuning": "full"}},
        {"local": {"lora": {"continue_from": "x"}}},
    ],
)
def test_every_field_has_an_entry_for_either_side(provider: str, changes: dict[str, Any]) -> None:
    spec = JobSpec.from_dict({**SPEC, **changes})
    assert [entry.field for entry in lowered(provider, **changes).fields] == [name for name, _ in fields(spec)]


@pytest.mark.parametrize(
    ("changes", "name", "outcome", "value", "how"),
    [
        ({}, "hyperparameters.beta", "exact", 0.1, "auto: 0.1"),
        ({"hyperparameters": {"beta": "auto"}}, "hyperparameters.beta", "exact", 0.1, "does not publish"),
        ({"hyperparameters": {"beta": 0.5}}, "local.dpo.beta", "exact", 0.5, ""),
        ({}, "hyperparameters.learning_rate_multiplier", "translated", 5e-6, "1 x 5e-06"),
        ({"local": {"tuning": "full"}}, "hyperparameters.learning_rate_multiplier", "translated", 5e-7, "1 x 5e-07"),
        ({}, "local.lora.dropout", "translated", 0.0, "noise is not a difference"),
        ({"local": {"lora": {"dropout": 0.1}}}, "local.lora.dropout", "approximated", 0.0, "noise"),
        ({"local": {"overlength": "truncate"}}, "local.overlength", "refused", None, "compared whole"),
        ({"local": {"dpo": {"loss": "ipo"}}}, "local.dpo.beta", "exact", 0.1, "scale of this loss"),
        ({"local": {"dpo": {"loss": "length_normalised"}}}, "local.dpo.beta", "exact", 1.0, "scale"),
        ({"local": {"lora": {"continue_from": "a"}}}, "local.lora.continue_from", "exact", "a", "reference model too"),
        ({"local": {"lora": {"continue_from": "a"}}}, "local.lora.r", "unused", None, "given by the adapter"),
        ({}, "hyperparameters.batch_size", "exact", 12, "pairs"),
    ],
)  # fmt: skip
def test_how_a_field_is_mapped_here(changes: dict[str, Any], name: str, outcome: str, value: Any, how: str) -> None:
    result = field(lowered(**changes), name)
    assert (result.outcome, result.sent) == (outcome, value)
    assert how in result.how


def test_openais_beta_never_slips_into_a_loss_with_another_scale() -> None:
    lowering = lowered(hyperparameters={"beta": 0.2}, local={"dpo": {"loss": "ipo"}})
    with pytest.raises(LoweringRefused, match=r"local\.dpo\.beta, on the scale of the loss"):
        lowering.stop_if_refused()
    request = LocalRequest.model_validate(lowering.request)
    assert request.dpo is not None
    assert request.dpo.beta == 0.1  # what --allow goes on with: the loss's own scale


@pytest.mark.parametrize(
    "dpo", [{"loss": "ipo"}, {"label_smoothing": 0.1}, {"nll_weight": 0.5}, {"beta": 0.3, "loss": "length_normalised"}]
)
def test_a_loss_that_a_service_does_not_have_is_refused_there(dpo: dict[str, Any]) -> None:
    refused = [one.field for one in lowered("openai", local={"dpo": dpo}).fields if one.outcome == "refused"]
    assert sorted(refused) == sorted(f"local.dpo.{name}" for name in dpo)
    lowered("local", local={"dpo": dpo}).stop_if_refused()


def test_the_same_spec_makes_openais_request_and_ours() -> None:
    hyper = {"n_epochs": 2, "batch_size": 8, "beta": 0.2, "learning_rate_multiplier": 1.5}
    theirs = lowered("openai", hyperparameters=hyper).request
    assert theirs.body["method"] == {"type": "dpo", "dpo": {"hyperparameters": hyper}}
    ours = LocalRequest.model_validate(lowered("local", hyperparameters=hyper).request)
    assert (ours.method, ours.n_epochs, ours.batch_size) == ("dpo", 2, 8)
    assert ours.learning_rate == pytest.approx(7.5e-6)
    assert ours.dpo is not None
    assert ours.dpo.beta == 0.2


@pytest.mark.parametrize(
    ("pairs", "batch", "epochs"),
    [(20, 4, 3), (128, 4, 3), (400, 12, 3), (1_000, 31, 3), (2_000, 32, 2), (10_000, 32, 1)],
)
def test_auto_is_a_32nd_of_the_pairs_a_step_and_about_100_steps(pairs: int, batch: int, epochs: int) -> None:
    spec = resolve(JobSpec.from_dict(SPEC), pairs, "local").spec.hyperparameters
    assert (spec.batch_size, spec.n_epochs) == (batch, epochs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"local": {"dpo": {"loss": "ipo", "label_smoothing": 0.1}}}, "label_smoothing has no meaning"),
        ({"local": {"dpo": {"label_smoothing": 0.5}}}, "less than 0.5"),
        ({"local": {"dpo": {"loss": "hinge"}}}, "sigmoid"),
        ({"method": "supervised", "local": {"dpo": {"loss": "ipo"}}}, "belongs to method dpo"),
        ({"local": {"tuning": "full", "lora": {"continue_from": "a"}}}, "tuning is full"),
        ({"hyperparameters": {"beta": 0}}, "beta"),
    ],
)
def test_what_has_no_meaning_is_refused_in_the_spec(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        JobSpec.from_dict({**SPEC, **changes})
