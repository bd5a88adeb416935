"""What reinforcement came to, from a run's own files: rewards on the way, lengths, the best-rewarded completions, failures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from ftbridge.runs.metrics import Point, curves
from ftbridge.runs.rollouts import FOLDER, Rollout, read_rollouts
from ftbridge.runs.run import Run

SHOWN = 5
"""Best-rewarded completions that are shown: people see at a glance what a grader pays for."""


@dataclass(frozen=True)
class Beside:
    """A completion of the tuned model and the base model's to the same prompt, with their rewards."""

    prompt: str
    tuned: str
    tuned_reward: float
    base: str
    base_reward: float | None


@dataclass(frozen=True)
class RewardHistory:
    """One run's rewards. `held_out` begins with the base model at step 0; `errors` are completions by the name of the error."""

    label: str
    grader: str
    train: tuple[Point, ...]
    held_out: tuple[Point, ...]
    tokens: tuple[Point, ...]
    best: tuple[Beside, ...]
    errors: tuple[tuple[str, int], ...]
    completions: int
    without: int

    @property
    def sentence(self) -> str:
        """How the held-out reward moved, in words."""
        if len(self.held_out) < 2:
            return f"{self.completions:,} completions were rewarded by {self.grader}."
        first, (step, last) = self.held_out[0][1], self.held_out[-1]
        best = max(self.held_out[1:], key=lambda point: (point[1], -point[0]))
        return (
            f"Mean reward by {self.grader} on held-out prompts: {first:.3f} with the base model, {last:.3f} after step {step} "
            f"(best {best[1]:.3f} at step {best[0]})."
        )


def reward_history(label: str, run: Run) -> RewardHistory | None:
    """A run's rewards; None for a run that has none."""
    names = ("train_mean_reward", "full_valid_mean_reward", "completion_tokens_mean")
    train, held_out, tokens = curves(run.journal.read(), *names)
    if not train:
        return None
    folder = run.path / FOLDER
    base = read_rollouts(folder / "valid-000000.jsonl")
    rewards = [one.reward for one in base if one.reward is not None]
    if rewards:
        held_out = ((0, sum(rewards) / len(rewards)), *held_out)
    steps = [rollout for path in sorted(folder.glob("[0-9]*.jsonl")) for rollout in read_rollouts(path)]
    grader = run.resolved_spec().reward_grader
    return RewardHistory(
        label=label,
        grader=grader.name if grader is not None else "the grader",
        train=train,
        held_out=held_out,
        tokens=tokens,
        best=tuple(_best(run, base)),
        errors=tuple(Counter(name for one in steps for name in one.errors).most_common()),
        completions=len(steps),
        without=sum(one.reward is None for one in steps),
    )


def _best(run: Run, base: list[Rollout]) -> list[Beside]:
    """The best-rewarded completions of the last validation, one a prompt, beside the base model's."""
    paths = sorted((run.path / FOLDER).glob("valid-*.jsonl"))[1:]
    data = run.data / "validation.jsonl"
    if not paths or not data.exists():
        return []
    prompts = [json.loads(line)["messages"][-1] for line in data.read_bytes().splitlines()]
    before = {one.name: one for one in base}
    best: dict[int, Rollout] = {}
    for one in read_rollouts(paths[-1]):
        held = best.get(one.prompt)
        if one.reward is not None and (held is None or one.reward > (held.reward or 0.0)):
            best[one.prompt] = one
    ranked = sorted(best.values(), key=lambda one: (-(one.reward or 0.0), one.prompt))[:SHOWN]
    return [
        Beside(
            prompt=str(prompts[one.prompt].get("content") or ""),
            tuned=one.text,
            tuned_reward=one.reward or 0.0,
            base=before[one.name].text if one.name in before else "",
            base_reward=before[one.name].reward if one.name in before else None,
        )
        for one in ranked
    ]
