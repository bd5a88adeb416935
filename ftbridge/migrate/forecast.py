"""What recording a model will cost and how long it takes, live and by batch, and which of the two it should be. Pure.

    live    full price · requests per minute and day, tokens per minute
    batch   half price · up to 24 hours a batch · a queue of enqueued input tokens

Batch is chosen where it saves money and surely ends in time; live otherwise. Limits are
those that the account states, or the last response did; else those of a new account, which is said.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.data.tokens import count_texts, example_texts
from ftbridge.migrate.account import RateLimit
from ftbridge.migrate.cost import BATCH_HOURS, BATCH_LINES, DEFAULT_LIMITS, live_hours
from ftbridge.migrate.items import RecordedItem
from ftbridge.migrate.recording import RecordingRequest, Usage
from ftbridge.prices import PriceList

Way = Literal["live", "batch"]
MOST_BATCHES = 4
"""More batches one after the other than this could take longer than anyone waits."""
SMALL_USD, SMALL_HOURS = 1.0, 1.0
"""Below this sum and time there is no reason to wait for a batch."""
USUAL_COMPLETION_TOKENS = 150
_LONGER = 1.2
"""Completions are taken to be a fifth longer than the expected ones: tuned models ramble where they are unsure."""


class Forecast(BaseModel):
    """Figures of what is still to be recorded. Money in US dollars, None where no price is known."""

    model_config = ConfigDict(frozen=True)

    requests: int
    read: int = Field(description="Input tokens.")
    written: int = Field(description="Output tokens, estimated from the expected completions.")
    usd_live: float | None
    usd_batch: float | None
    prices_as_of: str | None
    live_hours: float
    batches: int
    batch_hours: float = Field(description="At most: batches go one after the other, each within 24 hours.")
    limits_known: bool
    way: Way
    reason: str

    @property
    def usd(self) -> float | None:
        """The cost of the chosen way."""
        return self.usd_batch if self.way == "batch" else self.usd_live

    @property
    def hours(self) -> float:
        """The longest that the chosen way should take."""
        return self.batch_hours if self.way == "batch" else self.live_hours


def forecast(
    requests: Sequence[RecordingRequest],
    model: str,
    *,
    prices: PriceList,
    limit: RateLimit | None,
    hours_left: float | None,
    way: Literal["auto", "live", "batch"] = "auto",
) -> Forecast:
    """The figures of these requests. `hours_left` is how long the model still answers, None where no date is known."""
    read = sum(size_of(request) for request in requests)
    written = sum(expected_size(request) for request in requests)
    live = live_hours(len(requests), read + written, limit or DEFAULT_LIMITS)
    queue = limit.batch_queue_tokens if limit is not None else None
    batches = max(math.ceil(len(requests) / BATCH_LINES), math.ceil(read / queue) if queue else 1)
    usd_live, usd_batch = (prices.completions_usd(model, read, written, batch=batch) for batch in (False, True))
    chosen, reason = _choice(way, usd_live, usd_batch, live, batches, hours_left)
    return Forecast(
        requests=len(requests),
        read=read,
        written=written,
        usd_live=usd_live,
        usd_batch=usd_batch,
        prices_as_of=str(prices.date_of(model)) if usd_live is not None else None,
        live_hours=live,
        batches=batches,
        batch_hours=batches * BATCH_HOURS,
        limits_known=limit is not None,
        way=chosen,
        reason=reason,
    )


def _choice(
    way: Literal["auto", "live", "batch"],
    usd: float | None,
    half: float | None,
    live: float,
    batches: int,
    hours_left: float | None,
) -> tuple[Way, str]:
    if way != "auto":
        return way, "you chose it"
    needed = (batches + 1) * BATCH_HOURS
    if hours_left is not None and hours_left < needed:
        return "live", f"the model stops in {hours_left:.0f} hours, and a batch may take 24"
    if batches > MOST_BATCHES:
        return "live", f"the queue holds so few tokens that {batches} batches would run one after another"
    if usd is not None and half is not None and usd - half < SMALL_USD and live < SMALL_HOURS:
        return "live", f"a batch would save ${usd - half:.2f} and may take a day"
    if hours_left is not None and live > hours_left:
        return "batch", f"live requests would take {live:.0f} hours, and the model stops in {hours_left:.0f}"
    return "batch", "half the price, and there is time"


def size_of(request: RecordingRequest) -> int:
    """Input tokens of a request, counted as the service's tokenizer for current models does."""
    return _sizes(request.item)[0]


def expected_size(request: RecordingRequest) -> int:
    """Output tokens of a request, from what the item's completion was before; a usual number where none is known."""
    return _sizes(request.item)[1] * len(request.samples)


_SIZES: dict[str, tuple[int, int]] = {}
"""Input and output tokens by the key of an item, which names its content."""


def _sizes(item: RecordedItem) -> tuple[int, int]:
    if item.key not in _SIZES:
        fixed, texts = example_texts(item.request.get("messages") or (), item.request)
        if isinstance(shape := item.request.get("response_format"), dict):
            texts = [*texts, json.dumps(shape)]
        written = USUAL_COMPLETION_TOKENS
        if (recorded := item.expected or item.production) is not None:
            written = math.ceil(sum(count_texts(example_texts([recorded], {})[1])) * _LONGER)
        _SIZES[item.key] = fixed + sum(count_texts(texts)), written
    return _SIZES[item.key]


def spent_usd(usage: Sequence[tuple[Usage, str]], model: str, prices: PriceList) -> float | None:
    """What the recorded requests cost, by the tokens that the service counted; None where no price is known."""
    total = 0.0
    for used, way in usage:
        usd = prices.completions_usd(model, used.read, used.written, batch=way == "batch")
        if usd is None:
            return None
        total += usd
    return total
