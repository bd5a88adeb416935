"""/files: contents on the disk under their ids, described in the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import msgspec
from openai.types import FileDeleted, FilePurpose
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from ftbridge import files as disk
from ftbridge.server.http import pages
from ftbridge.server.http.errors import ApiError, conflict, invalid, not_found
from ftbridge.server.http.multipart import Form, receive
from ftbridge.server.service import Service
from ftbridge.server.store import StoredObject

PURPOSES: tuple[str, ...] = get_args(FilePurpose)
"""What a client may upload a file for."""
_SHORTEST, _LONGEST = 3600, 2_592_000
_BATCH_SECONDS = 30 * 24 * 3600


async def create(request: Request) -> Response:
    """Upload a file."""
    service: Service = request.app.state.service
    form = await receive(request, service.incoming, file_field="file", limit=service.limits.file)
    try:
        purpose = _purpose(form)
        expires = _expires(form, service.now(), purpose)
        if form.path is None or form.filename is None:
            raise invalid("Missing required parameter: 'file'.", "file", "missing_required_parameter")
        if unknown := set(form.fields) - {"purpose", "expires_after[anchor]", "expires_after[seconds]"}:
            name = min(unknown)
            raise invalid(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        await check(form.path, form.filename, purpose)
        return JSONResponse(keep(service, form.path, form.filename, purpose, expires_at=expires).document)
    finally:
        form.discard()


async def list_files(request: Request) -> Response:
    """List files."""
    service: Service = request.app.state.service
    _forget_expired(service)
    where: dict[str, str | None] = {}
    if (purpose := request.query_params.get("purpose")) is not None:
        where["$.purpose"] = purpose
    orders = {"asc": False, "desc": True}
    shown = pages.page(
        service.store,
        request,
        "file",
        default=10_000,
        most=10_000,
        orders=orders,
        where=where,
        allowed=frozenset({"purpose"}),
    )
    return JSONResponse(shown)


async def retrieve(request: Request) -> Response:
    """Retrieve a file."""
    return JSONResponse(find(request.app.state.service, request.path_params["file_id"]).document)


async def content(request: Request) -> Response:
    """Retrieve the content of a file."""
    service: Service = request.app.state.service
    stored = find(service, request.path_params["file_id"])
    path = service.files / stored.id
    if stored.extra.get("refused"):
        text = "To help mitigate abuse, downloading of fine-tune training files is disabled for free accounts."
        raise ApiError(400, text, code="download_disabled")
    if stored.extra.get("base64"):
        import base64

        content = base64.b64encode(path.read_bytes())
        return Response(content, media_type="application/octet-stream", headers=_attached(stored.document["filename"]))
    return FileResponse(path, media_type="application/octet-stream", headers=_attached(stored.document["filename"]))


def _attached(filename: str) -> dict[str, str]:
    """The file's own name, for what saves it: RFC 6266, with the name in ASCII and, where that is not all of it, in UTF-8."""
    plain = "".join(one if one.isascii() and one.isprintable() and one not in '"\\\\' else "_" for one in filename)
    disposition = f'attachment; filename="{plain}"'
    if plain != filename:
        disposition += f"; filename*=UTF-8''{quote(filename, safe='')}"
    return {"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"}


async def delete(request: Request) -> Response:
    """Delete a file; refused with 409 while a job that has not ended needs it."""
    service: Service = request.app.state.service
    stored = find(service, request.path_params["file_id"])
    if job := user_of(service, stored.id):
        raise conflict(f"{stored.id} is in use by {job}; cancel the job, or wait until it ends.")
    remove(service, stored.id)
    return JSONResponse(FileDeleted(id=stored.id, deleted=True, object="file").to_dict())


def find(service: Service, name: str, param: str | None = None) -> StoredObject:
    """A file by id. Raises 404; with `param`, 400, since then another object names the file."""
    stored = service.store.get("file", name)
    if stored is not None and (stored.document.get("expires_at") or 1 << 60) <= service.clock():
        remove(service, name)
        stored = None
    if stored is None:
        if param is not None:
            raise ApiError(400, f"No such file: {name[:200]}", param=param, code="invalid_file")
        raise not_found("File object", name, "id")
    return stored


def keep(
    service: Service,
    path: Path,
    filename: str,
    purpose: str,
    *,
    expires_at: int | None = None,
    extra: dict[str, Any] | None = None,
) -> StoredObject:
    """Move a whole content into its place, then tell of it: a crash between leaves a content that nobody knows of."""
    file_id = service.new_id("file-", 22)
    # Not the SDK's FileObject: it and the published file object know no "evals", which uploads may have.
    shown = {
        "id": file_id,
        "bytes": path.stat().st_size,
        "created_at": service.now(),
        "filename": filename,
        "object": "file",
        "purpose": purpose,
        "status": "processed",
        **({"expires_at": expires_at} if expires_at is not None else {}),
    }
    stored = StoredObject("file", file_id, service.engine.told_file(shown), extra or {})
    service.files.mkdir(parents=True, exist_ok=True)
    path.replace(service.files / file_id)
    disk.sync_folder(service.files)
    service.store.add(stored)
    return stored


def keep_bytes(
    service: Service,
    data: bytes,
    filename: str,
    purpose: str,
    extra: dict[str, Any] | None = None,
    expires_at: int | None = None,
) -> StoredObject:
    """A file that the server itself makes, such as a job's figures."""
    service.incoming.mkdir(parents=True, exist_ok=True)
    path = service.incoming / f"{service.new_id('made-')}.part"
    disk.write_bytes(path, data)
    return keep(service, path, filename, purpose, extra=extra, expires_at=expires_at)


def remove(service: Service, name: str) -> None:
    """Forget a file, then its content."""
    service.store.remove("file", name)
    (service.files / name).unlink(missing_ok=True)


def tidy(service: Service) -> None:
    """At the start: remove what a crash left half-done."""
    for folder in (service.files, service.incoming):
        folder.mkdir(parents=True, exist_ok=True)
    ids, parts = service.store.ids("file"), service.store.ids("part")
    for path in service.incoming.iterdir():
        if path.name not in parts:
            path.unlink()
    for path in service.files.iterdir():
        if path.name not in ids:
            path.unlink()


def user_of(service: Service, file: str) -> str | None:
    """The job or batch that is under way and reads a file."""
    for job in service.store.every("job"):
        if job.document["status"] not in ("succeeded", "failed", "cancelled") and file in (
            job.document["training_file"],
            job.document["validation_file"],
        ):
            return job.id
    for batch in service.store.every("batch"):
        under_way = batch.document["status"] in ("validating", "in_progress", "finalizing", "cancelling")
        if under_way and batch.document["input_file_id"] == file:
            return batch.id
    return None


async def check(path: Path, filename: str, purpose: str) -> None:
    """Refuse, at upload, what OpenAI refuses there: a wrong extension, and lines that are not JSON objects."""
    if purpose not in ("fine-tune", "batch"):
        return
    if not filename.lower().endswith(".jsonl"):
        raise invalid(
            f"A file for {purpose} must be named *.jsonl; this is {filename[:100]!r}.", "file", "invalid_file_extension"
        )
    if (problem := await asyncio.to_thread(_first_bad_line, path)) is not None:
        raise invalid(problem, "file", "invalid_jsonl_file")


def _first_bad_line(path: Path) -> str | None:
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    empty = True
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if not text:
                continue
            empty = False
            try:
                text.decode()
                decode(text)
            except UnicodeDecodeError:
                return f"Line {number} is not UTF-8."
            except msgspec.DecodeError:
                hint = text[:40].decode("utf-8", "replace")
                return f"Line {number} is not a JSON object, as every line must be. It begins with: {hint!r}"
    return "The file is empty." if empty else None


def _purpose(form: Form) -> str:
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise invalid("Missing required parameter: 'purpose'.", "purpose", "missing_required_parameter")
    if purpose not in PURPOSES:
        raise invalid(f"'purpose' must be one of {', '.join(PURPOSES)}.", "purpose", "invalid_value")
    return purpose


def _expires(form: Form, now: int, purpose: str) -> int | None:
    anchor, seconds = form.fields.get("expires_after[anchor]"), form.fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return now + _BATCH_SECONDS if purpose == "batch" else None
    return expiry(now, anchor, int(seconds) if seconds and seconds.isascii() and seconds.isdigit() else None)


def expiry(now: int, anchor: str | None, seconds: int | None) -> int:
    """When a file made now goes. Raises `ApiError` for another anchor, and outside 1 hour to 30 days."""
    if anchor != "created_at":
        raise invalid("'expires_after.anchor' must be 'created_at'.", "expires_after.anchor", "invalid_value")
    if seconds is None or not _SHORTEST <= seconds <= _LONGEST:
        raise invalid(
            f"'expires_after.seconds' must be a whole number from {_SHORTEST:,} to {_LONGEST:,}.",
            "expires_after.seconds",
            "invalid_value",
        )
    return now + seconds


def _forget_expired(service: Service) -> None:
    for name in service.store.expired("file", service.clock()):
        remove(service, name)
