"""Reference log-probabilities: what they are, that they are computed once, and that no run trains against two of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbridge.errors import ModelUnavailable, TrainingFailed
from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.models import load
from ftbridge.providers.local.models.fused import unfuse
from ftbridge.providers.local.models.parts import use_own_attention
from ftbridge.providers.local.process.job import JobInterrupted
from ftbridge.providers.local.request import DpoRequest
from ftbridge.providers.local.training import reference
from ftbridge.providers.local.training.dpo import Preference
from ftbridge.providers.local.training.forward import Forward, prove
from ftbridge.providers.local.training.pairs import Pair, completion_log_probabilities
from ftbridge.providers.local.training.reference import ReferenceKey, with_reference
from support import architectures
from support import preference_cases as cases


def measured(forward: Forward, path: Path, data: list[Pair] | None = None, **options: Any) -> list[Pair]:
    settings: dict[str, Any] = {"shared": True, "budget": 60, "begun": False, **options}
    return with_reference(forward, data or cases.pairs(), settings.pop("key", cases.KEY), path, **settings)


@pytest.fixture
def forward(tmp_path: Path) -> Forward:
    return cases.forward_of(tmp_path, cases.request())


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_the_reference_is_what_peft_gives_with_the_adapter_switched_off(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    forward = cases.forward_of(tmp_path, cases.request(**changes))
    result = torch.tensor([pair.reference for pair in measured(forward, tmp_path / "reference.jsonl")])
    cases.stir(forward.model)
    unfuse(forward.model)
    with torch.no_grad(), forward.model.disable_adapter():
        off = completion_log_probabilities(forward, cases.pairs(), shared=False)
        use_own_attention(forward.model)
    with torch.no_grad():
        tuned = completion_log_probabilities(replace(forward, way="plain"), cases.pairs(), shared=False)
    torch.testing.assert_close(result, off, rtol=1e-6, atol=1e-4)
    assert float((tuned - off).abs().max()) > 0.01, "the adapter does something once B is not zero"


def test_it_is_computed_once_and_read_from_then_on(
    forward: Forward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reference.jsonl"
    first = measured(forward, path)
    monkeypatch.setattr(reference, "_compute", lambda *_: pytest.fail("computed again"))
    assert measured(forward, path, begun=True) == first
    header, *stored = rows(path)
    assert header["key"] == cases.KEY.model_dump()
    assert [row["pair"] for row in stored] != []
    assert {row["chosen_tokens"] for row in stored} == {pair.chosen.num_loss_tokens for pair in cases.pairs()}


def test_the_same_pair_in_training_and_validation_is_computed_once(forward: Forward, tmp_path: Path) -> None:
    data = cases.pairs()
    both = measured(forward, tmp_path / "reference.jsonl", [*data, *data[:2]])
    assert len(rows(tmp_path / "reference.jsonl")) == 1 + len(data)
    assert both[0].reference == both[len(data)].reference


def test_a_pass_that_was_killed_goes_on_where_it_was(
    forward: Forward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reference.jsonl"
    complete = measured(forward, path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:4]) + b"\n" + lines[4][:20])  # three rows, and half of one
    computed: list[int] = []
    real = reference._compute
    monkeypatch.setattr(reference, "_compute", lambda *all: computed.append(len(all[1])) or real(*all))
    again = measured(forward, path)
    assert computed == [3]
    assert [pair.reference for pair in again] == [pytest.approx(pair.reference) for pair in complete]


def test_a_pause_is_heard_between_micro_batches_and_loses_nothing(forward: Forward, tmp_path: Path) -> None:
    path = tmp_path / "reference.jsonl"
    requests = iter([None, None, "pause"])
    with pytest.raises(JobInterrupted) as stop:
        measured(forward, path, budget=40, requested=lambda: next(requests))
    assert stop.value.request == "pause"
    assert len(rows(path)) > 1
    measured(forward, path)
    assert len(rows(path)) == 1 + len(cases.pairs())


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"model": "another"}, True),
        ({"adapter": "another"}, True),
        ({"quantization": "nf4"}, True),
        ({"compute": "bfloat16"}, False),
        ({"layout": "padded"}, False),
    ],
)
def test_a_reference_of_another_model_is_refused_once_training_has_begun(
    forward: Forward, tmp_path: Path, changed: dict[str, str], refused: bool
) -> None:
    path = tmp_path / "reference.jsonl"
    measured(forward, path)
    key = ReferenceKey.model_validate(cases.KEY.model_dump() | changed)
    messages: list[str] = []
    if refused:
        with pytest.raises(TrainingFailed, match=f"another {next(iter(changed))} than this run has now"):
            measured(forward, path, key=key, begun=True)
        assert rows(path)[0]["key"] == cases.KEY.model_dump(), "the file is as it was"
    else:
        measured(forward, path, key=key, begun=True, say=messages.append)
        assert messages == [f"the reference log-probabilities are computed again: {next(iter(changed))} changed"]
        assert rows(path)[0]["key"] == key.model_dump()
    measured(forward, path, key=key)
    assert rows(path)[0]["key"] == key.model_dump(), "before the first step it is simply computed anew"


def test_tokens_name_a_row_so_that_another_template_computes_it_anew(forward: Forward, tmp_path: Path) -> None:
    data = cases.pairs()
    first = data[0]
    longer = replace(first, chosen=replace(first.chosen, input_ids=(5, *first.chosen.input_ids[1:])))
    masked = replace(first, chosen=replace(first.chosen, loss_mask=(True, *first.chosen.loss_mask[1:])))
    assert len({first.name, longer.name, masked.name}) == 3


def test_continuing_from_an_adapter_makes_that_adapter_the_reference(tmp_path: Path) -> None:
    first = cases.forward_of(tmp_path, cases.request())
    cases.stir(first.model)
    with torch.no_grad():
        wanted = completion_log_probabilities(first, cases.pairs(), shared=True)
    unfuse(first.model)
    first.model.save_pretrained(tmp_path / "adapter")
    again = cases.forward_of(tmp_path, cases.request(continue_from=str(tmp_path / "adapter")))
    result = measured(again, tmp_path / "reference.jsonl")
    torch.testing.assert_close(torch.tensor([pair.reference for pair in result]), wanted, rtol=1e-6, atol=1e-4)
    sums = Preference(DpoRequest(), shared=True).sums(again, result)
    assert float(sums.more["reward_margin"].abs()) < 1e-4
    sums.loss.backward()
    assert float(cases.gradients(again.model).abs().max()) > 0, "the adapter is trained further"


def test_it_is_computed_as_training_computes_though_int8_layers_answer_otherwise_on_a_cpu(tmp_path: Path) -> None:
    """SmolLM2-135M's tokens are 0.23 nats apart there, so that preference tuning stopped at its first step."""
    pytest.importorskip("bitsandbytes")
    forward = cases.forward_of(tmp_path, cases.request(quantization="int8"))
    result = measured(forward, tmp_path / "reference.jsonl")
    assert forward.model.training
    with torch.no_grad():
        policy = completion_log_probabilities(forward, result, shared=True)
        forward.model.eval()
        evaluated = completion_log_probabilities(forward, result, shared=True)
    reference = torch.tensor([pair.reference for pair in result])
    torch.testing.assert_close(policy, reference, rtol=1e-6, atol=1e-4)
    assert float((evaluated - reference).abs().max()) > 2e-4, "evaluation mode is another computation"


def test_an_adapter_that_changes_its_base_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="contains no LoRA adapter"):
        load.require_adapter(tmp_path)
    forward = cases.forward_of(tmp_path, cases.request())
    forward.model.save_pretrained(tmp_path / "adapter")
    load.require_adapter(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": "pissa"}))
    with pytest.raises(ModelUnavailable, match="changes the base model's weights"):
        load.require_adapter(tmp_path / "adapter")


def test_an_adapter_of_another_model_is_refused_with_what_does_not_fit(tmp_path: Path) -> None:
    small = cases.forward_of(tmp_path, cases.request())
    small.model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelUnavailable, match="does not fit this model"):
        cases.forward_of(tmp_path / "other", cases.request(continue_from=str(tmp_path / "adapter")), "gpt2")


def test_4_bit_gradients_are_the_same_before_and_after_a_reference_pass(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    response = cases.request(quantization="nf4", cache_dequantized_weights=False)
    architectures.model_of("llama", tmp_path / "model")
    model = load.add_adapter(load.load_base(tmp_path / "model", response, architectures.CPU), response)
    cases.stir(model)
    forward = prove(Forward(model, architectures.CPU, "plain", autocast=True), sides(cases.pairs()), packing=True)
    data = [replace(pair, reference=(-30.0, -31.0)) for pair in cases.pairs()]

    def gradient() -> torch.Tensor:
        model.zero_grad()
        Preference(DpoRequest(), shared=True).sums(forward, data).loss.backward()
        return cases.gradients(model)

    before = gradient()
    measured(forward, tmp_path / "reference.jsonl")
    assert torch.equal(gradient(), before)


def sides(data: list[Pair]) -> list[Encoded]:
    return [side for pair in data for side in pair.sides if len(side) > 1]
