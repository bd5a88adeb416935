"""Direct preference optimisation: the loss of a pair, and the objective that puts it behind the training loop.

With s the log-probability of a completion (a sum over its tokens, its end of turn included), n its number of tokens, and ref
the same by the reference model, for a chosen completion c and a rejected one r:

    sigmoid             D = (s_c - ref_c) - (s_r - ref_r)              loss = -log sig(beta D)
    length_normalised   D = (s_c - ref_c) / n_c - (s_r - ref_r) / n_r  loss = -log sig(beta D)
    ipo                 D as length_normalised                         loss = (D - 1 / (2 beta))^2
    label smoothing e   sigmoid and length_normalised                  loss = -(1 - e) log sig(beta D) - e log sig(-beta D)
    NLL term a                                                         loss + a * -s_c / n_c

The loss of a step is the mean over all its pairs. A completion's reward is beta times its log-ratio, the margin is the
difference of the two rewards. Only D is trained, so both completions may become less likely together: that is no fault of the
program, but it is reported, since it is seldom wanted; the NLL term works against it.

Before the first update policy and reference are the same model. The first step is held against that, within what rounding does:

    mean s_c - ref_c, mean s_r - ref_r     of P pairs with n tokens: 5 t sqrt(sum of n) / P + b n
    spread of D within the pairs           t sqrt(n_c + n_r) (1 + 5 / sqrt(P)) + b (n_c + n_r)

with t and b measured (`repeatable.ROUNDING`). In bf16 a reference that is off by 1 nat stops a step of 8 pairs of 75 tokens.

Sources: sigmoid Rafailov et al. 2023 (arXiv:2305.18290), equation 7; IPO Azar et al. 2023 (arXiv:2310.12036), equation 17,
over means of tokens as its authors confirmed to TRL; label smoothing Mitchell 2023 ("A note on DPO with noisy preferences");
NLL term Pang et al. 2024 (arXiv:2404.19733).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ftbridge.errors import TrainingFailed
from ftbridge.providers.local.request import DpoRequest
from ftbridge.providers.local.training import pairs as preference_pairs
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.objective import Sums
from ftbridge.providers.local.training.pairs import Pair
from ftbridge.providers.local.training.repeatable import Rounding, rounding

DEVIATIONS = 5.0
"""Standard deviations of rounding that the first step may be off."""


def log_ratios(options: DpoRequest, policy: Tensor, reference: Tensor, tokens: Tensor) -> Tensor:
    """How much likelier each completion became, in nats; over its tokens for the losses that normalise. All (pairs, 2)."""
    ratio = policy - reference
    return ratio if options.loss == "sigmoid" else ratio / tokens


def preference_loss(options: DpoRequest, policy: Tensor, reference: Tensor, tokens: Tensor) -> Tensor:
    """The loss of each pair without its NLL term: (pairs). Arguments (pairs, 2), the chosen completion in column 0."""
    ratio = log_ratios(options, policy, reference, tokens)
    difference = ratio[:, 0] - ratio[:, 1]
    if options.loss == "ipo":
        return (difference - 1 / (2 * options.beta)) ** 2
    scaled, smoothing = options.beta * difference, options.label_smoothing
    return -(1 - smoothing) * nn.functional.logsigmoid(scaled) - smoothing * nn.functional.logsigmoid(-scaled)


def loss_without_a_difference(options: DpoRequest) -> float:
    """What `preference_loss` is where policy and reference agree: ln 2, or 1 / (2 beta) squared for ipo."""
    return (1 / (2 * options.beta)) ** 2 if options.loss == "ipo" else math.log(2)


@dataclass(frozen=True)
class Preference:
    """The objective of method dpo. Units are pairs whose `reference` is known. `shared`: prompts are computed once."""

    options: DpoRequest
    shared: bool
    unit: str = "a pair"
    _reported: list[Pair] = field(default_factory=list, init=False, repr=False, compare=False)
    """The pairs of the latest figures, for `check`."""

    def cut(self, forward: Forward, batch: Sequence[Pair], budget: int) -> list[list[Pair]]:
        """Whole pairs: both completions are needed for the loss of one."""
        return preference_pairs.cut(forward, batch, budget, shared=self.shared)

    def size(self, batch: Sequence[Pair]) -> int:
        """Pairs."""
        return max(1, len(batch))

    def sums(self, forward: Forward, part: Sequence[Pair], *, seed: int = 0) -> Sums:
        """The summed loss, and sums of rewards, log-probabilities and wins."""
        policy = preference_pairs.completion_log_probabilities(forward, part, shared=self.shared, seed=seed)
        assert all(pair.reference is not None for pair in part), "the reference is measured before training"
        reference = torch.tensor([pair.reference for pair in part], dtype=policy.dtype, device=policy.device)
        tokens = torch.tensor([[side.num_loss_tokens for side in pair.sides] for pair in part]).to(policy)
        preferred = preference_loss(self.options, policy, reference, tokens)
        nll = -(policy[:, 0] / tokens[:, 0])
        loss = preferred + self.options.nll_weight * nll if self.options.nll_weight else preferred
        values = policy.detach()
        rewards = self.options.beta * log_ratios(self.options, values, reference, tokens)
        margins = rewards[:, 0] - rewards[:, 1]
        more = {
            "preference_loss": preferred.detach().sum(),
            "reward_accuracy": (margins > 0).sum() + 0.5 * (margins == 0).sum(),
            "reward_margin": margins.sum(),
            "chosen_reward": rewards[:, 0].sum(),
            "rejected_reward": rewards[:, 1].sum(),
            "chosen_logp": values[:, 0].sum(),
            "rejected_logp": values[:, 1].sum(),
        }
        return Sums(loss.sum(), more)

    def figures(self, loss: float, more: Mapping[str, float], batch: Sequence[Pair]) -> dict[str, float]:
        """Means over pairs; log-probabilities also per token, over all tokens. Ties count half in the accuracy."""
        self._reported[:] = batch
        size = self.size(batch)
        means = {name: value / size for name, value in more.items()}
        if not self.options.nll_weight:
            means.pop("preference_loss")
        for name, side in (("chosen_logp", 0), ("rejected_logp", 1)):
            means[f"{name}_per_token"] = more[name] / max(1, sum(pair.sides[side].num_loss_tokens for pair in batch))
        return {"loss": loss / size, **means}

    def check(self, forward: Forward, figures: Mapping[str, float]) -> None:
        """Before the first update policy and reference are the same model, so every log-ratio of the pairs is 0.

        `figures` are the latest of `figures`. Raises `TrainingFailed` where they are further from that than rounding explains.
        """
        limits = first_step_limits(self.options, rounding(forward), self._reported)
        beta, expected = self.options.beta, loss_without_a_difference(self.options)
        chosen, rejected = figures["chosen_reward"] / beta, figures["rejected_reward"] / beta
        loss = figures.get("preference_loss", figures["loss"])
        curved = loss - expected - _slope(self.options) * figures["reward_margin"] / beta
        within = (
            abs(chosen) <= limits.chosen,
            abs(rejected) <= limits.rejected,
            curved <= _curved(self.options, limits.spread) + 1e-5 * max(1.0, expected),
        )
        if not all(within):
            name = "ln 2 = 0.6931" if self.options.loss != "ipo" else f"{expected:.4g}"
            unit = "nats" if self.options.loss == "sigmoid" else "nats a token"
            raise TrainingFailed(
                f"the loss of step 1 is {loss:.4f}, but a model that equals its reference has {name}. Chosen completions are "
                f"on average {chosen:+.2g} {unit} from their reference, rejected ones {rejected:+.2g}; rounding explains "
                f"{limits.chosen:.2g} and {limits.rejected:.2g}, and a spread of {limits.spread:.2g} between pairs. So "
                "reference.jsonl is not of the model that is trained.",
                hint="Remove reference.jsonl from the run folder and start the run again; if it happens again, report it.",
            )


class FirstStepLimits(NamedTuple):
    """How far from 0 log-ratios may be before the first update: their means on each side, the root mean square of D."""

    chosen: float
    rejected: float
    spread: float


def first_step_limits(options: DpoRequest, rounding: Rounding, batch: Sequence[Pair]) -> FirstStepLimits:
    """What rounding explains of the pairs of a step; in nats, over a completion's tokens for the losses that normalise."""
    pairs = max(1, len(batch))
    variances, biases = [], []
    for side in (0, 1):
        tokens = [max(1, pair.sides[side].num_loss_tokens) for pair in batch]
        counts = tokens if options.loss == "sigmoid" else [1 / number for number in tokens]
        variances.append(rounding.token**2 * sum(counts) / pairs)
        biases.append(rounding.bias * (sum(tokens) / pairs if options.loss == "sigmoid" else 1.0))
    chosen, rejected = (
        DEVIATIONS * math.sqrt(variance / pairs) + bias for variance, bias in zip(variances, biases, strict=True)
    )
    spread = math.sqrt(sum(variances)) * (1 + DEVIATIONS / math.sqrt(pairs)) + sum(biases)
    return FirstStepLimits(chosen, rejected, spread)


def _slope(options: DpoRequest) -> float:
    """The derivative of a pair's loss by D, where D is 0."""
    return -1 / options.beta if options.loss == "ipo" else -options.beta * (1 - 2 * options.label_smoothing) / 2


def _curved(options: DpoRequest, spread: float) -> float:
    """What the loss has beyond its value and slope at 0 where D is `spread`: as much as pairs of that spread have at most."""
    difference = torch.tensor([[spread, 0.0], [-spread, 0.0]], dtype=torch.float64)
    zero = torch.zeros_like(difference)
    return float(preference_loss(options, difference, zero, zero + 1).mean()) - loss_without_a_difference(options)
