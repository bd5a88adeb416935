"""Request bodies and queries, read strictly: a field the interface does not have is refused, as OpenAI refuses it.

Every model of a body derives from `Asked`; what pydantic finds wrong becomes one `ApiError` that names the first field.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import ClientDisconnect, Request

from ftbridge.server.errors import ApiError, invalid

MAX_JSON_BYTES = 64 << 20
"""A chat with its images fits in this; more is refused before it is read."""

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]
"""At most 16 pairs; keys of at most 64 and values of at most 512 characters."""


class Asked(BaseModel):
    """A request body or a part of one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


AnyAsked = TypeVar("AnyAsked", bound=BaseModel)


async def body(request: Request, model: type[AnyAsked]) -> AnyAsked:
    """The JSON body as `model`. Raises `ApiError` 400 for what is not, 413 for one too large."""
    return understood(await document(request), model)


async def document(request: Request) -> dict[str, Any]:
    """The JSON object in the body."""
    content = await read(request, MAX_JSON_BYTES)
    if not content.strip():
        return {}
    try:
        told = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise invalid(f"The body is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(told, dict):
        raise invalid("The body must be a JSON object.", code="invalid_json")
    return told


async def read(request: Request, limit: int) -> bytes:
    """The body's bytes, at most `limit` of them."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
    except ClientDisconnect:
        raise invalid("The connection closed before the whole body came.") from None
    return b"".join(parts)


def too_large(limit: int) -> ApiError:
    """413, with the limit in the largest unit that tells it."""
    return ApiError(413, f"The body is larger than {limit >> 20:,} MiB, the most that is taken here.", code="too_large")


def understood(told: dict[str, Any], model: type[AnyAsked]) -> AnyAsked:
    """`told` as `model`, or an `ApiError` about its first problem."""
    try:
        return model.model_validate(told)
    except ValidationError as error:
        raise _first(error) from None


def _first(error: ValidationError) -> ApiError:
    """Unknown fields first, since they explain what else is missing; then in the order of the body."""
    problems = error.errors(include_url=False, include_context=False)
    chosen = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    param = _path(chosen["loc"])
    match chosen["type"]:
        case "extra_forbidden":
            return invalid(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
        case "missing":
            return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
        case kind if kind.endswith(("_type", "_parsing")):
            return invalid(f"'{param}' has the wrong type: {_lower(chosen['msg'])}.", param, "invalid_type")
        case _:
            return invalid(f"'{param}' is not acceptable: {_lower(chosen['msg'])}.", param, "invalid_value")


def _path(loc: tuple[int | str, ...]) -> str:
    """`method.supervised.hyperparameters.n_epochs`, `messages[0].content`; the names of union members left out."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in _MEMBERS:
            path += f".{part}" if path else part
    return path


_MEMBERS = frozenset({"int", "float", "str", "bool", "list", "dict"})


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
