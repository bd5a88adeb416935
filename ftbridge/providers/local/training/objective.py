"""The seam between the training loop and its methods: what a batch is cut into, what its loss is, what is reported.

    the loop (training.py)                     an objective
    ──────────────────────                     ─────────────────────────────────────────────────────────
    takes a batch of units             ──▶     cut: micro-batches; a unit is never parted between two
    for each micro-batch               ──▶     sums: the loss summed over it, and what the figures need
    loss / size(batch), backward       ◀──     size: what the step's loss is a mean over
    adds the sums, clips, updates      ──▶     figures: means under their names, without a prefix
    reports train_NAME, valid_NAME             check: whether the first step is what it must be

A unit is an example (supervised), a pair of completions (dpo), or a completion with its advantage (reinforcement): the smallest
part of a batch whose loss can be computed by itself. Where units do not exist before the step, as in reinforcement, a
`StepSource` makes them of a batch, and measures validation. Losses are summed within a micro-batch and divided by the size of
the whole step, so cutting a step into other micro-batches changes speed and memory, never the result. The loop knows no method:
it validates, saves, stops and resumes by `loss`, or by a source's score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.parallel import ALONE, Parallel

CORRECT, LOSS = "correct", "loss"


@dataclass(frozen=True)
class Sums:
    """What one micro-batch gave: the loss, summed, with its graph; and other sums without one, by name."""

    loss: Tensor
    more: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A training method, as the loop sees it. Units are of the method's own type."""

    @property
    def unit(self) -> str:
        """What a unit is called in messages, with its article: an example, a pair."""
        ...

    def cut(self, forward: Forward, batch: Sequence[Any], budget: int) -> list[list[Any]]:
        """Micro-batches of a batch, of at most `budget` tokens each where a unit fits."""
        ...

    def size(self, batch: Sequence[Any]) -> int:
        """What the loss of a batch is a mean over: its loss tokens, or its pairs. At least 1."""
        ...

    def sums(self, forward: Forward, part: Sequence[Any], *, seed: int = 0) -> Sums:
        """The summed loss of a micro-batch, and the sums that `figures` needs. `seed` fixes its dropout."""
        ...

    def figures(self, loss: float, more: Mapping[str, float], batch: Sequence[Any]) -> dict[str, float]:
        """The means of a batch from its sums, by name: `loss` first, then the method's own."""
        ...

    def check(self, forward: Forward, figures: Mapping[str, float]) -> None:
        """Raise `TrainingFailed` when the figures of a job's first step cannot be right."""
        ...


class SupervisedObjective:
    """Cross-entropy at the trained tokens, a mean over all of them in the step."""

    unit = "an example"

    def cut(self, forward: Forward, batch: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
        """As the forward's way of running the model counts tokens."""
        return forward.cut(batch, budget)

    def size(self, batch: Sequence[Encoded]) -> int:
        """Trained tokens."""
        return max(1, sum(example.num_loss_tokens for example in batch))

    def sums(self, forward: Forward, part: Sequence[Encoded], *, seed: int = 0) -> Sums:
        """Summed cross-entropy in nats, and how many trained tokens were the most likely ones."""
        loss, correct = forward.loss_sum(part, seed=seed)
        return Sums(loss, {CORRECT: correct})

    def figures(self, loss: float, more: Mapping[str, float], batch: Sequence[Encoded]) -> dict[str, float]:
        """Mean loss in nats and accuracy over the trained tokens."""
        size = self.size(batch)
        return {"loss": loss / size, "mean_token_accuracy": more.get(CORRECT, 0.0) / size}

    def check(self, forward: Forward, figures: Mapping[str, float]) -> None:
        """Any first loss is possible."""
        del forward, figures


SUPERVISED = SupervisedObjective()


@dataclass(frozen=True)
class Collected:
    """What a step trains on, and figures of how it was collected, by their full names.

    `tokens` were drawn for it in `seconds`: what the pace of a step is reckoned by, where there were any.
    """

    units: Sequence[Any]
    figures: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Validation:
    """A validation's score, such as a mean reward: the higher the better; and its figures by their full names."""

    score: float
    figures: dict[str, float] = field(default_factory=dict)


class StepSource(Protocol):
    """Where a step's units come from, for a method that makes them on the way. Without a source they are the batch itself."""

    def collect(self, batch: Sequence[Any], step: int) -> Collected:
        """What step `step` (from 1) trains on, for a batch drawn from the training data."""
        ...

    def validate(self, step: int) -> Validation:
        """How the model does after step `step`."""
        ...

    def validation_steps(self, total: int) -> set[int]:
        """The steps after which `validate` is called, of `total` steps in all."""
        ...


def measure(
    objective: Objective, forward: Forward, units: Sequence[Any], budget: int, parallel: Parallel = ALONE
) -> dict[str, float]:
    """The figures of an objective over all `units`, without a gradient. Leaves the model in train mode."""
    forward.model.eval()
    total = {LOSS: 0.0}
    with torch.no_grad():
        for turn in parallel.deal(objective.cut(forward, units, parallel.budget(units, budget))):
            sums = objective.sums(forward, turn.part)
            if turn.idle:
                continue
            total[LOSS] += float(sums.loss)
            for name, value in sums.more.items():
                total[name] = total.get(name, 0.0) + float(value)
    forward.model.train()
    total = parallel.add(total)
    return objective.figures(total.pop(LOSS), total, units)
