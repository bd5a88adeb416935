"""The inventory, read from a migration's folder alone: pages of lists become jobs, models, files, use and limits.

    models:SOURCE  jobs:SOURCE  files:SOURCE  checkpoints:JOB  sample:SOURCE/MODEL  messages:COMPLETION     project keys
    usage:SOURCE  projects:SOURCE  limits:PROJECT  permissions:CHECKPOINT                                   the admin key

What several keys show is merged by id. Nothing here speaks to the service, so it works after the models have stopped.
"""

from __future__ import annotations

import datetime
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftbridge.errors import UsageError
from ftbridge.migrate.account import FileNeed, Inventory, RateLimit, TunedModel, Unseen, Use
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.listing import Listings
from ftbridge.migrate.objects import Checkpoint, FileObject, Job, MigrationKey, suffix_of
from ftbridge.migrate.stored import Features, StoredCompletion, features_of
from ftbridge.providers.openai.calendar import shutdown

_DAY = 86_400


def load_inventory(migration: Migration, listings: Listings | None = None) -> Inventory:
    """The inventory as it was taken, `complete` or not. Raises `UsageError` where none was begun."""
    listings = listings or Listings(migration)
    sources = _sources(migration)
    if not sources:
        raise UsageError(
            f"the migration {migration.name!r} has no inventory yet.",
            hint="Create it with: ftbridge migrate inventory",
        )
    skew = float(event.data["skew"]) if (event := migration.last("clock")) is not None else 0.0
    taken = migration.last("inventory")
    today = datetime.datetime.fromtimestamp(time.time() + skew, datetime.timezone.utc).date()
    collected = _Found(listings, sources, saved_files(migration))
    models = sorted(collected.models(), key=lambda model: rank(model, today))
    return Inventory(
        migration=migration.name,
        service=migration.service,
        taken=taken.time if taken is not None else migration.of("source")[0].time,
        clock_skew=skew,
        today=today,
        sources=tuple(sources.values()),
        models=tuple(models),
        jobs=tuple(collected.jobs.values()),
        files=collected.files,
        limits=tuple(collected.limits()),
        projects=collected.projects,
        unseen=tuple(collected.unseen()),
        complete=taken is not None,
    )


def rank(model: TunedModel, today: datetime.date) -> tuple[Any, ...]:
    """What sorts models: those that still answer, by requests; then the newest."""
    requests = model.use.requests if model.use is not None else 0
    return not model.is_available(today), -requests, -(model.created or 0), model.id


@dataclass(frozen=True)
class Saved:
    """The state of a file: `state` is downloaded, gone or refused."""

    id: str
    state: str
    path: Path | None = None
    bytes: int | None = None
    sha256: str | None = None
    note: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def is_here(self) -> bool:
        """Whether it was downloaded and is still in the folder."""
        return self.path is not None and self.path.exists()


def saved_files(migration: Migration) -> dict[str, Saved]:
    """The state of each file to download, by id, from the journal alone."""
    saved = {}
    for event in migration.of("file_saved", "file_unavailable"):
        data = event.data
        if event.type == "file_saved":
            path = migration.path / str(data["path"])
            one = Saved(data["id"], "downloaded", path, data["bytes"], data["sha256"], data.get("note"), data)
        else:
            one = Saved(data["id"], str(data["state"]), note=str(data["why"]), extra=data)
        saved[one.id] = one
    return saved


def local_file(migration: Migration, id: str) -> Path | None:
    """Where a downloaded file lies, as its content was uploaded (base64 decoded); None where it was not downloaded."""
    saved = saved_files(migration).get(id)
    return saved.path if saved is not None and saved.path is not None and saved.path.exists() else None


def stored_completions(
    migration: Migration, model: str | None = None, listings: Listings | None = None
) -> Iterator[StoredCompletion]:
    """Stored completions, newest first, with their inputs where `download --stored` fetched them.

    `model` keeps those of one model and its checkpoints. One that several keys show comes once.
    """
    listings = listings or Listings(migration)
    completions: dict[str, tuple[float, dict[str, Any], str]] = {}
    for name in listings.names("stored") + listings.names("sample"):
        listing = listings.best(name)
        for item in listings.items(name):
            its = str(item.get("model") or "")
            if model is None or its == model or its.startswith(f"{model}:ckpt-step-"):
                created = item.get("created")
                moment = float(created) if isinstance(created, (int, float)) else 0.0
                completions.setdefault(str(item.get("id")), (moment, item, listing.source if listing else ""))
    for id, (_, item, source) in sorted(completions.items(), key=lambda one: (-one[1][0], one[0])):
        yield StoredCompletion.of(item, source, messages_of(listings, id))


def messages_of(listings: Listings, completion: str) -> tuple[dict[str, Any], ...] | None:
    """The input of a stored completion; None where it was not fetched whole."""
    listing = listings.best(f"messages:{completion}")
    return tuple(listings.items(listing.name)) if listing is not None and listing.done else None


class _Found:
    """Everything that the lists hold, merged over the keys."""

    def __init__(self, listings: Listings, sources: dict[str, MigrationKey], saved: dict[str, Saved]) -> None:
        self._lists = listings
        self._sources = sources
        self._saved = saved
        self.jobs: dict[str, Job] = {}
        self.files: dict[str, FileObject] = {}
        self._listed: dict[str, dict[str, Any]] = {}
        self._seen_by: dict[str, list[str]] = defaultdict(list)
        for source in sources.values():
            for item in listings.items(f"models:{source.id}"):
                id = str(item.get("id"))
                self._listed.setdefault(id, item)
                self._seen_by[id].append(source.id)
            for item in listings.items(f"jobs:{source.id}"):
                job = self.jobs.setdefault(str(item.get("id")), Job.of(item, source))
                if job.tuned is not None and source.id not in self._seen_by[job.tuned]:
                    self._seen_by[job.tuned].append(source.id)
            for item in listings.items(f"files:{source.id}"):
                self.files.setdefault(str(item.get("id")), FileObject.of(item, source))
        self._by_tuned = {job.tuned: job for job in self.jobs.values() if job.tuned is not None}
        self._unused = (
            Use() if any((one := listings.best(name)) and one.done for name in listings.names("usage")) else None
        )
        self._use = self._uses()
        self.projects = {
            str(item.get("id")): str(item.get("name") or "")
            for name in listings.names("projects")
            for item in listings.items(name)
        }

    def models(self) -> Iterator[TunedModel]:
        """Every tuned model: those that jobs made, and those that the list of models shows."""
        names = [*self._by_tuned, *(id for id in self._listed if id.startswith("ft:") and ":ckpt-step-" not in id)]
        for name in dict.fromkeys(names):
            yield self._model(name)

    def _model(self, name: str) -> TunedModel:
        job = self._by_tuned.get(name)
        chain = self.chain(name)
        base = (chain[0].base if chain else "") or name.removeprefix("ft:").split(":")[0]
        base = base.removeprefix("ft:").split(":")[0]
        parts = name.split(":")
        created = self._listed.get(name, {}).get("created")
        return TunedModel(
            id=name,
            base=base,
            continues=job.base if job is not None and job.continues else None,
            method=job.method if job is not None else "supervised",
            job=job.id if job is not None else None,
            chain=tuple(one.id for one in chain),
            organization=job.organization if job is not None else parts[2] if len(parts) > 2 else None,
            project=job.project if job is not None else None,
            suffix=suffix_of(name),
            sources=tuple(self._seen_by[name]),
            created=(job.finished or job.created) if job is not None else created,
            checkpoints=self._checkpoints(job),
            shutdown=self._shutdown(name, base),
            listed=name in self._listed,
            use=self._use.get(name, self._unused),
            shared_with=self._shared(name),
            features=self._features(name),
            files=tuple(self._needs(chain)),
        )

    def chain(self, name: str) -> list[Job]:
        """The jobs that made a model, from the first base on, as far as they were seen."""
        jobs: list[Job] = []
        at: str | None = name
        while (
            at is not None and (job := self._by_tuned.get(at.split(":ckpt-step-")[0])) is not None and job not in jobs
        ):
            jobs.insert(0, job)
            at = job.base if job.continues else None
        return jobs

    def _checkpoints(self, job: Job | None) -> tuple[Checkpoint, ...]:
        if job is None:
            return ()
        points = [Checkpoint.of(item, job.id) for item in self._lists.items(f"checkpoints:{job.id}")]
        return tuple(sorted(points, key=lambda point: point.step))

    def _shutdown(self, name: str, base: str) -> datetime.date | None:
        for model_id in (name, base):
            stated = self._listed.get(model_id, {}).get("shutdown_date")
            if isinstance(stated, str):
                try:
                    return datetime.date.fromisoformat(stated[:10])
                except ValueError:
                    continue
        return shutdown(name)

    def _shared(self, name: str) -> tuple[str, ...]:
        items = self._lists.items(f"permissions:{name}")
        return tuple(dict.fromkeys(str(item["project_id"]) for item in items if item.get("project_id")))

    def _features(self, name: str) -> Features:
        completions = [
            StoredCompletion.of(item, source, messages_of(self._lists, str(item.get("id"))))
            for source in self._sources
            for item in self._lists.items(f"sample:{source}/{name}")
        ]
        return features_of(completions)

    def _needs(self, chain: list[Job]) -> Iterator[FileNeed]:
        for job in chain:
            if job.training_file is not None:
                yield self._need(job.training_file, "training", job)
            if job.validation_file is not None:
                yield self._need(job.validation_file, "validation", job)
            for result in job.result_files:
                yield self._need(result, "result", job)

    def _need(self, id: str, role: Any, job: Job) -> FileNeed:
        saved, file_records = self._saved.get(id), self.files.get(id)
        size = (
            saved.bytes
            if saved is not None and saved.bytes is not None
            else file_records.bytes
            if file_records is not None
            else None
        )
        if saved is not None:
            state = saved.state
        elif file_records is not None:
            state = "there"
        else:
            listing = self._lists.best(f"files:{job.source}")
            state = "gone" if listing is not None and listing.done else "unknown"
        note = saved.note if saved is not None else None
        return FileNeed.model_validate(
            {"id": id, "role": role, "job": job.id, "state": state, "bytes": size, "note": note}
        )

    def _uses(self) -> dict[str, Use]:
        """Use by tuned model, checkpoints counted with their model."""
        uses: dict[str, Use] = {}
        for name in self._lists.names("usage"):
            buckets = list(self._lists.items(name))
            starts = [start for bucket in buckets if isinstance(start := bucket.get("start_time"), (int, float))]
            days = len({int(start) // _DAY for start in starts})
            for bucket in buckets:
                day = datetime.datetime.fromtimestamp(bucket.get("start_time") or 0, datetime.timezone.utc).date()
                for result in bucket.get("results") or bucket.get("result") or ():
                    model = str(result.get("model") or "").split(":ckpt-step-")[0]
                    if model.startswith("ft:"):
                        uses[model] = _added(uses.get(model, Use(days=days)), result, day)
        return uses

    def limits(self) -> Iterator[RateLimit]:
        """Limits by project and model."""
        for name in self._lists.names("limits"):
            project = name.split(":", 1)[1]
            for item in self._lists.items(name):
                yield RateLimit(
                    model=str(item.get("model") or ""),
                    project=project,
                    requests_per_minute=item.get("max_requests_per_1_minute"),
                    tokens_per_minute=item.get("max_tokens_per_1_minute"),
                    requests_per_day=item.get("max_requests_per_1_day"),
                    batch_queue_tokens=item.get("batch_1_day_max_input_tokens"),
                )

    def unseen(self) -> Iterator[Unseen]:
        """What was refused, and what no key was there for."""
        for kind, words in _WORDS.items():
            refused: dict[tuple[str, str | None, str], list[str]] = defaultdict(list)
            for name in self._lists.names(kind):
                listing = self._lists.best(name)
                if (
                    listing is not None
                    and listing.refused is not None
                    and listing.refused.get("status") not in (400, 404)
                ):
                    data = listing.refused
                    refused[(str(data["why"]), data.get("scope"), str(data.get("source")))].append(name)
            for (why, scope, source), names in refused.items():
                source_document = self._sources.get(source)
                what = words if len(names) == 1 else f"{words} ({len(names)} lists)"
                yield Unseen(
                    what=what,
                    why=why,
                    scope=scope,
                    source=source,
                    place=source_document.label if source_document is not None else None,
                )
        if not any(source.kind == "admin" for source in self._sources.values()):
            yield Unseen(
                what="use by model, other projects, rate limits, checkpoint permissions",
                why="no admin key: set OPENAI_ADMIN_KEY and run the inventory again",
                scope="an admin key",
            )
        with_key = {source.project for source in self._sources.values() if source.kind == "project"}
        named = all(source.project for source in self._sources.values() if source.kind == "project")
        for project, title in self.projects.items():
            if named and project not in with_key:
                yield Unseen(
                    what=f"the jobs, files and models of project {title or project} ({project})",
                    why="no key of this project was given: set one and add --key-env NAME",
                    scope="a key of the project",
                )


_WORDS = {
    "models": "the list of models",
    "jobs": "fine-tuning jobs",
    "files": "files",
    "checkpoints": "checkpoints",
    "sample": "stored completions",
    "stored": "stored completions",
    "messages": "inputs of stored completions",
    "events": "events of jobs",
    "usage": "use by model",
    "projects": "the list of projects",
    "limits": "rate limits",
    "permissions": "checkpoint permissions",
}
"""Kinds of lists in words."""


def _added(use: Use, result: dict[str, Any], day: datetime.date) -> Use:
    requests = int(result.get("num_model_requests") or 0)
    projects = dict(use.projects)
    if requests and (project := result.get("project_id")):
        projects[str(project)] = projects.get(str(project), 0) + requests
    used = requests > 0
    return use.model_copy(
        update={
            "requests": use.requests + requests,
            "batch_requests": use.batch_requests + (requests if result.get("batch") else 0),
            "input_tokens": use.input_tokens + int(result.get("input_tokens") or 0),
            "output_tokens": use.output_tokens + int(result.get("output_tokens") or 0),
            "first": min(use.first or day, day) if used else use.first,
            "last": max(use.last or day, day) if used else use.last,
            "projects": projects,
        }
    )


def _sources(migration: Migration) -> dict[str, MigrationKey]:
    sources: dict[str, MigrationKey] = {}
    for event in migration.of("source"):
        source = MigrationKey.model_validate(event.data)
        sources[source.id] = source
    return sources
