"""Settling "auto": the rules at their edges, what is left open, and how providers add their own settlements."""

import pytest
from pydantic import ValidationError

from ftbridge.providers import resolve
from ftbridge.spec import JobSpec
from ftbridge.spec.resolve import Settled


def _spec(**sections):
    return JobSpec.from_dict({"name": "t", "data": {"train": "t.jsonl"}, "model": {"local": "m"}, **sections})


@pytest.mark.parametrize(
    ("examples", "epochs"),
    [
        *((1, 25), (4, 25), (5, 20), (10, 10), (25, 4), (33, 3), (34, 3)),
        *((8_333, 3), (8_334, 2), (12_500, 2), (12_501, 1), (25_000, 1), (1_000_000, 1)),
    ],
)
def test_epochs_follow_the_cookbook(examples, epochs):
    assert resolve(_spec(), examples, "local").spec.hyperparameters.n_epochs == epochs


@pytest.mark.parametrize(
    ("examples", "batch"),
    [(1, 1), (749, 1), (750, 2), (1_249, 2), (1_250, 3), (100_000, 200), (127_749, 255), (127_750, 256), (10**7, 256)],
)
def test_batches_are_a_fifth_of_a_percent_within_bounds(examples, batch):
    assert resolve(_spec(), examples, "openai").spec.hyperparameters.batch_size == batch


def test_the_multiplier_is_one_here_and_left_to_a_service():
    assert resolve(_spec(), 100, "local").spec.hyperparameters.learning_rate_multiplier == 1.0
    there = resolve(_spec(), 100, "openai")
    assert there.spec.hyperparameters.learning_rate_multiplier == "auto"
    entry = next(entry for entry in there.settled if entry.field == "hyperparameters.learning_rate_multiplier")
    assert (entry.requested, entry.value) == ("auto", "auto")
    assert "openai" in entry.reason


def test_every_settlement_says_what_was_asked_what_it_got_and_why():
    settled = resolve(_spec(), 20, "local").settled
    assert [(entry.field, entry.requested, entry.value) for entry in settled] == [
        ("hyperparameters.n_epochs", "auto", 5),
        ("hyperparameters.batch_size", "auto", 1),
        ("hyperparameters.learning_rate_multiplier", "auto", 1.0),
    ]
    assert "100 // 20" in settled[0].reason
    assert "0.2 % of 20 examples" in settled[1].reason


def test_what_the_user_fixed_is_kept_and_not_called_settled():
    asked = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    resolved = resolve(_spec(hyperparameters=asked), 20, "local")
    assert resolved.settled == []
    assert resolved.spec == _spec(hyperparameters=asked)


def test_autos_of_the_machine_and_of_other_methods_stay_open():
    resolved = resolve(_spec(method="dpo", hyperparameters={"beta": "auto"}), 20, "local")
    assert resolved.spec.hyperparameters.beta == "auto"
    assert resolved.spec.local == _spec().local


def test_a_provider_adds_a_settlement_and_may_replace_one():
    resolved = resolve(_spec(local={"lora": {"r": 4}}), 20, "openai")
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
    assert [entry.value for entry in again.settled] == [5, 1, "bf16", 1.8]
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
    assert document["hyperparameters"]["n_epochs"] == 5
    assert document["local"]["max_length"] == 2048
    assert [Settled.model_validate(entry) for entry in settled] == resolved.settled
