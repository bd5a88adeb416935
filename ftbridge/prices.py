"""Prices of services as dated data, `prices.json`: one list for plans, budgets and what a run has spent.

An unknown model has no price here, and none is guessed. `FTBRIDGE_PRICES` names a list of your own.
"""

from __future__ import annotations

import datetime
import json
import os
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge.errors import UsageError


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
    is_built_in: bool = Field(default=False, exclude=True, description="Whether it came with ftbridge.")

    def of(self, model: str) -> Price | None:
        """The price of a model, by its name or the beginning of its dated names; `ft:` names cost what their base's do."""
        base = model.removeprefix("ft:").split(":")[0]
        known = [name for name in self.models if base == name or base.startswith(f"{name}-20")]
        return self.models[max(known, key=len)] if known else None

    def training_usd(self, model: str, tokens: int, epochs: int) -> float | None:
        """What a supervised or preference job costs: price x tokens of the file x epochs; None when no price is known.

        Validation is free (OpenAI's pricing page, late 2025).
        """
        price = self.of(model)
        return None if price is None or price.train is None else price.train * tokens * epochs / 1e6

    def answers_usd(self, model: str, read: int, written: int) -> float | None:
        """What reading and writing so many tokens costs, uncached; None when no price is known."""
        price = self.of(model)
        return None if price is None else (price.input * read + price.output * written) / 1e6

    def age_days(self, today: datetime.date) -> int:
        """Days since these were the prices."""
        return (today - self.as_of).days


def load_prices(path: str | Path | None = None) -> PriceList:
    """The price list at `path`, at `$FTBRIDGE_PRICES`, or the one that comes with ftbridge.

    Raises `UsageError` for a file that is none, and for another currency than US dollars.
    """
    where = path or os.environ.get("FTBRIDGE_PRICES")
    try:
        text = Path(where).read_text("utf-8") if where else files("ftbridge").joinpath("prices.json").read_text("utf-8")
        told = PriceList.model_validate({**json.loads(text), "is_built_in": not where})
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
