"""The files of a migration: which there are to download, and the manifest of what was.

    inventory ─▶ wanted_files, those of models in use first
    folder    ─▶ read_manifest: each of them, with its digest and findings, or with why it is missing and what can stand in

Nothing is requested here: `download` fetches the files.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ftbridge.migrate.account import Inventory
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.listing import Listings
from ftbridge.migrate.loading import Saved, load_inventory, saved_files
from ftbridge.migrate.objects import Job

Role = Literal["training", "validation", "result", "other"]


class WantedFile(BaseModel):
    """A file to download: what it is to which job, and the keys that may see it."""

    model_config = ConfigDict(frozen=True)

    id: str
    role: Role
    jobs: tuple[str, ...] = ()
    bytes: int | None = None
    filename: str = ""
    sources: tuple[str, ...] = ()
    method: str | None = None
    base: str | None = None


class Linted(BaseModel):
    """What the linter found in a downloaded file."""

    model_config = ConfigDict(frozen=True)

    examples: int
    tokens: int | None
    errors: int
    warnings: int
    rules: dict[str, int]


class ManifestFile(BaseModel):
    """One file of the manifest. `path` is relative to the migration's folder; `stand_ins` can replace a missing file."""

    model_config = ConfigDict(frozen=True)

    id: str
    role: Role
    jobs: tuple[str, ...]
    state: Literal["downloaded", "gone", "refused", "missing"]
    path: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    why: str | None = None
    stand_ins: tuple[str, ...] = ()
    lint: Linted | None = None


class Manifest(BaseModel):
    """What was downloaded: `manifest.json` of the migration's folder and the output of `download --json`."""

    model_config = ConfigDict(frozen=True)

    migration: str
    folder: str
    files: tuple[ManifestFile, ...]
    events: int
    checkpoints: int
    stored_completions: int
    stored_with_inputs: int
    ok: bool


def wanted_files(inventory: Inventory, *, everything: bool = False) -> list[WantedFile]:
    """The files of every tuned model, those in use first; with `everything` also other fine-tuning files of the account."""
    wanted: dict[str, WantedFile] = {}

    def want(id: str | None, role: Role, job: Job) -> None:
        if id is None:
            return
        existing, at = wanted.get(id), inventory.files.get(id)
        if existing is not None:
            wanted[id] = existing.model_copy(update={"jobs": tuple(dict.fromkeys((*existing.jobs, job.id)))})
            return
        wanted[id] = WantedFile(
            id=id,
            role=role,
            jobs=(job.id,),
            bytes=at.bytes if at is not None else None,
            filename=at.filename if at is not None else "",
            sources=tuple(dict.fromkeys(filter(None, (at.source if at is not None else "", job.source)))),
            method=job.method,
            base=job.base,
        )

    jobs = {job.id: job for job in inventory.jobs}
    order = list(dict.fromkeys(id for model in inventory.models for id in model.chain))
    for role in ("training", "validation", "result"):
        for id in order:
            job = jobs[id]
            for name in job.result_files if role == "result" else [getattr(job, f"{role}_file")]:
                want(name, role, job)
    if everything:
        for file in inventory.files.values():
            if file.purpose in ("fine-tune", "fine-tune-results") and file.id not in wanted:
                wanted[file.id] = WantedFile(
                    id=file.id, role="other", bytes=file.bytes, filename=file.filename, sources=(file.source,)
                )
    return list(wanted.values())


def read_manifest(migration: Migration, listings: Listings | None = None, *, everything: bool = False) -> Manifest:
    """What was downloaded and what was not, from the folder alone."""
    listings = listings or Listings(migration)
    inventory = load_inventory(migration, listings)
    saved = saved_files(migration)
    linted = {event.data["id"]: event.data for event in migration.of("file_linted")}
    entries = tuple(
        _entry(one, saved.get(one.id), linted.get(one.id)) for one in wanted_files(inventory, everything=everything)
    )
    completions = {str(item.get("id")) for name in listings.names("stored") for item in listings.items(name)}
    inputs = sum(1 for id in completions if (one := listings.get(f"messages:{id}")) is not None and one.done)
    return Manifest(
        migration=migration.name,
        folder=str(migration.path),
        files=entries,
        events=_count(listings, "events"),
        checkpoints=_count(listings, "checkpoints"),
        stored_completions=len(completions),
        stored_with_inputs=inputs,
        ok=all(entry.state == "downloaded" for entry in entries),
    )


def _entry(one: WantedFile, saved: Saved | None, linted: dict[str, Any] | None) -> ManifestFile:
    if saved is None:
        return ManifestFile(id=one.id, role=one.role, jobs=one.jobs, state="missing", bytes=one.bytes)
    if saved.path is None:
        return ManifestFile(
            id=one.id,
            role=one.role,
            jobs=one.jobs,
            state="refused" if saved.state == "refused" else "gone",
            why=saved.note,
            stand_ins=tuple(saved.extra.get("stand_ins") or ()),
        )
    return ManifestFile(
        id=one.id,
        role=one.role,
        jobs=one.jobs,
        state="downloaded",
        path=str(saved.extra["path"]),
        bytes=saved.bytes,
        sha256=saved.sha256,
        notes=tuple(saved.extra.get("notes") or ()),
        lint=Linted.model_validate(linted) if linted is not None else None,
    )


def _count(listings: Listings, kind: str) -> int:
    return sum(one.items for name in listings.names(kind) if (one := listings.best(name)) is not None)
