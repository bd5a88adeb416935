"""The inventory as people read it: one row a model, computed once for the terminal, the page and `--json`."""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ftbridge.migrate.account import FileNeed, Inventory, RateLimit, TunedModel, Unseen
from ftbridge.migrate.cost import ITEMS, SAMPLES, RecordingCost, recording_cost
from ftbridge.migrate.status import is_in_use
from ftbridge.prices import PriceList


class ModelRow(BaseModel):
    """A tuned model. `use` is None where no admin key showed it; `training` is the worst state of its training files."""

    model_config = ConfigDict(frozen=True)

    id: str
    base: str
    method: str
    job: str | None
    chain: tuple[str, ...]
    project: str | None
    answers: bool
    in_use: bool
    shutdown: datetime.date | None
    days_left: int | None
    requests: int | None
    last_used: datetime.date | None
    users: dict[str, int]
    shared_with: tuple[str, ...]
    training: Literal["there", "downloaded", "gone", "refused", "unknown"]
    files: tuple[FileNeed, ...]
    checkpoints: tuple[str, ...]
    features: tuple[str, ...]
    features_seen: int
    limit: RateLimit | None
    recording: RecordingCost


class InventorySummary(BaseModel):
    """An inventory's rows in the order of use, what was not seen, and what was counted."""

    model_config = ConfigDict(frozen=True)

    migration: str
    service: str
    folder: str
    taken: float
    today: datetime.date
    complete: bool
    clock_skew_seconds: float
    organizations: tuple[str, ...]
    keys: tuple[str, ...]
    projects: dict[str, str]
    jobs: int
    files: int
    models: tuple[ModelRow, ...]
    unseen: tuple[Unseen, ...]
    prices_as_of: datetime.date


def summarize(
    inventory: Inventory, prices: PriceList, folder: str = "", *, items: int = ITEMS, samples: int = SAMPLES
) -> InventorySummary:
    """The rows of an inventory, with what recording `items` items of each model would cost."""
    organizations = [job.organization for job in inventory.jobs] + [source.organization for source in inventory.sources]
    return InventorySummary(
        migration=inventory.migration,
        service=inventory.service,
        folder=folder,
        taken=inventory.taken,
        today=inventory.today,
        complete=inventory.complete,
        clock_skew_seconds=inventory.clock_skew,
        organizations=tuple(dict.fromkeys(filter(None, organizations))),
        keys=tuple(source.variable for source in inventory.sources),
        projects=inventory.projects,
        jobs=len(inventory.jobs),
        files=len(inventory.files),
        models=tuple(_row(inventory, model, prices, items, samples) for model in inventory.models),
        unseen=inventory.unseen,
        prices_as_of=prices.as_of,
    )


def _row(inventory: Inventory, model: TunedModel, prices: PriceList, items: int, samples: int) -> ModelRow:
    today, use = inventory.today, model.use
    limit = inventory.limit(model.id, model.project)
    training = [need.state for need in model.files if need.role == "training"]
    worst = next((state for state in ("gone", "refused", "unknown", "there") if state in training), None)
    return ModelRow(
        id=model.id,
        base=model.base,
        method=model.method,
        job=model.job,
        chain=model.chain,
        project=model.project,
        answers=model.is_available(today),
        in_use=is_in_use(model, today),
        shutdown=model.shutdown,
        days_left=model.days_left(today),
        requests=use.requests if use is not None else None,
        last_used=use.last if use is not None else None,
        users=use.projects if use is not None else {},
        shared_with=model.shared_with,
        training=worst or ("downloaded" if training else "unknown"),
        files=model.files,
        checkpoints=tuple(point.model for point in model.checkpoints),
        features=model.features.names,
        features_seen=model.features.seen,
        limit=limit,
        recording=recording_cost(model, prices, limit, items=items, samples=samples),
    )


def days_text(row: ModelRow) -> str:
    """Days left in words."""
    if row.days_left is None:
        return "no date known" if row.answers else "gone"
    if row.days_left <= 0 or not row.answers:
        return f"gone since {row.shutdown}" if row.days_left <= 0 else "not listed"
    return f"{row.days_left} days" if row.days_left != 1 else "1 day"


def use_text(row: ModelRow) -> str:
    """Use in words."""
    if row.requests is None:
        return "not known"
    if not row.requests:
        return "not used"
    return f"{row.requests:,}, last {row.last_used}"


def features_text(row: ModelRow) -> str:
    """Features that clients use, in words."""
    return ", ".join(row.features) or "plain chat" if row.features_seen else "not known"


def hours_text(hours: float) -> str:
    """Hours in words: minutes below two."""
    return f"{max(1, round(hours * 60))} min" if hours < 2 else f"{hours:.1f} h"


def cost_text(cost: RecordingCost) -> str:
    """What recording costs, live and in batches, in words."""
    if cost.live_usd is None or cost.batch_usd is None:
        return f"no price known, {hours_text(cost.live_hours)} live"
    batches = "1 batch" if cost.batches == 1 else f"{cost.batches} batches"
    return f"${cost.live_usd:,.2f} in {hours_text(cost.live_hours)}, or ${cost.batch_usd:,.2f} in {batches}"
