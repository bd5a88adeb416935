"""Which examples make a step, and how a step is cut into passes. Pure, and fixed by the seed alone.

    epoch   = the examples in an order drawn from (seed, epoch)
    step    = the next batch_size examples; one optimizer update          (what batch_size means, as OpenAI uses it)
    pass    = examples of one step that fit a token budget; one forward and backward

Cutting a step into passes changes speed and memory, never the result: losses are summed over trained tokens and divided
by the number of trained tokens in the whole step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Unit(Protocol):
    """What a batch holds: it has a length in tokens, and a number of tokens the loss is computed on."""

    def __len__(self) -> int:
        """Tokens that a model reads for it."""
        ...

    @property
    def num_loss_tokens(self) -> int:
        """Tokens the loss is computed on."""
        ...


@dataclass(frozen=True)
class Encoded:
    """One example as tokens. `trained[i]` says that the loss falls on predicting token i; the first never counts."""

    input_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    index: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_loss_tokens(self) -> int:
        """Tokens the loss falls on."""
        return sum(self.loss_mask[1:])


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """A permutation of range(count), the same for the same seed and epoch on every machine."""
    order = list(range(count))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order


def steps_of_epoch(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The epoch's batches of example indices; the last one may be smaller."""
    order = epoch_order(count, seed, epoch)
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def cut_packed(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut into passes whose lengths sum to at most `budget`: longest first, each into the first pass with room.

    First-fit decreasing (Johnson 1973): at most 11/9 of the fewest passes, plus one. A longer example gets its own pass.
    """
    passes: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        index = next((i for i, free in enumerate(room) if free >= lengths[item]), None)
        if index is None:
            passes.append([item])
            room.append(budget - lengths[item])
        else:
            passes[index].append(item)
            room[index] -= lengths[item]
    return passes


def cut_padded(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut into passes of similar lengths whose padded size (count x longest) is at most `budget`."""
    passes: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if passes and (len(passes[-1]) + 1) * lengths[passes[-1][0]] <= budget:
            passes[-1].append(item)
        else:
            passes.append([item])
    return passes


def evaluation_steps(steps_per_epoch: int, n_epochs: int, evals_per_epoch: int) -> set[int]:
    """Steps (from 1) after which to validate: evenly spread in each epoch, always at its end."""
    parts = min(evals_per_epoch, steps_per_epoch)
    within = {-(-steps_per_epoch * part // parts) for part in range(1, parts + 1)}
    return {epoch * steps_per_epoch + step for epoch in range(n_epochs) for step in within}


def steps_between(total: int, interval: int | Literal["auto"]) -> set[int]:
    """Steps (from 1) after which validation prompts are completed: each `interval`, or each tenth of all, and the last."""
    every = max(1, total // 10) if interval == "auto" else interval
    return {*range(every, total + 1, every), total}


def dealt(lengths: Sequence[int], hands: int) -> list[list[int]]:
    """The numbers of `lengths` dealt into `hands`, each in order: the longest first, each to the hand with the least so far.

    Longest processing time first (Graham 1969): at most 4/3 of the shortest possible.
    """
    loads, dealt_to = [0] * hands, [list[int]() for _ in range(hands)]
    for number in sorted(range(len(lengths)), key=lambda one: (-lengths[one], one)):
        hand = loads.index(min(loads))
        loads[hand] += lengths[number]
        dealt_to[hand].append(number)
    return [sorted(hand) for hand in dealt_to]
