"""What a run of reinforcement should make people look at: said once each, with the number and what to do.

Thresholds and their sources: entropy below 0.05 nats (axolotl's health marks); training reward more than 0.10 above validation
reward, completions three times as long (Azure's guide on reward hacking); 10 % cut at the token limit, half of the groups
without differences, 5 % without reward over ten steps, sampling and training 0.01 nats a token further apart than rounding
explains (ours; `repeatable.ROUNDING`: 0.03 to 0.04 was seen of SmolLM2-135M in bf16, between two attention kernels on a CPU).

A run that was resumed warns as one that was not interrupted: the worker's journal has the figures of earlier steps, and these
are looked at again, in silence, before the first one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ftbridge.providers.local.process.job import Job

ENTROPY = 0.05
CLIPPED = 0.10
LIVE = 0.5
WITHOUT = 0.05
GAP = 0.10
LONGER = 3.0
SHIFT = 0.01
_LAST = 10
_NEEDED = {"step", "completion_tokens_mean", "entropy", "clipped_share", "live_groups", "mean_unresponsive_rewards",
           "train_mean_reward"}  # fmt: skip
"""What is looked at of each step that was reported."""


class Reports(NamedTuple):
    """What earlier processes of a run reported: the figures of their steps, one that was repeated more than once, and their
    warnings.
    """

    figures: Sequence[Mapping[str, float]] = ()
    warnings: frozenset[str] = frozenset()


def reports_of(folder: Path) -> Reports:
    """What the journal of a run's workers holds so far. What was no number then is left out."""
    events = Job(folder).journal.read()
    figures = [event.data for event in events if event.type == "metrics"]
    warnings = (event.data["text"] for event in events if event.type == "message" and event.data["level"] == "warn")
    return Reports(
        [{name: value for name, value in one.items() if isinstance(value, (int, float))} for one in figures],
        frozenset(warnings),
    )


class Health:
    """Looks at the figures of each step; `say(text, level)` hears once what is wrong. `width` is that of the grader's range,
    `earlier` what the run reported before this process began, `rounding` how far two passes may be apart on a token, in nats.
    """

    def __init__(
        self,
        say: Callable[[str, str], None],
        width: float = 1.0,
        earlier: Reports | None = None,
        rounding: float = 0.0,
    ) -> None:
        self._say, self._width, self._earlier, self._rounding = say, width, earlier or Reports(), rounding
        self._looked_back = self._silent = False
        self._said: set[str] = set()
        self._steps: deque[Mapping[str, float]] = deque(maxlen=_LAST)
        self._first_length: float | None = None
        self._step = 0

    def look(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures of a training step, before its update."""
        if not self._looked_back:
            self._look_back(step)
        self._step = step
        self._steps.append(figures)
        length = figures["completion_tokens_mean"]
        if self._first_length is None:
            self._first_length = max(1.0, length)
        if figures["entropy"] < ENTROPY:
            self._once(
                "entropy",
                f"step {step}: entropy is {figures['entropy']:.3f} nats a token; the model hardly explores any more. "
                "Lower the learning rate, or use an earlier checkpoint",
            )
        if figures["clipped_share"] > CLIPPED:
            self._once(
                "clipped",
                f"step {step}: {figures['clipped_share']:.0%} of completions were cut at the token limit: raise "
                "local.reinforcement.max_completion_tokens",
            )
        if length > LONGER * self._first_length:
            self._once(
                "length",
                f"step {step}: completions are {length / self._first_length:.1f} times as long as in the first step; "
                "look at the best-rewarded ones: the grader may reward length",
            )
        if len(self._steps) == _LAST:
            live = sum(one["live_groups"] for one in self._steps) / _LAST
            without = sum(one["mean_unresponsive_rewards"] for one in self._steps) / _LAST
            if live < LIVE:
                self._once(
                    "live",
                    f"step {step}: in {1 - live:.0%} of the last {_LAST} steps' groups all completions earned the "
                    "same, and taught nothing: use prompts of another difficulty, or raise compute_multiplier",
                )
            if without > WITHOUT:
                self._once(
                    "without",
                    (
                        f"step {step}: {without:.0%} of the last {_LAST} steps' completions have no reward because the "
                        "grader failed"
                    ),
                )

    def look_at_update(self, figures: Mapping[str, float]) -> None:
        """The figures of the objective, after those of its step."""
        if figures.get("log_prob_shift", 0.0) > SHIFT + self._rounding:
            self._once(
                "shift",
                f"step {self._step}: sampling and training disagree by {figures['log_prob_shift']:.2g} nats a token, so "
                "updates are not exactly the gradient of the reward. If the reward does not rise, set local.precision: fp32",
            )

    def look_at_validation(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures of a validation, after those of its step."""
        if not self._steps:
            return
        training_reward = sum(one["train_mean_reward"] for one in self._steps) / len(self._steps)
        gap = training_reward - figures["full_valid_mean_reward"]
        if gap > GAP * self._width:
            self._once(
                "gap",
                f"step {step}: the training reward is {gap:.2f} above the validation reward: the model learns these prompts, "
                "or the grader's weaknesses",
            )

    def _look_back(self, step: int) -> None:
        """Bring to mind what was said, and the steps before `step`; later ones are repeated now."""
        self._looked_back = self._silent = True
        reported = {int(one["step"]): one for one in self._earlier.figures if one.keys() >= _NEEDED}
        for steps in (sorted(reported), [one for one in sorted(reported) if one < step]):
            self._steps.clear()
            self._first_length = None
            for one in steps:
                self._look_again(one, reported[one])
        self._silent = False

    def _look_again(self, step: int, figures: Mapping[str, float]) -> None:
        self.look(step, figures)
        self.look_at_update({name.removeprefix("train_"): value for name, value in figures.items()})
        if "full_valid_mean_reward" in figures:
            self.look_at_validation(step, figures)

    def _once(self, name: str, text: str) -> None:
        if name not in self._said:
            self._said.add(name)
            if not self._silent and text not in self._earlier.warnings:  # those of a step that a kill cut short
                self._say(text, "warn")
