"""From logits to tokens: greedy, or drawn with a temperature, nucleus and seed of each row's own; log probabilities too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ftbridge.providers.local.hosting.shape import Shape


@dataclass
class Drawing:
    """How one row's tokens are chosen. `temperature` 0 is greedy; `top_p` in 0..1; `logprobs` is how many to report.
    `shape` rules out what the answer may not say.

    A seed makes a row's draws the same again, whatever else is in the batch (up to rounding in the model itself).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int | None = None
    shape: Shape | None = None
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        """Seed the row's own generator."""
        self.generator = torch.Generator()
        if self.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(self.seed % 2**63)


class Choice(NamedTuple):
    """A token, its log probability (nats, before temperature) and the most likely ones, if asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def choose(logits: Tensor, rows: Sequence[Drawing]) -> list[Choice]:
    """One token for each row of `logits`, shape (rows, vocabulary)."""
    best = logits.argmax(-1).tolist()
    choices = [Choice(token) for token in best]
    for row, drawing in enumerate(rows):
        told = logits[row]
        if drawing.shape is not None:
            told = drawing.shape.rule_out(told)
            choices[row] = Choice(int(told.argmax()))
        if drawing.temperature > 0:
            choices[row] = Choice(_draw(told, drawing))
        if drawing.shape is not None:
            drawing.shape.consume(choices[row].token)
        if drawing.logprobs is not None:
            choices[row] = _with_logprobs(logits[row], choices[row].token, drawing.logprobs)
    return choices


def _draw(logits: Tensor, drawing: Drawing) -> int:
    """Nucleus sampling: the fewest most likely tokens whose probability reaches top_p (Holtzman et al. 2020)."""
    probabilities = torch.softmax(logits.float().cpu() / drawing.temperature, -1)
    if drawing.top_p < 1:
        ordered, places = probabilities.sort(descending=True)
        kept = ordered.cumsum(-1) - ordered < drawing.top_p
        kept[0] = True
        ordered = torch.where(kept, ordered, torch.zeros_like(ordered))
        return int(places[torch.multinomial(ordered, 1, generator=drawing.generator)])
    return int(torch.multinomial(probabilities, 1, generator=drawing.generator))


def _with_logprobs(logits: Tensor, token: int, count: int) -> Choice:
    logprobs = torch.log_softmax(logits.float(), -1)
    values, places = logprobs.topk(count) if count else (torch.empty(0), torch.empty(0))
    top = tuple(zip((int(place) for place in places), (float(value) for value in values), strict=True))
    return Choice(token, float(logprobs[token]), top)
