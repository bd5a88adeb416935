"""/fine_tuning/jobs: create, list, look, cancel, pause, resume, events, checkpoints."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ftbridge.server import book, files, pages
from ftbridge.server.asking import body, read
from ftbridge.server.errors import ApiError, invalid
from ftbridge.server.job_request import CreateJob
from ftbridge.server.service import Service
from ftbridge.server.store import Kept


async def create(request: Request) -> Response:
    """POST /fine_tuning/jobs. The data are checked later, by the job: their errors show as a job that failed."""
    service: Service = request.app.state.service
    asked = await body(request, CreateJob)
    service.engine.accept(asked)
    for param, name in (("training_file", asked.training_file), ("validation_file", asked.validation_file)):
        if name is None:
            continue
        kept = files.find(service, name, param)
        if kept.document["purpose"] != "fine-tune":
            purpose = kept.document["purpose"]
            raise invalid(f"{name} was uploaded for {purpose}, not for fine-tune.", param, "invalid_file_purpose")
        if kept.document["status"] == "error":
            raise invalid(
                f"{name} could not be processed: {kept.document.get('status_details')}", param, "invalid_file"
            )
        if kept.document["status"] == "uploaded":
            raise invalid(f"{name} is not ready yet; try again in a moment.", param, "file_not_ready")
    job = book.open_job(service, asked)
    service.engine.created(job)
    return JSONResponse(book.find_job(service, job.id).document)


async def list_jobs(request: Request) -> Response:
    """GET /fine_tuning/jobs, newest first; `metadata[k]=v` for those that have it, `metadata=null` for those with none."""
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
    """GET /fine_tuning/jobs/{fine_tuning_job_id}."""
    return JSONResponse(_job(request).document)


async def cancel(request: Request) -> Response:
    """POST …/cancel, from any state that is not an end."""
    job = await _acted_on(request)
    if job.document["status"] in book.TERMINAL:
        raise _not_now(job, "cancelled")
    return await _after(request, job, request.app.state.service.engine.cancel)


async def pause(request: Request) -> Response:
    """POST …/pause, while it runs."""
    job = await _acted_on(request)
    if job.document["status"] != "running":
        raise _not_now(job, "paused")
    return await _after(request, job, request.app.state.service.engine.pause)


async def resume(request: Request) -> Response:
    """POST …/resume, of a paused job: it is queued again."""
    job = await _acted_on(request)
    if job.document["status"] != "paused":
        raise _not_now(job, "resumed")
    return await _after(request, job, request.app.state.service.engine.resume)


async def events(request: Request) -> Response:
    """GET …/events, newest first."""
    job = _job(request)
    service: Service = request.app.state.service
    return JSONResponse(pages.page(service.store, request, "event", parent=job.id, named_ends=False))


async def checkpoints(request: Request) -> Response:
    """GET …/checkpoints, newest first."""
    job = _job(request)
    service: Service = request.app.state.service
    return JSONResponse(pages.page(service.store, request, "checkpoint", parent=job.id, default=10))


def _job(request: Request) -> Kept:
    return book.find_job(request.app.state.service, request.path_params["fine_tuning_job_id"])


async def _acted_on(request: Request) -> Kept:
    await read(request, 1 << 20)  # no body is published for these; what is sent is not looked at
    return _job(request)


async def _after(request: Request, job: Kept, act: object) -> Response:
    await act(job)  # type: ignore[operator]
    return JSONResponse(_job(request).document)


def _not_now(job: Kept, wish: str) -> ApiError:
    return invalid(
        f"{job.id} is {job.document['status']} and cannot be {wish}.", "fine_tuning_job_id", "invalid_job_state"
    )
