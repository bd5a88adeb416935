"""What a run of reinforcement should make people look at: said once each, with the number and what to do.

Thresholds and their sources: entropy below 0.05 nats (axolotl's health marks); training reward more than 0.10 above validation
reward, completions three times as long (Azure's guide on reward hacking); 10 % cut at the token limit, half of the groups
without differences, 5 % without reward over ten steps (ours).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

ENTROPY = 0.05
CLIPPED = 0.10
LIVE = 0.5
WITHOUT = 0.05
GAP = 0.10
LONGER = 3.0
_LAST = 10


class Health:
    """Looks at the figures of each step; `say(text, level)` hears once what is wrong. `width` is that of the grader's range."""

    def __init__(self, say: Callable[[str, str], None], width: float = 1.0) -> None:
        self._say, self._width = say, width
        self._said: set[str] = set()
        self._steps: deque[Mapping[str, float]] = deque(maxlen=_LAST)
        self._first_length: float | None = None

    def look(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures of a training step."""
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

    def _once(self, name: str, text: str) -> None:
        if name not in self._said:
            self._said.add(name)
            self._say(text, "warn")
