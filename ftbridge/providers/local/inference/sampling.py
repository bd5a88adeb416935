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
    token_counts: Counter[int] = field(default_factory=Counter)
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        """Seed the row's own generator."""
        self.generator = torch.Generator()
        if self.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(self.seed % 2**63)

    @property
    def is_plain(self) -> bool:
        """Whether a token is drawn by its temperature alone."""
        narrowed = self.top_k is not None or self.min_p > 0 or self.top_p < 1
        return self.temperature > _COLDEST and not narrowed and not self.changes_logits

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
    tokens = likeliest(logits)
    plain = [index for index, drawing in enumerate(rows) if drawing.is_plain]
    for index, token in zip(plain, _drawn_together(logits, rows, plain), strict=True):
        tokens[index] = token
    failed: dict[int, Exception] = {}
    for index, drawing in enumerate(rows):
        if drawing.changes_logits or (drawing.temperature > _COLDEST and not drawing.is_plain):
            try:
                tokens[index] = _chosen(logits[index], drawing)
            except Exception as error:  # a grammar that broke must not end the completions beside it
                failed[index] = error
        drawing.token_counts[tokens[index]] += 1
    choices = [Choice(token, failed=failed.get(index)) for index, token in enumerate(tokens)]
    reported = [index for index, drawing in enumerate(rows) if drawing.logprobs is not None and index not in failed]
    if reported:
        counts = [rows[index].logprobs or 0 for index in reported]
        for index, choice in zip(
            reported, _reported(logits[reported], [tokens[index] for index in reported], counts), strict=True
        ):
            choices[index] = choice
    return choices


def _chosen(logits: Tensor, drawing: Drawing) -> int:
    """A row's token where more than its temperature decides."""
    if drawing.changes_logits:
        logits = _penalised(logits, drawing)
        if drawing.shape is not None:
            logits = drawing.shape.rule_out(logits)
    token = _draw(logits, drawing) if drawing.temperature > _COLDEST else int(logits.argmax())
    if drawing.shape is not None:
        drawing.shape.consume(token)
    return token


_BLOCK = 256
"""Tokens whose probabilities are summed up first when rows are drawn together."""


def likeliest(logits: Tensor) -> list[int]:
    """The first of the likeliest tokens of each row. By blocks: torch's own takes ten times as long on a CPU."""
    values = torch.nn.functional.pad(logits.float(), (0, -logits.shape[1] % _BLOCK), value=float("-inf"))
    blocks = values.view(len(values), -1, _BLOCK)
    block = blocks.amax(-1).argmax(-1)
    inner = blocks[torch.arange(len(values), device=values.device), block].argmax(-1)
    tokens: list[int] = (block * _BLOCK + inner).tolist()
    return tokens


def _drawn_together(logits: Tensor, rows: Sequence[Drawing], places: Sequence[int]) -> list[int]:
    """A token for each row at `places`, drawn by its temperature alone."""
    if not places:
        return []
    warmth = torch.tensor([rows[index].temperature for index in places], device=logits.device)
    scaled = (logits if len(places) == len(rows) else logits[list(places)]).float() / warmth[:, None]
    return _raced(torch.softmax(scaled, -1), [rows[index].generator for index in places])


def _raced(probabilities: Tensor, generators: Sequence[torch.Generator]) -> list[int]:
    """A token for each row of `probabilities`, (rows, vocabulary): first a block of tokens, then a token of the block.

    Each draw takes the largest p ÷ e, with an exponential number e of the row's own for every choice; it wins with chance p.
    Rounding in the model turns such a draw no more often than it moves probability, while a uniform number among cumulated
    probabilities lies near one of 50,000 borders, each of which rounding moves. By blocks: as many random numbers as there are
    tokens would cost as much as a layer of the model.
    """
    where = probabilities.device
    probabilities = torch.nn.functional.pad(probabilities, (0, -probabilities.shape[1] % _BLOCK))
    blocks = probabilities.view(len(generators), -1, _BLOCK)
    sums = blocks.sum(-1).cpu().double()  # not every device has doubles
    numbers = torch.stack([_exponential(sums.shape[1] + _BLOCK, generator) for generator in generators])
    block = (sums / numbers[:, :-_BLOCK]).argmax(-1)
    within = blocks[torch.arange(len(generators), device=where), block.to(where)].cpu().double()
    inner = (within / numbers[:, -_BLOCK:]).argmax(-1)
    drawn: list[int] = (block * _BLOCK + inner).tolist()
    return drawn


def _exponential(count: int, generator: torch.Generator) -> Tensor:
    return torch.empty(count, dtype=torch.float64).exponential_(generator=generator)


def _reported(logits: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[Choice]:
    """Chosen tokens with their log-probabilities and the likeliest in their places."""
    values = logits.float()
    total = values.logsumexp(-1)
    chosen = (values.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0] - total).tolist()
    most = max(counts)
    best, places = ((one.tolist()) for one in values.topk(most)) if most else ([[]] * len(tokens), [[]] * len(tokens))
    return [
        Choice(
            token,
            chosen[row],
            tuple((places[row][at], best[row][at] - float(total[row])) for at in range(counts[row])),
        )
        for row, token in enumerate(tokens)
    ]


_COLDEST = 1e-4
"""Below this temperature the likeliest token is taken: logits divided by it are beyond what softmax can tell apart."""


def _penalised(logits: Tensor, drawing: Drawing) -> Tensor:
    penalised = logits.float().clone()
    if drawing.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*drawing.prompt, *drawing.token_counts}), dtype=torch.long, device=penalised.device)
        values = penalised[seen]
        penalised[seen] = torch.where(
            values > 0, values / drawing.repetition_penalty, values * drawing.repetition_penalty
        )
    if drawing.token_counts and (drawing.presence_penalty or drawing.frequency_penalty):
        places = torch.tensor(list(drawing.token_counts), dtype=torch.long, device=penalised.device)
        counts = torch.tensor(list(drawing.token_counts.values()), dtype=penalised.dtype, device=penalised.device)
        penalised[places] -= drawing.presence_penalty + drawing.frequency_penalty * counts
    for token, bias in drawing.logit_bias.items():
        penalised[token] += bias
    return penalised.clamp(-1e30, 1e30)


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
        in_nucleus = ordered.cumsum(-1) - ordered < drawing.top_p
        in_nucleus[0] = True
        # Back in the vocabulary's order: rounding may swap two tokens that are about as likely, and with them their numbers.
        probabilities = torch.zeros_like(probabilities).scatter(0, places[in_nucleus], ordered[in_nucleus])
    return _raced(probabilities[None], [drawing.generator])[0]


def with_logprobs(logits: Tensor, token: int, count: int) -> Choice:
    """A token that was chosen, with its log probability and the `count` likeliest in its place."""
    return _reported(logits[None], [token], [count])[0]
