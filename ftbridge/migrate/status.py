"""What is saved and what is still at risk, by deadline; from the folder alone, so that a cron job needs no key.

    completions     perish when the model stops (batches two days earlier)      saved by `record`
    training data   perishes when the file is deleted or expires                saved by `download`
    replacement     retrained and proved                                        `retrain`, `prove`

A model counts as in use when the usage report shows requests in the last 30 days; without an admin key every model that still
answers counts, since nobody can tell.
"""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ftbridge.migrate.account import Inventory, TunedModel
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.loading import load_inventory
from ftbridge.migrate.recording import Recording, progress_of

NEAR_DAYS = 14
"""Days before a deadline from which `status` fails, unless another number is given."""
BATCH_DAYS = 2
"""A batch may take a day, and its window may expire: hand it in so many days before the model stops."""
USE_DAYS = 30
State = Literal["saved", "partly", "at_risk", "lost", "not_needed", "to_do"]


class Asset(BaseModel):
    """One thing that can be lost. `deadline` is None where none is known; `command` saves it."""

    model_config = ConfigDict(frozen=True)

    model: str
    what: Literal["completions", "training data", "replacement"]
    state: State
    deadline: datetime.date | None = None
    days_left: int | None = None
    detail: str = ""
    command: str | None = None
    in_use: bool = True
    urgent: bool = False


class Status(BaseModel):
    """Everything of a migration, the nearest deadline first. `ok` is false when something urgent is unsaved."""

    model_config = ConfigDict(frozen=True)

    migration: str
    today: datetime.date
    inventory_age_days: int
    assets: tuple[Asset, ...]
    unseen: int
    ok: bool
    near_days: int = NEAR_DAYS

    @property
    def urgent(self) -> tuple[Asset, ...]:
        """What is in use, unsaved, and near its deadline."""
        return tuple(asset for asset in self.assets if asset.urgent)


def status(migration: Migration, *, near_days: int = NEAR_DAYS) -> Status:
    """What is saved and what is at risk. Raises `UsageError` where no inventory was taken."""
    inventory = load_inventory(migration)
    assets = [
        asset
        for model in inventory.models
        for asset in _assets(migration, inventory, model, near_days)
        if asset is not None
    ]
    assets.sort(key=_order)
    age = (datetime.datetime.now(datetime.timezone.utc).timestamp() - inventory.taken) / 86_400
    return Status(
        migration=migration.name,
        today=inventory.today,
        inventory_age_days=max(0, int(age)),
        assets=tuple(assets),
        unseen=len(inventory.unseen),
        ok=not any(asset.urgent for asset in assets),
        near_days=near_days,
    )


def _order(asset: Asset) -> tuple[bool, bool, datetime.date, bool, str]:
    """What can still be saved by its deadline, then what is saved, then what is over."""
    over = asset.days_left is not None and asset.days_left <= 0
    return over, asset.state in _DONE, asset.deadline or datetime.date.max, not asset.in_use, asset.model


_DONE = ("saved", "not_needed", "lost")


def is_in_use(model: TunedModel, today: datetime.date) -> bool:
    """Whether clients use the model, as far as anyone can tell."""
    if model.use is None:
        return model.is_available(today)
    return model.use.last is not None and (today - model.use.last).days <= USE_DAYS


def _assets(migration: Migration, inventory: Inventory, model: TunedModel, near: int) -> list[Asset]:
    today, used = inventory.today, is_in_use(model, inventory.today)
    days = model.days_left(today)
    is_near = days is not None and days <= near
    common = {"model": model.id, "in_use": used}
    return [
        _completions(migration, model, today, days, used and is_near, common),
        _data(inventory, model, days, used and is_near, common),
        _replacement(migration, model, days, common),
    ]


def _completions(
    migration: Migration,
    model: TunedModel,
    today: datetime.date,
    days: int | None,
    near: bool,
    common: dict[str, object],
) -> Asset:
    progress = progress_of(migration, model.id)
    command: str | None = f"ftbridge migrate record {model.id}"
    so_far = "nothing recorded"
    if progress is not None:
        completions = len(Recording.of(migration, model.id).samples)
        so_far = f"{progress.complete:,} of {progress.items:,} items recorded, {completions:,} completions"
    if progress is not None and progress.finished:
        state, detail, command = "saved", f"{progress.items:,} items recorded", None
    elif not model.is_available(today):
        state = "partly" if progress is not None and progress.complete else "lost"
        detail, command = f"{so_far}; it no longer answers", None
    else:
        state, detail = "at_risk", so_far
        if days is not None and days <= BATCH_DAYS:
            detail += "; too late for batches: record live"
    return Asset.model_validate(
        {
            **common,
            "what": "completions",
            "state": state,
            "detail": detail,
            "command": command,
            "deadline": model.shutdown,
            "days_left": days,
            "urgent": near and state == "at_risk",
        }
    )


def _data(inventory: Inventory, model: TunedModel, days: int | None, near: bool, common: dict[str, object]) -> Asset:
    needs = [need for need in model.files if need.role != "result"]
    there = [need for need in needs if need.state == "there"]
    lost = [need for need in needs if need.state in ("gone", "refused")]
    expiries = [file.expires for need in there if (file := inventory.files.get(need.id)) is not None and file.expires]
    deadline = datetime.datetime.fromtimestamp(min(expiries), datetime.timezone.utc).date() if expiries else None
    left = (deadline - inventory.today).days if deadline is not None else None
    if not needs:
        state, detail = "not_needed", "its job was not seen, so its files are not known"
    elif there:
        state = "at_risk"
        detail = f"{len(there)} of {_files(len(needs))} not downloaded"
    elif len(lost) == len(needs):
        state, detail = "lost", ", ".join(f"{need.id}: {need.state}" for need in lost)
    elif lost:
        state, detail = "partly", ", ".join(f"{need.id}: {need.state}" for need in lost)
    elif any(need.state == "unknown" for need in needs):
        state, detail = "at_risk", "the key may not list files"
    else:
        state, detail = "saved", f"{_files(len(needs))} downloaded"
    return Asset.model_validate(
        {
            **common,
            "what": "training data",
            "state": state,
            "detail": detail,
            "command": "ftbridge migrate download" if state == "at_risk" else None,
            "deadline": deadline,
            "days_left": left,
            "urgent": state == "at_risk" and bool(there) and (near or (left is not None and left <= NEAR_DAYS)),
        }
    )


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number} files"


def _replacement(migration: Migration, model: TunedModel, days: int | None, common: dict[str, object]) -> Asset:
    retrained, proved = migration.last("retrained", model=model.id), migration.last("proved", model=model.id)
    state: State = "to_do"
    command: str | None = f"ftbridge migrate retrain {model.id} --base MODEL"
    if proved is not None and proved.data.get("ok"):
        state, detail, command = "saved", f"{proved.data.get('run')} is not worse", None
    elif proved is not None:
        detail = f"{proved.data.get('run')} was not proved to be as good"
    elif retrained is not None:
        detail = f"{retrained.data.get('run')} is not proved yet"
        command = f"ftbridge migrate prove {model.id} {retrained.data.get('run')}"
    else:
        detail = "not retrained"
    return Asset.model_validate(
        {
            **common,
            "what": "replacement",
            "state": state,
            "detail": detail,
            "command": command,
            "deadline": model.shutdown,
            "days_left": days,
        }
    )
