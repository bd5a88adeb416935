"""Money from a dated price list. An unknown model has no price here, and no figure is guessed."""

from __future__ import annotations

import datetime
import json
import os
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge.errors import UsageError

STALE_DAYS = 180


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Price(_Document):
    """US dollars for a million tokens."""

    train: float | None = Field(default=None, ge=0, description="Trained tokens: those of the file times epochs.")
    input: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    output: float = Field(ge=0)


class PriceList(_Document):
    """Prices of one day."""

    as_of: datetime.date
    currency: str = "USD"
    source: str = ""
    batch_discount: float = Field(default=0.5, ge=0, le=1)
    models: dict[str, Price]

    def of(self, model: str) -> Price | None:
        """The price of a model, by its name or the beginning of its dated names; `ft:` names cost what their base's do."""
        base = model.removeprefix("ft:").split(":")[0]
        known = [name for name in self.models if base == name or base.startswith(f"{name}-20")]
        return self.models[max(known, key=len)] if known else None

    def age_days(self, today: datetime.date) -> int:
        """Days since these were the prices."""
        return (today - self.as_of).days


def load_prices(path: str | Path | None = None) -> PriceList:
    """The price list at `path`, at `$FTBRIDGE_PRICES`, or the one that comes with ftbridge.

    Raises `UsageError` for a file that is none, and for another currency than US dollars.
    """
    where = path or os.environ.get("FTBRIDGE_PRICES")
    try:
        text = (
            Path(where).read_text("utf-8")
            if where
            else files("ftbridge.planning").joinpath("prices.json").read_text("utf-8")
        )
        told = PriceList.model_validate(json.loads(text))
    except OSError as error:
        raise UsageError(f"{where}: the price list cannot be read ({error.strerror}).") from None
    except (ValueError, ValidationError) as error:
        raise UsageError(f"{where}: not a price list: {error}") from None
    if told.currency != "USD":
        raise UsageError(
            f"{where}: prices in {told.currency}; budgets and plans are in US dollars.",
            hint="Convert the list, and write currency: USD.",
        )
    return told


class Money(_Document):
    """What the managed side costs, in US dollars; null where a price is not known."""

    training: float | None
    evaluation: tuple[float, float] | None = Field(description="From answers as short as the references to the limit.")
    total: tuple[float, float] | None
    serving_per_million: tuple[float, float] | None = Field(description="A million tokens read, and written.")
    batch_saves: float | None = Field(description="What openai.batch would take off the evaluation, at most.")
    prices_as_of: datetime.date
    age_days: int
    notes: list[str]


def managed(
    prices: PriceList,
    model: str,
    *,
    trained: int,
    asked: int,
    answered: tuple[int, int],
    tuned_asked: int,
    batch: bool,
    today: datetime.date,
) -> Money:
    """Training and judging on a service.

    `trained` tokens are those of the file times epochs; `asked` the prompt tokens of all candidates on the base model,
    `tuned_asked` those of the tuned one, `answered` the fewest and most answer tokens of one candidate. OpenAI asks the
    same of base and tuned answers here: the fine-tuned price, which is the higher, is taken for both.
    """
    price = prices.of(model)
    notes = []
    age = prices.age_days(today)
    if age > STALE_DAYS:
        notes.append(f"Prices are {age} days old ({prices.as_of}); check them, or give --prices FILE.")
    if price is None:
        known = ", ".join(prices.models)
        notes.append(f"No price is known for {model}: nothing is reckoned. Known: {known}. --prices FILE adds one.")
        return Money(
            training=None,
            evaluation=None,
            total=None,
            serving_per_million=None,
            batch_saves=None,
            prices_as_of=prices.as_of,
            age_days=age,
            notes=notes,
        )
    training = None if price.train is None else price.train * trained / 1e6
    reads = price.input * (asked + tuned_asked) / 1e6
    low, high = (reads + price.output * tokens / 1e6 for tokens in answered)
    share = 1 - prices.batch_discount if batch else 1.0
    evaluation = (low * share, high * share)
    return Money(
        training=training,
        evaluation=evaluation,
        total=None if training is None else (training + evaluation[0], training + evaluation[1]),
        serving_per_million=(price.input, price.output),
        batch_saves=None if batch else high * prices.batch_discount,
        prices_as_of=prices.as_of,
        age_days=age,
        notes=notes,
    )


def hour_usd(gpu_usd_per_hour: float | None, watts: float | None, usd_per_kwh: float | None) -> float | None:
    """What an hour of this machine costs: the card's price, else its electricity; None when neither is told."""
    if gpu_usd_per_hour is not None:
        return gpu_usd_per_hour
    return watts * usd_per_kwh / 1000 if watts is not None and usd_per_kwh is not None else None


def break_even_tokens(per_hour: float, serving: tuple[float, float]) -> int:
    """Tokens a month, half read and half written, above which a card that runs all month (730 hours) is the cheaper."""
    return round(per_hour * 730 / (sum(serving) / 2) * 1e6)
