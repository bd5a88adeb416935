"""Replay in the steps: which replay examples a step has beside its task examples, and what its loss is then.

    step of b task examples and k replay examples

        loss = b / (b + k) · loss of the task  +  k / (b + k) · cross-entropy of the replayed completions

Both losses are means of their own (over tokens, pairs or completions, as the method has it; over tokens for replay), so the
share is that of examples, however long completions are. How many replay examples a step has, and which, depends on (seed,
task examples before it) alone, so a resumed run has the same. `ftbridge.data.replay` says where they come from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftbridge.data.examples import parse_example
from ftbridge.data.replay import CUT
from ftbridge.errors import DataError
from ftbridge.providers.local.data.batches import Encoded, epoch_order
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.template import RenderError


@dataclass(frozen=True)
class ReplayedStep:
    """What one step replays, and its share of the step's examples, from 0 to below 1."""

    examples: Sequence[Encoded] = ()
    share: float = 0.0


NOTHING = ReplayedStep()


@dataclass(frozen=True)
class Replay:
    """The replay examples of a job, and how they are spread over its steps. `share`: of a step's examples, in (0, 1)."""

    examples: Sequence[Encoded]
    share: float
    seed: int
    _orders: dict[int, list[int]] = field(default_factory=dict, repr=False)

    def of_step(self, before: int, size: int) -> ReplayedStep:
        """What is replayed in a step of `size` task examples, of which there were `before` in earlier steps.

        Examples come in their order until all were used, then again and again in orders drawn from the seed.
        """
        first, last = (self._reached(count) for count in (before, before + size))
        return ReplayedStep(
            [self._example(index) for index in range(first, last)], (last - first) / (last - first + size)
        )

    def _reached(self, count: int) -> int:
        """Replay examples that belong to the first `count` task examples."""
        return math.floor(count * self.share / (1 - self.share) + 1e-9)

    def _example(self, index: int) -> Encoded:
        lap, position = divmod(index, len(self.examples))
        if lap and lap not in self._orders:
            self._orders[lap] = epoch_order(len(self.examples), self.seed, lap)
        return self.examples[self._orders[lap][position] if lap else position]


@dataclass(frozen=True)
class EncodedReplay:
    """Replay examples as tokens, and a note of those that were left out, if any."""

    examples: tuple[Encoded, ...]
    notes: tuple[str, ...] = ()


def encode_replay(path: Path, renderer: Renderer, max_length: int) -> EncodedReplay:
    """The lines of `replay_examples.jsonl` as tokens. The end of a completion that was cut at its token limit is not trained.

    Lines that the model's template cannot write, or that are longer than `max_length` tokens, are left out. Raises `DataError`
    when none is left.
    """
    examples: list[Encoded] = []
    refused: list[str] = []
    for index, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        example = parse_example(json.loads(line))
        try:
            rendered = renderer.example(example)
        except RenderError as error:
            refused.append(f"line {index + 1} {error}")
            continue
        mask = list(rendered.loss_mask)
        if example.extra.get(CUT):
            mask = _without_end(rendered.input_ids, mask, renderer.completions.end_of_turn)
        if len(mask) > max_length:
            refused.append(f"line {index + 1} is {len(mask):,} tokens long")
        elif any(mask[1:]):
            examples.append(Encoded(tuple(rendered.input_ids), tuple(mask), index))
    if not examples:
        reason = f": {refused[0]}" if refused else ""
        raise DataError(f"no replay example can be trained on{reason}.", hint="Change data.replay, or leave it out.")
    if not refused:
        return EncodedReplay(tuple(examples))
    shown = ", ".join(refused[:3]) + " …" * (len(refused) > 3)
    return EncodedReplay(tuple(examples), (f"{len(refused)} replay examples are left out: {shown}",))


def _without_end(ids: Sequence[int], mask: list[bool], ends: frozenset[int]) -> list[bool]:
    """The mask without the last end of turn and what follows it."""
    last = max((index for index, token in enumerate(ids) if mask[index] and token in ends), default=len(mask))
    return [flag and index < last for index, flag in enumerate(mask)]
