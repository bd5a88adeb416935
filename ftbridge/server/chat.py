"""POST /chat/completions: whole, or as a stream of pieces."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionTokenLogprob
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.providers.local.hosting.requests import ContextTooLong, End, Piece, Start, Told
from ftbridge.server.asking import body
from ftbridge.server.chat_request import CreateChat, to_ask
from ftbridge.server.errors import ApiError, invalid
from ftbridge.server.service import Service


async def create(request: Request) -> Response:
    """POST /chat/completions."""
    service: Service = request.app.state.service
    asked = await body(request, CreateChat)
    if not asked.stream:
        return JSONResponse(await completed(service, asked))
    told = _answer(service, asked, name := service.new_id("chatcmpl-"))
    first = await _first(told)
    lines = _lines(told, first, _Shape(name, service.now(), asked.model), _usage_wanted(asked))
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


async def completed(service: Service, asked: CreateChat) -> dict[str, Any]:
    """The whole answer, as the body of a response. Raises `ApiError`."""
    name = service.new_id("chatcmpl-")
    answers = [_Text() for _ in range(asked.n or 1)]
    prompt = 0
    async with aclosing(_answer(service, asked, name)) as told:
        async for said in told:
            if isinstance(said, Start):
                prompt = said.prompt_tokens
            elif isinstance(said, Piece):
                answers[said.index].take(said)
            else:
                answers[said.index].end = said
    done = ChatCompletion(
        id=name,
        object="chat.completion",
        created=service.now(),
        model=asked.model,
        choices=cast(Any, [answer.choice(index, bool(asked.logprobs)) for index, answer in enumerate(answers)]),
        usage=_usage(prompt, [answer.end for answer in answers if answer.end is not None]),
        service_tier="default",
    )
    return done.to_dict()


async def _answer(service: Service, asked: CreateChat, name: str) -> AsyncGenerator[Told, None]:
    """What the engine says; its errors as the API's."""
    ask = to_ask(asked, name)
    service.engine.answerable(asked.model)
    try:
        async with aclosing(cast(Any, service.engine.answer(asked.model, ask))) as told:
            async for said in told:
                yield said
    except ApiError:
        raise
    except ContextTooLong as error:
        raise invalid(error.message, "messages", "context_length_exceeded") from None
    except UsageError as error:
        raise invalid(str(error), "messages", "invalid_value") from None
    except FtbridgeError as error:
        raise ApiError(503, str(error), code="engine_failed") from None


async def _first(told: AsyncIterator[Told]) -> Told | None:
    """The first word, so that what is refused is refused with its status, before a stream begins."""
    async for said in told:
        return said
    return None


@dataclass
class _Text:
    """One answer as it grows."""

    parts: list[str] = field(default_factory=list)
    tokens: list[ChatCompletionTokenLogprob] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    end: End | None = None

    def take(self, piece: Piece) -> None:
        self.parts.append(piece.text)
        self.calls += piece.tool_calls
        if (token := _token(piece)) is not None:
            self.tokens.append(token)

    def choice(self, index: int, logprobs: bool) -> dict[str, Any]:
        text = "".join(self.parts)
        message = {"role": "assistant", "content": text if text or not self.calls else None, "refusal": None}
        if self.calls:
            message["tool_calls"] = cast(Any, self.calls)
        return {
            "index": index,
            "message": message,
            "finish_reason": "tool_calls" if self.calls else self.end.finish_reason if self.end else "stop",
            "logprobs": {"content": [token.to_dict() for token in self.tokens], "refusal": None} if logprobs else None,
        }


@dataclass(frozen=True)
class _Shape:
    """What all pieces of one stream share."""

    id: str
    created: int
    model: str

    def line(self, choices: list[dict[str, Any]], usage: CompletionUsage | None = None) -> bytes:
        chunk = ChatCompletionChunk(
            id=self.id,
            object="chat.completion.chunk",
            created=self.created,
            model=self.model,
            choices=cast(Any, choices),
            usage=usage,
        ).to_dict(exclude_unset=True)
        if usage is None:
            chunk.pop("usage", None)
        return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def _lines(told: AsyncIterator[Told], first: Told | None, shape: _Shape, usage: bool) -> AsyncIterator[bytes]:
    """Server-sent events. An error in the middle is sent as a last event, since the status has gone out already."""
    begun: set[int] = set()
    called: set[int] = set()
    ends: list[End] = []
    prompt = first.prompt_tokens if isinstance(first, Start) else 0
    async with aclosing(cast(Any, told)):
        try:
            async for said in told:
                if isinstance(said, Start):
                    continue
                if said.index not in begun:
                    begun.add(said.index)
                    yield shape.line([_choice(said.index, {"role": "assistant", "content": "", "refusal": None})])
                if isinstance(said, End):
                    ends.append(said)
                    reason = "tool_calls" if said.index in called else said.finish_reason
                    yield shape.line([_choice(said.index, {}, reason)])
                    continue
                delta: dict[str, Any] = {"content": said.text} if said.text or said.token is not None else {}
                if said.tool_calls:
                    called.add(said.index)
                    delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(said.tool_calls)]
                token = _token(said)
                logprobs = {"content": [token.to_dict()], "refusal": None} if token else None
                if delta:
                    yield shape.line([_choice(said.index, delta, logprobs=logprobs)])
        except ApiError as error:
            yield b"data: " + json.dumps(error.document()).encode() + b"\n\n"
            return
    if usage:
        yield shape.line([], _usage(prompt, ends))
    yield b"data: [DONE]\n\n"


def _choice(index: int, delta: dict[str, Any], reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _token(piece: Piece) -> ChatCompletionTokenLogprob | None:
    """A token's log probability (nats), and those of the likeliest in its place."""
    if piece.token is None or piece.logprob is None:
        return None
    top = [{"token": text, "bytes": list(text.encode()), "logprob": logprob} for text, logprob in piece.top]
    return ChatCompletionTokenLogprob(
        token=piece.token, bytes=list(piece.token.encode()), logprob=piece.logprob, top_logprobs=cast(Any, top)
    )


def _usage(prompt: int, ends: list[End]) -> CompletionUsage:
    completion = sum(end.completion_tokens for end in ends)
    return CompletionUsage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def _usage_wanted(asked: CreateChat) -> bool:
    return asked.stream_options is not None and bool(asked.stream_options.include_usage)
