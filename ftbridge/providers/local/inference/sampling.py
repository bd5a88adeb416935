"""From logits to tokens: greedy, or drawn with a temperature, nucleus and seed of each row's own; log probabilities too.

logits ─ bias ─ penalties ─ shape ─┬─ temperature 0: the likeliest
└─ ÷ temperature ─ top_k ─ top_p ─ min_p ─ draw
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ftbridge.providers.local.inference.shape import Shape


@dataclass
class Drawing:
    """How one row's tokens are chosen. `temperature` 0 is greedy; `top_p` in 0..1; `logprobs` is how many to report.
    `shape` rules out what the answer may not say.

    A seed makes a row's draws the same again, whatever else is in the batch (up to rounding in the model itself).
    Penalties of presence and frequency count the answer's tokens, as OpenAI documents them; `repetition_penalty` divides
    positive logits and multiplies negative ones of tokens of the prompt and the answer (Keskar et al. 2019, as transformers
    has it). `min_p` drops tokens less likely than this share of the likeliest (Nguyen et al. 2024).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int | None = None
    shape: Shape | None = None
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    prompt: frozenset[int] = frozenset()
    """The prompt's tokens; only looked at for `repetition_penalty`."""
    said: Counter[int] = field(default_factory=Counter)
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        """Seed the row's own generator."""
        self.generator = torch.Generator()
        if self.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(self.seed % 2**63)

    @property
    def changes_logits(self) -> bool:
        """Whether anything but the temperature decides."""
        penalties = self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0
        return bool(self.logit_bias or penalties or self.shape is not None)


class Choice(NamedTuple):
    """A token, its log probability (nats, before temperature) and the most likely ones, if asked for.

    `failed` tells why no token could be chosen for this row alone.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    failed: Exception | None = None


def choose(logits: Tensor, rows: Sequence[Drawing]) -> list[Choice]:
    """One token for each row of `logits`, shape (rows, vocabulary). What goes wrong with one row is in its choice."""
    best = logits.argmax(-1).tolist()
    choices = []
    for row, drawing in enumerate(rows):
        try:
            choices.append(_choose(logits[row], best[row], drawing))
        except Exception as error:  # a grammar that broke must not end the answers beside it
            choices.append(Choice(best[row], failed=error))
    return choices


def _choose(logits: Tensor, best: int, drawing: Drawing) -> Choice:
    told = logits
    if drawing.changes_logits:
        told = _penalised(told, drawing)
        if drawing.shape is not None:
            told = drawing.shape.rule_out(told)
        best = int(told.argmax())
    token = _draw(told, drawing) if drawing.temperature > _COLDEST else best
    if drawing.shape is not None:
        drawing.shape.consume(token)
    drawing.said[token] += 1
    return Choice(token) if drawing.logprobs is None else with_logprobs(logits, token, drawing.logprobs)


_COLDEST = 1e-4
"""Below this temperature the likeliest token is taken: logits divided by it are beyond what softmax can tell apart."""


def _penalised(logits: Tensor, drawing: Drawing) -> Tensor:
    told = logits.float().clone()
    if drawing.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*drawing.prompt, *drawing.said}), dtype=torch.long, device=told.device)
        values = told[seen]
        told[seen] = torch.where(values > 0, values / drawing.repetition_penalty, values * drawing.repetition_penalty)
    if drawing.said and (drawing.presence_penalty or drawing.frequency_penalty):
        places = torch.tensor(list(drawing.said), dtype=torch.long, device=told.device)
        counts = torch.tensor(list(drawing.said.values()), dtype=told.dtype, device=told.device)
        told[places] -= drawing.presence_penalty + drawing.frequency_penalty * counts
    for token, bias in drawing.logit_bias.items():
        told[token] += bias
    return told.clamp(-1e30, 1e30)


def _draw(logits: Tensor, drawing: Drawing) -> int:
    """Nucleus sampling: the fewest most likely tokens whose probability reaches top_p (Holtzman et al. 2020)."""
    scaled = logits.float().cpu() / drawing.temperature
    if drawing.top_k is not None and drawing.top_k < scaled.shape[-1]:
        values, places = scaled.topk(drawing.top_k)
        scaled = torch.full_like(scaled, float("-inf")).scatter(0, places, values)
    if drawing.min_p > 0:
        scaled = scaled.masked_fill(scaled < scaled.max() + math.log(drawing.min_p), float("-inf"))
    probabilities = torch.softmax(scaled, -1)
    if drawing.top_p < 1:
        ordered, places = probabilities.sort(descending=True)
        kept = ordered.cumsum(-1) - ordered < drawing.top_p
        kept[0] = True
        ordered = torch.where(kept, ordered, torch.zeros_like(ordered))
        return int(places[torch.multinomial(ordered, 1, generator=drawing.generator)])
    return int(torch.multinomial(probabilities, 1, generator=drawing.generator))


def with_logprobs(logits: Tensor, token: int, count: int) -> Choice:
    """A token that was chosen, with its log probability and the `count` likeliest in its place."""
    logprobs = torch.log_softmax(logits.float(), -1)
    values, places = logprobs.topk(count) if count else (torch.empty(0), torch.empty(0))
    top = tuple(zip((int(place) for place in places), (float(value) for value in values), strict=True))
    return Choice(token, float(logprobs[token]), top)
