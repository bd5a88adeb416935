"""Money from a dated price list. An unknown model has no price here, and no figure is guessed."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.data.tokens import count_texts
from ftbridge.evaluation.items import Item
from ftbridge.graders import judges_of, templates
from ftbridge.prices import PriceList
from ftbridge.spec.graders import Grader
from ftbridge.spec.lowering import FieldReport, allow_options

STALE_DAYS = 180
HOURS_A_MONTH = 730


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


REPLY_TOKENS = (30, 300)
"""Tokens of a judge's reply, from a bare verdict to one with its steps."""
_INSTRUCTION_TOKENS = 80
"""What `ftbridge.graders.judge` adds to a judge's prompt, about."""


class Judges(_Document):
    """What judge models cost, in US dollars, and those whose price is not known."""

    low: float = 0.0
    high: float = 0.0
    unknown: tuple[str, ...] = ()


class Money(_Document):
    """What the hosted provider costs, in US dollars; null where a price is not known, or the service refuses the job."""

    training: float | None
    evaluation: tuple[float, float] | None = Field(
        description="Completions of every candidate, from the length of the references to the token limit, and judge models."
    )
    judges: tuple[float, float] | None = Field(
        default=None, description="The part of that for judge models; null if a judge's price is not known."
    )
    total: tuple[float, float] | None
    serving_per_million: tuple[float, float] | None = Field(description="Price of a million tokens read, and written.")
    batch_saves: float | None = Field(description="What openai.batch would save on the evaluation, at most.")
    prices_as_of: datetime.date
    age_days: int
    notes: list[str]


def managed(
    prices: PriceList,
    model: str,
    *,
    training_tokens: int,
    prompt_count: int,
    completion_tokens: tuple[int, int],
    tuned_asked: int,
    tuned_answered: tuple[int, int],
    batch: bool,
    today: datetime.date,
    judges: Judges | None = None,
    target: str = "openai",
    has_batch: bool = True,
) -> Money:
    """Training and judging on a service, `target`: OpenAI's prices are no other's. `has_batch`: it has the Batch API.

    `trained` tokens are those of the file times epochs; `asked` and `answered` the prompt tokens, and the fewest and most
    completion tokens, of all candidates on the base model, at its price; `tuned_asked` and `tuned_answered` those of the
    tuned model, at the price of fine-tuned ones.
    """
    price = prices.of(model) if prices.holds_at(model, target) else None
    notes = []
    age = prices.age_days(today, model)
    if age > STALE_DAYS:
        notes.append(f"Prices are {age} days old ({prices.date_of(model)}); check them, or give --prices FILE.")
    if price is None:
        priced = (
            f"Known: {', '.join(prices.models)}." if prices.of(model) is None else "OpenAI's prices are not its prices."
        )
        service = "" if target == "openai" else f" at {target}"
        notes.append(
            f"No price is known for {model}{service}, so no cost is estimated. {priced} --prices FILE adds one."
        )
        return _unknown(prices.date_of(model), age, notes)
    training = None if price.train is None else price.train * training_tokens / 1e6
    low, high = (
        (prices.completions_usd(model, prompt_count, base, tuned=False, batch=batch) or 0.0)
        + (prices.completions_usd(model, tuned_asked, tuned, batch=batch) or 0.0)
        for base, tuned in zip(completion_tokens, tuned_answered, strict=True)
    )
    judges = judges or Judges()
    if judges.unknown:
        notes.append(f"No price is known for the judge {', '.join(judges.unknown)}: its cost is not included.")
    evaluation = (low + judges.low, high + judges.high)
    return Money(
        training=training,
        judges=None if judges.unknown else (judges.low, judges.high),
        evaluation=evaluation,
        total=None if training is None else (training + evaluation[0], training + evaluation[1]),
        serving_per_million=(price.input, price.output),
        batch_saves=None if batch or not has_batch else high * prices.batch_discount,
        prices_as_of=prices.date_of(model),
        age_days=age,
        notes=notes,
    )


def when_refused(money: Money, fields: Sequence[FieldReport]) -> Money:
    """The money of a side that refuses these fields: none, unless a run can be allowed to go on without all of them."""
    if not fields:
        return money
    if not cannot_run(fields):
        run = f"ftbridge run {allow_options(fields)}"
        note = f"Refused as the spec stands. These figures are for a run without those fields: {run}"
        return money.model_copy(update={"notes": [note, *money.notes]})
    note = f"No cost applies: the service refuses {', '.join(report.field for report in fields)}, so nothing can run there."
    return _unknown(money.prices_as_of, money.age_days, [note])


def cannot_run(refused: Sequence[FieldReport]) -> bool:
    """Whether a side that refuses these fields runs nothing, whatever is allowed."""
    return any(not report.waivable for report in refused)


def _unknown(prices_as_of: datetime.date, age_days: int, notes: list[str]) -> Money:
    """Money without a figure."""
    return Money(
        training=None,
        evaluation=None,
        total=None,
        serving_per_million=None,
        batch_saves=None,
        prices_as_of=prices_as_of,
        age_days=age_days,
        notes=notes,
    )


def judge_money(
    prices: PriceList, graders: Sequence[Grader], items: Sequence[Item], candidates: int, longest: int, encoding: str
) -> Judges:
    """What judge models cost for every item and candidate.

    A question is the grader's own text, the item's fields that it names, and an answer; the judge's reply is reckoned at
    `REPLY_TOKENS`. From answers as short as the references to `longest` tokens. A judge at an address on this machine costs
    nothing; one whose price is not known is named.
    """
    low = high = 0.0
    unknown = []
    for grader in judges_of(graders):
        price = prices.judge_rates(grader.model, grader.base_url)
        if price is None:
            unknown.append(grader.model)
            continue
        texts = [" ".join(templates(grader))] + [
            " ".join(str(value) for value in item.fields.values() if isinstance(value, str)) for item in items
        ]
        prompt_tokens, *fields = count_texts(texts, encoding)
        # After preference tuning a pairwise judge also compares the tuned model's completions with the base model's.
        times = candidates + (grader.type == "pairwise" and any(item.outputs is not None for item in items))
        questions = len(items) * times
        orders = 2 if grader.type == "pairwise" else 1
        read = times * sum(fields) + questions * (prompt_tokens + _INSTRUCTION_TOKENS)
        references = times * sum(count_texts([str(item.fields.get("reference", "")) for item in items], encoding))
        low += orders * (price.input * (read + references) + price.output * questions * REPLY_TOKENS[0]) / 1e6
        high += orders * (price.input * (read + questions * longest) + price.output * questions * REPLY_TOKENS[1]) / 1e6
    return Judges(low=low, high=high, unknown=tuple(dict.fromkeys(unknown)))


def break_even_tokens(per_hour: float, serving: tuple[float, float]) -> int:
    """Tokens a month, half read and half written, above which a card that runs all month (730 hours) is the cheaper."""
    return round(per_hour * HOURS_A_MONTH / (sum(serving) / 2) * 1e6)


class Monthly(_Document):
    """What serving a month's tokens costs, half read and half written, in US dollars; null where a price is not known."""

    tokens: int
    managed_usd: float | None
    local_usd: float | None = Field(description="A card that runs all month, however little it is asked.")


def monthly(tokens: int | None, per_hour: float | None, serving: tuple[float, float] | None) -> Monthly | None:
    """The two sides for a volume; None when none was told."""
    if tokens is None:
        return None
    return Monthly(
        tokens=tokens,
        managed_usd=None if serving is None else tokens * sum(serving) / 2 / 1e6,
        local_usd=None if per_hour is None else per_hour * HOURS_A_MONTH,
    )
