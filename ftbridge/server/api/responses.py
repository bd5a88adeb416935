"""/responses: OpenAI's newer interface over the same engine, whole or as its named events, kept until it is deleted."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ftbridge.providers.local.inference.requests import StreamDelta, StreamEnd, StreamEvent, StreamStart
from ftbridge.server.api import chat
from ftbridge.server.http.connection import count, deployed, while_connected
from ftbridge.server.http.errors import ApiError, invalid, not_found
from ftbridge.server.http.pages import number
from ftbridge.server.http.validation import document, understood
from ftbridge.server.requests.responses import CreateResponse, to_chat, to_messages
from ftbridge.server.service import Service
from ftbridge.server.store import StoredObject

Event = tuple[str, dict[str, Any]]


async def create(request: Request) -> Response:
    """Create a response to text, messages or items."""
    service: Service = request.app.state.service
    response_request = understood(deployed(request, await document(request)), CreateResponse)
    if not response_request.stream:
        done = await while_connected(request, completed(service, response_request))
        _count(request, done)
        return JSONResponse(done)
    response, events = _begun(service, response_request)
    first = await while_connected(request, chat.first_word(events))
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_lines(request, response, events, first), media_type="text/event-stream", headers=headers)


async def completed(service: Service, response_request: CreateResponse) -> dict[str, Any]:
    """The whole response, kept unless the client asked not to. Raises `ApiError`."""
    response, events = _begun(service, response_request)
    async with aclosing(events):
        async for event in events:
            for _ in response.take(event):
                pass
    for _ in response.finish():
        pass
    response.keep()
    return response.document()


def _begun(service: Service, response_request: CreateResponse) -> tuple[_Answer, AsyncGenerator[StreamEvent, None]]:
    """A response that has nothing yet, and what the engine says."""
    asked_chat, messages = to_chat(response_request, _before(service, response_request.previous_response_id))
    response = _Answer(service, response_request, messages)
    return response, chat.generate(service, asked_chat, response.name, buffered=not response_request.stream)


async def retrieve(request: Request) -> Response:
    """Retrieve a stored response."""
    return JSONResponse(_kept(request).document)


async def delete(request: Request) -> Response:
    """Delete a stored response."""
    stored = _kept(request)
    request.app.state.service.store.remove("response", stored.id)
    return JSONResponse({"id": stored.id, "object": "response", "deleted": True})


async def cancel(request: Request) -> Response:
    """Cancel a response. Only those in the background can be cancelled, and none is."""
    stored = _kept(request)
    raise invalid(f"{stored.id} is not in the background and cannot be cancelled.", "response_id", "invalid_value")


async def input_items(request: Request) -> Response:
    """List the input items of a response, newest first."""
    stored, query = _kept(request), request.query_params
    items = stored.extra["input"]
    items = items if query.get("order") == "asc" else items[::-1]
    if (after := query.get("after")) is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise invalid(f"There is no item {after[:100]!r} to continue after.", "after", "invalid_cursor")
        items = items[ids.index(after) + 1 :]
    limit = number(query.get("limit"), "limit", 20, 100)
    shown, more = items[:limit], len(items) > limit
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return JSONResponse({"object": "list", "data": shown, "has_more": more, **ends})


def _kept(request: Request) -> StoredObject:
    name = request.path_params["response_id"]
    stored = request.app.state.service.store.get("response", name)
    if stored is None:
        raise not_found("response", name, "response_id")
    return cast(StoredObject, stored)


def _before(service: Service, name: str | None) -> list[dict[str, Any]]:
    """The messages up to and with an earlier response."""
    if name is None:
        return []
    stored = service.store.get("response", name)
    if stored is None:
        raise ApiError(
            400, f"Previous response with id {name[:100]!r} not found.", param="previous_response_id",
            code="previous_response_not_found",
        )  # fmt: skip
    return list(stored.extra["messages"])


async def _lines(
    request: Request, response: _Answer, events: AsyncIterator[StreamEvent], first: StreamEvent | None
) -> AsyncIterator[bytes]:
    """Server-sent events. An error in the middle is `response.failed`, since the status has gone out already."""
    sequence = 0

    def line(event: Event) -> bytes:
        nonlocal sequence
        kind, fields = event
        body = json.dumps(
            {"type": kind, "sequence_number": sequence, **fields}, ensure_ascii=False, separators=(",", ":")
        )
        sequence += 1
        return f"event: {kind}\ndata: {body}\n\n".encode()

    yield line(("response.created", {"response": response.document()}))
    yield line(("response.in_progress", {"response": response.document()}))
    try:
        async with aclosing(cast(Any, events)):
            for event in response.take(first) if first is not None else ():
                yield line(event)
            async for stream_event in events:
                for event in response.take(stream_event):
                    yield line(event)
    except ApiError as error:
        failed = {
            **response.document(),
            "status": "failed",
            "error": {"code": "server_error", "message": error.message},
        }
        yield line(("response.failed", {"response": failed}))
        return
    for event in response.finish():
        yield line(event)
    response.keep()
    _count(request, response.document())
    yield line((f"response.{response.status}", {"response": response.document()}))


def _count(request: Request, done: dict[str, Any]) -> None:
    """Count a response's tokens for /metrics."""
    usage = done["usage"]
    count(request, done["model"], {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]})


class _Answer:
    """One response as it grows: its output items, and the events that tell of them."""

    def __init__(self, service: Service, response_request: CreateResponse, messages: list[dict[str, Any]]) -> None:
        self.service, self.request, self.messages = service, response_request, messages
        self.name = service.new_id("resp_", 32)
        self.model = service.engine.model_id(response_request.model)
        self.created = service.now()
        self.status = "in_progress"
        self.output: list[dict[str, Any]] = []
        self.open: dict[str, Any] | None = None
        self.prompt = self.completion = self.reasoned = 0
        self.cut = False

    def take(self, event: StreamEvent) -> Iterator[Event]:
        """The events of one more word of the engine."""
        if isinstance(event, StreamStart):
            self.prompt = event.prompt_tokens
        elif isinstance(event, StreamEnd):
            self.completion, self.cut = event.completion_tokens, event.finish_reason == "length"
            self.reasoned = event.reasoning_tokens
        elif isinstance(event, StreamDelta):
            if event.reasoning:
                yield from self._reasoning(event.reasoning)
            token = chat.token_of(event)
            if event.text or (token is not None and not event.reasoning and not event.tool_calls):
                yield from self._text(event.text, [token.to_dict()] if token is not None else [])
            for delta in event.tool_calls:
                yield from self._call(delta)

    def finish(self) -> Iterator[Event]:
        """The last events before the end."""
        if not self.output:
            yield from self._begin({"type": "message", "role": "assistant", "content": []}, "msg_")
            yield from self._begin_part({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
        yield from self._close("incomplete" if self.cut else "completed")
        self.status = "incomplete" if self.cut else "completed"

    def keep(self) -> None:
        """Put it into the store, with the conversation so far, unless the client asked not to."""
        if self.request.store is False:
            return
        reply = to_messages(self.output, "output")
        items = self.request.input
        listed = [{"type": "message", "role": "user", "content": items}] if isinstance(items, str) else items
        named = [{"id": self.service.new_id("item_"), **_shown_item(item)} for item in listed]
        extra = {"messages": [*self.messages, *reply], "input": named}
        self.service.store.add(StoredObject("response", self.name, self.document(), extra))

    def document(self) -> dict[str, Any]:
        """The response as it stands."""
        response_request = self.request
        usage = {
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.completion,
            "output_tokens_details": {"reasoning_tokens": self.reasoned},
            "total_tokens": self.prompt + self.completion,
        }
        ended = self.status != "in_progress"
        text = response_request.text.model_dump(exclude_none=True, by_alias=True) if response_request.text else {}
        return {
            "id": self.name,
            "object": "response",
            "created_at": self.created,
            "completed_at": self.service.now() if self.status == "completed" else None,
            "status": self.status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if self.status == "incomplete" else None,
            "instructions": response_request.instructions,
            "max_output_tokens": response_request.max_output_tokens,
            "max_tool_calls": response_request.max_tool_calls,
            "model": self.model,
            "output": self.output if ended else [],
            "parallel_tool_calls": response_request.parallel_tool_calls is not False,
            "previous_response_id": response_request.previous_response_id,
            "reasoning": {"effort": (response_request.reasoning or {}).get("effort"), "summary": None},
            "service_tier": "default",
            "store": response_request.store is not False,
            "temperature": 1.0 if response_request.temperature is None else response_request.temperature,
            "text": {"format": {"type": "text"}, **text},
            "tool_choice": response_request.tool_choice or "auto",
            "tools": [{"strict": None, "parameters": None, **tool} for tool in response_request.tools or []],
            "top_logprobs": response_request.top_logprobs or 0,
            "top_p": 1.0 if response_request.top_p is None else response_request.top_p,
            "truncation": "disabled",
            "usage": usage if ended else None,
            "user": response_request.user,
            "metadata": response_request.metadata or {},
        }

    def _reasoning(self, text: str) -> Iterator[Event]:
        if self.open is None or self.open["type"] != "reasoning":
            yield from self._begin({"type": "reasoning", "summary": [], "content": []}, "rs_")
            yield from self._begin_part({"type": "reasoning_text", "text": ""})
        yield from self._delta(text, "response.reasoning_text.delta")

    def _text(self, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        if self.open is None or self.open["type"] != "message":
            yield from self._begin({"type": "message", "role": "assistant", "content": []}, "msg_")
            yield from self._begin_part({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
        assert self.open is not None
        self.open["content"][0]["logprobs"] += logprobs
        yield from self._delta(text, "response.output_text.delta", logprobs=logprobs)

    def _call(self, delta: dict[str, Any]) -> Iterator[Event]:
        function = delta["function"]
        if "id" in delta:
            item = {"type": "function_call", "call_id": delta["id"], "name": function["name"], "arguments": ""}
            yield from self._begin(item, "fc_")
        assert self.open is not None
        if function["arguments"]:
            self.open["arguments"] += function["arguments"]
            event = {**self._place(), "delta": function["arguments"]}
            yield "response.function_call_arguments.delta", event

    def _place(self) -> dict[str, Any]:
        assert self.open is not None
        return {"item_id": self.open["id"], "output_index": len(self.output) - 1}

    def _begin(self, item: dict[str, Any], prefix: str) -> Iterator[Event]:
        yield from self._close("completed")
        self.open = {"id": self.service.new_id(prefix, 32), "status": "in_progress", **item}
        self.output.append(self.open)
        shown = json.loads(json.dumps(self.open))
        yield "response.output_item.added", {"output_index": len(self.output) - 1, "item": shown}

    def _begin_part(self, part: dict[str, Any]) -> Iterator[Event]:
        assert self.open is not None
        self.open["content"].append(part)
        yield "response.content_part.added", {**self._place(), "content_index": 0, "part": dict(part)}

    def _delta(self, text: str, kind: str, **more: Any) -> Iterator[Event]:
        assert self.open is not None
        self.open["content"][0]["text"] += text
        yield kind, {**self._place(), "content_index": 0, "delta": text, **more}

    def _close(self, status: str) -> Iterator[Event]:
        if self.open is None:
            return
        self.open["status"] = status
        if self.open["type"] == "function_call":
            fields = {"arguments": self.open["arguments"], "name": self.open["name"]}
            yield "response.function_call_arguments.done", {**self._place(), **fields}
        else:
            part = self.open["content"][0]
            kind = "output_text" if part["type"] == "output_text" else "reasoning_text"
            more: dict[str, Any] = {"logprobs": part["logprobs"]} if kind == "output_text" else {}
            yield f"response.{kind}.done", {**self._place(), "content_index": 0, "text": part["text"], **more}
            yield "response.content_part.done", {**self._place(), "content_index": 0, "part": part}
        yield "response.output_item.done", {"output_index": len(self.output) - 1, "item": dict(self.open)}
        self.open = None


def _shown_item(item: dict[str, Any]) -> dict[str, Any]:
    """An input item as it is listed: content as parts."""
    item_document = {"type": "message", **item}
    if item_document["type"] == "message" and isinstance(item_document.get("content"), str):
        kind = "output_text" if item_document.get("role") == "assistant" else "input_text"
        item_document["content"] = [{"type": kind, "text": item_document["content"]}]
    return {key: value for key, value in item_document.items() if key != "id" or value}
