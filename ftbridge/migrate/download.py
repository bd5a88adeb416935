"""Downloading what can be downloaded: files of jobs, events and checkpoints, and the completions that clients stored.

    file_intended ─▶ GET content ─▶ files/ID/NAME (whole or absent) ─▶ checked, decoded ─▶ file_saved {sha256, bytes}
                         └▶ gone, refused ─▶ file_unavailable {why, stand_ins}          ─▶ file_linted

A file is fetched once, whoever names it. Files of models in use come first. Nothing is paid for; a stored completion takes one
request for its input, so `--stored` says first how many there will be. Run again, only what is missing is fetched.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ftbridge import files
from ftbridge.data.lint.engine import Options, lint
from ftbridge.data.lint.engine import Role as LintRole
from ftbridge.errors import FtbridgeError
from ftbridge.migrate.account import Inventory, TunedModel
from ftbridge.migrate.client import Client, connect, in_path
from ftbridge.migrate.folder import Migration, safe_name
from ftbridge.migrate.inventory import take_messages
from ftbridge.migrate.listing import Listings
from ftbridge.migrate.loading import Saved, load_inventory, saved_files
from ftbridge.migrate.objects import Job

NEWEST = 2_000
"""Stored completions of a model that are downloaded, newest first, unless more are asked for."""
_SECONDS_A_REQUEST, _BYTES_A_SECOND = 0.3, 5_000_000
"""What the forecast reckons with; assumptions."""
_REFUSED = re.compile(r"disabled|not allowed|permission|free account|scope", re.IGNORECASE)
Role = Literal["training", "validation", "result", "other"]
Tell = Callable[[str], None]


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


class DownloadForecast(BaseModel):
    """What a download will do: requests, bytes and seconds. It costs nothing."""

    model_config = ConfigDict(frozen=True)

    files: int
    bytes: int
    requests: int
    seconds: float


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


def forecast(
    migration: Migration, *, stored: bool = False, newest: int = NEWEST, everything: bool = False
) -> DownloadForecast:
    """What `download` has left to do, from the folder alone. Raises `UsageError` without an inventory."""
    inventory, listings = load_inventory(migration), Listings(migration)
    saved = saved_files(migration)
    missing = [one for one in wanted_files(inventory, everything=everything) if _is_missing(saved.get(one.id))]
    size = sum(one.bytes or 0 for one in missing)
    requests = len(missing)
    for model in inventory.models:
        for kind in ("events", "checkpoints"):
            listing = listings.get(f"{kind}:{model.job}")
            requests += model.job is not None and (listing is None or not listing.done)
        if stored and model.sources:
            requests += 1
            stored_listing = listings.get(f"stored:{model.sources[0]}/{model.id}")
            requests += min(newest, stored_listing.items if stored_listing is not None else 0)
    return DownloadForecast(
        files=len(missing),
        bytes=size,
        requests=requests,
        seconds=requests * _SECONDS_A_REQUEST + size / _BYTES_A_SECOND,
    )


def download(
    migration: Migration,
    keys: Sequence[str] = (),
    *,
    stored: bool = False,
    newest: int = NEWEST,
    everything: bool = False,
    tell: Tell = lambda _: None,
) -> Manifest:
    """Fetch what is missing and return the manifest, which is also written to the folder.

    `stored` adds the `newest` completions of each model that clients stored, with their inputs. Raises `UsageError` without
    an inventory, `ServiceUnavailable`, and `DiskFull`, before anything is fetched where the files cannot fit.
    """
    with migration.working("the download"), contextlib.ExitStack() as stack:
        listings = Listings(migration)
        inventory = load_inventory(migration, listings)
        clients = {client.source.id: client for client in connect(migration, keys)}
        for client in clients.values():
            stack.callback(client.close)
        wanted = wanted_files(inventory, everything=everything)
        saved = saved_files(migration)
        todo = [one for one in wanted if _is_missing(saved.get(one.id))]
        files.require_room(migration.path, sum(one.bytes or 0 for one in todo), "downloading the files")
        for number, one in enumerate(todo, 1):
            tell(f"file {number} of {len(todo)}: {one.filename or one.id}")
            _fetch(migration, inventory, one, _choose(clients, inventory, one.sources), tell)
        for model in inventory.models:
            candidates = _choose(clients, inventory, model.sources)
            if candidates is not None and model.job is not None:
                _records(listings, candidates, model, tell)
        denied: set[str] = set()  # keys that may not read stored completions: the same for every model
        for model in inventory.models if stored else ():
            candidates = _choose(clients, inventory, model.sources)
            if candidates is None or candidates.source.id in denied:
                continue
            if not _stored(listings, candidates, model, newest, tell):
                denied.add(candidates.source.id)
        _lint_all(migration, inventory, wanted, tell)
        manifest = read_manifest(migration, listings, everything=everything)
        files.write_json(migration.path / "manifest.json", manifest.model_dump(mode="json"))
        migration.append("downloaded", files=len(manifest.files), ok=manifest.ok, stored=stored)
        return manifest


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


def _is_here(saved: Saved | None) -> bool:
    return saved is not None and saved.path is not None and saved.path.exists()


def _is_missing(saved: Saved | None) -> bool:
    """Whether it is worth asking for a file: one that is gone stays gone, a refusal may be lifted."""
    return not _is_here(saved) and (saved is None or saved.state != "gone")


def _choose(clients: dict[str, Client], inventory: Inventory, sources: Sequence[str]) -> Client | None:
    """The client of the first of these keys that is at hand, or of a newer key in the same variable."""
    variables = [source.variable for source in inventory.sources if source.id in sources]
    newer = [client for client in clients.values() if client.source.variable in variables]
    return next((clients[source] for source in sources if source in clients), next(iter(newer), None))


def _fetch(migration: Migration, inventory: Inventory, one: WantedFile, client: Client | None, tell: Tell) -> None:
    """Fetch one file, unless it was fetched by a process that died before it could say so."""
    name = safe_name(one.filename or f"{one.role}.{'csv' if one.role == 'result' else 'jsonl'}")
    raw = migration.folder("files", one.id) / name
    if not raw.exists():
        if client is None:
            _unavailable(migration, inventory, one, "refused", "the key that can read it is not in the environment")
            return
        migration.append("file_intended", id=one.id, bytes=one.bytes)
        received = 0

        def progress(count: int) -> None:
            nonlocal received
            received += count
            if one.bytes and one.bytes > 20_000_000:
                tell(f"{one.filename or one.id}: {received / one.bytes:.0%} of {one.bytes / 1e6:.0f} MB")

        doing = f"downloading {one.filename or one.id}"
        reply = client.download(f"/files/{in_path(one.id)}/content", raw, doing=doing, progress=progress)
        if not reply.ok:
            refused = not reply.missing and (reply.status in (401, 403) or bool(_REFUSED.search(reply.reason)))
            _unavailable(migration, inventory, one, "refused" if refused else "gone", reply.reason)
            return
    size = raw.stat().st_size
    notes = []
    if one.bytes is not None and size != one.bytes:
        notes.append(f"{size:,} bytes arrived; according to the service, the file has {one.bytes:,}")
    path = raw
    if one.role == "result" and (decoded := _decoded(raw)) is not None:
        path = raw.with_name(f"{raw.stem}.decoded{raw.suffix}")
        files.write_bytes(path, decoded)
        path.chmod(0o600)
        notes.append("the service sent it as base64; it is decoded here")
    migration.append(
        "file_saved",
        id=one.id,
        role=one.role,
        path=str(path.relative_to(migration.path)),
        bytes=path.stat().st_size,
        sha256=files.sha256_file(path),
        raw=str(raw.relative_to(migration.path)),
        raw_sha256=files.sha256_file(raw) if raw != path else None,
        notes=notes,
    )


def _unavailable(migration: Migration, inventory: Inventory, one: WantedFile, state: str, why: str) -> None:
    stand_ins = list(_stand_ins(migration, inventory, one))
    migration.append("file_unavailable", id=one.id, role=one.role, state=state, why=why, stand_ins=stand_ins)


def _stand_ins(migration: Migration, inventory: Inventory, one: WantedFile) -> Iterator[str]:
    """What can be used in the place of a file that cannot be had."""
    if one.role in ("result", "other"):
        if one.role == "result":
            yield "the figures of the job's events, which are downloaded too"
        return
    jobs = [job for job in inventory.jobs if job.id in one.jobs]
    for job in jobs:
        for integration in job.integrations:
            wandb = integration.get("wandb")
            if isinstance(wandb, dict) and wandb.get("project"):
                yield f"the W&B project {wandb['project']}, which may hold the file as an artefact"
        if one.role == "training" and job.validation_file is not None:
            yield f"the validation file {job.validation_file} of the same job, which is of the same kind"
    yield "your own copy of the data: it must be the file that the job was trained on"
    models = [model for model in inventory.models if any(job in model.chain for job in one.jobs)]
    for model in models:
        if model.features.seen:
            yield f"completions of {model.id} that clients stored: ftbridge migrate download --stored"
        if model.is_available(inventory.today):
            yield f"recorded completions of {model.id}: ftbridge migrate record, then retrain with --distil"


def _decoded(path: Path) -> bytes | None:
    """A result file that came as base64, decoded; None for one that is plain."""
    with path.open("rb") as stream:
        head = stream.read(64)
    if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"step") or b"," in head:
        return None
    try:
        return base64.b64decode(b"".join(path.read_bytes().split()), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _records(listings: Listings, client: Client, model: TunedModel, tell: Tell) -> None:
    """A job's events and checkpoints: the loss curve, and what each checkpoint measured."""
    path = f"/fine_tuning/jobs/{in_path(str(model.job))}"
    for kind in ("events", "checkpoints"):
        name = f"{kind}:{model.job}"
        listing = listings.get(name)
        if listing is None or not listing.done:
            tell(f"{kind} of {model.id}")
            listings.take(client, name, f"{path}/{kind}", doing=f"{kind} of {model.job}", limit=100)


def _stored(listings: Listings, client: Client, model: TunedModel, newest: int, tell: Tell) -> bool:
    """A model's stored completions and their inputs; False where the key may not read them."""
    name = f"stored:{client.source.id}/{model.id}"
    params = {"model": model.id, "order": "desc"}
    doing = f"stored completions of {model.id}"
    tell(doing)
    pages = max(1, -(-newest // 100))
    listing = listings.take(
        client, name, "/chat/completions", params, doing=doing, limit=100, pages=pages,
        progress=lambda items: tell(f"{doing}: {items:,}"),
    )  # fmt: skip
    if listing.refused is not None:
        return listing.refused.get("status") not in (401, 403)
    for number, item in enumerate(listings.items(name), 1):
        if number > newest:
            break
        if number % 20 == 0:
            tell(f"inputs of {doing}: {number:,} of {min(newest, listing.items):,}")
        take_messages(listings, client, str(item.get("id")))
    return True


def _lint_all(migration: Migration, inventory: Inventory, wanted: list[WantedFile], tell: Tell) -> None:
    """Lint downloaded data, each training file together with the validation files of its jobs, unless that was done before."""
    saved = {id: one for id, one in saved_files(migration).items() if _is_here(one)}
    linted = {_key(event.data) for event in migration.of("file_linted")}
    for group in _groups(inventory, [one for one in wanted if one.id in saved]):
        first = group[0]
        keys = {one.id: _key({"id": one.id, "sha256": saved[one.id].sha256, "beside": len(group) > 1}) for one in group}
        if keys[first.id] in linted:
            continue
        tell(f"linting {first.filename or first.id}")
        has_validation = any(job.validation_file for job in inventory.jobs if job.id in first.jobs)
        base = (first.base or "").removeprefix("ft:").split(":")[0] or None
        # A validation file that cannot be had is named as such: its job was not without one.
        ignore = ("FTB097",) if has_validation and len(group) == 1 else ()
        options = Options(target="openai", method=first.method, model=base, keep=1, ignore=ignore)  # type: ignore[arg-type]
        paths = [path for one in group if (path := saved[one.id].path) is not None]
        try:
            reports = lint(paths, options, roles=[_LINT_ROLES[one.role] for one in group]).files
        except FtbridgeError as error:
            migration.append("file_lint_failed", id=first.id, sha256=saved[first.id].sha256, why=error.message)
            continue
        for one, report in zip(group, reports, strict=True):
            if keys[one.id] in linted:
                continue  # a validation file of several jobs
            linted.add(keys[one.id])
            migration.append(
                "file_linted",
                id=one.id,
                sha256=saved[one.id].sha256,
                beside=[other.id for other in group if other is not one],
                examples=report.examples,
                tokens=report.tokens,
                errors=report.errors,
                warnings=report.warnings,
                rules=report.rules,
            )


_LINT_ROLES: dict[str, LintRole] = {"training": "train", "validation": "validation"}


def _key(data: Mapping[str, Any]) -> tuple[str, str | None, bool]:
    """What a file was linted as: its content, and whether other files of its jobs were beside it."""
    return data["id"], data["sha256"], bool(data.get("beside"))


def _groups(inventory: Inventory, downloaded: Sequence[WantedFile]) -> Iterator[list[WantedFile]]:
    """The files to lint together, the one that they are about first; a validation file alone where nothing trains beside it."""
    validation = {one.id: one for one in downloaded if one.role == "validation"}
    trained_beside: set[str] = set()
    for one in downloaded:
        if one.role != "training":
            continue
        ids = dict.fromkeys(job.validation_file for job in inventory.jobs if job.id in one.jobs)
        beside = [validation[id] for id in ids if id in validation]
        trained_beside |= {other.id for other in beside}
        yield [one, *beside]
    yield from ([one] for one in validation.values() if one.id not in trained_beside)
