"""Settling "auto": the rules at their edges, what is left open, and how providers add their own settlements."""

import pytest
from pydantic import ValidationError

from ftbridge.providers import resolve
from ftbridge.providers.local import defaults
from ftbridge.spec import JobSpec
from ftbridge.spec.resolve import Settled

GRADER = {
    "type": "string_check", "name": "exact", "operation": "eq",
    "input": "{{sample.output_text}}", "reference": "{{item.reference}}",
}  # fmt: skip
NUMBERS = {"openai": {"target": "nebius"}}
"""A service that does not take "auto"."""


def _spec(**sections):
    return JobSpec.from_dict({"name": "t", "data": {"train": "t.jsonl"}, "model": {"local": "m"}, **sections})


@pytest.mark.parametrize(
    ("examples", "epochs"),
    [
        *((1, 25), (4, 25), (5, 20), (10, 10), (25, 4), (33, 3), (34, 3)),
        *((8_333, 3), (8_334, 2), (12_500, 2), (12_501, 1), (25_000, 1), (1_000_000, 1)),
    ],
)
def test_epochs_of_a_service_follow_the_cookbook(examples, epochs):
    assert resolve(_spec(**NUMBERS), examples, "openai").spec.hyperparameters.n_epochs == epochs
    left = resolve(_spec(), examples, "openai")
    assert (left.spec.hyperparameters.n_epochs, left.planned("n_epochs")) == ("auto", epochs)


@pytest.mark.parametrize(
    ("examples", "batch"),
    [(1, 1), (749, 1), (750, 2), (1_249, 2), (1_250, 3), (100_000, 200), (127_749, 255), (127_750, 256), (10**7, 256)],
)
def test_batches_of_a_service_are_a_fifth_of_a_percent_within_bounds(examples, batch):
    assert resolve(_spec(**NUMBERS), examples, "openai").spec.hyperparameters.batch_size == batch
    left = resolve(_spec(), examples, "openai")
    assert (left.spec.hyperparameters.batch_size, left.planned("batch_size")) == ("auto", batch)


@pytest.mark.parametrize(("method", "most"), [("supervised", 3), ("dpo", 3), ("reinforcement", 10)])
def test_what_a_service_chooses_is_estimated_at_the_most_that_is_usual_and_said_to_be_an_estimate(method, most):
    sections = (
        {"method": method, "evaluation": {"graders": [GRADER]}} if method == "reinforcement" else {"method": method}
    )
    left = resolve(_spec(**sections), 5_000, "openai")
    assert left.planned("n_epochs") == most
    assert set(left.estimated) == {"n_epochs", "batch_size"}
    (entry,) = [entry for entry in left.settled if entry.field == "hyperparameters.n_epochs"]
    assert (entry.requested, entry.value, entry.estimate) == ("auto", "auto", most)
    assert "left to the service" in entry.reason
    assert "an estimate" in entry.reason


def test_what_the_spec_sets_is_no_estimate_at_a_service_that_chooses():
    fixed = resolve(_spec(hyperparameters={"n_epochs": 7}), 100, "openai")
    assert (fixed.planned("n_epochs"), fixed.estimated) == (7, {"batch_size": 1})


@pytest.mark.parametrize(
    ("examples", "batch", "epochs"),
    [
        *((1, 1, 10), (7, 7, 10), (8, 8, 10), (32, 8, 10), (100, 8, 4), (160, 8, 3), (297, 8, 3), (359, 8, 3)),
        *((360, 9, 3), (640, 16, 3), (1_280, 32, 3), (8_333, 32, 3), (8_334, 32, 2), (12_501, 32, 1), (10**6, 32, 1)),
    ],
)
def test_batch_and_epochs_here_follow_the_number_of_examples(examples, batch, epochs):
    hyperparameters = resolve(_spec(), examples, "local").spec.hyperparameters
    assert (hyperparameters.batch_size, hyperparameters.n_epochs) == (batch, epochs)


def test_epochs_here_follow_a_batch_that_the_spec_sets():
    spec = _spec(hyperparameters={"batch_size": 50})
    assert resolve(spec, 300, "local").spec.hyperparameters.n_epochs == 7


@pytest.mark.parametrize(
    ("width", "model_type", "rate"),
    [
        (2000, "llama", 5e-4),
        (576, "llama", 1.32e-3),
        (4096, "llama", 2.86e-4),
        (4096, "qwen3", 4.73e-4),
        (None, "x", 5e-4),
    ],
)
def test_the_rate_here_follows_the_width_of_the_model(width, model_type, rate):
    assert defaults.SUPERVISED_RATE["lora"] * defaults.width_factor(width, model_type) == pytest.approx(rate, rel=5e-3)


def test_the_multiplier_is_one_here_and_left_to_a_service():
    assert resolve(_spec(), 100, "local").spec.hyperparameters.learning_rate_multiplier == 1.0
    there = resolve(_spec(), 100, "openai")
    assert there.spec.hyperparameters.learning_rate_multiplier == "auto"
    entry = next(entry for entry in there.settled if entry.field == "hyperparameters.learning_rate_multiplier")
    assert (entry.requested, entry.value) == ("auto", "auto")
    assert "openai" in entry.reason


def test_every_settlement_has_the_request_the_value_and_the_reason():
    settled = resolve(_spec(), 20, "local").settled
    assert [(entry.field, entry.requested, entry.value) for entry in settled] == [
        ("hyperparameters.batch_size", "auto", 8),
        ("hyperparameters.n_epochs", "auto", 10),
        ("hyperparameters.learning_rate_multiplier", "auto", 1.0),
    ]
    assert "20 examples // 40" in settled[0].reason
    assert "40 steps of 8" in settled[1].reason


def test_what_the_user_fixed_is_kept_and_not_called_settled():
    settings = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    resolved = resolve(_spec(hyperparameters=settings), 20, "local")
    assert resolved.settled == []
    assert resolved.spec == _spec(hyperparameters=settings)


def test_autos_of_the_machine_and_of_other_methods_stay_open():
    resolved = resolve(_spec(method="dpo", hyperparameters={"beta": "auto"}), 20, "local")
    assert resolved.spec.hyperparameters.beta == "auto"
    assert resolved.spec.local == _spec().local


def test_a_provider_adds_a_settlement_and_may_replace_one():
    resolved = resolve(_spec(local={"lora": {"r": 4}}, **NUMBERS), 20, "openai")
    more = resolved.with_settled(
        Settled(field="local.precision", requested="auto", value="bf16", reason="the device has it")
    )
    again = more.with_settled(
        Settled(
            field="hyperparameters.learning_rate_multiplier", requested="auto", value=1.8, reason="the service took it"
        )
    )
    assert (again.spec.local.precision, again.spec.local.lora.r) == ("bf16", 4)
    assert again.spec.hyperparameters.learning_rate_multiplier == 1.8
    assert [entry.value for entry in again.settled] == [1, 5, "bf16", 1.8]
    assert resolved.spec.local.precision == "auto"


@pytest.mark.parametrize(
    "field", ["hyperparameters.epochs", "nowhere.precision", "name.x", "local.early_stopping.patience"]
)
def test_a_settlement_of_a_field_that_does_not_exist_is_a_bug(field):
    with pytest.raises(ValueError, match=field):
        resolve(_spec(), 20, "local").with_settled(Settled(field=field, requested="auto", value=1, reason=""))


def test_a_settlement_that_the_spec_would_refuse_is_a_bug():
    with pytest.raises(ValidationError):
        resolve(_spec(), 20, "local").with_settled(
            Settled(field="hyperparameters.batch_size", requested="auto", value=257, reason="")
        )
    with pytest.raises(ValueError, match="at least 1"):
        resolve(_spec(), 0, "local")


def test_the_document_is_the_whole_spec_with_values_and_their_reasons():
    resolved = resolve(_spec(), 20, "local")
    document = resolved.document()
    settled = document.pop("settled")
    assert JobSpec.from_dict(document) == resolved.spec
    assert document["hyperparameters"]["n_epochs"] == 10
    assert document["local"]["max_length"] == 2048
    assert [Settled.model_validate(entry) for entry in settled] == resolved.settled
