"""Downloading what can be downloaded: files of jobs, events and checkpoints, and the completions that clients stored.

    file_intended ─▶ GET content ─▶ files/ID/NAME (whole or absent) ─▶ checked, decoded ─▶ file_saved {sha256, bytes}
                         └▶ gone, refused ─▶ file_unavailable {why, stand_ins}                   └▶ linted

A file is fetched once, whoever names it. Files of models in use come first. Nothing is paid for; a stored completion takes one
request for its input, so `--stored` says first how many there will be. Run again, only what is missing is fetched.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ftbridge import files
from ftbridge.migrate.account import Inventory, TunedModel
from ftbridge.migrate.client import Client, connect, in_path
from ftbridge.migrate.folder import Migration, safe_name
from ftbridge.migrate.inventory import take_messages
from ftbridge.migrate.lint_files import lint_files
from ftbridge.migrate.listing import Listings
from ftbridge.migrate.loading import Saved, load_inventory, saved_files
from ftbridge.migrate.manifest import Manifest, WantedFile, read_manifest, wanted_files

NEWEST = 2_000
"""Stored completions of a model that are downloaded, newest first, unless more are asked for."""
_SECONDS_A_REQUEST, _BYTES_A_SECOND = 0.3, 5_000_000
"""What the forecast reckons with; assumptions."""
_REFUSED = re.compile(r"disabled|not allowed|permission|free account|scope", re.IGNORECASE)
Tell = Callable[[str], None]


class DownloadForecast(BaseModel):
    """What a download will do: requests, bytes and seconds. It costs nothing."""

    model_config = ConfigDict(frozen=True)

    files: int
    bytes: int
    requests: int
    seconds: float


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
        lint_files(migration, inventory, wanted, tell)
        manifest = read_manifest(migration, listings, everything=everything)
        files.write_json(migration.path / "manifest.json", manifest.model_dump(mode="json"))
        migration.append("downloaded", files=len(manifest.files), ok=manifest.ok, stored=stored)
        return manifest


def _is_missing(saved: Saved | None) -> bool:
    """Whether it is worth asking for a file: one that is gone stays gone, a refusal may be lifted."""
    return saved is None or not (saved.is_here or saved.state == "gone")


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
