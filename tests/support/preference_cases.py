"""Drawn pairs and a two-layer model for tests of preference tuning; no tokenizer, no network."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.pairs import Pair
from ftbridge.providers.local.training.reference import ReferenceKey
from support import architectures

SHAPES = ((9, 7, 12), (1, 5, 3), (24, 6, 6), (0, 8, 5), (15, 1, 9), (30, 14, 4))
"""Tokens of prompt, chosen and rejected completion: prompts of none, one and many."""
KEY = ReferenceKey(model="m", adapter=None, quantization="none", compute="float32", layout="packed")


def pairs(shapes: tuple[tuple[int, int, int], ...] = SHAPES, seed: int = 3) -> list[Pair]:
    draw = random.Random(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(4, architectures.VOCABULARY) for _ in range(count))

    items = []
    for index, (prompt, chosen, rejected) in enumerate(shapes):
        start = ids(prompt)
        sides = [
            Encoded(start + ids(length), (False,) * prompt + (True,) * length, index) for length in (chosen, rejected)
        ]
        items.append(Pair(sides[0], sides[1], prompt, index))
    return items


def request(**changes: Any) -> LocalRequest:
    options = {"loss": "sigmoid", "beta": 0.1} | changes.pop("dpo", {})
    return architectures.request(**{"method": "dpo", "lora_dropout": 0.0, "dpo": options, **changes})


def forward_of(folder: Path, local_request: LocalRequest, family: str = "llama") -> Forward:
    """The family's small model, adapted and proved. Its adapter adds nothing yet."""
    if not (folder / "model").exists():
        architectures.model_of(family, folder / "model")
    return architectures.ready(folder / "model", local_request, [])


def stir(model: Any, size: float = 0.05) -> None:
    """Give the adapter something to say: B is not zero."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * size)


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
