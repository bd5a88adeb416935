"""POST /embeddings: refused, in words. Chat models' hidden states are no embeddings to search with, and none is served here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ftbridge.server.asking import Asked, document, understood
from ftbridge.server.connection import deployed
from ftbridge.server.errors import invalid


class CreateEmbedding(Asked):
    """The body of the published interface."""

    model: str = Field(min_length=1)
    input: str | list[str] | list[int] | list[list[int]]
    dimensions: int | None = Field(default=None, ge=1)
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


async def create(request: Request) -> Response:
    """POST /embeddings: not served; the error says so."""
    asked = understood(deployed(request, await document(request)), CreateEmbedding)
    raise invalid(
        f"No embeddings are made here: {asked.model[:100]!r} would be a chat model, which was not trained for them. Ask an "
        "embedding model's own server.",
        "model",
        "embeddings_not_served",
    )
