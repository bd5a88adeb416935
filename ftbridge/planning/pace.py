"""How long training takes: from this machine's own runs of the same model, else from published figures. Always a range."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.planning.memory import Shape
from ftbridge.runs.run import Run

PUBLISHED = (
    (7e9, 2_415, "Llama-2-7B, QLoRA, Hugging Face (LLaMA-Factory's wiki, 2024-04)"),
    (7e9, 3_726, "Llama-2-7B, QLoRA, Unsloth's kernels (the same table)"),
)
"""Parameters, tokens a second on one card of 24 to 40 GB, source."""
SMALLEST = 1e9
"""Smaller models are bound by other things than their size: published figures say nothing of them."""
_AROUND = 1.5
"""Own runs scatter with data and load: the range is a factor of this around their median."""


class Pace(BaseModel):
    """Hours of training, from and to, and what they are drawn from."""

    model_config = ConfigDict(frozen=True)

    hours: tuple[float, float] | None
    tokens_per_second: tuple[float, float] | None
    basis: Literal["own runs", "published", "none"]
    source: str = Field(description="The runs, or the publications.")


def pace(tokens: int, model: str, shape: Shape | None, runs: Iterable[Run]) -> Pace:
    """Hours for so many tokens in all (those of the file times epochs)."""
    rates = [(run.id, rate) for run in runs if (rate := _rate(run, model)) is not None][:5]
    if rates:
        middle = median(rate for _, rate in rates)
        span = (middle / _AROUND, middle * _AROUND)
        named = ", ".join(name for name, _ in rates)
        return _pace(tokens, span, "own runs", f"{len(rates)} of this machine's runs of {model}: {named}")
    if shape is None or shape.parameters < SMALLEST:
        source = "no run of this model on this machine yet, and no published figure for one of its size"
        return Pace(hours=None, tokens_per_second=None, basis="none", source=source)
    scaled = [rate * size / shape.parameters for size, rate, _ in PUBLISHED]
    source = "; ".join(text for _, _, text in PUBLISHED)
    told = f"a card of 24 to 40 GB, scaled by the number of parameters from: {source}"
    return _pace(tokens, (min(scaled) / _AROUND, max(scaled)), "published", told)


def _pace(tokens: int, span: tuple[float, float], basis: Literal["own runs", "published"], source: str) -> Pace:
    hours = (tokens / span[1] / 3600, tokens / span[0] / 3600)
    return Pace(hours=hours, tokens_per_second=span, basis=basis, source=source)


def _rate(run: Run, model: str) -> float | None:
    """Tokens a second of a finished local run of this model."""
    try:
        state = run.state()
        if state.provider != "local" or state.state != "succeeded" or run.spec().model.local != model:
            return None
    except Exception:  # a run that cannot be read is no evidence
        return None
    rate = state.metrics.get("tokens_per_second")
    return float(rate) if rate else None
