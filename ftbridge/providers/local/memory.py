"""How many tokens fit in one pass, and whether activations must be recomputed. Estimates; running out is handled too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ftbridge.providers.local.device import Device
from ftbridge.providers.local.loss import CHUNK_BYTES
from ftbridge.providers.local.request import LocalRequest

ACTIVATION_SHARE = 0.6
"""Share of free memory that activations may take; the rest is for gradients, optimizer state and fragmentation."""
BEST_TOKENS = {"cpu": 2048, "mps": 2048, "cuda": 8192}
"""Largest useful pass. CPU: measured, the rate rises up to about 2,000 tokens and is flat or falls beyond.
Cards: enough rows to fill the matrix units; more only takes memory."""


@dataclass(frozen=True)
class PassPlan:
    """Tokens a pass may hold, and whether blocks are recomputed in the backward pass."""

    tokens: int
    gradient_checkpointing: bool


def plan_pass(config: Any, request: LocalRequest, device: Device, longest: int) -> PassPlan:
    """The pass for a model of this configuration; `longest` is the longest example, in tokens, which must fit."""
    free = max(0, ACTIVATION_SHARE * device.free_bytes() - 2 * CHUNK_BYTES)
    checkpointing = request.gradient_checkpointing
    if checkpointing == "auto":
        checkpointing = activation_bytes(config, checkpointing=False) * longest > free
    if request.tokens_per_pass != "auto":
        return PassPlan(request.tokens_per_pass, checkpointing)
    fit = int(free / activation_bytes(config, checkpointing=checkpointing))
    return PassPlan(max(longest, min(BEST_TOKENS[device.kind], fit)), checkpointing)


def activation_bytes(config: Any, *, checkpointing: bool) -> int:
    """Bytes that one token's activations hold until the backward pass, from the model's configuration.

    Per block, in 16 bits: about 16 vectors of the hidden width (norms and their float32 copies, attention in and out,
    residuals) and 6 of the feed-forward width (gate, up, activation, product). Checkpointing keeps one hidden vector a
    block, and one whole block at a time.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    width = int(getattr(text, "hidden_size", 0) or 4096)
    inner = int(getattr(text, "intermediate_size", 0) or 4 * width)
    blocks = int(getattr(text, "num_hidden_layers", 0) or 32)
    block = 2 * (16 * width + 6 * inner)
    return 2 * width * blocks + block if checkpointing else block * blocks
