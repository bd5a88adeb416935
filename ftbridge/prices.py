"""Prices of services as dated data, `prices.json`: one list for plans, budgets and what a run has spent.

An unknown model has no price here, and none is guessed. `FTBRIDGE_PRICES` names a list of your own, which extends this one.
"""

from __future__ import annotations

import datetime
import json
import os
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.errors import UsageError


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rates(_Document):
    """US dollars for a million tokens of completions."""

    input: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    output: float = Field(ge=0)


class Price(Rates):
    """US dollars for a million tokens. The rates are those of a fine-tuned model, or of one that cannot be fine-tuned."""

    train: float | None = Field(default=None, ge=0, description="Trained tokens: those of the file times epochs.")
    base: Rates | None = Field(default=None, description="What the model costs before it is tuned, where that differs.")


class PriceList(_Document):
    """Prices of one day. A list of one's own extends the built-in one: `listed` names the models that it tells of."""

    as_of: datetime.date
    currency: str = "USD"
    source: str = ""
    batch_discount: float = Field(default=0.5, ge=0, le=1)
    models: dict[str, Price]
    listed: frozenset[str] = Field(default=frozenset(), exclude=True, description="Models of a list of one's own.")
    built_in_as_of: datetime.date | None = Field(default=None, exclude=True)

    def of(self, model: str) -> Price | None:
        """The price of a model, by its name or the beginning of its dated names; `ft:` names cost what their base's do."""
        name = self._name(model)
        return self.models[name] if name is not None else None

    def date_of(self, model: str) -> datetime.date:
        """The day whose price this model's is."""
        return self.as_of if self._name(model) in self.listed or self.built_in_as_of is None else self.built_in_as_of

    def holds_at(self, model: str, target: str) -> bool:
        """Whether the list tells what this service takes for the model: OpenAI's prices are no other service's."""
        name = self._name(model)
        return name is not None and (target == "openai" or name in self.listed)

    def rates(self, model: str, *, tuned: bool) -> Rates | None:
        """What completions of the model cost, tuned or as it is; None when no price is known."""
        price = self.of(model)
        return price if price is None or tuned or price.base is None else price.base

    def training_usd(self, model: str, tokens: int, epochs: int) -> float | None:
        """What a supervised or preference job costs: price x tokens of the file x epochs; None when no price is known.

        Validation is free (OpenAI's pricing page, late 2025).
        """
        price = self.of(model)
        return None if price is None or price.train is None else price.train * tokens * epochs / 1e6

    def completions_usd(
        self, model: str, prompt_tokens: int, completion_tokens: int, *, tuned: bool = True, batch: bool = False
    ) -> float | None:
        """What completions of so many tokens cost, uncached; None when no price is known.

        `tuned`: at the price of models tuned from `model`. `batch`: with the discount of the Batch API.
        """
        rates = self.rates(model, tuned=tuned or model.startswith("ft:"))
        if rates is None:
            return None
        usd = (rates.input * prompt_tokens + rates.output * completion_tokens) / 1e6
        return usd * (1 - self.batch_discount) if batch else usd

    def judge_rates(self, model: str, endpoint: str | None) -> Rates | None:
        """What a judge at this address costs (None: OpenAI's own); None when no price is known, zeros on this machine.

        At OpenAI a model costs what it is. What another host takes under the same name is not known: the dearest that the list
        has for it is taken, so that a budget is not passed.
        """
        host = urlsplit(endpoint).hostname or "" if endpoint is not None else "api.openai.com"
        if host in _THIS_MACHINE:
            return Rates(input=0, output=0)
        plain, tuned = self.rates(model, tuned=model.startswith("ft:")), self.rates(model, tuned=True)
        if plain is None or tuned is None or f".{host}".endswith(".api.openai.com"):
            return plain
        return Rates(input=max(plain.input, tuned.input), output=max(plain.output, tuned.output))

    def judge_usd(self, model: str, endpoint: str | None, read: int, written: int) -> float | None:
        """What a judge's reply costs, by `judge_rates`."""
        rates = self.judge_rates(model, endpoint)
        return None if rates is None else (rates.input * read + rates.output * written) / 1e6

    def age_days(self, today: datetime.date, model: str = "") -> int:
        """Days since these were the prices."""
        return (today - self.date_of(model)).days

    def _name(self, model: str) -> str | None:
        base = model.removeprefix("ft:").split(":")[0]
        names = [name for name in self.models if base == name or base.startswith(f"{name}-20")]
        return max(names, key=len) if names else None


_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


def load_prices(path: str | Path | None = None) -> PriceList:
    """The built-in price list, extended by the one at `path` or at `$FTBRIDGE_PRICES`: its models replace those of their name.

    Raises `UsageError` for a file that is not a price list, and for another currency than US dollars.
    """
    built_in = PriceList.model_validate_json(files("ftbridge").joinpath("prices.json").read_text("utf-8"))
    where = path or os.environ.get("FTBRIDGE_PRICES")
    if not where:
        return built_in.model_copy(update={"built_in_as_of": built_in.as_of})
    try:
        added = PriceList.model_validate(json.loads(Path(where).read_text("utf-8")))
    except OSError as error:
        raise UsageError(f"{where}: the price list cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise UsageError(f"{where}: not a price list: {error}") from None
    if added.currency != "USD":
        raise UsageError(
            f"{where}: prices in {added.currency}; budgets and plans are in US dollars.",
            hint="Convert the list, and write currency: USD.",
        )
    discount = added.batch_discount if "batch_discount" in added.model_fields_set else built_in.batch_discount
    return added.model_copy(
        update={
            "models": {**built_in.models, **added.models},
            "listed": frozenset(added.models),
            "built_in_as_of": built_in.as_of,
            "batch_discount": discount,
        }
    )
