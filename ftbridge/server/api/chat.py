"""POST /chat/completions: whole, or as a stream of pieces."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionTokenLogprob
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.providers.local.inference.requests import (
    ContextTooLong,
    Embedding,
    GenerationRequest,
    StreamDelta,
    StreamEnd,
    StreamEvent,
    StreamStart,
)
from ftbridge.server.http.connection import count, deployed, while_connected
from ftbridge.server.http.errors import ApiError, invalid, without_paths
from ftbridge.server.http.pages import PROJECT
from ftbridge.server.http.validation import document, understood
from ftbridge.server.requests.chat import CreateChat, to_ask
from ftbridge.server.service import Service
from ftbridge.server.simulator import organization

log = logging.getLogger("ftbridge.server")


async def create(request: Request) -> Response:
    """Create a chat completion."""
    service: Service = request.app.state.service
    chat = understood(deployed(request, await document(request)), CreateChat)
    if not chat.stream:
        working = completed(service, chat)
        # OpenAI finishes, and bills, a request whose client has gone; a scripted account does so too.
        done = await (working if service.account is not None else while_connected(request, working))
        count(request, done["model"], done["usage"])
        if chat.store and service.account is not None:
            organization.keep(service, chat, done, request.scope.get(PROJECT))
        return JSONResponse(done)
    events = generate(service, chat, name := service.new_id("chatcmpl-"))
    first = await while_connected(request, first_word(events))
    lines = _lines(
        events,
        first,
        _Shape(name, service.now(), chat, service.engine.model_id(chat.model)),
        _usage_wanted(chat),
        request,
    )
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


async def completed(service: Service, chat: CreateChat) -> dict[str, Any]:
    """The whole answer, as the body of a response. Raises `ApiError`."""
    name = service.new_id("chatcmpl-")
    texts = [_Text() for _ in range(chat.n or 1)]
    prompt = 0
    async with aclosing(generate(service, chat, name, buffered=True)) as events:
        async for event in events:
            if isinstance(event, StreamStart):
                prompt = event.prompt_tokens
            elif isinstance(event, StreamDelta):
                texts[event.index].take(event)
            elif isinstance(event, StreamEnd):
                texts[event.index].end = event
    done = ChatCompletion(
        id=name,
        object="chat.completion",
        created=service.now(),
        model=service.engine.model_id(chat.model),
        choices=cast(Any, [text.choice(index, chat) for index, text in enumerate(texts)]),
        usage=usage_of(prompt, [text.end for text in texts if text.end is not None]),
        service_tier="default",
    )
    return done.to_dict()


async def generate(
    service: Service, chat: CreateChat, name: str, *, buffered: bool = False
) -> AsyncGenerator[StreamEvent, None]:
    """What the engine says; its errors as the API's. `whole`: nothing is wanted before the end."""
    ask = to_ask(chat, name).model_copy(update={"at_end": buffered})
    async with aclosing(generated(service, chat.model, ask)) as events:
        async for event in events:
            yield event


async def generated(
    service: Service, model: str, ask: GenerationRequest, where: str = "messages"
) -> AsyncGenerator[StreamEvent, None]:
    """What the engine says to an ask; its errors as the API's, about the field `where`."""
    service.engine.answerable(model)
    try:
        async with aclosing(cast(Any, service.engine.generate(model, ask))) as events:
            async for event in events:
                yield event
    except ApiError:
        raise
    except ContextTooLong as error:
        raise invalid(error.message, where, "context_length_exceeded") from None
    except UsageError as error:
        raise invalid(without_paths(str(error)), where, "invalid_value") from None
    except FtbridgeError as error:
        log.error("%s: %s", ask.id, error)
        raise ApiError(503, without_paths(error.message), code="engine_failed") from None
    except Exception as error:
        log.error("%s", ask.id, exc_info=error)
        raise ApiError(500, "The server had an internal error; see its log.", code="internal_error") from None


async def first_word(events: AsyncIterator[StreamEvent]) -> StreamEvent | None:
    """The first word, so that what is refused is refused with its status, before a stream begins."""
    async for event in events:
        return event
    return None


@dataclass
class _Text:
    """One answer as it grows."""

    parts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    tokens: list[ChatCompletionTokenLogprob] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    end: StreamEnd | None = None

    def take(self, piece: StreamDelta) -> None:
        self.parts.append(piece.text)
        self.thoughts.append(piece.reasoning)
        for delta in piece.tool_calls:
            add_call(self.calls, delta)
        if (token := token_of(piece)) is not None:
            self.tokens.append(token)

    def choice(self, index: int, chat: CreateChat) -> dict[str, Any]:
        text, thoughts = "".join(self.parts), "".join(self.thoughts)
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not self.calls else None}
        message |= {"refusal": None, "annotations": []}
        if thoughts:
            message["reasoning_content"] = thoughts
        if self.calls and chat.functions is not None:
            message["function_call"] = self.calls[0]["function"]
        elif self.calls:
            message["tool_calls"] = self.calls
        logprobs = {"content": [token.to_dict() for token in self.tokens], "refusal": None} if chat.logprobs else None
        reason = self.end.finish_reason if self.end else "stop"
        return {
            "index": index,
            "message": message,
            "finish_reason": finish_reason(reason, bool(self.calls), chat),
            "logprobs": logprobs,
        }


def add_call(calls: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    """Put a piece of a call where it belongs."""
    if "id" in delta:
        calls.append({"id": delta["id"], "type": "function", "function": dict(delta["function"])})
    else:
        calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]


def finish_reason(reason: str, called: bool, chat: CreateChat) -> str:
    """OpenAI's word: a call that was cut short is told as `length`."""
    if not called or reason == "length":
        return reason
    return "tool_calls" if chat.functions is None else "function_call"


@dataclass(frozen=True)
class _Shape:
    """What all pieces of one stream share."""

    id: str
    created: int
    chat: CreateChat
    model: str

    def line(self, choices: list[dict[str, Any]], usage: CompletionUsage | None = None) -> bytes:
        # A plain dict: a stream has hundreds of these a second, and a model of the SDK costs ten times as much to make.
        chunk: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if usage is not None:
            chunk["usage"] = usage.to_dict()
        elif _usage_wanted(self.chat):
            chunk["usage"] = None
        return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def _lines(
    events: AsyncIterator[StreamEvent], first: StreamEvent | None, shape: _Shape, usage: bool, request: Request
) -> AsyncIterator[bytes]:
    """Server-sent events. An error in the middle is sent as a last event, since the status has gone out already."""
    begun: set[int] = set()
    called: set[int] = set()
    ends: list[StreamEnd] = []
    prompt = first.prompt_tokens if isinstance(first, StreamStart) else 0
    async with aclosing(cast(Any, events)):
        try:
            async for event in events:
                if isinstance(event, (StreamStart, Embedding)):
                    continue
                if event.index not in begun:
                    begun.add(event.index)
                    yield shape.line([_choice(event.index, {"role": "assistant", "content": "", "refusal": None})])
                if isinstance(event, StreamEnd):
                    ends.append(event)
                    reason = finish_reason(event.finish_reason, event.index in called, shape.chat)
                    yield shape.line([_choice(event.index, {}, reason)])
                    continue
                delta = _delta(event, shape.chat)
                if event.tool_calls:
                    called.add(event.index)
                token = token_of(event)
                logprobs = {"content": [token.to_dict()], "refusal": None} if token else None
                if delta:
                    yield shape.line([_choice(event.index, delta, logprobs=logprobs)])
        except ApiError as error:
            yield b"data: " + json.dumps(error.document()).encode() + b"\n\n"
            return
    used = usage_of(prompt, ends)
    count(request, shape.model, used.to_dict())
    if usage:
        yield shape.line([], used)
    yield b"data: [DONE]\n\n"


def _delta(piece: StreamDelta, chat: CreateChat) -> dict[str, Any]:
    """What a piece adds to the message."""
    delta: dict[str, Any] = {"content": piece.text} if piece.text or piece.token is not None else {}
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.tool_calls and chat.functions is not None:
        delta["function_call"] = piece.tool_calls[0]["function"]
    elif piece.tool_calls:
        delta["tool_calls"] = piece.tool_calls
    return delta


def _choice(index: int, delta: dict[str, Any], reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def token_of(piece: StreamDelta) -> ChatCompletionTokenLogprob | None:
    """A token's log probability (nats), and those of the likeliest in its place."""
    if piece.token is None or piece.logprob is None:
        return None
    top = [{"token": text, "bytes": list(text.encode()), "logprob": logprob} for text, logprob in piece.top]
    return ChatCompletionTokenLogprob(
        token=piece.token, bytes=list(piece.token.encode()), logprob=piece.logprob, top_logprobs=cast(Any, top)
    )


def usage_of(prompt: int, ends: list[StreamEnd]) -> CompletionUsage:
    """The tokens of a prompt and its answers, with the details that clients read without looking."""
    completion = sum(end.completion_tokens for end in ends)
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=0, audio_tokens=0),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=sum(end.reasoning_tokens for end in ends),
            audio_tokens=0,
            accepted_prediction_tokens=0,
            rejected_prediction_tokens=0,
        ),
    )


def _usage_wanted(chat: CreateChat) -> bool:
    return chat.stream_options is not None and bool(chat.stream_options.include_usage)
