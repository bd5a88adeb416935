"""Files on a service: one copy of each content, whatever fails, and the same copy for every run of the account.

    the run's journal knows it ─▶ the account's registry knows it ─▶ upload once
             └───────────────┬──────────────────┘
                             ▼
                  GET: still there, not an error?

A file is named `ftbridge-SPLIT-HASH.jsonl`, so that one whose upload got no answer is found again by name and size. The bytes
are streamed: memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from ftbridge import files
from ftbridge.errors import DataError, FtbridgeError, ModelUnavailable
from ftbridge.http import sleep
from ftbridge.providers.openai.client import UPLOAD_TIMEOUT, Connection, items_of
from ftbridge.providers.openai.errors import clean, require_fields
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.jobs.once import once
from ftbridge.providers.openai.retry import read
from ftbridge.runs.journal import Event, Journal

PART_BYTES = 64_000_000
"""A part of a large file: the most that `/uploads` takes."""
_BOM = b"\xef\xbb\xbf"
_BAD = frozenset({"error", "failed", "deleted", "cancelled", "canceled", "expired"})
"""Statuses of a file that nothing will ever be made of."""
_TOGETHER = 120.0
"""Seconds between copies of one upload, by the service's clock."""
_LOOK_SECONDS = 5.0
_PROCESSING_LOOKS = 360
_PAGE = 1000


def ensure_file(at: Connection, ledger: Ledger, path: Path, split: str, *, purpose: str = "fine-tune") -> str:
    """The id of a processed file with the content of `path`, uploaded if the account has none.

    The account's registry learns that this run uses it, so that no other run removes it. Raises `DataError` when the service
    finds the file bad, after removing it; `ServiceUnavailable` when it does not answer.
    """
    with ExitStack() as stack:
        source = stack.enter_context(_Source(path, ledger.folder, at.target.byte_order_mark and purpose == "fine-tune"))
        digest = files.sha256_file(source.path)
        stack.enter_context(_file_lock(at, digest))
        file_id = ledger.recorded("file", digest) or _registered(at, digest)
        if file_id is not None and _usable(at, file_id):
            if ledger.recorded("file", digest) is None:
                ledger.append("made", what="file", key=digest, id=file_id, how="reused")
            _use(at, ledger, file_id)
            return file_id
        if file_id is not None and ledger.recorded("file", digest) is not None:
            ledger.append("removed", what="file", key=digest, id=file_id)
        name = _name(split, digest)
        size = source.path.stat().st_size
        file_id = once(
            ledger,
            "file",
            digest,
            act=lambda: _upload(at, source.path, name, size, purpose),
            find=lambda _: _find(at, name, size, purpose),
            service=at.service,
        )
        Journal(at.registry).append("file", sha256=digest, id=file_id)
        _use(at, ledger, file_id)
        _remove_copies(at, ledger, file_id, name, size, purpose)
        try:
            _wait(at, file_id, split)
        except DataError:
            _remove(at, ledger, digest, file_id)
            raise
    return file_id


def uploaded_name(ledger: Ledger, file: str) -> str | None:
    """The name under which a file of this run went up."""
    for event in ledger.of("made"):
        if event.data["what"] == "file" and event.data["id"] == file:
            return _name("train", str(event.data["key"]))
    return None


def remove_uploaded(at: Connection, ledger: Ledger) -> list[str]:
    """Remove again what this run uploaded for nothing; returns the ids. What it only reused, or another run uses, stays."""
    removed = []
    for event in ledger.of("made"):
        what, key, record = event.data["what"], event.data["key"], event.data["id"]
        if what != "file" or event.data["how"] == "reused" or ledger.recorded("file", key) != record:
            continue
        with _file_lock(at, key):
            if _used_by_others(at, ledger, record):
                continue
            if _remove(at, ledger, key, record):
                removed.append(record)
    return removed


def remove_late_copies(at: Connection, ledger: Ledger) -> None:
    """Remove copies that attempts without an answer left after all, once the job has ended. Never raises for the service."""
    lost = {str(event.data["key"]) for event in ledger.of("lost") if event.data["what"] == "file"}
    for event in ledger.of("made"):
        if event.data["what"] == "file" and event.data["key"] in lost:
            file_id = str(event.data["id"])
            file = _shown(at, file_id)
            if getattr(file, "filename", None) and getattr(file, "bytes", None):
                _remove_copies(at, ledger, file_id, file.filename, file.bytes, file.purpose)


def _shown(at: Connection, file_id: str) -> Any:
    """A file as the service shows it; None where it does not."""
    try:
        return read(lambda: at.client.files.retrieve(file_id), "looking at the file", at.service, attempts=2)
    except FtbridgeError:
        return None


def _remove(at: Connection, ledger: Ledger, key: str, file_id: str) -> bool:
    """Delete one file at the service and journal it; False, with a note, when that is not possible."""
    try:
        read(lambda: at.client.files.delete(file_id), "removing the file", at.service, attempts=3)
    except ModelUnavailable:
        pass  # gone already
    except FtbridgeError as error:
        ledger.append("note", level="warn", message=f"{file_id} could not be removed: {error.message}")
        return False
    ledger.append("removed", what="file", key=key, id=file_id)
    Journal(at.registry).append("released", id=file_id, run=_run(ledger))
    return True


@contextmanager
def _file_lock(at: Connection, digest: str) -> Iterator[None]:
    """One process of this account at a time uploads, takes up or removes a file of this content."""
    at.registry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(at.registry.with_name(f".{at.account}-{digest[:16]}.lock")):
        yield


def _name(split: str, digest: str) -> str:
    return f"ftbridge-{split}-{digest[:16]}.jsonl"


def _run(ledger: Ledger) -> str:
    return ledger.folder.parent.name


def _use(at: Connection, ledger: Ledger, file_id: str) -> None:
    """Tell the account's other runs that this one uses a file, once."""
    registry, run = Journal(at.registry), _run(ledger)
    uses = [event.type for event in registry.read() if (event.data.get("id"), event.data.get("run")) == (file_id, run)]
    if uses[-1:] != ["uses"]:
        registry.append("uses", id=file_id, run=run)


def _used_by_others(at: Connection, ledger: Ledger, file_id: str) -> bool:
    users: set[str] = set()
    for event in Journal(at.registry).read():
        if event.data.get("id") == file_id and event.type in ("uses", "released"):
            (users.add if event.type == "uses" else users.discard)(str(event.data["run"]))
    return bool(users - {_run(ledger)})


def _remove_copies(at: Connection, ledger: Ledger, file_id: str, name: str, size: int, purpose: str) -> None:
    """Remove further copies that one upload left: a proxy that repeats requests, an attempt that took effect late.

    Only copies as young as this one, which no run is known to use and no job to train on.
    """
    try:
        copies = read(lambda: _copies(at, name, size, purpose), "looking for copies", at.service, attempts=2)
        born = next((_age(file) for file in copies if file.id == file_id), None)
        others = [
            file for file in copies if file.id != file_id and born is not None and abs(_age(file) - born) < _TOGETHER
        ]
        if not others:
            return
        used = _trained_on(at)
        for copy in others:
            if copy.id not in used and not _used_by_others(at, ledger, copy.id):
                read(lambda copy=copy: at.client.files.delete(copy.id), "removing a copy", at.service, attempts=2)  # type: ignore[misc]
                ledger.append("note", level="info", message=f"{copy.id}, a second copy of one upload, was removed")
    except FtbridgeError:
        return  # a copy costs nothing


def _trained_on(at: Connection) -> set[str]:
    jobs = at.client.fine_tuning.jobs
    page = read(lambda: require_fields(jobs.list(limit=100), "data").data, "looking at jobs", at.service, attempts=2)
    return {str(getattr(job, name, None)) for job in page for name in ("training_file", "validation_file")}


def _copies(at: Connection, name: str, size: int, purpose: str) -> list[Any]:
    page = at.client.files.list(purpose=purpose, limit=_PAGE, order="desc")
    return [file for file in require_fields(page, "data").data if _named(file, name, size)]


def _age(file: Any) -> float:
    value = getattr(file, "created_at", 0)
    return float(value) if isinstance(value, (int, float)) else 0.0


class _Source:
    """The file to send: the split itself, or a copy that begins with the byte order mark a service insists on."""

    def __init__(self, path: Path, folder: Path, mark: bool) -> None:
        self.path, self._folder, self._mark = path, folder, mark

    def __enter__(self) -> _Source:
        if self._mark:
            copy = self._folder / self.path.name
            with files.atomic_path(copy) as temporary, self.path.open("rb") as stream, temporary.open("wb") as out:
                out.write(_BOM)
                while block := stream.read(1 << 20):
                    out.write(block)
            self.path = copy
        return self

    def __exit__(self, *_: object) -> None:
        if self._mark:
            self.path.unlink(missing_ok=True)


def _upload(at: Connection, path: Path, name: str, size: int, purpose: str) -> str:
    with path.open("rb") as stream:
        if at.target.upload_in_parts_above is not None and size > at.target.upload_in_parts_above:
            return _in_parts(at, stream, name, size, purpose)
        uploaded = at.client.files.create(
            file=(name, stream, "application/jsonl"), purpose=_any(purpose), timeout=UPLOAD_TIMEOUT
        )
    return str(require_fields(uploaded, "id").id)


def _in_parts(at: Connection, stream: IO[bytes], name: str, size: int, purpose: str) -> str:
    """Through `/uploads`. A part sent twice does no harm: only those that are named at the end count."""
    uploads = at.client.uploads
    upload = require_fields(
        uploads.create(bytes=size, filename=name, mime_type="text/jsonl", purpose=_any(purpose)), "id"
    )
    parts: list[str] = []
    while block := stream.read(PART_BYTES):
        part = read(
            lambda block=block: require_fields(  # type: ignore[misc]
                uploads.parts.create(upload.id, data=(name, block), timeout=UPLOAD_TIMEOUT), "id"
            ),
            "uploading a part of the file",
            at.service,
        )
        parts.append(part.id)
    done = require_fields(uploads.complete(upload.id, part_ids=parts, timeout=UPLOAD_TIMEOUT), "file")
    return str(require_fields(done.file, "id").id)


def _find(at: Connection, name: str, size: int, purpose: str) -> str | None:
    """The oldest file of this name and size that is not an error."""

    def look() -> list[Any]:
        listed = at.client.files
        page = items_of(lambda more: listed.list(purpose=purpose, limit=_PAGE, order="desc", **more))
        return [file for file in page if _named(file, name, size)]

    matching = read(look, "looking for the file", at.service)
    return str(min(matching, key=_age).id) if matching else None


def _named(file: Any, name: str, size: int) -> bool:
    same = getattr(file, "filename", None) == name and getattr(file, "bytes", size) in (size, None)
    return same and getattr(file, "status", None) not in _BAD


def _registered(at: Connection, digest: str) -> str | None:
    records: list[Event] = [event for event in Journal(at.registry).read() if event.data.get("sha256") == digest]
    return str(records[-1].data["id"]) if records else None


def _usable(at: Connection, file_id: str) -> bool:
    try:
        file_object = read(
            lambda: require_fields(at.client.files.retrieve(file_id), "id"), "looking at the file", at.service
        )
    except ModelUnavailable:
        return False
    return getattr(file_object, "status", None) not in _BAD


def _wait(at: Connection, file_id: str, split: str) -> None:
    """Until the file is processed. A host that tells no status, or leaves it at `uploaded`, is taken at its word."""
    for _ in range(_PROCESSING_LOOKS):
        file_object = read(
            lambda: require_fields(at.client.files.retrieve(file_id), "id"), "looking at the file", at.service
        )
        status = getattr(file_object, "status", None)
        if status in _BAD:
            why = clean(getattr(file_object, "status_details", None) or "no reason given")
            raise DataError(
                f"{at.service} rejected the {split} file {file_id}: {why}",
                hint="Fix the data and start the run again; `ftbridge lint` names the lines.",
            )
        if status in (None, "processed", "uploaded"):
            return
        sleep(_LOOK_SECONDS)


def _any(value: object) -> Any:
    """A value for the SDK's literals, which differ from version to version."""
    return value
