"""What preference tuning changed, on pairs that it was not trained on: from log-probabilities, from lengths, and by a judge.

    pair        prompt · preferred completion · the other one          nats by the base and by the tuned model
    accuracy    share of pairs whose preferred completion gained more  ties count half; 50 % where nothing was learnt
    margin      by how much, in nats: (s_c - ref_c) - (s_r - ref_r)    a mean over pairs
    change      of each completion by itself                           the preferred one may have become less likely too
    first       share of pairs whose preferred completion is likelier  per token, by each model
    length      tokens of completions: base's, tuned's, and the pairs' own; people and judges favour long ones
    wins        tuned against base, where the spec has a pairwise grader: asked in both orders, ties count half

No judge is needed for anything but wins. The log-probabilities are kept in a file beside the completions, under a hash of the
pairs. Wins against the preferred completion are the pairwise grader's own score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field, ValidationError

from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.statistics import mean_interval, t_interval
from ftbridge.files import sha256_bytes, write_json
from ftbridge.providers.base import Frozen, Prompt, Scorer
from ftbridge.spec.graders import Grader, PairwiseGrader

FEWEST = 2
"""Pairs below which no interval can be given."""
BASE_COMPLETION = "base_completion"
AGAINST_BASE = "{{item.base_completion}}"


class Estimate(Frozen):
    """A mean with its interval; prompts that belong together count as one draw."""

    mean: float
    ci95: tuple[float, float]
    n: int


class PairNats(Frozen):
    """What one model makes of one pair: nats of each completion (the lower, the likelier), and its tokens."""

    preferred: float
    preferred_tokens: int
    other: float
    other_tokens: int


class Preferences(Frozen):
    """What tuning by preferences changed on the test pairs."""

    pairs: int = Field(description="Test pairs with two completions in plain text.")
    accuracy: Estimate = Field(
        description="Share of pairs whose preferred completion gained more than the other, 0 to 1."
    )
    margin: Estimate = Field(description="How much more it gained, in nats.")
    preferred_change: Estimate = Field(description="How much likelier the preferred completion became, in nats.")
    preferred_change_per_token: float = Field(description="The same over all its tokens.")
    other_change: Estimate = Field(description="How much likelier the other completion became, in nats.")
    preferred_first: dict[str, Estimate] = Field(
        description="Share of pairs whose preferred completion is the likelier per token, by candidate."
    )
    preferred_longer: float = Field(description="Share of pairs whose preferred completion is the longer, 0 to 1.")
    pair_tokens: tuple[float, float] = Field(description="Mean tokens of preferred and other completions.")
    completion_tokens: dict[str, Estimate] = Field(default={}, description="Mean tokens of completions, by candidate.")
    length_change: Estimate | None = Field(
        default=None, description="Tokens of the tuned model's completions beyond the base model's, item by item."
    )
    wins: dict[str, Estimate] = Field(
        default={}, description="How often the tuned model's completion beats the base model's, by pairwise grader."
    )
    wins_length_controlled: dict[str, Estimate] = Field(
        default={}, description="The same if both completions had the same length."
    )


def measurable(items: Sequence[Item]) -> list[Item]:
    """The items that are pairs of completions in plain text."""
    return [item for item in items if item.outputs is not None]


def measure(items: Sequence[Item], scorer: Scorer, path: Path, *, batch_size: int) -> None:
    """Write the log-probabilities of all pairs by one model to `path`, unless it holds them. Raises what the scorer raises."""
    pairs = measurable(items)
    if read(items, path) is not None:
        return
    prompts, texts = [], []
    for item in pairs:
        assert item.outputs is not None
        for side, text in zip("cr", item.outputs, strict=True):
            prompts.append(Prompt(key=f"{item.key} {side}", messages=item.prompt, tools=item.tools))
            texts.append(text)
    scored = {one.key: one for one in scorer.score(prompts, texts, batch_size=batch_size)}
    rows = {}
    for item in pairs:
        preferred, other = (scored[f"{item.key} {side}"] for side in "cr")
        rows[item.key] = PairNats(
            preferred=preferred.nats, preferred_tokens=preferred.tokens, other=other.nats, other_tokens=other.tokens
        ).model_dump()
    write_json(path, {"pairs": _name(pairs), "nats": rows})


def read(items: Sequence[Item], path: Path) -> dict[str, PairNats] | None:
    """What was measured for just these pairs, by the item's key; None when it was not."""
    pairs = measurable(items)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["pairs"] != _name(pairs):
            return None
        return {item.key: PairNats.model_validate(document["nats"][item.key]) for item in pairs}
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def preferences(
    items: Sequence[Item],
    base: Mapping[str, PairNats],
    tuned: Mapping[str, PairNats],
    predictions: Mapping[str, Sequence[Prediction]],
) -> Preferences | None:
    """What changed between two models; None for fewer than two pairs. Needs scipy."""
    pairs = measurable(items)
    if len(pairs) < FEWEST:
        return None
    clusters = [item.cluster or item.key for item in pairs]
    before, after = [base[item.key] for item in pairs], [tuned[item.key] for item in pairs]
    gained = [one.preferred - two.preferred for one, two in zip(before, after, strict=True)]
    other = [one.other - two.other for one, two in zip(before, after, strict=True)]
    margins = [one - two for one, two in zip(gained, other, strict=True)]
    lengths = {
        name: [float(one.completion_tokens) for one in predictions[name]]
        for name in ("base", "tuned")
        if name in predictions and len(predictions[name]) == len(items)
    }
    groups = [item.cluster or item.key for item in items]
    change = None
    if len(lengths) == 2:
        change = _mean([two - one for one, two in zip(lengths["base"], lengths["tuned"], strict=True)], groups)
    return Preferences(
        pairs=len(pairs),
        accuracy=_share([_half(margin) for margin in margins], clusters),
        margin=_mean(margins, clusters),
        preferred_change=_mean(gained, clusters),
        preferred_change_per_token=math.fsum(gained) / sum(one.preferred_tokens for one in after),
        other_change=_mean(other, clusters),
        preferred_first={
            name: _share(
                [_half(one.other / one.other_tokens - one.preferred / one.preferred_tokens) for one in by], clusters
            )
            for name, by in (("base", before), ("tuned", after))
        },
        preferred_longer=sum(one.preferred_tokens > one.other_tokens for one in after) / len(after),
        pair_tokens=(
            sum(one.preferred_tokens for one in after) / len(after),
            sum(one.other_tokens for one in after) / len(after),
        ),
        completion_tokens={name: _mean(values, groups) for name, values in lengths.items()},
        length_change=change,
    )


def against_base(
    items: Sequence[Item], base: Sequence[Prediction], graders: Sequence[Grader]
) -> tuple[list[Item], list[Grader]]:
    """The same items and pairwise graders, with the base model's completions to stand against."""
    texts = {one.key: one.output_text for one in base}
    rivals = [
        grader.model_copy(update={"against": AGAINST_BASE}) for grader in graders if isinstance(grader, PairwiseGrader)
    ]
    return [
        replace(item, fields={**item.fields, BASE_COMPLETION: texts[item.key]}) for item in items if item.key in texts
    ], list(rivals)


def warnings(measured: Preferences) -> list[str]:
    """What a reader should know of the figures, with what to do."""
    notes = []
    low, high = measured.preferred_change.ci95
    if high < 0:
        notes.append(
            f"The preferred completions themselves became less likely, by {-measured.preferred_change.mean:.1f} nats each"
            f" (95 % interval {-high:.1f} to {-low:.1f}): only the difference is trained. Where that matters, set"
            " local.dpo.nll_weight (0.1 to 1), lower learning_rate_multiplier, or tune on the preferred completions first."
        )
    if measured.length_change is not None and abs(measured.length_change.mean) > 1:
        low, high = measured.length_change.ci95
        if low > 0 or high < 0:
            way = "longer" if low > 0 else "shorter"
            notes.append(
                f"Completions became {way}: {measured.completion_tokens['base'].mean:.0f} to "
                f"{measured.completion_tokens['tuned'].mean:.0f} tokens. In {measured.preferred_longer:.0%} of the "
                "test pairs the preferred completion is the longer one, so part of what the model learnt may be "
                "length; local.dpo.loss: length_normalised corrects for it."
            )
    return notes


def sentence(measured: Preferences) -> str:
    """The figures in one sentence."""
    low, high = (100 * end for end in measured.accuracy.ci95)
    more, least, most = measured.margin.mean, *measured.margin.ci95
    return (
        f"Preferences: tuning moved {100 * measured.accuracy.mean:.1f} % of the {measured.pairs} test pairs towards the"
        f" preferred completion (95 % interval {low:.1f} to {high:.1f}), by {more:.1f} nats on"
        f" average ({least:.1f} to {most:.1f})."
    )


def table(measured: Preferences) -> list[tuple[str, str, str]]:
    """The figures for people: what it is, its mean, its 95 % interval (empty where there is none)."""

    def share(name: str, one: Estimate) -> tuple[str, str, str]:
        low, high = (100 * end for end in one.ci95)
        return name, f"{100 * one.mean:.1f} %", f"{low:.1f} to {high:.1f}"

    def mean(name: str, one: Estimate, unit: str, sign: str = "") -> tuple[str, str, str]:
        low, high = one.ci95
        return name, f"{one.mean:{sign}.1f} {unit}", f"{low:{sign}.1f} to {high:{sign}.1f}"

    preferred, other = measured.pair_tokens
    rows = [
        share("pairs moved towards the preferred completion", measured.accuracy),
        mean("margin: preferred over the other", measured.margin, "nats", "+"),
        mean("preferred completion became likelier by", measured.preferred_change, "nats", "+"),
        mean("the other completion became likelier by", measured.other_change, "nats", "+"),
        *(
            share(f"preferred completion is the likelier, {name}", one)
            for name, one in measured.preferred_first.items()
        ),
        *(share(f"wins of tuned against base, {name}", one) for name, one in measured.wins.items()),
        *(share(f"the same at equal length, {name}", one) for name, one in measured.wins_length_controlled.items()),
        ("tokens of the pairs: preferred, other", f"{preferred:.0f}, {other:.0f}", ""),
        *(mean(f"tokens of completions, {name}", one, "") for name, one in measured.completion_tokens.items()),
    ]
    if measured.length_change is not None:
        rows.append(mean("completions became longer by", measured.length_change, "tokens", "+"))
    return [(name, value.strip(), interval) for name, value, interval in rows]


def _half(difference: float) -> float:
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0


def _share(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    mean, low, high = mean_interval(values, clusters)
    return Estimate(mean=mean, ci95=(low, high), n=len(values))


def _mean(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    """A mean of unbounded values: the t interval between clusters, within the values seen."""
    mean = math.fsum(values) / len(values)
    return Estimate(
        mean=mean, ci95=t_interval(values, clusters, lowest=min(values), highest=max(values)), n=len(values)
    )


def _name(pairs: Sequence[Item]) -> str:
    return sha256_bytes("\n".join(f"{item.key} {item.outputs}" for item in pairs).encode())
