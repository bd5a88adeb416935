"""Packing without cross-talk, fused LoRA, and the repacking trap, on the real model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.models import attention, load
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.fused import DropoutPool, fuse, unfuse
from ftbridge.providers.local.models.parts import recompute_activations
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training.forward import TOLERANCE, Forward, prove
from ftbridge.providers.local.training.objective import SUPERVISED, measure
from ftbridge.providers.local.training.proof import PIECE
from support.training_requests import device, examples, request

pytestmark = pytest.mark.slow


def adapted(base_model_dir: Path, local_request: LocalRequest, where: Device) -> Any:
    """A model whose adapter already does something: B is not zero."""
    model = load.add_adapter(load.load_base(base_model_dir, local_request, where), local_request)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model


def loss_of(forward: Forward, data: list[Encoded]) -> float:
    with torch.no_grad():
        return float(forward.loss_sum(data)[0])


def gradients(forward: Forward, data: list[Encoded]) -> torch.Tensor:
    forward.model.zero_grad()
    forward.loss_sum(data, seed=11)[0].backward()
    return torch.cat([p.grad.flatten() for p in forward.model.parameters() if p.grad is not None])


@pytest.fixture(scope="module")
def plain(base_model_dir: Path) -> Forward:
    """float32, peft's own forward, the model's own attention and head."""
    model = adapted(base_model_dir, request(), device())
    return Forward(model, device(), "plain", autocast=False)


def test_an_example_costs_the_same_packed_and_alone(plain: Forward) -> None:
    data = examples()
    packed = prove(plain, data, packing=True)
    assert packed.way == "packed"
    together = loss_of(packed, data)
    alone = sum(loss_of(packed, [example]) for example in data)
    assert together == pytest.approx(alone, rel=1e-5)
    for example in data:
        others = [other if other is example else replace(other, loss_mask=(False,) * len(other)) for other in data]
        assert loss_of(packed, others) == pytest.approx(loss_of(packed, [example]), rel=1e-4)


def test_what_stands_before_an_example_in_a_pass_does_not_change_its_loss(plain: Forward) -> None:
    packed = prove(plain, examples(), packing=True)
    first, second, third, _ = examples()
    silent = replace(first, loss_mask=(False,) * len(first))
    other = replace(third, loss_mask=(False,) * len(third))
    assert loss_of(packed, [silent, second]) == pytest.approx(loss_of(packed, [other, second]), rel=1e-5)


def test_all_ways_give_the_same_loss_and_gradient(plain: Forward) -> None:
    data = examples()
    results = {}
    for way in ("plain", "padded", "packed"):
        plain.model.get_base_model().set_attn_implementation(attention.NAME if way == "packed" else "sdpa")
        forward = replace(plain, way=way)  # type: ignore[arg-type]
        results[way] = (loss_of(forward, data), gradients(forward, data))
    for way in ("padded", "packed"):
        assert results[way][0] == pytest.approx(results["plain"][0], rel=1e-5)
        torch.testing.assert_close(results[way][1], results["plain"][1], rtol=1e-3, atol=1e-4)


def test_attention_that_leaks_between_examples_is_found_out(plain: Forward, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_long_example(lengths: list[int], where: torch.device) -> attention.Layout:
        return real([sum(lengths)], where)

    real = attention.Layout.of
    monkeypatch.setattr(attention.Layout, "of", one_long_example)
    notes: list[str] = []
    proved = prove(plain, examples(), packing=True, note=notes.append)
    assert proved.way == "padded"
    assert "in company" in notes[0]


def test_what_the_proof_holds_for_gradients_does_not_grow_with_the_examples(plain: Forward) -> None:
    """Activations of every layer stay until the backward pass: for whole examples that is more than a step of training holds."""
    tokens = []

    def note(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            tokens.append(inputs[0].numel())

    with plain.model.get_input_embeddings().register_forward_pre_hook(note):
        assert prove(plain, examples((80, 90, 100, 110)), packing=True).way == "packed"
    assert 3 * PIECE <= max(tokens) <= 4 * PIECE


def test_the_fused_layer_computes_what_peft_computes(plain: Forward) -> None:
    data = examples()
    plain.model.get_base_model().set_attn_implementation("sdpa")
    loss, grad = loss_of(plain, data), gradients(plain, data)
    frozen = load.FrozenWeights(keep_copy=False, compute=torch.float32)
    try:
        assert fuse(plain.model, frozen.weight_of, DropoutPool(0.0, torch.float32, torch.device("cpu"))) == 210
        assert loss_of(plain, data) == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(gradients(plain, data), grad, rtol=1e-3, atol=1e-4)
    finally:
        unfuse(plain.model)


def test_fused_dropout_is_dropout_and_the_same_again_for_the_same_seed(plain: Forward) -> None:
    pool = DropoutPool(0.3, torch.float32, torch.device("cpu"))
    pool.draw(5, 100, 64)
    mask = pool.mask(3, 100, 64)
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert float((mask == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(mask, pool.mask(4, 100, 64))
    pool.draw(6, 100, 64)
    assert not torch.equal(mask, pool.mask(3, 100, 64))
    pool.draw(5, 100, 64)
    assert torch.equal(mask, pool.mask(3, 100, 64))


@pytest.mark.parametrize("fused", [False, True], ids=["peft's layers", "fused layers"])
def test_gradients_are_the_same_before_and_after_an_evaluation_pass(base_model_dir: Path, fused: bool) -> None:
    """bitsandbytes repacks 4-bit weights in eval mode on some CPUs, and every later gradient would be wrong."""
    requests, where = request(quantization="nf4"), device(torch.bfloat16)
    model = adapted(base_model_dir, requests, where)
    if fused:
        fuse(model, load.FrozenWeights(False, torch.bfloat16).weight_of, DropoutPool(0.0, torch.bfloat16, where.torch))
    model.get_base_model().set_attn_implementation(attention.NAME)
    forward = Forward(model.train(), where, "packed", autocast=not fused)  # not proved: that is an evaluation pass too
    before = gradients(forward, examples())
    loss = measure(SUPERVISED, forward, examples(), 256)["loss"]
    after = gradients(forward, examples())
    assert torch.nn.functional.cosine_similarity(before, after, dim=0) > 0.9999
    assert measure(SUPERVISED, forward, examples(), 256)["loss"] == pytest.approx(loss, abs=1e-6)


def test_nf4_gradients_agree_with_a_float32_model_of_the_same_weights(base_model_dir: Path) -> None:
    requests, where = request(quantization="nf4"), device(torch.bfloat16)
    model = adapted(base_model_dir, requests, where)
    frozen = load.FrozenWeights(False, torch.bfloat16)
    fuse(model, frozen.weight_of, DropoutPool(0.0, torch.bfloat16, where.torch))
    quantized = prove(Forward(model, where, "plain", autocast=False), examples(), packing=True)
    assert quantized.way == "packed"

    exact = adapted(base_model_dir, request(), device())
    for (_, mine), (_, theirs) in zip(_adapted_layers(exact), _adapted_layers(model), strict=True):
        weight = frozen.weight_of(theirs.get_base_layer())
        assert weight is not None
        mine.get_base_layer().weight.data.copy_(weight(torch.float32))
    reference = Forward(exact, device(), "plain", autocast=False)
    cosine = torch.nn.functional.cosine_similarity(
        gradients(quantized, examples()).float(), gradients(reference, examples()), dim=0
    )
    assert cosine > 0.99


def test_a_dequantised_copy_changes_nothing(base_model_dir: Path) -> None:
    requests, where = request(quantization="nf4"), device(torch.bfloat16)
    model = adapted(base_model_dir, requests, where)
    losses = []
    for keep in (False, True):
        fuse(model, load.FrozenWeights(keep, torch.bfloat16).weight_of, DropoutPool(0.0, torch.bfloat16, where.torch))
        forward = prove(Forward(model, where, "plain", autocast=False), examples(), packing=True)
        losses.append(loss_of(forward, examples()))
        unfuse(model)
    assert losses[0] == losses[1]


def test_recomputed_activations_give_the_same_gradient(base_model_dir: Path) -> None:
    requests, where = request(lora_dropout=0.2), device()
    model = adapted(base_model_dir, requests, where)
    pool = DropoutPool(0.2, torch.float32, where.torch)
    fuse(model, load.FrozenWeights(False, torch.float32).weight_of, pool)
    forward = prove(Forward(model, where, "plain", autocast=False, pool=pool), examples(), packing=True)
    before = gradients(forward, examples())
    recompute_activations(model)
    torch.testing.assert_close(gradients(forward, examples()), before, rtol=1e-4, atol=1e-5)


def test_tolerances_are_rounding_not_meaning() -> None:
    assert all(tolerance < 0.1 for tolerance in TOLERANCE.values())


def _adapted_layers(model: Any) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_A")]
