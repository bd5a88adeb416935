"""What handlers of answers need of their request: whether its client is still there, and which deployment its path names."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import Request

from ftbridge.server.http.addresses import DEPLOYMENT
from ftbridge.server.http.errors import ApiError

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. It is cancelled, and frees its place, as soon as the client closes the connection.

    To be called once the body has been read. Raises `ApiError` 499, which nobody reads but the access log.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "The client closed the connection.", code="client_closed")
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while True:
        if (await request.receive())["type"] == "http.disconnect":
            return


def deployed(request: Request, document: dict[str, Any]) -> dict[str, Any]:
    """The body, with the deployment of one of Azure's paths as its model."""
    name = request.scope.get(DEPLOYMENT)
    return {**document, "model": name} if name else document


def count(request: Request, model: str, usage: Mapping[str, Any]) -> None:
    """Count the tokens of an answer for /metrics."""
    request.app.state.metrics.count_tokens(model, usage["prompt_tokens"], usage.get("completion_tokens", 0))
