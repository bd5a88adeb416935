"""POST /embeddings: texts as vectors, the mean of a chat model's last states.

    text ─▶ tokens ─▶ last layer's states ─▶ their mean ─▶ length 1

Chat models are not trained for search: an embedding model finds better. What is served here keeps a program that needs
vectors running beside its chats, and tells near texts from far ones.
"""

from __future__ import annotations

import base64
import struct
from contextlib import aclosing
from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ftbridge.providers.local.inference.requests import Embedding, GenerationRequest, StreamStart
from ftbridge.server.api import chat
from ftbridge.server.http.connection import count, deployed, while_connected
from ftbridge.server.http.errors import invalid
from ftbridge.server.http.validation import RequestBody, document, understood
from ftbridge.server.service import Service

MOST_TEXTS = 2048
"""Texts of one request, as at OpenAI."""


class CreateEmbedding(RequestBody):
    """The body of the published interface."""

    model: str = Field(min_length=1)
    input: str | list[str] | list[int] | list[list[int]]
    dimensions: int | None = Field(default=None, ge=1, le=16_384)
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


async def create(request: Request) -> Response:
    """Create embeddings: a vector of length 1 for each text."""
    service: Service = request.app.state.service
    body = understood(deployed(request, await document(request)), CreateEmbedding)
    embedded = await while_connected(request, embed(service, body))
    count(request, embedded["model"], embedded["usage"])
    return JSONResponse(embedded)


async def embed(service: Service, body: CreateEmbedding) -> dict[str, Any]:
    """The body of the response. Raises `ApiError`."""
    name = service.new_id("embd-")
    vectors: list[list[float]] = []
    tokens = 0
    for index, text in enumerate(_texts(body.input)):
        ask = GenerationRequest(id=f"{name}-{index}", prompt=text, embed=True, dimensions=body.dimensions)
        async with aclosing(chat.generated(service, body.model, ask, "input")) as pieces:
            async for piece in pieces:
                if isinstance(piece, StreamStart):
                    tokens += piece.prompt_tokens
                elif isinstance(piece, Embedding):
                    vectors.append(piece.values)
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": service.engine.model_id(body.model), "usage": usage}


def _texts(value: str | list[Any]) -> list[str | list[int]]:
    """Each text, or its tokens."""
    texts: list[str | list[int]] = [value] if isinstance(value, str) or (value and isinstance(value[0], int)) else value
    if not texts or not all(texts):
        raise invalid("'input' must hold at least one text, and no empty one.", "input", "invalid_value")
    if len(texts) > MOST_TEXTS:
        raise invalid(f"'input' holds more than {MOST_TEXTS:,} texts.", "input", "invalid_value")
    return texts


def _encoded(vector: list[float], encoding: str | None) -> list[float] | str:
    """Numbers, or the base64 of their 32-bit floats, little-endian, which the SDKs ask for."""
    if encoding != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
