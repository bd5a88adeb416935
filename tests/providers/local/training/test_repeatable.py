"""Training passes that draw nothing: over every family on the page of architectures, with all their noise turned up."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local.data.prompts import encode_prompts
from ftbridge.providers.local.models import load
from ftbridge.providers.local.models.find import LocalModel
from ftbridge.providers.local.models.parts import recompute_activations
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training import checkpoint, loop
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.forward import Forward, prove
from ftbridge.providers.local.training.methods import METHODS, Aim, Setting
from ftbridge.providers.local.training.optim import optimizer_for
from ftbridge.providers.local.training.repeatable import make_repeatable, silence_dropout
from support import architectures, practice_cases
from support import preference_cases as cases
from support.paths import REPOSITORY
from support.small_model import write_small_model
from support.tiny_training import Steps

PAGE = (REPOSITORY / "docs" / "architectures.md").read_text("utf-8")
FAMILIES = re.findall(r"^\| (\w+) \| LoRA", PAGE, re.MULTILINE)
QUIET_BY_NATURE = {
    "ernie4_5", "ernie4_5_moe", "falcon_mamba", "lfm2", "lfm2_moe", "mamba", "mamba2", "rwkv", "xlstm",
}  # fmt: skip
"""Families without anything that draws."""
ONE = architectures.examples()[:1]


def noisy(config: Any) -> dict[str, Any]:
    """Turn all noise that a config names up to 0.5, in its parts too; returns what was changed, with its value before."""
    before = {}
    values = config if isinstance(config, dict) else vars(config)
    for name, value in list(values.items()):
        if isinstance(value, dict) or hasattr(value, "to_dict"):
            before |= {f"{name}.{inner}": was for inner, was in noisy(value).items()}
        elif re.search("drop|jitter", str(name)) and not isinstance(value, (bool, str)):
            before[name], values[name] = value, 0.5
    return before


def model_of(family: str, noise: bool = True) -> Any:
    config = architectures.config_of(family)
    if noise:
        noisy(config)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def forward_of(model: Any, **changes: Any) -> Forward:
    return Forward(model, architectures.CPU, "alone", autocast=False, **changes)


def passes(forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
    """Two in training mode, one in evaluation mode."""
    forward.model.train()
    with torch.no_grad():
        first, other = (forward.log_probabilities(ONE, seed=seed) for seed in (5, 6))
        forward.model.eval()
        evaluated = forward.log_probabilities(ONE)
    forward.model.train()
    return first, other, evaluated


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_draws_in_a_training_pass_though_all_its_noise_is_turned_up(family: str) -> None:
    forward = forward_of(model_of(family))
    first, other, before = passes(forward)
    assert torch.equal(first, other) == (family in QUIET_BY_NATURE)
    make_repeatable(forward, architectures.examples())
    first, other, evaluated = passes(forward)
    assert torch.equal(first, other)
    assert torch.equal(first, evaluated)
    assert torch.equal(evaluated, before), "the model is the one that it was"


@pytest.mark.parametrize(
    "family", ["llama", "opt", "falcon", "bloom", "dbrx", "starcoder2", "mixtral", "phimoe", "gpt2"]
)
def test_activations_are_still_recomputed_and_gradients_the_same_with_and_without(family: str) -> None:
    gradients = []
    for recomputed in (False, True):
        model, layers = model_of(family), list[str]()
        make_repeatable(forward_of(model), ONE)
        if recomputed:
            recompute_activations(model)
            for module in model.modules():
                if "_gradient_checkpointing_func" in vars(module):
                    module._gradient_checkpointing_func = _counted(module._gradient_checkpointing_func, layers)
        forward_of(model).log_probabilities(ONE, seed=len(gradients)).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        assert len(layers) == (2 if recomputed else 0)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)


def _counted(function: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append("recomputed")
        return function(*args, **kwargs)

    return counted


@pytest.mark.parametrize("family", ["gpt_bigcode", "starcoder2", "falcon", "mixtral", "phimoe", "opt"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_adapted_and_packed_models_draw_nothing_either_and_their_config_is_saved_as_it_was(
    tmp_path: Path, family: str, tuning: str
) -> None:
    model_of(family).save_pretrained(tmp_path / "model")
    forward = architectures.ready(tmp_path / "model", cases.request(tuning=tuning), [])
    names = [type(module).__name__ for module in forward.model.modules()]
    make_repeatable(forward, architectures.examples())
    first, other, evaluated = passes(forward)
    assert torch.equal(first, other)
    assert torch.equal(first, evaluated)
    assert [type(module).__name__ for module in forward.model.modules()] == names
    assert set(noisy(forward.model.config).values()) == {0.5}
    assert checkpoint.save(tmp_path / "saved", forward.model, optimizer_for(
        forward.model.parameters(), cases.request(tuning=tuning), architectures.CPU
    ), torch.amp.GradScaler("cpu", enabled=False), TrainingState(step=1)).exists()  # fmt: skip


def test_the_adapter_is_still_trained_and_its_dropout_is_off(tmp_path: Path) -> None:
    architectures.model_of("llama", tmp_path / "model")
    job = cases.request(lora_dropout=0.5)
    model = load.add_adapter(load.load_base(tmp_path / "model", job, architectures.CPU), job)
    cases.stir(model)
    forward = prove(forward_of(model), architectures.examples(), packing=True)
    first, other, _ = passes(forward)
    assert not torch.equal(first, other)
    make_repeatable(forward, architectures.examples())
    first, other, evaluated = passes(forward)
    assert torch.equal(first, other)
    assert torch.equal(first, evaluated)
    forward.log_probabilities(ONE).sum().backward()
    assert float(cases.gradients(model).abs().max()) > 0


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d, nn.AlphaDropout])
def test_dropout_layers_that_the_first_example_does_not_reach_are_off_too(kind: type[Any]) -> None:
    model = model_of("llama", noise=False)
    model.model.layers[0].expert = kind(0.5)
    silence_dropout(model)
    assert model.model.layers[0].expert.p == 0.0


# What no setting switches off


class Noise(nn.Module):
    """Adds what `draw` draws to a layer's output, in training mode alone unless `always`."""

    def __init__(self, layer: nn.Module, draw: Callable[[Tensor], Tensor], always: bool = False) -> None:
        super().__init__()
        self.layer, self.draw, self.always = layer, draw, always

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y + self.draw(y) if self.training or self.always else y


OWN = torch.Generator().manual_seed(3)
DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch": torch.randn_like,
    "python": lambda x: x * random.random(),
    "numpy": lambda x: x * float(np.random.rand()),
    "a generator of its own": lambda x: torch.randn(x.shape, generator=OWN),
}


@pytest.mark.parametrize("draw", ["torch", "python", "numpy"])
def test_a_layer_of_an_unknown_class_that_draws_in_training_mode_is_silenced_whatever_it_draws_from(draw: str) -> None:
    model = model_of("llama", noise=False)
    model.model.layers[1].mlp = Noise(model.model.layers[1].mlp, DRAWS[draw])
    forward = forward_of(model)
    make_repeatable(forward, ONE)
    first, other, evaluated = passes(forward)
    assert torch.equal(first, other)
    assert torch.equal(first, evaluated)


def test_noise_that_hides_other_noise_is_silenced_with_it() -> None:
    """The second layer is skipped now and then, and draws when it is not."""
    model = model_of("opt", noise=False)
    decoder = model.model.decoder
    decoder.layerdrop = 0.999
    for layer in decoder.layers:
        layer.dropout = 0.5
    forward = forward_of(model)
    make_repeatable(forward, ONE)
    first, other, evaluated = passes(forward)
    assert torch.equal(first, other)
    assert torch.equal(first, evaluated)


@pytest.mark.parametrize("draw", list(DRAWS))
def test_a_model_that_draws_in_evaluation_mode_too_is_refused_with_the_layer(draw: str) -> None:
    model = model_of("llama", noise=False)
    model.model.layers[1].mlp = Noise(model.model.layers[1].mlp, DRAWS[draw], always=True)
    with pytest.raises(ModelUnavailable, match="differ by .* nats a token") as refusal:
        make_repeatable(forward_of(model), ONE)
    named = "drawn in model.layers.1.mlp." in refusal.value.message
    assert named == (draw != "a generator of its own")
    assert "supervised" in str(refusal.value.hint)


def test_noise_that_nobody_can_watch_and_a_mode_that_computes_otherwise_are_refused() -> None:
    for draw in (DRAWS["a generator of its own"], torch.ones_like):
        model = model_of("llama", noise=False)
        model.model.layers[1].mlp = Noise(model.model.layers[1].mlp, draw)
        with pytest.raises(ModelUnavailable, match="cannot be compared with its reference"):
            make_repeatable(forward_of(model), ONE)


def test_int8_layers_that_train_otherwise_than_they_answer_on_a_cpu_are_no_noise(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    architectures.model_of("llama", tmp_path / "model")
    forward = architectures.ready(tmp_path / "model", cases.request(quantization="int8"), [])
    first, _, evaluated = passes(forward)
    assert not torch.equal(first, evaluated)
    make_repeatable(forward, ONE)


# In a job


def run(folder: Path, job: LocalRequest, forward: Forward, aim: Aim, steps: Steps) -> None:
    """Train to the end."""
    (folder / "checkpoints").mkdir()
    trainer = loop.Trainer(
        forward, optimizer_for(forward.model.parameters(), job, architectures.CPU),
        torch.amp.GradScaler("cpu", enabled=False), job, architectures.CPU, aim.train, aim.validation,
        folder / "checkpoints", 60, steps, lambda: None, aim.objective, aim.source,
    )  # fmt: skip
    loop.train(trainer, TrainingState())


@pytest.mark.parametrize("family", ["gpt_bigcode", "starcoder2", "falcon", "phimoe", "opt"])
@pytest.mark.parametrize("noise", [True, False], ids=["noisy", "default"])
def test_the_first_step_of_preference_tuning_has_the_loss_of_equal_models(
    tmp_path: Path, family: str, noise: bool
) -> None:
    """gpt_bigcode drops attention by default: its first loss was 0.6946, and reference.jsonl was blamed."""
    model_of(family, noise).save_pretrained(tmp_path / "model")
    job, steps = cases.request(batch_size=6, learning_rate=1e-3), Steps()
    forward = architectures.ready(tmp_path / "model", job, [])
    data = cases.pairs()
    base = LocalModel("m", tmp_path / "model", "directory", "m")
    setting = Setting(job, base, None, forward, tmp_path, 60, False, steps, lambda: None)
    aim = METHODS["dpo"].ready(setting, data, data[:2])
    run(tmp_path, job, forward, aim, steps)
    assert steps.figures[0]["train_loss"] == pytest.approx(0.693147, abs=2e-6)
    assert steps.figures[0]["train_reward_margin"] == pytest.approx(0.0, abs=1e-5)


def test_completions_are_learnt_from_with_the_log_probabilities_that_they_were_drawn_with(
    tmp_path: Path, base_model_dir: Path
) -> None:
    model = write_small_model(tmp_path / "model", base_model_dir, max_position_embeddings=512, attention_dropout=0.5)
    job, steps = practice_cases.request(settings={"eval_interval": 9, "eval_samples": 1}), Steps()
    forward, renderer = practice_cases.prepared(tmp_path, model, job)
    path = practice_cases.write_split(tmp_path / "data", "train", practice_cases.rows(3))
    prompts = encode_prompts(path, "train", renderer, job).examples
    base = LocalModel("m", model, "directory", "m")
    setting = Setting(job, base, renderer.tokenizer, forward, tmp_path, 60, False, steps, lambda: None)
    run(tmp_path, job, forward, METHODS["reinforcement"].ready(setting, prompts, prompts), steps)
    assert 0 <= steps.figures[0]["train_log_prob_shift"] < 1e-4
