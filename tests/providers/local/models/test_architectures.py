"""What other architectures than Llama need: their attention, their experts, their state, and their names on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ftbridge import files
from ftbridge.errors import DiskFull, ModelUnavailable, UsageError
from ftbridge.providers.local.export.merged import merge
from ftbridge.providers.local.models import architecture, load, targets
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.process.child import child_environment
from ftbridge.providers.local.training import loop, proof
from ftbridge.providers.local.training.forward import Forward, prove
from support.architectures import CPU, Outcome, config_of, examples, model_of, ready, request, round_of, row_of, steps
from support.paths import REPOSITORY
from support.template_matrix import HEADER, cells_of, rows

PAGE = REPOSITORY / "docs" / "architectures.md"
WAYS = {
    "llama": "packed", "qwen3_moe": "packed", "gpt_neox": "packed", "gemma2": "packed, own head", "lfm2": "padded",
}  # fmt: skip
SLOW_WAYS = {
    "mixtral": "packed", "qwen2_moe": "packed", "deepseek_v3": "packed", "gpt_oss": "packed", "phimoe": "packed",
    "llama4_text": "packed, own head", "dbrx": "packed", "granitemoehybrid": "padded", "qwen3_5_text": "padded",
    "qwen3_next": "padded", "bamba": "padded", "jamba": "padded", "falcon_h1": "padded", "nemotron_h": "padded",
    "mamba": "padded", "bloom": "padded", "mpt": "padded", "gptj": "packed", "falcon_alibi": "padded",
    "recurrent_gemma": "plain", "cohere": "packed, own head", "gpt2": "packed", "mistral_window": "packed",
}  # fmt: skip
"""How each family trains where packing is asked for: a family that changes here has been won or lost."""


@pytest.mark.parametrize("family", WAYS)
def test_a_family_trains_resumes_and_loads_elsewhere_as_the_page_says(family: str) -> None:
    outcome = round_of(family)
    require_whole(outcome, WAYS[family])
    assert row_of(outcome, cells_of(family)) in PAGE.read_text("utf-8").splitlines()


def test_the_page_has_the_matrix_of_templates_as_the_renderer_finds_it() -> None:
    assert "\n".join([HEADER, *rows()]) in PAGE.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("family", SLOW_WAYS)
def test_more_families_train_resume_and_load_elsewhere(family: str) -> None:
    require_whole(round_of(family), SLOW_WAYS[family])


def require_whole(outcome: Outcome, way: str) -> None:
    assert (outcome.refused, outcome.way) == ("", way)
    assert outcome.fell > 0
    assert outcome.resumed == 0.0, "a resumed run repeats the losses of an undisturbed one"
    assert outcome.peft < 1e-5, "the adapter loads in plain peft with the same numbers"
    assert outcome.merged < 1e-4
    assert outcome.full == 0.0, "a checkpoint of full tuning loads again"


def test_a_class_that_rescales_its_weights_to_answer_answers_with_its_adapter_as_it_trains(tmp_path: Path) -> None:
    config = json.loads((model_of("rwkv", tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "rescale_every": 1}))
    model = load.add_adapter(load.load_base(tmp_path, request(), CPU), request(lora_dropout=0.0))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.5)
    ids = torch.tensor([examples()[0].input_ids])
    with torch.no_grad():
        trains, generates = (model.train(mode)(input_ids=ids, use_cache=False).logits for mode in (True, False))
    assert (trains - generates).abs().max() < 1e-4


# Cross-talk


class Leak(nn.Module):
    """Adds a trace of earlier tokens to a layer's input, as state, a convolution or attention without a layout does."""

    def __init__(self, trace: Callable[[Tensor], Tensor], size: float) -> None:
        super().__init__()
        self.trace, self.size = trace, size

    def forward(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] + self.size * self.trace(inputs[0]).to(inputs[0].dtype), *inputs[1:])


def state(x: Tensor) -> Tensor:
    return x.float().cumsum(1)


def convolution(x: Tensor) -> Tensor:
    return torch.roll(x, 1, 1)


def average(x: Tensor) -> Tensor:
    return x.float().mean(1, keepdim=True).expand_as(x)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("trace", [state, convolution, average])
def test_a_trace_of_the_example_before_is_never_packed(
    tmp_path: Path, trace: Callable[[Tensor], Tensor], precision: torch.dtype
) -> None:
    notes: list[str] = []
    model = load.load_base(model_of("llama", tmp_path), request(), Device(CPU.torch, precision))
    clean = prove(Forward(model, Device(CPU.torch, precision), "plain", autocast=False), examples(), packing=True)
    assert clean.way == "packed"
    model.model.layers[1].register_forward_pre_hook(Leak(trace, 1e-4))
    leaking = prove(clean, examples(), packing=True, note=notes.append)
    assert leaking.way == "padded"
    assert "packed training is passed over" in notes[0]


def test_padding_that_changes_an_example_trains_it_alone(tmp_path: Path) -> None:
    model = load.load_base(model_of("llama", tmp_path), request(), CPU)
    model.model.layers[1].register_forward_pre_hook(Leak(lambda x: x.mean((0, 1), keepdim=True).expand_as(x), 1.0))
    forward = prove(Forward(model, CPU, "plain", autocast=False), examples(), packing=True)
    assert forward.way == "alone"
    assert [len(part) for part in forward.cut(examples(), 1_000)] == [1] * len(examples())


def test_a_window_shorter_than_the_examples_is_part_of_the_proof(tmp_path: Path) -> None:
    model = load.load_base(model_of("mistral_window", tmp_path), request(), CPU)
    forward = Forward(model, CPU, "plain", autocast=False)
    short = [example for example in examples() if len(example) < 20]
    model.config.sliding_window = 25
    assert [len(one) for one in proof.sample_of(forward, examples())] == [14, 19, 22, 27]
    assert proof.sample_of(forward, short) == sorted(short, key=len)


def test_a_head_that_caps_its_logits_is_found_though_they_are_small(tmp_path: Path) -> None:
    model = load.load_base(model_of("gemma2", tmp_path), request(), CPU)
    forward = Forward(model, CPU, "plain", autocast=False)
    assert proof.has_own_head(forward, examples()[0])
    model.config.final_logit_softcapping = None
    assert not proof.has_own_head(forward, examples()[0])


# Targets


def adapted(family: str, folder: Path, **changes: Any) -> Any:
    response = request(**changes)
    return load.add_adapter(load.load_base(model_of(family, folder), response, CPU), response)


def trained_names(model: Any) -> set[str]:
    return {
        name.rsplit(".lora_", 1)[0].rpartition("layers.")[2] for name, p in model.named_parameters() if p.requires_grad
    }


def test_dropout_reaches_the_layers_of_a_mixture_and_its_experts_are_adapted(tmp_path: Path) -> None:
    model = adapted("qwen3_moe", tmp_path)
    names = trained_names(model)
    assert {"0.self_attn.q_proj", "0.mlp.experts", "0.mlp.experts.base_layer"} <= names
    assert not any("gate" in name.split(".") for name in names), "routers stay as they are"
    assert model.peft_config["default"].lora_dropout == 0.0, "or peft would refuse to load the adapter"
    assert model.base_model.model.model.layers[0].self_attn.q_proj.lora_dropout["default"].p == 0.05


def test_shared_experts_and_dense_blocks_are_adapted_beside_fused_ones(tmp_path: Path) -> None:
    assert any("shared_expert.gate_proj" in name for name in trained_names(adapted("qwen2_moe", tmp_path / "1")))
    assert any("0.mlp.down_proj" in name for name in trained_names(adapted("deepseek_v3", tmp_path / "2")))


@pytest.mark.parametrize(
    ("family", "named", "words"),
    [
        ("llama", ["q_proj", "qproj"], ["'qproj'", "q_proj", "down_proj"]),
        ("qwen3_moe", ["w9"], ["'w9'", "mlp.experts.gate_up_proj"]),
        ("mamba", ["out_proj"], ["peft refuses", "out_proj"]),
    ],
)
def test_a_target_that_cannot_be_adapted_is_refused_with_its_name(
    tmp_path: Path, family: str, named: list[str], words: list[str]
) -> None:
    with pytest.raises(ModelUnavailable) as refusal:
        architecture.examine(model_of(family, tmp_path), request(target_modules=named))
    text = f"{refusal.value.message} {refusal.value.hint}"
    assert all(word in text for word in words)
    assert "base_layer" not in text


def test_names_of_one_experts_layers_mean_the_fused_ones(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(config_of("qwen3_moe"))
    chosen = targets.resolve(model, request(target_modules=["q_proj", "gate_proj", "up_proj", "down_proj"]))
    assert set(chosen.parameters) == {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}
    with pytest.raises(ModelUnavailable, match="no DoRA for fused experts"):
        targets.resolve(model, request(target_modules=["experts.down_proj"], use_dora=True))
    assert "the experts stay frozen" in " ".join(targets.resolve(model, request(use_dora=True)).notes)


def test_the_head_is_trained_where_it_is_named_and_a_layer_that_is_never_called_is_refused(tmp_path: Path) -> None:
    forward = ready(model_of("llama", tmp_path), request(target_modules=["q_proj", "lm_head"]), [])
    head = forward.model.get_base_model().lm_head
    assert (forward.way, forward.own_head) == ("packed", True)
    steps(forward, torch.optim.AdamW([p for p in forward.model.parameters() if p.requires_grad], lr=1e-2), 0, 2)
    assert head.lora_B["default"].weight.any()

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(4, 4)

    response = request(target_modules=["q_proj", "spare"])
    base = load.load_base(tmp_path, response, CPU)
    base.model.layers[0].idle = Idle()
    with pytest.raises(ModelUnavailable, match=r"the adapter of spare gets no gradient"):
        prove(Forward(load.add_adapter(base, response), CPU, "plain", autocast=False), examples(), packing=True)


def test_a_head_that_shares_the_embedding_is_merged_without_it(tmp_path: Path) -> None:
    from peft import PeftModel

    config = config_of("llama")
    config.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    forward = ready(tmp_path / "base", request(target_modules=["q_proj", "lm_head"]), [])
    steps(forward, torch.optim.AdamW([p for p in forward.model.parameters() if p.requires_grad], lr=1e-2), 0, 3)
    forward.model.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([examples()[0].input_ids])

    def tuned() -> Any:
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter")

    merge(tuned()).save_pretrained(tmp_path / "merged")
    complete = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(complete(ids).logits, tuned()(ids).logits, atol=1e-4, rtol=1e-4)


# Preflight


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "neverheard"}, "cannot be built by this release"),
        ({"hidden_size": 65, "head_dim": None}, "cannot be built"),
        ({"hidden_act": "no_such_function"}, "cannot be built"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_from_its_config_alone(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    config_of("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ModelUnavailable, match=words):
        architecture.examine(tmp_path, request())


def test_a_large_mixture_is_looked_at_in_seconds_and_told_what_nf4_leaves(tmp_path: Path) -> None:
    config = config_of("qwen3_moe")
    config.update({"hidden_size": 2048, "num_hidden_layers": 48, "num_experts": 128, "moe_intermediate_size": 768,
                   "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151_936})  # fmt: skip
    config.save_pretrained(tmp_path)
    began = time.monotonic()
    notes = " ".join(architecture.examine(tmp_path, request(quantization="nf4")))
    assert time.monotonic() - began < 60
    assert "fused experts, 28,991,029,248 of 30,532,122,624 parameters, stay in 16 bits (58 GB)" in notes
    assert "routers (gate)" in notes


# Which weights are saved


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "best", "steps_taken"),
    [
        ([3.0, 2.9, 2.8, 2.7], 2, 0.5, 3, 3),
        ([1.0, 0.6, 0.59, 0.58, 0.57], 3, 0.1, 5, 5),
        ([1.0, 1.2, 0.9, 1.3, 1.4], 2, 0.0, 3, 5),
        ([1.0, 0.99, 0.98, 0.4, 0.39], 3, 0.05, 5, 5),
    ],
)
def test_the_lowest_validation_loss_is_saved_whatever_stops_training(
    monkeypatch: pytest.MonkeyPatch, losses: list[float], patience: int, min_delta: float, best: int, steps_taken: int
) -> None:
    ahead = iter(losses)
    monkeypatch.setattr(loop, "evaluate", lambda *_: (next(ahead), {}))
    messages: list[str] = []
    trainer: Any = SimpleNamespace(
        forward=None, validation=[1], max_tokens_per_microbatch=1, request=request(patience=patience, min_delta=min_delta),
        reporter=SimpleNamespace(message=messages.append),
    )  # fmt: skip
    now = loop.TrainingState()
    while not now.stopped_early and now.step < len(losses):
        now, _ = loop._validate(trainer, now.model_copy(update={"step": now.step + 1}))
    assert (now.best_step, now.step) == (best, steps_taken)
    assert now.best_valid_loss == min(losses[:steps_taken])
    if now.stopped_early and min_delta:
        assert f"has not fallen by more than min_delta {min_delta:g}" in messages[0]


def test_a_state_written_before_patience_had_its_own_loss_goes_on() -> None:
    old = '{"step": 4, "best_step": 2, "best_valid_loss": 1.0, "bad_validations": 1}'
    assert loop.TrainingState.model_validate_json(old).patience_loss is None


# The machine


@pytest.mark.parametrize("where", ["/proc/none", "/dev/null/home", "/proc/self/none/deeper"])
def test_a_place_that_cannot_be_written_to_is_a_usage_error_with_the_path(where: str) -> None:
    with pytest.raises(UsageError, match=f"cannot write to {where}") as refusal, files.scratch_folder(Path(where)):
        pass
    assert refusal.value.exit_code == 2
    assert "FTBRIDGE_HOME" in str(refusal.value.hint)


@pytest.mark.parametrize(
    ("needed", "free", "words"),
    [
        (400_000, 300_000, "needs 400 kB on the disk that holds {}; 300 kB are free"),
        (900, 12, "needs 900 bytes on the disk that holds {}; 12 bytes are free"),
        (
            5_000_000_001,
            5_000_000_000,
            "needs 5,000,000,001 bytes on the disk that holds {}; 5,000,000,000 bytes are free",
        ),
        (7_500_000_000, 20_000_000, "needs 7.5 GB on the disk that holds {}; 0.02 GB are free"),
    ],
)
def test_a_disk_that_is_too_small_is_told_in_figures_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: int, free: int, words: str
) -> None:
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(DiskFull) as refusal:
        files.require_room(tmp_path, needed, "Training")
    assert words.format(tmp_path) in refusal.value.message


@pytest.mark.parametrize(
    ("setting", "value", "other"),
    [
        pytest.param("OMP_WAIT_POLICY", "PASSIVE", "ACTIVE", id="threads sleep while they wait"),
        pytest.param("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16", "1024", id="few kernels are kept"),
        pytest.param("LRU_CACHE_CAPACITY", "16", "1024", id="few kernels are kept by torch"),
    ],
)
def test_a_computing_process_has_settings_unless_the_user_has(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, other: str
) -> None:
    monkeypatch.delenv(setting, raising=False)
    assert child_environment()[setting] == value
    monkeypatch.setenv(setting, other)
    assert child_environment()[setting] == other, "what the user set stays"


def test_a_user_who_chooses_how_threads_wait_also_chooses_how_long_they_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert child_environment()["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "GOMP_SPINCOUNT" not in child_environment()
