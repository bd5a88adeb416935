"""/models: what can be asked. Base models come from the engine, tuned ones from the books."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from openai.types import ModelDeleted
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ftbridge.server.http.errors import ApiError, not_found
from ftbridge.server.http.pages import PROJECT
from ftbridge.server.service import Service
from ftbridge.server.simulator import organization


async def list_models(request: Request) -> Response:
    """List models, all in one page."""
    service: Service = request.app.state.service
    stored, base = service.store.every("model"), service.engine.base_models()
    tuned = [one.document for one in stored]
    if (state := service.account) is not None:
        now = service.clock()
        tuned = organization.shown_models(state, stored, request.scope.get(PROJECT), now)
        base = organization.base_shutdowns(state, base, now)
    return JSONResponse({"object": "list", "data": [*base, *tuned]})


async def retrieve(request: Request) -> Response:
    """Retrieve a model."""
    service: Service = request.app.state.service
    name = request.path_params["model"]
    stored = service.store.get("model", name)
    if stored is not None:
        return JSONResponse(stored.document)
    full = service.engine.model_id(name)
    for shown in service.engine.base_models():
        if shown["id"] == full:
            return JSONResponse(shown)
    raise no_model(name)


def full_name(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that a client means: that name, its newest dated form, or the first pattern (`gpt-*`) that fits.

    OpenAI answers `gpt-4o-mini` with the newest `gpt-4o-mini-YYYY-MM-DD`; a name without a date is what most code has.
    """
    known_names = list(names)
    if name in known_names:
        return name
    dated = [one for one in known_names if re.fullmatch(re.escape(name) + r"-\d{4}-\d{2}-\d{2}", one)]
    if dated:
        return max(dated)
    return next((one for one in known_names if "*" in one and fnmatchcase(name, one)), None)


async def delete(request: Request) -> Response:
    """Delete a tuned model: it is no longer offered. Base models stay."""
    service: Service = request.app.state.service
    name = request.path_params["model"]
    if any(shown["id"] == name for shown in service.engine.base_models()):
        raise ApiError(403, f"{name} is a base model; only tuned models can be deleted.", code="permission_denied")
    if not service.store.remove("model", name):
        raise no_model(name)
    return JSONResponse(ModelDeleted(id=name, deleted=True, object="model").to_dict())


def no_model(name: str) -> ApiError:
    """404 with the code that clients look for."""
    error = not_found("model", name, "model")
    error.code = "model_not_found"
    return error
