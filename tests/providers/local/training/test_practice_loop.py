"""The training loop with a source of rollouts, on a random model of two layers: steps, checkpoints, resuming, learning."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbridge.providers.local.process.job import JobInterrupted
from ftbridge.providers.local.training import checkpoint
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.loop import train
from ftbridge.providers.local.training.objective import Collected
from ftbridge.providers.local.training.policy_gradient import groups_of
from ftbridge.providers.local.training.reinforcement import Practice
from support import practice_cases


@pytest.fixture(scope="module")
def model(base_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return practice_cases.small_model(tmp_path_factory.mktemp("loop") / "model", base_model_dir)


def test_a_step_without_a_live_group_changes_no_weight_and_counts(tmp_path: Path, model: Path) -> None:
    """The first three prompts are rewarded by a letter, the others by what no completion holds."""
    lines = practice_cases.rows(6, letter="no completion holds this")
    trainer, steps = practice_cases.trainer_of(tmp_path, model, lines=lines, n_epochs=1)
    (tmp_path / "rollouts").mkdir(exist_ok=True)
    trainer.source._require_differences = lambda rollouts: None  # type: ignore[union-attr,method-assign]
    before = practice_cases.trained_numbers(trainer.forward)
    ending, state = train(trainer, TrainingState())
    assert (ending, state.step) == ("finished", 2)
    assert torch.equal(practice_cases.trained_numbers(trainer.forward), before)
    assert [one["live_groups"] for one in steps.figures] == [0.0, 0.0]
    assert "gradient_norm" not in steps.figures[0]


@pytest.mark.slow
def test_a_reward_is_learnt_and_carries_over_to_prompts_held_out_and_its_controls_do_not(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Advantages that are dealt out at random within their group, and a rate of nothing, teach nothing."""

    def gain(name: str, seed: int, rate: float = 5e-3) -> float:
        changes = {"n_epochs": 10, "batch_size": 6, "learning_rate": rate, "seed": seed}
        extra = {"eval_interval": 4, "eval_samples": 4, "group_size": 8}
        trainer, steps = practice_cases.trainer_of(tmp_path / f"{name} {seed}", model, settings=extra, **changes)
        with torch.no_grad():  # random weights are nearly indifferent between tokens, and no step would move them far
            trainer.forward.model.get_base_model().get_output_embeddings().weight.mul_(100)
        assert trainer.source is not None
        before = trainer.source.validate(0).score
        train(trainer, TrainingState())
        return float(steps.figures[-1]["full_valid_mean_reward"]) - before

    assert min(gain("as written", seed) for seed in (1, 2, 3)) > 0.3
    assert gain("rate 0", 1, 1e-12) == 0
    collect = Practice.collect

    def shuffled(self: Practice, batch: Any, step: int) -> Collected:
        collected = collect(self, batch, step)
        dice, units = random.Random(step), []
        for group in groups_of(collected.units):
            weights = [one.advantage for one in group]
            dice.shuffle(weights)
            units += [replace(one, advantage=weight) for one, weight in zip(group, weights, strict=True)]
        return replace(collected, units=units)

    monkeypatch.setattr(Practice, "collect", shuffled)
    assert sum(gain("shuffled", seed) for seed in (1, 2)) / 2 < 0.15


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_weights_of_one_that_did_not_stop(
    tmp_path: Path, model: Path
) -> None:
    complete, figures = practice_cases.trainer_of(tmp_path / "whole", model)
    train(complete, TrainingState())
    rewards = [one["train_mean_reward"] for one in figures.figures]

    stops: list[int] = []
    cut, seen = practice_cases.trainer_of(
        tmp_path / "cut", model, lambda: "pause" if len(seen.figures) >= 2 and not stops else None
    )
    try:
        ending, _ = train(cut, TrainingState())
        assert ending == "pause"
    except JobInterrupted:
        pass
    stops.append(1)
    again, later = practice_cases.trainer_of(tmp_path / "cut", model)
    newest = checkpoint.latest(tmp_path / "cut" / "checkpoints")
    assert newest is not None
    path, state = newest
    assert state.step == 2
    checkpoint.restore(path, again.forward.model, again.optimizer, again.scaler)
    train(again, state)
    assert [one["train_mean_reward"] for one in [*seen.figures, *later.figures]] == rewards
    assert torch.equal(practice_cases.trained_numbers(again.forward), practice_cases.trained_numbers(complete.forward))


def test_the_three_best_validations_keep_their_checkpoints_and_the_best_is_named(tmp_path: Path, model: Path) -> None:
    trainer, steps = practice_cases.trainer_of(
        tmp_path,
        model,
        n_epochs=5,
        settings={"eval_interval": 1, "eval_samples": 4},
        learning_rate=0.05,
        keep_checkpoints=1,
    )
    _, state = train(trainer, TrainingState())
    measured = {one["step"]: one["full_valid_mean_reward"] for one in steps.figures}
    best = sorted(measured, key=lambda step: (-measured[step], step))[:3]
    assert [step for step, _ in state.best_scores] == best
    assert state.best_step == best[0]
    there = {int(path.name[5:]) for path in (tmp_path / "checkpoints").glob("step-*")}
    assert set(best) <= there <= {*best, 10}


def test_a_reward_that_no_longer_rises_ends_training_early(tmp_path: Path, model: Path) -> None:
    trainer, _ = practice_cases.trainer_of(
        tmp_path, model, n_epochs=5, settings={"eval_interval": 1}, learning_rate=0.0, patience=2
    )
    _, state = train(trainer, TrainingState())
    assert state.stopped_early
    assert state.step == 3
