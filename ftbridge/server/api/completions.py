"""POST /completions: text that goes on, without a chat template; with `echo` and `logprobs`, a text's own probabilities."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ftbridge.providers.local.inference.requests import Ask, Embedding, End, Piece, Start
from ftbridge.server.api import chat
from ftbridge.server.http.connection import count, deployed, while_connected
from ftbridge.server.http.errors import ApiError, invalid
from ftbridge.server.http.validation import Asked, document, understood
from ftbridge.server.requests.chat import StreamOptions, biases
from ftbridge.server.service import Service

MOST_PROMPTS = 2048


class CreateCompletion(Asked):
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
    """POST /completions: one or several texts, each with what follows it."""
    service: Service = request.app.state.service
    asked = understood(deployed(request, await document(request)), CreateCompletion)
    name, model = service.new_id("cmpl-"), service.engine.model_id(asked.model)
    if not asked.stream:
        done = await while_connected(request, completed(service, asked))
        count(request, model, done["usage"])
        return JSONResponse(done)
    lines = _lines(request, asked, to_asks(asked, name), _shape(service, name, model))
    first = await while_connected(request, _next(lines))
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_after(first, lines), media_type="text/event-stream", headers=headers)


async def completed(service: Service, asked: CreateCompletion) -> dict[str, Any]:
    """The whole completion, as the body of a response. Raises `ApiError`."""
    name = service.new_id("cmpl-")
    choices, prompt, ends = await _whole(service, asked, to_asks(asked, name))
    usage = chat.usage_of(prompt, ends).to_dict()
    return {**_shape(service, name, service.engine.model_id(asked.model)), "choices": choices, "usage": usage}


def _shape(service: Service, name: str, model: str) -> dict[str, Any]:
    """What all pieces of one completion share."""
    return {"id": name, "object": "text_completion", "created": service.now(), "model": model}


def to_asks(asked: CreateCompletion, name: str) -> list[Ask]:
    """One ask for each prompt. Raises `ApiError` 400 for what cannot be done."""
    if asked.suffix:
        raise invalid("'suffix' cannot be acted on here; leave it out.", "suffix", "unsupported_parameter")
    if asked.best_of not in (None, 0, asked.n or 1):
        raise invalid("'best_of' cannot be acted on here; leave it out.", "best_of", "unsupported_parameter")
    stops = [asked.stop] if isinstance(asked.stop, str) else list(asked.stop or [])
    if len(stops) > 4 or not all(stops):
        raise invalid("'stop' takes 1 to 4 texts, none of them empty.", "stop", "invalid_value")
    prompts = _prompts(asked.prompt)
    if len(prompts) > MOST_PROMPTS:
        raise invalid(f"'prompt' holds more than {MOST_PROMPTS:,} texts.", "prompt", "invalid_value")
    return [
        Ask(
            id=f"{name}-{place}",
            prompt=prompt,
            echo=bool(asked.echo),
            max_tokens=16 if asked.max_tokens is None else asked.max_tokens,
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_p=asked.top_p or (1.0 if asked.top_p is None else 1e-6),
            n=asked.n or 1,
            stop=stops,
            seed=asked.seed,
            logprobs=asked.logprobs,
            presence_penalty=asked.presence_penalty or 0.0,
            frequency_penalty=asked.frequency_penalty or 0.0,
            repetition_penalty=asked.repetition_penalty or 1.0,
            top_k=asked.top_k if asked.top_k and asked.top_k > 0 else None,
            min_p=asked.min_p or 0.0,
            logit_bias=biases(asked.logit_bias),
        )
        for place, prompt in enumerate(prompts)
    ]


def _prompts(told: str | list[Any] | None) -> list[str | list[int]]:
    """Each prompt: a text, or tokens."""
    if told is None or told == []:
        return [""]
    if isinstance(told, str):
        return [told]
    return [cast("list[int]", told)] if isinstance(told[0], int) else list(told)


class _Choice:
    """One text as it grows, with the old form of log probabilities: lists side by side."""

    def __init__(self, index: int, logprobs: bool) -> None:
        self.index, self.logprobs = index, logprobs
        self.text = ""
        self.tokens: list[tuple[str, float | None, dict[str, float] | None, int]] = []
        self.reason: str | None = None

    def take(self, piece: Piece) -> None:
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
            logprobs = {key: [token[place] for token in self.tokens] for place, key in enumerate(keys)}
        return {"text": self.text, "index": self.index, "logprobs": logprobs, "finish_reason": self.reason}


async def _whole(
    service: Service, asked: CreateCompletion, asks: list[Ask]
) -> tuple[list[dict[str, Any]], int, list[End]]:
    choices: list[dict[str, Any]] = []
    prompt, ends = 0, []
    for ask in asks:
        texts = [_Choice(len(choices) + index, asked.logprobs is not None) for index in range(ask.n)]
        async with aclosing(chat.answered(service, asked.model, ask, "prompt")) as told:
            async for said in told:
                if isinstance(said, Start):
                    prompt += said.prompt_tokens
                elif isinstance(said, End):
                    texts[said.index].reason = said.finish_reason
                    ends.append(said)
                elif isinstance(said, Piece):
                    texts[said.index].take(said)
        choices += [text.document() for text in texts]
    return choices, prompt, ends


async def _lines(
    request: Request, asked: CreateCompletion, asks: list[Ask], shape: dict[str, Any]
) -> AsyncIterator[bytes]:
    service: Service = request.app.state.service
    wanted = asked.stream_options is not None and bool(asked.stream_options.include_usage)
    prompt, begun, ends = 0, False, []

    def line(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        told = {**shape, "choices": choices, **({"usage": usage} if wanted else {})}
        return b"data: " + json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

    offsets: dict[int, str] = {}
    try:
        for place, ask in enumerate(asks):
            async with aclosing(chat.answered(service, asked.model, ask, "prompt")) as told:
                async for said in told:
                    if isinstance(said, Start):
                        prompt += said.prompt_tokens
                        continue
                    if isinstance(said, Embedding):
                        continue
                    begun = True
                    index = place * ask.n + said.index
                    piece = _Choice(index, asked.logprobs is not None)
                    if isinstance(said, End):
                        piece.reason = said.finish_reason
                        piece.logprobs = False
                        ends.append(said)
                    else:
                        piece.take(said)
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
