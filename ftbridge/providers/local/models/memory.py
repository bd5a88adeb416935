"""How many tokens fit in one pass, and whether activations must be recomputed. Estimates; running out is handled too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftbridge.errors import OutOfMemory, UsageError
from ftbridge.providers.local.models import footprint
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.footprint import Kind
from ftbridge.providers.local.models.load import COPY_SHARE
from ftbridge.providers.local.models.sizes import shape_of
from ftbridge.providers.local.request import LocalRequest

FREE_SHARE = 0.85
"""Share of free memory that is counted on; the rest is for fragmentation, and for others on this machine."""
BEST_TOKENS: dict[Kind, int] = {"cpu": 2048, "mps": 2048, "cuda": 8192}
"""Largest useful pass. CPU: measured, the rate rises up to about 2,000 tokens and is flat or falls beyond.
Cards: enough rows to fill the matrix units; more only takes memory."""
_UNUSUAL = shape_of(
    {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 16384,
        "vocab_size": 128256,
    }
)
"""Stands for models whose config does not tell their sizes in the usual words: a large one, so passes stay small."""


@dataclass(frozen=True)
class PassPlan:
    """Tokens a pass may hold, and whether blocks are recomputed in the backward pass."""

    tokens: int
    gradient_checkpointing: bool


def agreed(plans: Sequence[PassPlan]) -> PassPlan:
    """The pass that every one of several workers has room for."""
    return PassPlan(min(one.tokens for one in plans), any(one.gradient_checkpointing for one in plans))


def job_of(request: LocalRequest, device: Device, *, sharded: bool = False) -> footprint.Job:
    """What of a request decides its memory on a device; sharded workers take AdamW where the optimizer is auto."""
    return footprint.Job(
        kind=device.kind,
        compute=device.compute.itemsize,
        tuning=request.tuning,
        quantization=request.quantization,
        r=request.lora_r,
        modules=request.target_modules,
        dropout=request.lora_dropout,
        dora=request.use_dora,
        optimizer="adamw" if sharded and request.optimizer == "auto" else request.optimizer,
    )


def require_free(name: str, free: int, total: int, weights: int) -> None:
    """Raise `OutOfMemory` where a GPU has less memory free than the weights alone take, and say what others hold. Bytes."""
    if weights <= free:
        return
    held = f": {(total - free) / 1e9:.1f} GB of {total / 1e9:.1f} GB are in use" if free < 0.9 * total else ""
    raise OutOfMemory(
        f"{name} has {free / 1e9:.1f} GB free{held}, and the weights that it would hold take {weights / 1e9:.1f} GB.",
        hint="nvidia-smi lists the programs that use it: end them, or choose GPUs by CUDA_VISIBLE_DEVICES. Or set "
        "local.quantization: nf4, local.sharding: fsdp2 with more workers, or use a smaller model.",
    )


def plan_pass(
    config: Any,
    request: LocalRequest,
    device: Device,
    longest: int,
    workers: int = 1,
    *,
    parts: int = 1,
    rows: float = 1.0,
) -> PassPlan:
    """The pass for a model of this configuration, which is loaded already; `longest` is the longest example, which must fit.

    On a CPU `workers` of this machine share what is free. A model in `parts` trains a part of its parameters here, and holds a
    block's weights whole while they are gathered. `rows` as in `footprint.block_bytes`.
    What gradients, moments and a copy of the weights will take is set aside first.
    """
    try:
        shape = shape_of(config.to_dict())
    except UsageError:
        shape = _UNUSUAL
    job = job_of(request, device, sharded=parts > 1)
    free = device.free_bytes() // (workers if device.kind == "cpu" else 1)
    copy = footprint.copy_bytes(shape, job)
    copied = (
        copy <= COPY_SHARE * free if request.cache_dequantized_weights == "auto" else request.cache_dequantized_weights
    )
    rest = footprint.trained_bytes(shape, job) / parts + footprint.gathered_bytes(shape, job) * (parts > 1)
    rest += copy * copied + footprint.working_bytes(shape, job, copied=copied)
    rest += footprint.head_bytes(shape, job, tokens=longest, loss_tokens=longest)
    room = max(0.0, FREE_SHARE * free - rest)

    def each(checkpointing: bool) -> int:
        return footprint.token_bytes(shape, job, checkpointing=checkpointing, longest=longest, rows=rows)

    checkpointing = request.gradient_checkpointing
    if checkpointing == "auto":
        checkpointing = each(False) * longest > room
    if request.max_tokens_per_microbatch != "auto":
        return PassPlan(request.max_tokens_per_microbatch, checkpointing)
    most = BEST_TOKENS[job.kind]
    return PassPlan(max(longest, min(most, int(room / each(checkpointing)))), checkpointing)
