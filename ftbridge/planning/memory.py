"""Memory of a local job on one device: its parts, and the largest passes and examples that a card or this machine holds.

The parts are `ftbridge.providers.local.models.footprint`'s, which the worker sizes its passes by; here is what they come
to beside what libraries take. docs/plan.md compares them with measured peaks.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.errors import UsageError
from ftbridge.providers.local.lower import quantization
from ftbridge.providers.local.models import footprint
from ftbridge.providers.local.models.footprint import Job, Kind, ModelShape
from ftbridge.providers.local.models.sizes import shape_of
from ftbridge.spec.sections import LocalSpec

__all__ = [
    "CARDS",
    "GIB",
    "Memory",
    "ModelShape",
    "largest_pass",
    "longest_that_fits",
    "memory",
    "published_config",
    "published_shape",
    "read_shape",
    "shape_of",
]

GIB = 1 << 30
LIBRARIES = {"cuda": 0.5e9, "mps": 0.8e9, "cpu": 0.7e9}
"""CUDA: a context with its kernels and workspaces. CPU: a process with torch, transformers and peft (benchmarks/memory.py)."""
WASTE = {"cuda": 0.05, "mps": 0.1, "cpu": 0.1}
"""Share of a pass's memory that an allocator holds beside what is used."""
MOST = 1 << 17
_STEP = 64

CARDS: dict[str, float] = {
    "RTX 3060 12 GB": 12,
    "T4 16 GB": 15,
    "RTX 4080 16 GB": 16,
    "L4, A10G 24 GB": 22.5,
    "RTX 3090, 4090 24 GB": 24,
    "RTX 5090 32 GB": 31.8,
    "A100 40 GB": 40,
    "L40S 48 GB": 45,
    "RTX A6000 48 GB": 48,
    "A100, H100 80 GB": 79.6,
    "H200 141 GB": 140.4,
}
"""Common cards and their memory in GiB, as nvidia-smi tells it."""


class Memory(BaseModel):
    """Bytes while training with passes of `pass_tokens` tokens. About."""

    model_config = ConfigDict(frozen=True)

    weights: int
    copied: int = Field(
        description="16-bit copy of nf4 weights (local.cache_dequantized_weights); 0 if none is planned."
    )
    gathered: int = Field(
        default=0,
        description="Blocks and head that a sharded worker holds complete while it computes; 0 for a whole model.",
    )
    trained: int = Field(description="Gradients, the optimizer's moments, and an adapter's parameters.")
    activations: int
    logits: int = Field(description="Chunks of them, and the hidden vectors that they come from.")
    generation: int = Field(
        default=0,
        description="Of drawing rollouts, where there are any. On a GPU gone before a pass, so that the larger counts.",
    )
    overhead: int = Field(description="Libraries or the CUDA context, and what an allocator cannot use.")
    total: int
    pass_tokens: int
    checkpointing: bool


def read_shape(path: Path) -> ModelShape:
    """The sizes in a config.json, or in that of a folder. Raises `UsageError`."""
    file = path / "config.json" if path.is_dir() else path
    try:
        return shape_of(json.loads(file.read_text("utf-8")), str(file))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not a model's config ({error}).") from None


_MIRRORS = ("unsloth",)
"""Owners whose repositories are copies of others' models under the same names."""


def published_shape(model: str) -> ModelShape | None:
    """The sizes of an open model by its id on the Hugging Face Hub, from the configs in models.json; None for any other."""
    config = published_config(model)
    return None if config is None else shape_of(config, model)


def published_config(model: str) -> dict[str, Any] | None:
    """The config of an open model by its id on the Hugging Face Hub, from models.json; None for any other.

    models.json holds what the model's publisher wrote in its config.json, sizes only. Upper and lower case are the same, and
    so are copies by `_MIRRORS`, which keep the model's name.
    """
    wanted = model.casefold()
    owner, _, name = wanted.partition("/")
    if owner in _MIRRORS:
        wanted = f"/{name.removesuffix('-bnb-4bit').removesuffix('-unsloth')}"
    for entry in json.loads(files("ftbridge.planning").joinpath("models.json").read_text("utf-8")):
        ids = [model_id.casefold() for model_id in entry["ids"]]
        if wanted in ids or (wanted.startswith("/") and any(model_id.endswith(wanted) for model_id in ids)):
            config: dict[str, Any] = entry["config"]
            return config
    return None


def job_of(local: LocalSpec, kind: Kind, compute: int = 2) -> Job:
    """The part of a spec that decides memory, on a device of this kind."""
    return Job(
        kind=kind,
        compute={"bf16": 2, "fp16": 2, "fp32": 4}.get(local.precision, compute),
        tuning=local.tuning,
        quantization=quantization(local),
        r=local.lora.r,
        modules=local.lora.target_modules,
        dropout=local.lora.dropout,
        dora=local.lora.use_dora,
        optimizer=local.optimizer,
    )


def memory(
    shape: ModelShape,
    local: LocalSpec,
    *,
    pass_tokens: int,
    trained_share: float = 1.0,
    checkpointing: bool = True,
    kind: Kind = "cuda",
    compute: int = 2,
    copied: bool | None = None,
    longest: int | None = None,
    gpus: int = 1,
    rollouts: tuple[int, int] | None = None,
    rows: float = 1.0,
) -> Memory:
    """What training takes. `trained_share` (0..1) of a pass's tokens need logits; `longest`: tokens of the longest example.

    `copied`: whether nf4 weights are also held in 16 bits; None takes what the spec says, and no copy for "auto".
    `gpus`: how many hold a part of the model each (fsdp2); sharded workers keep no copy, and full AdamW moments.
    `rollouts`: how many are drawn in a step, and the tokens of the longest with its prompt. `rows`: tokens that attention reads
    for one of the pass (`footprint.block_bytes`).
    """
    job = job_of(local, kind, compute)
    if gpus > 1:
        job, copied = job.model_copy(update={"optimizer": "adamw"}), False
    with_copy = copied if copied is not None else local.cache_dequantized_weights is True
    weights, trained_bytes = footprint.weight_bytes(shape, job) // gpus, footprint.trained_bytes(shape, job) // gpus
    gathered = footprint.gathered_bytes(shape, job) if gpus > 1 else 0
    if kind == "cpu" and job.quantization != "none":
        weights += (
            2 * shape.parameters
        )  # the file of 16-bit weights stays mapped, and counts as held (benchmarks/memory.py)
    copy = footprint.copy_bytes(shape, job) if with_copy else 0
    each = footprint.token_bytes(shape, job, checkpointing=checkpointing, longest=longest or pass_tokens, rows=rows)
    activations = pass_tokens * each + footprint.working_bytes(shape, job, copied=copy > 0)
    logits = footprint.head_bytes(shape, job, tokens=pass_tokens, loss_tokens=round(pass_tokens * trained_share))
    generation = 0
    if rollouts is not None:
        rows, columns = min(rollouts[0], footprint.ROWS[kind]), rollouts[1]
        generation = footprint.generation_bytes(shape, job, rows=rows, columns=columns)
    # What generation gave back a card uses again; on a CPU the allocator holds most of it.
    most = activations + logits + generation if kind == "cpu" else max(activations + logits, generation)
    overhead = round(LIBRARIES[kind] + WASTE[kind] * most)
    return Memory(
        weights=weights,
        copied=copy,
        gathered=gathered,
        trained=trained_bytes,
        activations=activations,
        logits=logits,
        generation=generation,
        overhead=overhead,
        total=weights + copy + gathered + trained_bytes + most + overhead,
        pass_tokens=pass_tokens,
        checkpointing=checkpointing,
    )


def largest_pass(
    shape: ModelShape,
    local: LocalSpec,
    memory_bytes: float,
    trained_share: float = 1.0,
    *,
    kind: Kind = "cuda",
    compute: int = 2,
    gpus: int = 1,
    rollouts: tuple[int, int] | None = None,
    rows: float = 1.0,
) -> int:
    """Most tokens of one pass that fit, in steps of 64 up to 131,072, with checkpointing; 0 when not even 64 do."""
    low, high = 0, MOST // _STEP
    while low < high:
        middle = (low + high + 1) // 2
        estimate = memory(
            shape,
            local,
            pass_tokens=middle * _STEP,
            trained_share=trained_share,
            kind=kind,
            compute=compute,
            gpus=gpus,
            rollouts=rollouts,
            rows=rows,
        )
        low, high = (middle, high) if estimate.total <= memory_bytes else (low, middle - 1)
    return low * _STEP


def longest_that_fits(shape: ModelShape, pass_tokens: int) -> int:
    """The longest example that a pass of so many tokens holds: all of it, up to the model's positions."""
    return min(pass_tokens, shape.positions or pass_tokens)
