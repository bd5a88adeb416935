"""Memory of training in one process, from the model's config.json alone: no weights are loaded.

    weights      linear layers at the quantization's bytes a parameter; embeddings, head and norms at 2; on a CPU also the
                 16-bit copy of dequantised weights that the trainer keeps where memory is ample (local.keep_dequantized)
    trained      r (in + out) parameters a linear layer: 4 bytes each, 4 for the gradient, 8 or 2 for AdamW's moments
    activations  with checkpointing: every layer's input, and one layer's inside; without: every layer's inside
    logits       of trained tokens, a chunk at a time: float32 logits, their 16-bit gradient and what softmax needs beside
    overhead     a card: 0.8 GB for the CUDA context and libraries, and 6 % for what an allocator cannot use;
                 a CPU: 0.7 GB for Python, torch and the kernels that oneDNN builds, and 15 % for an allocator that keeps blocks

Bytes a parameter: nf4 with double quantisation 0.516 (4 bits, an 8-bit constant for 64 weights, a 32-bit one for 256 of
those; Dettmers et al. 2023, arXiv:2305.14314, section 3), int8 1.0, 16-bit 2. Inside a layer, without attention's square, which
fused kernels do not keep: two norms, q, k, v, the attention's output, gate, up and their product, all in 16 bits (after
Korthikanti et al. 2022, arXiv:2205.05198, whose 34 bytes x width are this for a GPT-2 block). On a CPU held against measured
peaks (benchmarks/memory.py); on cards against published ones only (docs/plan.md): `ftbridge run` halves its passes when memory
runs out all the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.errors import UsageError
from ftbridge.spec_sections import LocalSpec

GIB = 1 << 30
_BYTES = {"nf4": 0.516, "int8": 1.0, "none": 2.0}
_OVERHEAD = {"cuda": (0.8e9, 1.06), "cpu": (0.7e9, 1.15)}
"""Bytes that are there before anything, and what allocators make of the rest."""
_CHUNK = 64 << 20
"""Bytes of one chunk's float32 logits (`ftbridge.providers.local.loss.CHUNK_BYTES`; that module needs torch)."""

CARDS: dict[str, float] = {
    "RTX 3060 12 GB": 12,
    "T4 16 GB": 15,
    "RTX 4080 16 GB": 16,
    "RTX 3090/4090, L4, A10G 24 GB": 24,
    "RTX 5090 32 GB": 32,
    "A100 40 GB": 40,
    "L40S, RTX A6000 48 GB": 48,
    "A100, H100 80 GB": 80,
    "H200 141 GB": 141,
}
"""Common cards and their memory in GiB."""


class Shape(BaseModel):
    """A decoder's sizes, as its config tells them."""

    model_config = ConfigDict(frozen=True)

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    experts: int = 1

    @property
    def linears(self) -> list[tuple[int, int]]:
        """Inputs and outputs of one layer's linear modules."""
        attention = self.heads * self.head_dim
        keys = self.kv_heads * self.head_dim
        own = [(self.hidden, attention), (self.hidden, keys), (self.hidden, keys), (attention, self.hidden)]
        mlp = [(self.hidden, self.intermediate), (self.hidden, self.intermediate), (self.intermediate, self.hidden)]
        return own + mlp * self.experts

    @property
    def linear_parameters(self) -> int:
        """Parameters of all linear layers, the head aside."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def other_parameters(self) -> int:
        """Embeddings, head and norms."""
        tables = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return tables + (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.linear_parameters + self.other_parameters

    def adapter_parameters(self, r: int) -> int:
        """Of a LoRA adapter of rank r on every linear layer but the head."""
        return self.layers * sum(r * (inputs + outputs) for inputs, outputs in self.linears)


class Memory(BaseModel):
    """Bytes while training with passes of `pass_tokens` tokens. About."""

    model_config = ConfigDict(frozen=True)

    weights: int
    trained: int = Field(description="Trained parameters with gradients and the optimizer's moments.")
    activations: int
    logits: int
    overhead: int
    total: int
    pass_tokens: int
    checkpointing: bool


def shape_of(config: dict[str, Any], where: str = "config.json") -> Shape:
    """The sizes in a config. Raises `UsageError` for one that is no decoder of the usual build."""
    try:
        text = config.get("text_config") or config
        hidden, heads = text["hidden_size"], text["num_attention_heads"]
        return Shape(
            hidden=hidden,
            layers=text["num_hidden_layers"],
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or hidden // heads,
            intermediate=text.get("moe_intermediate_size") or text["intermediate_size"],
            vocabulary=text["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            experts=text.get("num_local_experts") or text.get("num_experts") or 1,
        )
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UsageError(f"{where} does not tell {error}; memory cannot be reckoned from it.") from None


def read_shape(path: Path) -> Shape:
    """The sizes in a config.json, or in that of a folder. Raises `UsageError`."""
    file = path / "config.json" if path.is_dir() else path
    try:
        return shape_of(json.loads(file.read_text("utf-8")), str(file))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: not a model's config ({error}).") from None


def memory(
    shape: Shape,
    local: LocalSpec,
    *,
    pass_tokens: int,
    trained_share: float = 1.0,
    checkpointing: bool = True,
    eight_bit: bool | None = None,
    device: Literal["cuda", "cpu"] = "cuda",
) -> Memory:
    """What training takes. `trained_share` (0..1) of a pass's tokens need logits; `eight_bit`: moments in 8 bits.

    `eight_bit` None takes what `local.optimizer: auto` takes: on CUDA 8 bits for quantized and for full tuning, on a CPU none.
    """
    kind = quantization(local)
    if eight_bit is None:
        auto = local.optimizer == "auto" and device == "cuda" and (kind != "none" or local.tuning == "full")
        eight_bit = local.optimizer.endswith("8bit") or auto
    moments = 2 if eight_bit else 8
    if local.tuning == "full":
        size = 4 if device == "cpu" else 2
        weights = size * shape.parameters
        trained = shape.parameters * (size + moments)
    else:
        weights = round(_BYTES[kind] * shape.linear_parameters) + 2 * shape.other_parameters
        if device == "cpu" and kind == "nf4" and local.keep_dequantized is not False:
            weights += 2 * shape.linear_parameters
        trained = shape.adapter_parameters(local.lora.r) * (4 + 4 + moments)
    attention = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    inside = 2 * (4 * shape.hidden + 2 * attention + 4 * shape.intermediate)
    if local.tuning == "lora":
        inside += 2 * (3 * shape.hidden + shape.intermediate)  # inputs of A, kept once more for dropout
    per_token = inside + 2 * shape.layers * shape.hidden if checkpointing else shape.layers * inside
    activations = pass_tokens * per_token
    logits = round(min(pass_tokens * trained_share * shape.vocabulary * 4, _CHUNK) * 2.5)
    used = weights + trained + activations + logits
    context, waste = _OVERHEAD[device]
    overhead = round(context + (waste - 1) * used)
    return Memory(
        weights=weights,
        trained=trained,
        activations=activations,
        logits=logits,
        overhead=overhead,
        total=used + overhead,
        pass_tokens=pass_tokens,
        checkpointing=checkpointing,
    )


def quantization(local: LocalSpec) -> Literal["nf4", "int8", "none"]:
    """What `auto` comes to."""
    if local.quantization == "auto":
        return "nf4" if local.tuning == "lora" else "none"
    return local.quantization


def largest_pass(
    shape: Shape,
    local: LocalSpec,
    memory_bytes: float,
    trained_share: float = 1.0,
    device: Literal["cuda", "cpu"] = "cuda",
) -> int:
    """Most tokens of one pass that fit, in steps of 256, with checkpointing; 0 when not even 256 do.

    It is also the longest example that can be trained on, which must go through in one pass.
    """
    fits = [
        tokens
        for tokens in (256 * 2**power for power in range(10))
        if memory(shape, local, pass_tokens=tokens, trained_share=trained_share, device=device).total <= memory_bytes
    ]
    return max(fits, default=0)
