"""Requests, examples and the processor for tests of the training code."""

from __future__ import annotations

from typing import Any

import torch

from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.request import LocalRequest


def request(**changes: Any) -> LocalRequest:
    values: dict[str, Any] = {
        "name": "test", "model": "smollm2-135m-instruct", "seed": 1, "n_epochs": 1, "batch_size": 4,
        "learning_rate": 1e-3, "lr_schedule": "cosine", "warmup_ratio": 0.0, "weight_decay": 0.0, "max_grad_norm": 1.0,
        "optimizer": "adamw", "tuning": "lora", "quantization": "none", "lora_r": 8, "lora_alpha": 16,
        "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": False, "use_dora": False, "max_length": 512,
        "overlength": "refuse", "packing": True, "max_tokens_per_microbatch": "auto", "patience": None, "min_delta": 0.0,
        "gradient_checkpointing": False, "precision": "fp32", "device": "cpu", "cache_dequantized_weights": False,
        "evals_per_epoch": 1, "keep_checkpoints": 2, "checkpoint_minutes": 10, "trust_remote_code": False,
    }  # fmt: skip
    return LocalRequest(**(values | changes))


def device(precision: torch.dtype = torch.float32) -> Device:
    return Device(torch.device("cpu"), precision)


def examples(lengths: tuple[int, ...] = (37, 12, 64, 5)) -> list[Encoded]:
    generator = torch.Generator().manual_seed(3)
    items = []
    for index, length in enumerate(lengths):
        ids = torch.randint(100, 20_000, (length,), generator=generator).tolist()
        items.append(Encoded(tuple(ids), tuple(where > length // 2 for where in range(length)), index))
    return items
