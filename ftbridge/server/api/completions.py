"""POST /completions: text that goes on, without a chat template; with `echo` and `logprobs`, a text's own probabilities."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ftbridge.providers.local.inference.requests import (
    Embedding,
    GenerationRequest,
    StreamDelta,
    StreamEnd,
    StreamStart,
)
from ftbridge.server.api import chat
from ftbridge.server.http.connection import count, deployed, while_connected
from ftbridge.server.http.errors import ApiError, invalid
from ftbridge.server.http.validation import RequestBody, document, understood
from ftbridge.server.requests.chat import StreamOptions, biases
from ftbridge.server.service import Service

MOST_PROMPTS = 2048


class CreateCompletion(RequestBody):
    """The body, every field of the published interface."""

    model: str = Field(min_length=1)
    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    stop: str | list[str] | None = None
    seed: int | None = None
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=20)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    best_of: int | None = Field(default=None, ge=0, le=20)
    suffix: str | None = None
    user: str | None = None


async def create(request: Request) -> Response:
    """Create a completion of one or several texts."""
    service: Service = request.app.state.service
    completion = understood(deployed(request, await document(request)), CreateCompletion)
    name, model = service.new_id("cmpl-"), service.engine.model_id(completion.model)
    if not completion.stream:
        done = await while_connected(request, completed(service, completion))
        count(request, model, done["usage"])
        return JSONResponse(done)
    lines = _lines(request, completion, to_asks(completion, name), _shape(service, name, model))
    first = await while_connected(request, _next(lines))
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_after(first, lines), media_type="text/event-stream", headers=headers)


async def completed(service: Service, completion: CreateCompletion) -> dict[str, Any]:
    """The whole completion, as the body of a response. Raises `ApiError`."""
    name = service.new_id("cmpl-")
    choices, prompt, ends = await _whole(service, completion, to_asks(completion, name))
    usage = chat.usage_of(prompt, ends).to_dict()
    return {**_shape(service, name, service.engine.model_id(completion.model)), "choices": choices, "usage": usage}


def _shape(service: Service, name: str, model: str) -> dict[str, Any]:
    """What all pieces of one completion share."""
    return {"id": name, "object": "text_completion", "created": service.now(), "model": model}


def to_asks(completion: CreateCompletion, name: str) -> list[GenerationRequest]:
    """One ask for each prompt. Raises `ApiError` 400 for what cannot be done."""
    if completion.suffix:
        raise invalid("'suffix' is not supported here; leave it out.", "suffix", "unsupported_parameter")
    if completion.best_of not in (None, 0, completion.n or 1):
        raise invalid("'best_of' is not supported here; leave it out.", "best_of", "unsupported_parameter")
    stops = [completion.stop] if isinstance(completion.stop, str) else list(completion.stop or [])
    if len(stops) > 4 or not all(stops):
        raise invalid("'stop' takes 1 to 4 texts, none of them empty.", "stop", "invalid_value")
    prompts = _prompts(completion.prompt)
    if len(prompts) > MOST_PROMPTS:
        raise invalid(f"'prompt' holds more than {MOST_PROMPTS:,} texts.", "prompt", "invalid_value")
    return [
        GenerationRequest(
            id=f"{name}-{index}",
            prompt=prompt,
            echo=bool(completion.echo),
            max_tokens=16 if completion.max_tokens is None else completion.max_tokens,
            temperature=1.0 if completion.temperature is None else completion.temperature,
            top_p=completion.top_p or (1.0 if completion.top_p is None else 1e-6),
            n=completion.n or 1,
            stop=stops,
            seed=completion.seed,
            logprobs=completion.logprobs,
            presence_penalty=completion.presence_penalty or 0.0,
            frequency_penalty=completion.frequency_penalty or 0.0,
            repetition_penalty=completion.repetition_penalty or 1.0,
            top_k=completion.top_k if completion.top_k and completion.top_k > 0 else None,
            min_p=completion.min_p or 0.0,
            logit_bias=biases(completion.logit_bias),
        )
        for index, prompt in enumerate(prompts)
    ]


def _prompts(prompt: str | list[Any] | None) -> list[str | list[int]]:
    """Each prompt: a text, or tokens."""
    if prompt is None or prompt == []:
        return [""]
    if isinstance(prompt, str):
        return [prompt]
    return [cast("list[int]", prompt)] if isinstance(prompt[0], int) else list(prompt)


class _Choice:
    """One text as it grows, with the old form of log probabilities: lists side by side."""

    def __init__(self, index: int, logprobs: bool) -> None:
        self.index, self.logprobs = index, logprobs
        self.text = ""
        self.tokens: list[tuple[str, float | None, dict[str, float] | None, int]] = []
        self.reason: str | None = None

    def take(self, piece: StreamDelta) -> None:
        """More of it."""
        if piece.token is not None:
            top = dict(piece.top) if piece.logprob is not None else None
            self.tokens.append((piece.token, piece.logprob, top, len(self.text)))
        self.text += piece.text

    def document(self) -> dict[str, Any]:
        """The choice."""
        logprobs = None
        if self.logprobs:
            keys = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
            logprobs = {key: [token[index] for token in self.tokens] for index, key in enumerate(keys)}
        return {"text": self.text, "index": self.index, "logprobs": logprobs, "finish_reason": self.reason}


async def _whole(
    service: Service, completion: CreateCompletion, asks: list[GenerationRequest]
) -> tuple[list[dict[str, Any]], int, list[StreamEnd]]:
    choices: list[dict[str, Any]] = []
    prompt, ends = 0, []
    for ask in asks:
        texts = [_Choice(len(choices) + index, completion.logprobs is not None) for index in range(ask.n)]
        async with aclosing(chat.generated(service, completion.model, ask, "prompt")) as events:
            async for event in events:
                if isinstance(event, StreamStart):
                    prompt += event.prompt_tokens
                elif isinstance(event, StreamEnd):
                    texts[event.index].reason = event.finish_reason
                    ends.append(event)
                elif isinstance(event, StreamDelta):
                    texts[event.index].take(event)
        choices += [text.document() for text in texts]
    return choices, prompt, ends


async def _lines(
    request: Request, completion: CreateCompletion, asks: list[GenerationRequest], shape: dict[str, Any]
) -> AsyncIterator[bytes]:
    service: Service = request.app.state.service
    wanted = completion.stream_options is not None and bool(completion.stream_options.include_usage)
    prompt, begun, ends = 0, False, []

    def line(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        chunk = {**shape, "choices": choices, **({"usage": usage} if wanted else {})}
        return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

    offsets: dict[int, str] = {}
    try:
        for choice_index, ask in enumerate(asks):
            async with aclosing(chat.generated(service, completion.model, ask, "prompt")) as events:
                async for event in events:
                    if isinstance(event, StreamStart):
                        prompt += event.prompt_tokens
                        continue
                    if isinstance(event, Embedding):
                        continue
                    begun = True
                    index = choice_index * ask.n + event.index
                    piece = _Choice(index, completion.logprobs is not None)
                    if isinstance(event, StreamEnd):
                        piece.reason = event.finish_reason
                        piece.logprobs = False
                        ends.append(event)
                    else:
                        piece.take(event)
                    shown = piece.document()
                    if shown["logprobs"]:
                        shown["logprobs"]["text_offset"] = [len(offsets.get(index, ""))] * len(piece.tokens)
                    offsets[index] = offsets.get(index, "") + piece.text
                    yield line([shown])
    except ApiError as error:
        if not begun:
            raise
        yield b"data: " + json.dumps(error.document()).encode() + b"\n\n"
        return
    used = chat.usage_of(prompt, ends).to_dict()
    count(request, shape["model"], used)
    if wanted:
        yield line([], used)
    yield b"data: [DONE]\n\n"


async def _next(lines: AsyncIterator[bytes]) -> bytes:
    return await anext(lines)


async def _after(first: bytes, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(cast(Any, lines)):
        yield first
        async for line in lines:
            yield line
