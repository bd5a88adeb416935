"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch

from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.request import LocalRequest


def optimizer_for(
    parameters: Iterable[torch.nn.Parameter], request: LocalRequest, device: Device, *, shardable: bool = False
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) over the parameters that train, betas (0.9, 0.999).

    `shardable`: auto is the one whose moments can be held in parts, by sharded workers now or when a checkpoint was written.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    options: dict[str, Any] = {"lr": request.learning_rate, "weight_decay": request.weight_decay, "betas": (0.9, 0.999)}
    kind = request.optimizer if request.optimizer != "auto" else "adamw" if shardable else _auto(request, device)
    if kind == "adamw":
        return torch.optim.AdamW(trainable, fused=device.kind in ("cpu", "cuda"), **options)
    import bitsandbytes

    if kind == "adamw_8bit":
        return bitsandbytes.optim.AdamW8bit(trainable, **options)
    return bitsandbytes.optim.PagedAdamW8bit(trainable, **options)


def _auto(request: LocalRequest, device: Device) -> Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]:
    """8-bit state where it saves card memory (Dettmers et al. 2022, arXiv:2110.02861); full precision elsewhere."""
    if device.kind != "cuda":
        return "adamw"
    if request.tuning == "full":
        return "adamw_8bit"
    return "paged_adamw_8bit" if request.quantization != "none" else "adamw"


def learning_rate(request: LocalRequest, step: int, total: int) -> float:
    """The rate of a step (from 1): linear warm-up to the peak, then cosine or linear to zero, or constant."""
    warmup = math.ceil(request.warmup_ratio * total)
    if step <= warmup:
        return request.learning_rate * step / max(1, warmup)
    done = (step - 1 - warmup) / max(1, total - warmup)
    if request.lr_schedule == "cosine":
        return request.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    if request.lr_schedule == "linear":
        return request.learning_rate * (1 - done)
    return request.learning_rate
