"""A training loop over a two-layer random model, and a reporter that keeps what it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ftbridge.providers.local.training import loop, objective
from ftbridge.providers.local.training.objective import SUPERVISED
from ftbridge.providers.local.training.optim import optimizer_for
from support import architectures


class Steps:
    """A reporter that keeps every step's figures."""

    def __init__(self) -> None:
        self.figures: list[dict[str, Any]] = []

    def message(self, text: str, level: str = "info") -> None:
        """Nothing to say."""

    def metrics(self, **figures: Any) -> None:
        self.figures.append(figures)

    def checkpoint(self, path: Path, step: int) -> None:
        """Nothing to say."""


def trainer_of(folder: Path, goal: objective.Objective = SUPERVISED, **changes: Any) -> tuple[loop.Trainer, Steps]:
    response = architectures.request(**{"n_epochs": 2, "batch_size": 4, **changes})
    if not (folder / "model").exists():
        architectures.model_of("llama", folder / "model")
    forward = architectures.ready(folder / "model", response, [])
    steps = Steps()
    data = architectures.examples()
    (folder / "checkpoints").mkdir(exist_ok=True)
    trainer = loop.Trainer(
        forward, optimizer_for(forward.model.parameters(), response, architectures.CPU),
        torch.amp.GradScaler("cpu", enabled=False), response, architectures.CPU, data, data[:2],
        folder / "checkpoints", 60, steps, lambda: None, goal,
    )  # fmt: skip
    return trainer, steps
