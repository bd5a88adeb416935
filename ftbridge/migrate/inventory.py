"""Taking the inventory: every list of the account that tells what there is to lose. Reads only; nothing is paid.

    for each project key      models, jobs, files, checkpoints of models that still answer, newest stored completions of each
    with the admin key        use by model and day, projects, rate limits, who else may use a model

A list that the key may not read is written down with the scope that it lacks, and the next list is read. Run again, only
what is missing is read; `fresh` reads everything again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftbridge.errors import ProviderRefused
from ftbridge.migrate.account import Inventory, TunedModel
from ftbridge.migrate.client import CLOCK_TOLERANCE, Client, connect, connect_admin, in_path, note_source
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.listing import Cursor, Listing, Listings
from ftbridge.migrate.loading import load_inventory
from ftbridge.migrate.objects import Checkpoint

USAGE_DAYS = 90
"""How far back the use of models is read."""
SAMPLE, SAMPLE_INPUTS = 20, 5
"""Newest stored completions of a model that are looked at, and how many of their inputs."""
_DAY = 86_400
Tell = Callable[[str], None]


@dataclass(frozen=True)
class _Take:
    """One run over the lists. `denied` holds the keys that may not read stored completions, found out in this run."""

    listings: Listings
    fresh: bool
    tell: Tell
    denied: set[str] = field(default_factory=set)

    def list(
        self,
        client: Client,
        name: str,
        path: str,
        doing: str,
        limit: int | None = None,
        *,
        params: dict[str, Any] | None = None,
        cursor: Cursor = "after",
        pages: int | None = None,
    ) -> Listing:
        """What is missing of one list."""
        return self.listings.take(
            client,
            name,
            path,
            params,
            doing=doing,
            limit=limit,
            cursor=cursor,
            pages=pages,
            fresh=self.fresh,
            progress=lambda items: self.tell(f"{doing}: {items:,}"),
        )


def take_inventory(
    migration: Migration,
    keys: Sequence[str] = (),
    *,
    base_url: str | None = None,
    fresh: bool = False,
    tell: Tell = lambda _: None,
) -> Inventory:
    """Read everything that is missing and return the inventory. `keys` are names of environment variables with project keys.

    `tell` gets what is being read, in words. Raises `UsageError` for a key that is missing or of the wrong kind,
    `ProviderRefused` for one that the service does not know, `ServiceUnavailable`, and `DiskFull`; what was read is safe.
    """
    with migration.working("the inventory"), contextlib.ExitStack() as stack:
        clients = connect(migration, keys, base_url=base_url)
        admin = connect_admin(migration)
        for client in (*clients, *([admin] if admin is not None else ())):
            stack.callback(client.close)
        take = _Take(Listings(migration), fresh, tell)
        for client in clients:
            _of_project(migration, client, take)
        if admin is not None:
            _of_organization(migration, admin, take)
        inventory = load_inventory(migration, take.listings)
        by_source = {client.source.id: client for client in clients}
        for model in inventory.models:
            if model.is_available(inventory.today):
                _of_model(take, model, by_source, admin)
        migration.append(
            "inventory", models=len(inventory.models), jobs=len(inventory.jobs), files=len(inventory.files)
        )
        return load_inventory(migration, take.listings)


def _of_project(migration: Migration, client: Client, take: _Take) -> None:
    id, labels = client.source.id, client.source.variable
    lists = [
        take.list(client, f"models:{id}", "/models", f"models of {labels}"),
        take.list(client, f"jobs:{id}", "/fine_tuning/jobs", f"jobs of {labels}", 100),
        take.list(client, f"files:{id}", "/files", f"files of {labels}", 10_000),
    ]
    identity = next((one.told for one in lists if one.told), {})
    note_source(migration, client, identity)
    _note_clock(migration, client.skew if client.skew is not None else identity.get("skew"))
    if all(one.refused is not None for one in lists):
        reasons = "; ".join(dict.fromkeys(str(one.refused["why"]) for one in lists if one.refused))
        raise ProviderRefused(
            f"the key in {labels} may read neither models, jobs nor files ({reasons}).",
            hint="Give it read permission for models, fine-tuning and files, or use a key without restrictions.",
        )


def _note_clock(migration: Migration, skew: float | None) -> None:
    """Write how far this machine's clock is off; days left are counted by the service's."""
    if skew is None:
        return
    skew = round(skew) if abs(skew) > CLOCK_TOLERANCE else 0
    last = migration.last("clock")
    if (last is not None or skew) and (last is None or abs(float(last.data["skew"]) - skew) > CLOCK_TOLERANCE):
        migration.append("clock", skew=skew)


def _of_organization(migration: Migration, admin: Client, take: _Take) -> None:
    id = admin.source.id
    start = _usage_start(migration, id, take)
    params = {
        "start_time": start,
        "bucket_width": "1d",
        "group_by[]": ["model", "project_id", "batch"],
    }
    usage = "/organization/usage/completions"
    take.list(admin, f"usage:{id}", usage, "use by model", 31, params=params, cursor="next_page")
    projects = take.list(admin, f"projects:{id}", "/organization/projects", "projects", 100)
    note_source(migration, admin, projects.told)
    if projects.refused is None:
        for project in take.listings.items(projects.name):
            name = str(project.get("id"))
            path = f"/organization/projects/{in_path(name)}/rate_limits"
            take.list(admin, f"limits:{name}", path, f"rate limits of {name}", 100)


def _usage_start(migration: Migration, source: str, take: _Take) -> int:
    """The first second of the usage report: the same for every page of one list, however often it is gone on with."""
    name = f"usage:{source}"
    listing = take.listings.get(name)
    last = migration.last("usage_start", source=source)
    if last is not None and listing is not None and not (listing.done and take.fresh):
        return int(last.data["start"])
    start = (int(time.time()) // _DAY - USAGE_DAYS) * _DAY
    migration.append("usage_start", source=source, start=start)
    return start


def _of_model(take: _Take, model: TunedModel, clients: dict[str, Client], admin: Client | None) -> None:
    """What only a model that still answers is worth asking for."""
    client = next((clients[id] for id in model.sources if id in clients), None)
    points: list[str] = []
    if client is not None and model.job is not None:
        path = f"/fine_tuning/jobs/{in_path(model.job)}/checkpoints"
        listing = take.list(client, f"checkpoints:{model.job}", path, f"checkpoints of {model.id}", 100)
        points = [Checkpoint.of(item, model.job).model for item in take.listings.items(listing.name)]
    if client is not None and client.source.id not in take.denied:
        params = {"model": model.id, "order": "desc"}
        name = f"sample:{client.source.id}/{model.id}"
        doing = f"stored completions of {model.id}"
        sample = take.list(client, name, "/chat/completions", doing, SAMPLE, params=params, pages=1)
        if sample.refused is not None and sample.refused.get("status") in (401, 403):
            take.denied.add(client.source.id)  # the same for every model
        for item in list(take.listings.items(name))[:SAMPLE_INPUTS]:
            take_messages(take.listings, client, str(item.get("id")))
    if admin is not None:
        for name in (model.id, *filter(None, points)):
            path = f"/fine_tuning/checkpoints/{in_path(name)}/permissions"
            take.list(admin, f"permissions:{name}", path, f"permissions of {name}", 100)


def take_messages(listings: Listings, client: Client, completion: str) -> Listing:
    """The input of a stored completion, fetched unless it is there: one request for each completion."""
    path = f"/chat/completions/{in_path(completion)}/messages"
    return listings.take(client, f"messages:{completion}", path, doing=f"the input of {completion}", limit=100)
