"""/uploads: a large file in parts, which become one file when all have come."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from openai.types import Upload
from openai.types.uploads import UploadPart
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ftbridge.files import disk_full_is_an_error
from ftbridge.server.api import files
from ftbridge.server.http.errors import invalid, not_found
from ftbridge.server.http.multipart import receive
from ftbridge.server.http.validation import RequestBody, body
from ftbridge.server.service import Service
from ftbridge.server.store import StoredObject


class ExpiresAfter(RequestBody):
    """When the file goes, counted from its making."""

    anchor: str
    seconds: int


class CreateUpload(RequestBody):
    """The body of POST /uploads."""

    filename: str = Field(min_length=1, max_length=255)
    purpose: Literal["assistants", "batch", "fine-tune", "vision"]
    bytes: int = Field(ge=1)
    mime_type: str
    expires_after: ExpiresAfter | None = None


class CompleteUpload(RequestBody):
    """POST /uploads/{upload_id}/complete."""

    part_ids: list[str] = Field(min_length=1)
    md5: str | None = None


async def create(request: Request) -> Response:
    """Create an upload in parts."""
    service: Service = request.app.state.service
    request_body = await body(request, CreateUpload)
    if request_body.bytes > service.limits.upload:
        raise invalid(f"'bytes' must be at most {service.limits.upload:,}.", "bytes", "invalid_value")
    now = service.now()
    extra: dict[str, Any] = {}
    if request_body.expires_after is not None:
        files.expiry(now, request_body.expires_after.anchor, request_body.expires_after.seconds)
        extra["expires_after"] = request_body.expires_after.seconds
    shown: dict[str, Any] = Upload(
        id=service.new_id("upload_"),
        bytes=request_body.bytes,
        created_at=now,
        expires_at=now + service.limits.upload_seconds,
        filename=request_body.filename,
        object="upload",
        purpose=request_body.purpose,
        status="pending",
    ).to_dict()
    service.store.add(StoredObject("upload", shown["id"], shown, extra))
    return JSONResponse(shown)


async def add_part(request: Request) -> Response:
    """Add a part to an upload; parts may come in parallel."""
    service: Service = request.app.state.service
    upload = _pending(service, request.path_params["upload_id"])
    form = await receive(request, service.incoming, file_field="data", limit=service.limits.part)
    try:
        if form.path is None:
            raise invalid("Missing required parameter: 'data'.", "data", "missing_required_parameter")
        _pending(service, upload.id)
        part_id = service.new_id("part_")
        form.path.replace(service.incoming / part_id)
        shown = UploadPart(id=part_id, created_at=service.now(), object="upload.part", upload_id=upload.id).to_dict()
        service.store.add(StoredObject("part", part_id, shown, {"bytes": form.size}, parent=upload.id))
        return JSONResponse(shown)
    finally:
        form.discard()


async def complete(request: Request) -> Response:
    """Complete an upload: join the parts in this order, and check the size that was announced."""
    service: Service = request.app.state.service
    request_body = await body(request, CompleteUpload)
    upload = _pending(service, request.path_params["upload_id"])
    parts = [service.store.get("part", name) for name in request_body.part_ids]
    for name, part in zip(request_body.part_ids, parts, strict=True):
        if part is None or part.parent != upload.id:
            raise invalid(f"{name[:100]!r} is not part of {upload.id}.", "part_ids", "invalid_value")
    if len(set(request_body.part_ids)) != len(request_body.part_ids):
        raise invalid("'part_ids' names a part twice.", "part_ids", "invalid_value")
    size = sum(part.extra["bytes"] for part in parts if part is not None)
    if size != upload.document["bytes"]:
        announced = upload.document["bytes"]
        raise invalid(f"The parts hold {size:,} bytes; {announced:,} were announced.", "part_ids", "invalid_value")
    joined = service.incoming / f"{service.new_id('whole-')}.part"
    try:
        digest = await asyncio.to_thread(
            _join, service, [service.incoming / name for name in request_body.part_ids], joined
        )
        if request_body.md5 is not None and request_body.md5.lower() != digest:
            raise invalid(f"The content's MD5 is {digest}, not the one given.", "md5", "invalid_value")
        filename, purpose = upload.document["filename"], upload.document["purpose"]
        await files.check(joined, filename, purpose)
        _pending(service, upload.id)
        lasts = upload.extra.get("expires_after")
        expires = service.now() + lasts if lasts is not None else None
        with service.store.change():
            stored_file = files.keep(service, joined, filename, purpose, expires_at=expires)
            done = _end(service, upload.id, {"status": "completed", "file": stored_file.document})
        _forget_parts(service, upload.id)
        return JSONResponse(done.document)
    finally:
        joined.unlink(missing_ok=True)


async def cancel(request: Request) -> Response:
    """Cancel an upload."""
    service: Service = request.app.state.service
    upload = _pending(service, request.path_params["upload_id"])
    ended = _end(service, upload.id, {"status": "cancelled"})
    _forget_parts(service, upload.id)
    return JSONResponse(ended.document)


def _pending(service: Service, name: str) -> StoredObject:
    """An upload that still takes parts. Raises 404, and 400 for one that has ended."""
    upload = service.store.get("upload", name)
    if upload is None:
        raise not_found("Upload", name, "upload_id")
    if upload.document["status"] == "pending" and upload.document["expires_at"] <= service.clock():
        upload = _end(service, name, {"status": "expired"})
        _forget_parts(service, name)
    if upload.document["status"] != "pending":
        raise invalid(f"{name} is {upload.document['status']}, not pending.", "upload_id", "invalid_upload_state")
    return upload


def _end(service: Service, name: str, changes: dict[str, Any]) -> StoredObject:
    return service.store.update("upload", name, lambda stored: replace(stored, document={**stored.document, **changes}))


def _forget_parts(service: Service, name: str) -> None:
    for part in service.store.every("part", parent=name):
        service.store.remove("part", part.id)
        (service.incoming / part.id).unlink(missing_ok=True)


def _join(service: Service, parts: list[Path], joined: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with disk_full_is_an_error(service.incoming), joined.open("wb") as out:
        for path in parts:
            with path.open("rb") as part:
                while piece := part.read(1 << 20):
                    digest.update(piece)
                    out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()
