"""Tiny random models of every family of transformers that continues text, and one round of training on each.

`round_of(model_type)` makes a model of some hundred thousand weights from a config alone and does with it what a job does:
target, adapt, prove, train, checkpoint, resume, save, load in plain peft, merge; then full tuning's checkpoint. No tokenizer
and no network: examples are drawn token ids.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from ftbridge.errors import FtbridgeError
from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.models import architecture, load
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.fused import DropoutPool, fuse
from ftbridge.providers.local.models.parts import use_own_attention
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training import checkpoint
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.forward import Forward, prove
from support import training_requests

VOCABULARY, LENGTHS, STEPS = 512, (19, 23, 31, 14, 27, 22), 8
CPU = Device(torch.device("cpu"), torch.float32)

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size", "word_embed_proj_dim", "lru_width"), 64),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "shared_intermediate_size"), 128),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "moe_topk", "moe_top_k", "moe_k"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("head_dim", "kv_channels", "swa_head_dim", "global_head_dim"), 16),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "index_head_dim"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"), 512),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "decoder_sparse_step", "n_shared_experts"), 1),
    **dict.fromkeys(("linear_num_value_heads", "mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("linear_num_key_heads",), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size"), 16),
    **dict.fromkeys(("mamba_n_groups", "n_groups", "mamba_d_ssm_groups"), 1),
    **dict.fromkeys(("index_n_heads", "index_topk"), 4),
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""Small sizes under every name that a config may give them."""

SPECIAL: dict[str, dict[str, Any]] = {
    "falcon_alibi": {"model_type": "falcon", "alibi": True, "new_decoder_architecture": False},
    "mistral_window": {"model_type": "mistral", "sliding_window": 12},
    "gemma2": {"query_pre_attn_scalar": 16, "sliding_window": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16, "sliding_window": 16},
    "vaultgemma": {"query_pre_attn_scalar": 16, "sliding_window": 16},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
    "mpt": {"attn_config": {"attn_impl": "eager"}},
    "bamba": {"attn_layer_indices": [1], "mamba_expand": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
              "use_mamba_kernels": False},
    "qwen3_5_text": {"num_hidden_layers": 4},
    "qwen3_5_moe_text": {"num_hidden_layers": 4},
    "qwen3_next": {"num_hidden_layers": 4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "num_local_experts": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16, "expand": 2},
    "llama4_text": {"no_rope_layers": [1, 0], "interleave_moe_layer_step": 1, "intermediate_size_mlp": 128},
    "minimax": {"layer_types": ["linear_attention", "full_attention"]},
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 16},
    "falcon_h1": {"mamba_d_ssm": 128},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"]},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}, "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2}},
    "deepseek_v2": {"num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1},
    "deepseek_v3": {"num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1},
    "gemma4_text": {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "zamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "mamba"], "use_mamba_kernels": False},
    "kimi_linear": {"num_experts_per_token": 2, "num_key_value_heads": 4, "num_expert_group": 1, "topk_group": 1},
    "rwkv": {"attention_hidden_size": 64},
    "xlstm": {"num_heads": 4, "embedding_dim": 64, "num_blocks": 2},
}  # fmt: skip


@dataclass
class Outcome:
    """What one round saw. `way` is how packing: true trains; differences are in nats."""

    name: str
    refused: str = ""
    way: str = ""
    adapted: int = 0
    experts: bool = False
    fell: float = 0.0
    peft: float = math.inf
    merged: float = math.inf
    resumed: float = math.inf
    full: float = math.inf
    nf4: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def config_of(name: str) -> Any:
    """A small config of the family."""
    special = dict(SPECIAL.get(name, {}))
    model_type = special.pop("model_type", name)
    usual = AutoConfig.for_model(model_type)
    taken = {key: value for key, value in SIZES.items() if key in usual.to_dict() and not _computed(usual, key)}
    both = {key: value for key, value in {**taken, **special}.items() if value != "usual"}
    return AutoConfig.for_model(model_type, **both)


def _computed(config: Any, key: str) -> bool:
    return isinstance(getattr(type(config), key, None), property)


def model_of(name: str, folder: Path) -> Path:
    """Write a random model of the family to `folder`, as it would be published."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name), dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    return folder


def examples() -> list[Encoded]:
    """Drawn token ids; the second half of each is trained."""
    draw = random.Random(3)
    return [
        Encoded(tuple(draw.randrange(4, VOCABULARY) for _ in range(n)), tuple(where >= n // 2 for where in range(n)), i)
        for i, n in enumerate(LENGTHS)
    ]


def request(**changes: Any) -> LocalRequest:
    """Today's defaults, on a CPU in float32 without quantization."""
    ours = {"model": "tiny", "lr_schedule": "constant", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.05}
    return training_requests.request(**(ours | changes))


def ready(folder: Path, local_request: LocalRequest, notes: list[str]) -> Forward:
    """The model, adapted, fused and proved, as a job makes it ready."""
    model = load.load_base(folder, local_request, CPU)
    pool = None
    if local_request.tuning == "lora":
        model = load.add_adapter(model, local_request)
        pool = DropoutPool(local_request.lora_dropout, CPU.compute, CPU.torch)
        fuse(model, load.FrozenWeights.of(model, local_request, CPU).weight_of, pool)
    return prove(
        Forward(model, CPU, "plain", autocast=False, pool=pool),
        examples(),
        packing=local_request.packing,
        note=notes.append,
    )


def steps(forward: Forward, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[float]:
    """The mean loss of each step from `first` to `last`."""
    losses = []
    for step in range(first, last):
        losses.append(0.0)
        for part in forward.cut(examples(), 100):
            loss, _ = forward.loss_sum(part, seed=step)
            (loss / 60).backward()
            losses[-1] += float(loss.detach())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return losses


def log_probabilities(model: Any) -> torch.Tensor:
    """Of the first example's tokens, with the model's own attention, alone."""
    use_own_attention(model)
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([examples()[0].input_ids]), use_cache=False).logits
    return torch.log_softmax(logits.float(), -1)


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    """AdamW over what trains."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)


def round_of(name: str) -> Outcome:
    """One round of training on a random model of the family."""
    outcome, began = Outcome(name), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model_of(name, folder / "base")
        try:
            notes = list(architecture.examine(folder / "base", request()))
        except FtbridgeError as error:
            outcome.refused = error.message
        else:
            _lora(outcome, folder, notes)
            _full(outcome, folder)
            _nf4(outcome, folder)
            outcome.notes = tuple(notes)
    outcome.seconds = time.monotonic() - began
    return outcome


def _lora(outcome: Outcome, folder: Path, notes: list[str]) -> None:
    response = request()
    forward = ready(folder / "base", response, notes)
    model, optimizer, scaler = forward.model, optimizer_of(forward.model), torch.amp.GradScaler("cpu", enabled=False)
    outcome.way = forward.way + (", own head" if forward.own_head and forward.way == "packed" else "")
    outcome.adapted = sum(p.numel() for p in model.parameters() if p.requires_grad)
    outcome.experts = any("expert" in name for name, p in model.named_parameters() if p.requires_grad)
    first = steps(forward, optimizer, 0, STEPS // 2)
    saved = checkpoint.save(folder / "checkpoints", model, optimizer, scaler, TrainingState(step=STEPS // 2))
    rest = steps(forward, optimizer, STEPS // 2, STEPS)
    outcome.fell = first[0] - rest[-1]
    again = ready(folder / "base", response, [])
    other = optimizer_of(again.model)
    checkpoint.restore(saved, again.model, other, scaler)
    outcome.resumed = max(abs(a - b) for a, b in zip(rest, steps(again, other, STEPS // 2, STEPS), strict=True))
    model.save_pretrained(folder / "adapter")
    tuned = log_probabilities(model)
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    outcome.peft = _apart(log_probabilities(PeftModel.from_pretrained(base, folder / "adapter")), tuned)
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload()
    merged.save_pretrained(folder / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32)
    outcome.merged = _apart(log_probabilities(loaded), tuned)


def _full(outcome: Outcome, folder: Path) -> None:
    response = request(tuning="full")
    forward = ready(folder / "base", response, [])
    optimizer, scaler = optimizer_of(forward.model), torch.amp.GradScaler("cpu", enabled=False)
    steps(forward, optimizer, 0, 2)
    saved = checkpoint.save(folder / "full", forward.model, optimizer, scaler, TrainingState(step=2))
    again = load.load_base(folder / "base", response, CPU)
    checkpoint.load_weights(saved, again)
    outcome.full = _apart(log_probabilities(again), log_probabilities(forward.model))


def _nf4(outcome: Outcome, folder: Path) -> None:
    """Four steps on 4-bit weights: "nf4", with what stays in 16 bits, or why it does not train."""
    job = request(quantization="nf4", lora_dropout=0.0)
    try:
        notes = architecture.examine(folder / "base", job)
        forward = ready(folder / "base", job, [])
        losses = steps(forward, optimizer_of(forward.model), 0, 4)
    except FtbridgeError as error:
        outcome.nf4 = f"refused: {error.message}"
        return
    experts = any("fused experts" in note and "16 bits" in note for note in notes)
    outcome.nf4 = ("nf4, experts in 16 bits" if experts else "nf4") if losses[-1] < losses[0] else "loss does not fall"


MATRIX = """| family | methods | thinking | tools | packing | quantization | merge | resume |
|---|---|---|---|---|---|---|---|"""


def row_of(outcome: Outcome, templates: str) -> str:
    """One row of the matrix of architectures. `templates` are its cells for thinking and tools."""
    if outcome.refused:
        return f"| {outcome.name} | refused: {outcome.refused} | | | | | | |"
    methods = "LoRA, full" if not outcome.experts else "LoRA with experts, full"
    packing = outcome.way if outcome.way != "plain" else "one by one"
    merge = (
        "yes"
        if outcome.merged < 1e-4 and outcome.peft < 1e-5
        else f"differs by {max(outcome.merged, outcome.peft):.1g}"
    )
    apart = max(outcome.resumed, outcome.full)
    resume = "exact" if apart == 0.0 else f"differs by {apart:.1g}"
    return f"| {outcome.name} | {methods} | {templates} | {packing} | {outcome.nf4} | {merge} | {resume} |"


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())
