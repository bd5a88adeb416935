"""The policy gradient: from the rewards of a group to the loss of a step, with fresh completions and one update.

For the completions i of one prompt's group, with rewards r_i on a grader whose declared width is w, and all completion tokens t
of the step's live groups, N of them:

    advantage    A_i  = (r_i - mean of the group) / w
    loss              = -1/N  sum_i A_i sum_t log pi(t | before)   [ + kl/N  sum_t (exp d - d - 1),  d = log ref - log pi ]
    gradient          = -1/N  sum_i A_i sum_t d log pi(t | before)

A group is live when at least two of its completions have a reward and these differ; any other group teaches nothing, and is
left out of numerator and denominator alike. A completion without a reward (its judge failed) leaves its group: the mean is
over the rest.

With one update for each batch of fresh completions GRPO, Dr. GRPO, DAPO, RLOO and CISPO have this gradient up to the scale of
advantages and the normaliser: no ratio, clip or old log-probability is needed. Advantages are not divided by the group's
standard deviation, which would blow up groups that are nearly all right or nearly all wrong, and not by each completion's
length, which would favour long wrong ones.

Sources: Williams 1992 (REINFORCE); Ahmadian et al. 2024 (RLOO, arXiv:2402.14740); Liu et al. 2025 (Dr. GRPO,
arXiv:2503.20783); Yu et al. 2025 (token sum over the step: DAPO, arXiv:2503.14476); Schulman 2020 ("Approximating KL
divergence", k3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ftbridge.providers.local.data.batches import Encoded, cut_packed
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.objective import Sums
from ftbridge.providers.local.training.pairs import shared_inputs

SAME = 1e-6
"""Rewards that differ by no more than this share of the grader's width are the same: sums of floats are not exact."""


def advantages(rewards: Sequence[float | None], width: float = 1.0) -> list[float | None]:
    """The advantage of each completion of a group; None for one without a reward, and for all of a group that is not live."""
    rewarded = [reward for reward in rewards if reward is not None]
    if len(rewarded) < 2 or max(rewarded) - min(rewarded) <= SAME * width:
        return [None] * len(rewards)
    mean = sum(rewarded) / len(rewarded)
    return [None if reward is None else (reward - mean) / width for reward in rewards]


@dataclass(frozen=True)
class Trial:
    """A completion that is learnt from, behind its `prompt` tokens: its advantage, and its log-probabilities when drawn."""

    example: Encoded
    prompt: int
    advantage: float
    drawn: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.example)

    @property
    def num_loss_tokens(self) -> int:
        """Tokens of the completion."""
        return self.example.num_loss_tokens


def trial(prompt: Sequence[int], completion: Sequence[int], advantage: float, drawn: Sequence[float]) -> Trial:
    """A completion behind its prompt, with its advantage."""
    loss_mask = (False,) * len(prompt) + (True,) * len(completion)
    return Trial(Encoded((*prompt, *completion), loss_mask, 0), len(prompt), advantage, tuple(drawn))


@dataclass(frozen=True)
class PolicyGradient:
    """The objective of method reinforcement. Units are trials. `shared`: the prompt of a group is computed once.

    `kl` weighs the distance to `reference`: the trained parameters' first values, by name. `on_figures` hears the figures of
    each update.
    """

    shared: bool = False
    kl: float = 0.0
    reference: Mapping[str, Tensor] = field(default_factory=dict)
    unit: str = "a prompt"
    on_figures: Callable[[Mapping[str, float]], None] = lambda _: None

    def cut(self, forward: Forward, batch: Sequence[Trial], budget: int) -> list[list[Trial]]:
        """As the forward's way of running the model counts tokens; a group stays together where it fits."""
        if not self.shared:
            by_example = {id(one.example): one for one in batch}
            parts = forward.cut([one.example for one in batch], budget) if batch else []
            return [[by_example[id(example)] for example in part] for part in parts]
        pieces = [piece for group in groups_of(batch) for piece in _pieces(group, budget)]
        return [
            [one for index in part for one in pieces[index]]
            for part in cut_packed([_shared_tokens(piece) for piece in pieces], budget)
        ]

    def size(self, batch: Sequence[Trial]) -> int:
        """Completion tokens of the live groups."""
        return max(1, sum(one.num_loss_tokens for one in batch))

    def sums(self, forward: Forward, part: Sequence[Trial], *, seed: int = 0) -> Sums:
        """The summed loss, and the sums that `figures` needs."""
        before = None
        if self.kl:
            with torch.no_grad(), first_values(forward.model, self.reference):
                before = self._log_probabilities(forward, part, seed)
        values = self._log_probabilities(forward, part, seed)
        counts = torch.tensor([one.num_loss_tokens for one in part])
        weights = torch.repeat_interleave(torch.tensor([one.advantage for one in part]), counts).to(values)
        drawn = torch.tensor([number for one in part for number in one.drawn]).to(values)
        loss = -(weights * values).sum()
        more = {"shift": (values.detach() - drawn).abs().sum()}
        if before is not None:
            difference = before - values
            distance = (torch.exp(difference) - difference - 1).sum()
            loss = loss + self.kl * distance
            more["kl"] = distance.detach()
        return Sums(loss, more)

    def _log_probabilities(self, forward: Forward, part: Sequence[Trial], seed: int) -> Tensor:
        """Of the completions' tokens, in the order of the part: (tokens), float32."""
        if not self.shared:
            return forward.log_probabilities([one.example for one in part], seed=seed)
        groups = [(group[0].prompt, [one.example for one in group]) for group in groups_of(part)]
        return forward.log_probabilities_at(*shared_inputs(forward, groups))

    def figures(self, loss: float, more: Mapping[str, float], batch: Sequence[Trial]) -> dict[str, float]:
        """Means over the live tokens, in nats. `log_prob_shift` is how far training and sampling disagree on a token."""
        size = self.size(batch)
        figures = {"loss": loss / size}
        if "shift" in more:
            figures["log_prob_shift"] = more["shift"] / size
        if "kl" in more:
            figures["kl"] = more["kl"] / size
        self.on_figures(figures)
        return figures

    def check(self, forward: Forward, figures: Mapping[str, float]) -> None:
        """Any first loss is possible."""
        del forward, figures


def groups_of(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Neighbours that complete the same prompt, together."""
    return [list(group) for _, group in groupby(trials, lambda one: one.example.input_ids[: one.prompt])]


def _shared_tokens(group: Sequence[Trial]) -> int:
    return group[0].prompt + sum(len(one) - one.prompt for one in group)


def _pieces(group: Sequence[Trial], budget: int) -> list[list[Trial]]:
    """A group, or parts of it of at most `budget` tokens where one completion fits."""
    pieces: list[list[Trial]] = []
    for one in group:
        if pieces and _shared_tokens([*pieces[-1], one]) <= budget:
            pieces[-1].append(one)
        else:
            pieces.append([one])
    return pieces


def trained_values(model: Any) -> dict[str, Tensor]:
    """A copy of every parameter that trains, by its name."""
    return {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}


@contextmanager
def first_values(model: Any, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it, the model's trained parameters have these values; behind it, their own again."""
    values_by_name = {name: parameter.data for name, parameter in model.named_parameters() if name in values}
    try:
        for name, parameter in model.named_parameters():
            if name in values:
                parameter.data = values[name]
        yield
    finally:
        for name, parameter in model.named_parameters():
            if name in values_by_name:
                parameter.data = values_by_name[name]
