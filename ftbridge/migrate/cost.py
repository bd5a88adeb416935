"""What recording a tuned model costs and how long it takes, from its prices, its limits and the size of its prompts.

For each item one greedy completion and k sampled ones. The sampled ones share a request (`n` = k), so the prompt is paid for
twice and not k + 1 times:

    requests = 2 × items      input = 2 × items × prompt tokens      output = (1 + k) × items × completion tokens
    live hours = max(requests ÷ requests a minute, tokens ÷ tokens a minute) ÷ 60, and whole days beyond the daily limit
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from ftbridge.migrate.account import RateLimit, TunedModel
from ftbridge.prices import PriceList

ITEMS, SAMPLES = 500, 3
"""What the inventory estimates a recording for."""
PROMPT_TOKENS, COMPLETION_TOKENS = 600, 150
"""Tokens of a prompt and of a completion where no usage is known; an assumption."""
DEFAULT_LIMITS = RateLimit(
    model="*", requests_per_minute=500, tokens_per_minute=30_000, requests_per_day=10_000, batch_queue_tokens=90_000
)
"""OpenAI's lowest paid tier for gpt-4o as of 2024, for where the limits of an account are not known."""
BATCH_LINES = 50_000
BATCH_HOURS = 24


class RecordingCost(BaseModel):
    """US dollars and hours, live and in batches; None where no price is known. `assumed` says what was not known."""

    model_config = ConfigDict(frozen=True)

    items: int
    samples: int
    requests: int
    input_tokens: int
    output_tokens: int
    live_usd: float | None
    batch_usd: float | None
    live_hours: float
    batches: int
    assumed: tuple[str, ...] = ()


def recording_cost(
    model: TunedModel,
    prices: PriceList,
    limit: RateLimit | None = None,
    *,
    items: int = ITEMS,
    samples: int = SAMPLES,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
) -> RecordingCost:
    """What `items` items with `samples` sampled completions each cost; tokens come from the model's use unless given."""
    assumed: list[str] = []
    use = model.use
    if use is not None and use.requests > 0:
        prompt_tokens = prompt_tokens or math.ceil(use.input_tokens / use.requests)
        completion_tokens = completion_tokens or math.ceil(use.output_tokens / use.requests)
    if prompt_tokens is None or completion_tokens is None:
        assumed.append(f"{PROMPT_TOKENS} + {COMPLETION_TOKENS} tokens a request")
    if limit is None:
        assumed.append("the rate limits of a new account")
    read = 2 * items * (prompt_tokens or PROMPT_TOKENS)
    written = (1 + samples) * items * (completion_tokens or COMPLETION_TOKENS)
    live, batch = (
        prices.completions_usd(model.base or model.id, read, written, batch=batch) for batch in (False, True)
    )
    if live is None:
        assumed.append(f"no price is known for {model.base or model.id}")
    lines = 2 * items
    queue = (limit or DEFAULT_LIMITS).batch_queue_tokens
    batches = max(math.ceil(lines / BATCH_LINES), math.ceil(read / queue) if queue else 1)
    return RecordingCost(
        items=items,
        samples=samples,
        requests=lines,
        input_tokens=read,
        output_tokens=written,
        live_usd=live,
        batch_usd=batch,
        live_hours=live_hours(lines, read + written, limit or DEFAULT_LIMITS),
        batches=batches,
        assumed=tuple(assumed),
    )


def live_hours(requests: int, tokens: int, limit: RateLimit) -> float:
    """Hours that requests with so many tokens in all take under a limit; what is not stated does not limit."""
    minutes = [0.0]
    if limit.requests_per_minute:
        minutes.append(requests / limit.requests_per_minute)
    if limit.tokens_per_minute:
        minutes.append(tokens / limit.tokens_per_minute)
    if limit.requests_per_day and requests > limit.requests_per_day:
        minutes.append(24 * 60 * (math.ceil(requests / limit.requests_per_day) - 1))
    return max(minutes) / 60


def costs_table(prices: PriceList) -> str:
    """What each step of a migration costs for 2,000 items, for the documentation, by the price list and stated limits."""
    costs = [_example(base, limit, prices) for base, limit in _EXAMPLES.items()]
    titles = [f"{base} ({prices.date_of(base)})" for base in _EXAMPLES]
    judge = prices.judge_usd(_JUDGE, None, 2 * _ITEMS * _JUDGE_READS, 2 * _ITEMS * COMPLETION_TOKENS)
    rows = [
        ("inventory, download, status", ["$0", "$0"]),
        ("stored completions with inputs", [f"$0, {_ITEMS:,} requests"] * 2),
        ("record, live", [f"{_usd(cost.live_usd)} in {cost.live_hours * 60:.0f} min" for cost in costs]),
        ("record, in batches", [f"{_usd(cost.batch_usd)} in {cost.batches} batches" for cost in costs]),
        ("retrain on your own GPU", ["$0 at OpenAI"] * 2),
        ("prove with graders, or by agreement", ["$0"] * 2),
        (f"prove with {_JUDGE} as a judge, in both orders", [_usd(judge)] * 2),
    ]
    lines = ["| step | " + " | ".join(titles) + " |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {step} | {' | '.join(cells)} |" for step, cells in rows)])


def _example(base: str, limit: RateLimit, prices: PriceList) -> RecordingCost:
    return recording_cost(TunedModel(id=f"ft:{base}:acme::abc", base=base), prices, limit, items=_ITEMS)


def _usd(usd: float | None) -> str:
    return "no price known" if usd is None else f"${usd:,.2f}"


_ITEMS = 2_000
_JUDGE, _JUDGE_READS = "gpt-5-mini", PROMPT_TOKENS + 2 * COMPLETION_TOKENS + 200
"""A judge reads the prompt, both completions and its instructions."""
_EXAMPLES = {
    "gpt-4o-2024-08-06": DEFAULT_LIMITS,
    "gpt-4o-mini-2024-07-18": RateLimit(
        model="*",
        requests_per_minute=500,
        tokens_per_minute=200_000,
        requests_per_day=10_000,
        batch_queue_tokens=2_000_000,
    ),
}
"""Limits of OpenAI's lowest paid tier as of 2024."""
