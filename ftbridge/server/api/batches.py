"""/batches of chats, responses, completions and embeddings: lines answered in the background, joined by custom_id.

A restart goes on where it was.

validating ─▶ in_progress ─▶ finalizing ─▶ completed
│             └─▶ cancelling ─▶ cancelled
└─▶ failed                                        answers so far: SERVER/batches/ID.jsonl
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from openai.types import Batch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ftbridge.server.api import chat, completions, embeddings, files, responses
from ftbridge.server.api.completions import CreateCompletion
from ftbridge.server.api.embeddings import CreateEmbedding
from ftbridge.server.api.uploads import ExpiresAfter
from ftbridge.server.http import pages
from ftbridge.server.http.errors import ApiError, invalid, not_found
from ftbridge.server.http.validation import Metadata, RequestBody, body, read, require_text, understood
from ftbridge.server.requests.chat import CreateChat
from ftbridge.server.requests.responses import CreateResponse
from ftbridge.server.service import Service
from ftbridge.server.simulator.account import AccountBatch
from ftbridge.server.simulator.inject import line_result
from ftbridge.server.store import StoredObject

log = logging.getLogger("ftbridge.server")

AT_ONCE = 32
"""Lines that are with the engine at the same time."""
_DAY = 24 * 3600
_UNDER_WAY = frozenset({"validating", "in_progress", "finalizing", "cancelling"})


class CreateBatch(RequestBody):
    """POST /batches. Azure's client leaves out `/v1`."""

    input_file_id: str
    endpoint: Literal[
        "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings",
        "/chat/completions", "/responses", "/completions", "/embeddings",
    ]  # fmt: skip
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


async def _chat(service: Service, line: dict[str, Any]) -> dict[str, Any]:
    return await chat.completed(service, _whole(understood(line, CreateChat)))


async def _response(service: Service, line: dict[str, Any]) -> dict[str, Any]:
    return await responses.completed(service, _whole(understood(line, CreateResponse)))


async def _completion(service: Service, line: dict[str, Any]) -> dict[str, Any]:
    return await completions.completed(service, _whole(understood(line, CreateCompletion)))


async def _embedding(service: Service, line: dict[str, Any]) -> dict[str, Any]:
    return await embeddings.embed(service, understood(line, CreateEmbedding))


_ANSWERS: dict[str, Callable[[Service, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
    "chat/completions": _chat,
    "responses": _response,
    "completions": _completion,
    "embeddings": _embedding,
}
"""What answers a line, by the end of its address."""

_Streamable = TypeVar("_Streamable", CreateChat, CreateResponse, CreateCompletion)


def _whole(body: _Streamable) -> _Streamable:
    """The body, which must not ask for a stream."""
    if body.stream:
        raise invalid("A batch cannot stream.", "stream", "invalid_value")
    return body


def _place(url: str) -> str:
    """An address without its version: Azure's client leaves it out, and lines are often written for both."""
    return url.removeprefix("/v1").strip("/")


class OpenBatches:
    """The batches that are under way."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Go on with those of an earlier process."""
        for stored in self.service.store.every("batch"):
            if stored.document["status"] in _UNDER_WAY:
                self.take(stored.id)

    def take(self, name: str) -> None:
        """Work on a batch in the background."""
        self._tasks[name] = task = asyncio.create_task(_work(self.service, name))
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    def cancel(self, name: str) -> None:
        """End it; what is answered stays."""
        if name in self._tasks:
            self._tasks[name].cancel()

    async def stop(self) -> None:
        """Put all down, to be taken up again by `start`."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel("stop")
        await asyncio.gather(*tasks, return_exceptions=True)


async def create(request: Request) -> Response:
    """Create a batch."""
    service: Service = request.app.state.service
    request_body = await body(request, CreateBatch)
    input_file = files.find(service, request_body.input_file_id, "input_file_id")
    if input_file.document["purpose"] != "batch":
        raise invalid(
            f"{input_file.id} was uploaded for {input_file.document['purpose']}, not for batch.",
            "input_file_id",
            "invalid_file",
        )
    if request_body.output_expires_after is not None:
        files.expiry(0, request_body.output_expires_after.anchor, request_body.output_expires_after.seconds)
    now = service.now()
    shown: dict[str, Any] = Batch(
        id=service.new_id("batch_"),
        object="batch",
        endpoint=request_body.endpoint,
        input_file_id=request_body.input_file_id,
        completion_window=request_body.completion_window,
        status="validating",
        created_at=now,
        expires_at=now + _DAY,
        metadata=request_body.metadata,
        request_counts=cast(Any, {"total": 0, "completed": 0, "failed": 0}),
    ).to_dict(exclude_unset=True, exclude_none=False)
    extra = {"expires": request_body.output_expires_after.seconds if request_body.output_expires_after else None}
    service.store.add(StoredObject("batch", shown["id"], shown, extra))
    request.app.state.batches.take(shown["id"])
    return JSONResponse(shown)


async def list_batches(request: Request) -> Response:
    """List batches, newest first."""
    return JSONResponse(pages.page(request.app.state.service.store, request, "batch"))


async def retrieve(request: Request) -> Response:
    """Retrieve a batch."""
    return JSONResponse(_batch(request).document)


async def cancel(request: Request) -> Response:
    """Cancel a batch."""
    await read(request, 1 << 20)
    batch = _batch(request)
    service: Service = request.app.state.service
    if batch.document["status"] not in _UNDER_WAY:
        state = batch.document["status"]
        raise invalid(f"{batch.id} is {state} and cannot be cancelled.", "batch_id", "invalid_batch_state")
    shown = _change(service, batch.id, status="cancelling", cancelling_at=service.now())
    request.app.state.batches.cancel(batch.id)
    return JSONResponse(shown.document)


def _batch(request: Request) -> StoredObject:
    name = request.path_params["batch_id"]
    stored = request.app.state.service.store.get("batch", name)
    if stored is None:
        raise not_found("batch", name, "batch_id")
    return cast(StoredObject, stored)


def _change(service: Service, name: str, **fields: Any) -> StoredObject:
    return service.store.update("batch", name, lambda stored: replace(stored, document={**stored.document, **fields}))


async def _work(service: Service, name: str) -> None:
    so_far = service.folder / "batches" / f"{name}.jsonl"
    try:
        if service.store.get("batch", name).document["status"] != "cancelling":  # type: ignore[union-attr]
            lines = _validated(service, name)
            if lines is None:
                return
            counts = {"total": len(lines), "completed": 0, "failed": 0}
            _change(service, name, status="in_progress", in_progress_at=service.now(), request_counts=counts)
            ending = service.account.batch_ending(lines) if service.account is not None else None
            if service.account is not None:
                await asyncio.sleep(service.account.account.batch_seconds)
            if ending is not None:
                await _end_badly(service, name, lines, so_far, ending)
                return
            await _answer_all(service, name, lines, so_far)
            _change(service, name, status="finalizing", finalizing_at=service.now())
        _finish(service, name, so_far)
    except asyncio.CancelledError as stopped:
        if stopped.args and stopped.args[0] == "stop":
            raise
        _finish(service, name, so_far)
    except Exception:  # a full disk, or a fault of ours: a batch that nobody works on must not stay in progress
        log.exception("batch %s failed", name)
        text = "The server failed while it worked on this batch; its log has the reason."
        _fail(service, name, _problem_of("server_error", text))


def _problem_of(code: str | None, message: str, line: int | None = None) -> dict[str, Any]:
    return {"code": code, "line": line, "message": message, "param": None}


def _fail(service: Service, name: str, *problems: dict[str, Any]) -> None:
    errors = {"object": "list", "data": list(problems[:100])}
    _change(service, name, status="failed", failed_at=service.now(), errors=errors)


async def _end_badly(
    service: Service, name: str, lines: list[dict[str, Any]], so_far: Path, ending: AccountBatch
) -> None:
    """End a batch as an account has it: failed with nothing done, or expired with what was done by then."""
    if ending.ends == "failed":
        text = "Enqueued token limit reached for this model in this organization. Try again when batches have ended."
        _fail(service, name, _problem_of(ending.code, text))
        return
    await _answer_all(service, name, lines[: ending.after], so_far)
    text = "This request could not be executed before the completion window expired."
    with so_far.open("a", encoding="utf-8") as out:
        for line in lines[ending.after :]:
            result = {"id": service.new_id("batch_req_"), "custom_id": line["custom_id"], "response": None}
            out.write(json.dumps({**result, "error": {"code": "batch_expired", "message": text}}) + "\n")
    _change(service, name, request_counts={"total": len(lines), "completed": ending.after, "failed": 0})
    _finish(service, name, so_far, "expired")


def _validated(service: Service, name: str) -> list[dict[str, Any]] | None:
    """The lines, or None when the batch has failed because of them."""
    batch = service.store.get("batch", name)
    assert batch is not None
    path = service.files / batch.document["input_file_id"]
    lines, problems = [], []
    seen: set[str] = set()
    for number, line in _objects(path):
        problem = _problem(line, seen, batch.document["endpoint"])
        if problem is not None:
            problems.append(_problem_of("invalid_request", problem, number))
        lines.append(line)
    if len(lines) > service.limits.batch_lines:
        text = f"The file has {len(lines):,} lines; {service.limits.batch_lines:,} are allowed."
        problems.append(_problem_of("too_many_lines", text))
    if not lines:
        problems.append(_problem_of("empty_file", "The file has no lines."))
    if problems:
        _fail(service, name, *problems)
        return None
    return lines


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, json.loads(line)


def _problem(line: dict[str, Any], seen: set[str], endpoint: str) -> str | None:
    """What is wrong with a line of a batch for `endpoint`."""
    try:
        require_text(line)
    except ApiError as error:
        return error.message
    custom = line.get("custom_id")
    if not isinstance(custom, str) or not custom:
        return "custom_id is missing."
    if custom in seen:
        return f"custom_id {custom!r} is in the file twice."
    seen.add(custom)
    if line.get("method") != "POST" or _place(str(line.get("url"))) != _place(endpoint):
        return f"method and url must be POST {endpoint}, as the batch says."
    if not isinstance(line.get("body"), dict):
        return "body must be a JSON object."
    return None


async def _answer_all(service: Service, name: str, lines: list[dict[str, Any]], so_far: Path) -> None:
    """Answer what has no answer yet; every answer is written as it comes."""
    so_far.parent.mkdir(parents=True, exist_ok=True)
    results = _read(so_far)
    counts = {"total": len(lines), "completed": 0, "failed": 0}
    for result in results.values():
        counts[_kind(result)] += 1
    waiting = iter([line for line in lines if line["custom_id"] not in results])
    _mend(so_far)
    with so_far.open("a", encoding="utf-8") as out:

        async def work() -> None:
            for line in waiting:
                result = await _answer(service, line)
                out.write(_line(result))
                out.flush()
                counts[_kind(result)] += 1
                _change(service, name, request_counts=dict(counts))

        workers = [asyncio.create_task(work()) for _ in range(AT_ONCE)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


async def _answer(service: Service, line: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"id": service.new_id("batch_req_"), "custom_id": line["custom_id"]}
    endpoint = _place(line["url"])

    async def complete() -> tuple[int, dict[str, Any]]:
        try:
            return 200, await _ANSWERS[endpoint](service, line["body"])
        except ApiError as error:
            return error.status, error.document()
        except Exception as error:  # one line must not end the batch
            log.error("%s", line["custom_id"], exc_info=error)
            failed = ApiError(500, "The server had an internal error; see its log.", code="internal_error")
            return failed.status, failed.document()

    status, document = await line_result(service.faults, endpoint, line["body"], complete)
    return {**result, "response": {"status_code": status, "request_id": result["id"], "body": document}, "error": None}


def _finish(service: Service, name: str, so_far: Path, ended: str | None = None) -> None:
    """Put answers and errors in files of their own, as OpenAI does, and end the batch."""
    batch = service.store.get("batch", name)
    assert batch is not None
    results = _read(so_far)
    outputs: dict[str, Any] = {}
    lasts = batch.extra.get("expires")
    with service.store.change():
        for kind, field, label in (("completed", "output_file_id", "output"), ("failed", "error_file_id", "error")):
            chosen = [result for result in results.values() if _kind(result) == kind]
            if chosen:
                content = "".join(map(_line, chosen)).encode()
                stored_file = files.keep_bytes(
                    service,
                    content,
                    f"{name}_{label}.jsonl",
                    "batch_output",
                    expires_at=None if lasts is None else service.now() + lasts,
                )
                outputs[field] = stored_file.id
        bodies = [result["response"]["body"] for result in results.values() if _kind(result) == "completed"]
        usage = [body["usage"] for body in bodies if body.get("usage")]
        if usage:
            prompt = sum(part["prompt_tokens"] if "prompt_tokens" in part else part["input_tokens"] for part in usage)
            out = sum(part.get("completion_tokens", part.get("output_tokens", 0)) for part in usage)
            outputs["usage"] = {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": out,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": prompt + out,
            }
        ended = ended or ("cancelled" if batch.document["status"] == "cancelling" else "completed")
        _change(service, name, status=ended, **{f"{ended}_at": service.now()}, **outputs)
    with contextlib.suppress(OSError):
        so_far.unlink()


def _line(result: dict[str, Any]) -> str:
    """A line of a file of results; half of an emoji, which UTF-8 does not have, is escaped."""
    text = json.dumps(result, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(result)
    return f"{text}\n"


def _mend(path: Path) -> None:
    """Cut off a line torn by a crash, so that the next begins a line of its own."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        with path.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


def _kind(result: dict[str, Any]) -> str:
    response = result["response"]
    return "completed" if response is not None and response["status_code"] < 400 else "failed"


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Whole answers by custom_id; a line torn by a crash is none."""
    results: dict[str, dict[str, Any]] = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        with contextlib.suppress(ValueError):
            document = json.loads(line)
            results[document["custom_id"]] = document
    return results
