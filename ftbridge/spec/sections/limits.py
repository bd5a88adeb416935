"""The sections `budget` and `plan`: what a run may cost, and the prices and wishes that a plan is worked out with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftbridge.spec.sections.base import SpecModel


class BudgetSpec(SpecModel):
    """Limits that stop a run instead of letting it spend on."""

    max_usd: float | None = Field(default=None, gt=0, description="Money, in US dollars, over the whole run.")
    max_hours: float | None = Field(default=None, gt=0, description="Wall-clock hours of training.")
    max_gpu_hours: float | None = Field(
        default=None, gt=0, description="Hours of GPUs, training and completing together; two GPUs for an hour are two."
    )


class PlanSpec(SpecModel):
    """Prices, limits and wishes that `ftbridge plan` takes into account."""

    min_life_days: int | None = Field(
        default=None, ge=1, description="Refuse, with exit code 4, a model that a service stops sooner than this."
    )
    gpu_usd_per_hour: float | None = Field(default=None, gt=0, description="Price of this machine's GPU per hour.")
    watts: float | None = Field(
        default=None, gt=0, description="Power draw of the machine, if electricity is its cost."
    )
    usd_per_kwh: float | None = Field(default=None, gt=0, description="Price of electricity.")
    task: Literal["format", "style", "domain"] | None = Field(
        default=None, description="What the model should learn, for advice on the adapter's rank."
    )
    facts_change: Literal["never", "yearly", "monthly", "weekly", "daily"] | None = Field(
        default=None, description="How often the facts in the completions change, for advice on retrieval."
    )
    p95_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Slowest acceptable completion (95th percentile), for advice on prompts and models.",
    )
    monthly_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that the tuned model will read and write per month, to compare the cost of serving.",
    )

    @property
    def hour_usd(self) -> float | None:
        """What an hour of this machine costs: the GPU's price, else its electricity; None when neither is set."""
        if self.gpu_usd_per_hour is not None:
            return self.gpu_usd_per_hour
        has_both = self.watts is not None and self.usd_per_kwh is not None
        return self.watts * self.usd_per_kwh / 1000 if has_both else None  # type: ignore[operator]
