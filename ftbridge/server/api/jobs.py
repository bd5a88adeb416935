"""/fine_tuning/jobs: create, list, look, cancel, pause, resume, events, checkpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ftbridge.server import jobs_store
from ftbridge.server.api import files
from ftbridge.server.http import pages
from ftbridge.server.http.addresses import AZURE
from ftbridge.server.http.errors import ApiError, invalid
from ftbridge.server.http.validation import document, read, understood
from ftbridge.server.requests.job import CreateJob
from ftbridge.server.service import Service
from ftbridge.server.store import StoredObject

EVENT_SECONDS = 0.25
"""How often a stream looks for new events."""
KEEP_ALIVE_SECONDS = 15.0


async def create(request: Request) -> Response:
    """Create a fine-tuning job. The job checks the data later: errors in them make it fail."""
    service: Service = request.app.state.service
    request_document = await document(request)
    if request.scope.get(AZURE):
        training_type(request_document)
    create_job = understood(request_document, CreateJob)
    service.engine.accept(create_job)
    create_job = create_job.model_copy(update={"model": service.engine.model_id(create_job.model)})
    for param, name in (("training_file", create_job.training_file), ("validation_file", create_job.validation_file)):
        if name is None:
            continue
        stored_file = files.find(service, name, param)
        if stored_file.document["purpose"] != "fine-tune":
            purpose = stored_file.document["purpose"]
            raise invalid(f"{name} was uploaded for {purpose}, not for fine-tune.", param, "invalid_file_purpose")
        if stored_file.document["status"] == "error":
            raise invalid(
                f"{name} could not be processed: {stored_file.document.get('status_details')}", param, "invalid_file"
            )
        if stored_file.document["status"] == "uploaded":
            raise invalid(f"{name} is not ready yet; try again in a moment.", param, "file_not_ready")
    job = jobs_store.open_job(service, create_job)
    service.engine.created(job)
    return JSONResponse(jobs_store.find_job(service, job.id).document)


TRAINING_TYPES = ("standard", "globalstandard", "developertier", "developer")


def training_type(request_document: dict[str, Any]) -> None:
    """Take Azure's `trainingType` out of a job's body: where it would be trained there, which means nothing here.

    Raises `ApiError` 400 for a type that Azure does not have.
    """
    for key in ("trainingType", "training_type"):
        kind = request_document.pop(key, None)
        if kind is not None and str(kind).lower() not in (*TRAINING_TYPES, "0", "1", "2"):
            raise invalid(f"'{key}' must be Standard, GlobalStandard or Developer.", key, "invalid_value")


async def list_jobs(request: Request) -> Response:
    """List jobs, newest first; `metadata[k]=v` selects those that have it, `metadata=null` those without any."""
    service: Service = request.app.state.service
    where: dict[str, str | None] = {}
    allowed = set()
    for name, value in request.query_params.multi_items():
        if name == "metadata":
            if value != "null":
                raise invalid("'metadata' must be null, or given as metadata[key]=value.", "metadata", "invalid_value")
            where["$.metadata"] = None
        elif name.startswith("metadata[") and name.endswith("]"):
            key = name[len("metadata[") : -1]
            if '"' in key or "\\" in key:
                raise invalid(f"{key!r} cannot be looked for.", "metadata", "invalid_value")
            where[f'$.metadata."{key}"'] = value
        else:
            continue
        allowed.add(name)
    shown = pages.page(service.store, request, "job", where=where, named_ends=False, allowed=frozenset(allowed))
    return JSONResponse(shown)


async def retrieve(request: Request) -> Response:
    """Retrieve a job."""
    service: Service = request.app.state.service
    service.engine.looked_at(_job(request))
    return JSONResponse(_job(request).document)


async def cancel(request: Request) -> Response:
    """Cancel a job that has not ended."""
    job = await _acted_on(request)
    if job.document["status"] in jobs_store.TERMINAL:
        raise _not_now(job, "cancelled")
    return await _after(request, job, request.app.state.service.engine.cancel)


async def pause(request: Request) -> Response:
    """Pause a running job."""
    job = await _acted_on(request)
    if job.document["status"] != "running":
        raise _not_now(job, "paused")
    return await _after(request, job, request.app.state.service.engine.pause)


async def resume(request: Request) -> Response:
    """Resume a paused job: it is queued again."""
    job = await _acted_on(request)
    if job.document["status"] != "paused":
        raise _not_now(job, "resumed")
    return await _after(request, job, request.app.state.service.engine.resume)


async def events(request: Request) -> Response:
    """List events, newest first; with `stream=true` send all as they come, oldest first, until the job has ended."""
    job = _job(request)
    service: Service = request.app.state.service
    if request.query_params.get("stream", "").lower() in ("true", "1"):
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(_event_lines(service, job.id), media_type="text/event-stream", headers=headers)
    return JSONResponse(pages.page(service.store, request, "event", parent=job.id, named_ends=False))


async def checkpoints(request: Request) -> Response:
    """List checkpoints, newest first."""
    job = _job(request)
    service: Service = request.app.state.service
    return JSONResponse(pages.page(service.store, request, "checkpoint", parent=job.id, default=10))


async def _event_lines(service: Service, name: str) -> AsyncIterator[bytes]:
    """Server-sent events: one for each of a job's, a comment now and then so that the connection lives, [DONE] at the end."""
    last: str | None = None
    quiet = 0.0
    while True:
        service.engine.advance()
        over = jobs_store.is_over(service, name)
        fresh = service.store.page("event", parent=name, after=last, limit=1000, newest_first=False) or []
        for event in fresh:
            last = event.id
            yield b"data: " + json.dumps(event.document, ensure_ascii=False).encode() + b"\n\n"
        if fresh:
            quiet = 0.0
            continue
        if over:
            yield b"data: [DONE]\n\n"
            return
        if quiet >= KEEP_ALIVE_SECONDS:
            quiet = 0.0
            yield b": still at work\n\n"
        await asyncio.sleep(EVENT_SECONDS)
        quiet += EVENT_SECONDS


def _job(request: Request) -> StoredObject:
    return jobs_store.find_job(request.app.state.service, request.path_params["fine_tuning_job_id"])


async def _acted_on(request: Request) -> StoredObject:
    await read(request, 1 << 20)  # no body is published for these; what is sent is not looked at
    return _job(request)


async def _after(request: Request, job: StoredObject, act: object) -> Response:
    await act(job)  # type: ignore[operator]
    return JSONResponse(_job(request).document)


def _not_now(job: StoredObject, wish: str) -> ApiError:
    return invalid(
        f"{job.id} is {job.document['status']} and cannot be {wish}.", "fine_tuning_job_id", "invalid_job_state"
    )
