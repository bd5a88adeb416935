"""The seam between the loop and its methods, on a two-layer random model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbridge.providers.local.data import batches
from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.training import loop
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.objective import SUPERVISED, Sums, measure
from ftbridge.providers.local.training.optim import learning_rate
from support import architectures
from support.tiny_training import trainer_of


def by_hand(trainer: loop.Trainer) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step, written without the loop and without an objective."""
    request, forward, rows = trainer.request, trainer.forward, []
    examples: Sequence[Any] = trainer.train
    for epoch in range(request.n_epochs):
        for batch in batches.steps_of_epoch(len(examples), request.batch_size, request.seed, epoch):
            step, chosen = len(rows) + 1, [examples[index] for index in batch]
            for group in trainer.optimizer.param_groups:
                group["lr"] = learning_rate(request, step, trainer.total_steps)
            count, total = sum(example.num_loss_tokens for example in chosen), torch.zeros(())
            for number, part in enumerate(forward.cut(chosen, trainer.max_tokens_per_microbatch)):
                loss, _ = forward.loss_sum(part, seed=(request.seed * 1_000_003 + step * 1_009 + number) % (1 << 31))
                (loss / count).backward()
                total += loss.detach()
            parameters = [one for group in trainer.optimizer.param_groups for one in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, request.max_grad_norm)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
            rows.append((float(total) / count, float(norm)))
    return rows


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_supervised_training_behind_the_seam_gives_the_losses_of_a_loop_written_out_bit_for_bit(
    tmp_path: Path, tuning: str
) -> None:
    trainer, steps = trainer_of(tmp_path, tuning=tuning)
    loop.train(trainer, TrainingState())
    assert len(steps.figures) == 4
    again, _ = trainer_of(tmp_path, tuning=tuning)
    assert [(step["train_loss"], step["gradient_norm"]) for step in steps.figures] == by_hand(again)


def test_validation_through_the_seam_is_the_mean_over_all_trained_tokens(tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path)
    figures = measure(SUPERVISED, trainer.forward, architectures.examples(), 60)
    loss, accuracy = figures["loss"], figures["mean_token_accuracy"]
    trainer.forward.model.eval()
    alone = [trainer.forward.loss_sum([example]) for example in architectures.examples()]
    tokens = sum(example.num_loss_tokens for example in architectures.examples())
    assert loss == pytest.approx(sum(float(one) for one, _ in alone) / tokens, rel=1e-6)
    assert accuracy == sum(int(right) for _, right in alone) / tokens


class Likelihood:
    """A method that the loop has never seen: it makes every example's mean log-probability a target of -3."""

    unit = "an example"
    checked: Mapping[str, float] = {}

    def cut(self, forward: Forward, batch: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
        return forward.cut(batch, budget)

    def size(self, batch: Sequence[Encoded]) -> int:
        return len(batch)

    def sums(self, forward: Forward, part: Sequence[Encoded], *, seed: int = 0) -> Sums:
        pieces = forward.log_probabilities(part, seed=seed).split([example.num_loss_tokens for example in part])
        means = torch.stack([piece.mean() for piece in pieces])
        return Sums(((means + 3) ** 2).sum(), {"mean": means.detach().sum()})

    def figures(self, loss: float, more: Mapping[str, float], batch: Sequence[Encoded]) -> dict[str, float]:
        return {"loss": loss / len(batch), "mean": more["mean"] / len(batch)}

    def check(self, forward: Forward, figures: Mapping[str, float]) -> None:
        self.checked = figures


def test_a_method_of_its_own_trains_validates_and_resumes_through_the_same_loop(tmp_path: Path) -> None:
    goal = Likelihood()
    trainer, steps = trainer_of(tmp_path, goal, n_epochs=5)
    loop.train(trainer, TrainingState())
    first, last = steps.figures[0], steps.figures[-1]
    assert goal.checked == {"loss": first["train_loss"], "mean": first["train_mean"]}
    assert last["valid_loss"] < first["train_loss"]
    assert abs(last["valid_mean"] + 3) < abs(first["train_mean"] + 3)


@pytest.mark.parametrize("tokens", [1000])
def test_how_a_batch_is_cut_changes_no_result_of_any_method(tmp_path: Path, tokens: int) -> None:
    losses = []
    for budget in (20, tokens):
        trainer, steps = trainer_of(tmp_path, Likelihood(), lora_dropout=0.0)
        trainer.max_tokens_per_microbatch = budget
        loop.train(trainer, TrainingState())
        losses.append([step["train_loss"] for step in steps.figures])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_loop_knows_no_method() -> None:
    words = re.compile(r"\b(dpo|pair|chosen|rejected|reward|reference|preference)", re.IGNORECASE)
    assert not words.search(inspect.getsource(loop))
