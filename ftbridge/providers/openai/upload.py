"""Files on a service: one copy of each content, whatever fails, and the same copy for every run of the account.

    the run's journal knows it ─▶ the account's registry knows it ─▶ upload once
             └───────────────┬──────────────────┘
                             ▼
                  GET: still there, not an error?

A file is named `ftbridge-SPLIT-HASH.jsonl`, so that one whose upload got no answer is found again by name and size. The bytes
are streamed: memory does not grow with the file.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from ftbridge import files
from ftbridge.errors import DataError, FtbridgeError, ModelUnavailable
from ftbridge.providers.openai.client import UPLOAD_TIMEOUT, Connection
from ftbridge.providers.openai.errors import clean, whole
from ftbridge.providers.openai.ledger import Ledger
from ftbridge.providers.openai.once import once
from ftbridge.providers.openai.retry import read, sleep
from ftbridge.runs.journal import Event, Journal

PART_BYTES = 64_000_000
"""A part of a large file: the most that `/uploads` takes."""
_BOM = b"\xef\xbb\xbf"
_LOOK_SECONDS = 5.0
_PROCESSING_LOOKS = 360
_PAGE = 1000


def ensure_file(at: Connection, ledger: Ledger, path: Path, split: str, *, purpose: str = "fine-tune") -> str:
    """The id of a processed file with the content of `path`, uploaded if the account has none.

    Raises `DataError` when the service finds the file bad, `ServiceUnavailable` when it does not answer.
    """
    with ExitStack() as stack:
        source = stack.enter_context(_Source(path, ledger.folder, at.target.byte_order_mark and purpose == "fine-tune"))
        digest = files.sha256_file(source.path)
        at.registry.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(FileLock(at.registry.with_name(f".{at.account}-{digest[:16]}.lock")))
        made = ledger.made("file", digest) or _registered(at, digest)
        if made is not None and _usable(at, made):
            if ledger.made("file", digest) is None:
                ledger.append("made", what="file", key=digest, id=made, how="reused")
            return made
        if made is not None and ledger.made("file", digest) is not None:
            ledger.append("removed", what="file", key=digest, id=made)
        name = f"ftbridge-{split}-{digest[:16]}.jsonl"
        size = source.path.stat().st_size
        made = once(
            ledger,
            "file",
            digest,
            act=lambda: _upload(at, source.path, name, size, purpose),
            find=lambda _: _find(at, name, size, purpose),
            service=at.service,
        )
        Journal(at.registry).append("file", sha256=digest, id=made)
    _wait(at, made, split)
    return made


def remove_uploaded(at: Connection, ledger: Ledger) -> list[str]:
    """Remove again what this run uploaded for nothing; returns the ids. What it only reused stays."""
    removed = []
    for event in ledger.of("made"):
        what, key, made = event.data["what"], event.data["key"], event.data["id"]
        if what != "file" or event.data["how"] == "reused" or ledger.made("file", key) != made:
            continue
        try:
            read(lambda made=made: at.client.files.delete(made), "removing the file", at.service, attempts=3)  # type: ignore[misc]
        except ModelUnavailable:
            pass  # gone already
        except FtbridgeError as error:
            ledger.append("note", level="warn", message=f"{made} could not be removed: {error.message}")
            continue
        ledger.append("removed", what="file", key=key, id=made)
        removed.append(made)
    return removed


class _Source:
    """The file to send: the split itself, or a copy that begins with the byte order mark a service insists on."""

    def __init__(self, path: Path, folder: Path, mark: bool) -> None:
        self.path, self._folder, self._mark = path, folder, mark

    def __enter__(self) -> _Source:
        if self._mark:
            copy = self._folder / self.path.name
            with files.atomic_path(copy) as temporary, self.path.open("rb") as given, temporary.open("wb") as out:
                out.write(_BOM)
                while block := given.read(1 << 20):
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
        told = at.client.files.create(
            file=(name, stream, "application/jsonl"), purpose=_any(purpose), timeout=UPLOAD_TIMEOUT
        )
    return str(whole(told, "id").id)


def _in_parts(at: Connection, stream: IO[bytes], name: str, size: int, purpose: str) -> str:
    """Through `/uploads`. A part sent twice does no harm: only those that are named at the end count."""
    uploads = at.client.uploads
    upload = whole(uploads.create(bytes=size, filename=name, mime_type="text/jsonl", purpose=_any(purpose)), "id")
    parts: list[str] = []
    while block := stream.read(PART_BYTES):
        part = read(
            lambda block=block: whole(  # type: ignore[misc]
                uploads.parts.create(upload.id, data=(name, block), timeout=UPLOAD_TIMEOUT), "id"
            ),
            "uploading a part of the file",
            at.service,
        )
        parts.append(part.id)
    done = whole(uploads.complete(upload.id, part_ids=parts, timeout=UPLOAD_TIMEOUT), "file")
    return str(whole(done.file, "id").id)


def _find(at: Connection, name: str, size: int, purpose: str) -> str | None:
    """The oldest file of this name and size that is no error."""

    def look() -> list[Any]:
        page = whole(at.client.files.list(purpose=purpose, limit=_PAGE, order="desc"), "data")
        return [file for file in page if _named(file, name, size)]

    found = read(look, "looking for the file", at.service)
    return str(min(found, key=lambda file: getattr(file, "created_at", 0) or 0).id) if found else None


def _named(file: Any, name: str, size: int) -> bool:
    same = getattr(file, "filename", None) == name and getattr(file, "bytes", size) in (size, None)
    return same and getattr(file, "status", None) not in ("error", "deleted")


def _registered(at: Connection, digest: str) -> str | None:
    known: list[Event] = [event for event in Journal(at.registry).read() if event.data.get("sha256") == digest]
    return str(known[-1].data["id"]) if known else None


def _usable(at: Connection, made: str) -> bool:
    try:
        told = read(lambda: whole(at.client.files.retrieve(made), "id"), "looking at the file", at.service)
    except ModelUnavailable:
        return False
    return getattr(told, "status", None) not in ("error", "deleted")


def _wait(at: Connection, made: str, split: str) -> None:
    """Until the file is processed. A host that tells no status, or leaves it at `uploaded`, is taken at its word."""
    for _ in range(_PROCESSING_LOOKS):
        told = read(lambda: whole(at.client.files.retrieve(made), "id"), "looking at the file", at.service)
        status = getattr(told, "status", None)
        if status in ("error", "deleted"):
            why = clean(getattr(told, "status_details", None) or "it gives no reason")
            raise DataError(
                f"{at.service} found the {split} file {made} bad: {why}",
                hint="Mend the data and start the run again; `ftbridge lint` tells lines.",
            )
        if status in (None, "processed", "uploaded"):
            return
        sleep(_LOOK_SECONDS)


def _any(value: object) -> Any:
    """A value for the SDK's literals, which differ from version to version."""
    return value
