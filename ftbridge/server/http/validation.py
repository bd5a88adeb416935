"""Request bodies and queries, read strictly: a field the interface does not have is refused, as OpenAI refuses it.

Every model of a body derives from `Asked`; what pydantic finds wrong becomes one `ApiError` that names the first field.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import ClientDisconnect, Request

from ftbridge import strict_json
from ftbridge.server.http.errors import ApiError, invalid
from ftbridge.spec.problems import closest, field_of

MAX_JSON_BYTES = 64 << 20
"""A chat with its images fits in this; more is refused before it is read."""

MOST_LEVELS = 128
"""How deep objects and lists of a body may be nested."""

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]
"""At most 16 pairs; keys of at most 64 and values of at most 512 characters."""


class RequestBody(BaseModel):
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
    _require_json(request)
    try:
        parsed = strict_json.loads(content.decode(json.detect_encoding(content)), duplicate_keys=True)
    except ValueError as error:
        raise invalid(f"The body is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(parsed, dict):
        raise invalid("The body must be a JSON object.", code="invalid_json")
    require_text(parsed)
    return parsed


def _require_json(request: Request) -> None:
    """415 for a body of another type. A web page can send text/plain and forms anywhere without being asked first."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ApiError(415, f"The body must be application/json, not {kind[:100]}.", code="unsupported_content_type")
    if not kind and request.headers.get("origin") is not None:
        raise ApiError(415, "The body must be sent as application/json.", code="unsupported_content_type")


def require_text(document: Any) -> None:
    """Raise `ApiError` 400 for values that no other program could read back.

    Those are halves of a surrogate pair (half an emoji, as JavaScript cuts them), numbers beyond a double, and nesting
    deeper than `MOST_LEVELS`. The error names the place, as in `messages[0].content`.
    """
    level: list[tuple[tuple[int | str, ...], Any]] = [((), document)]
    for _ in range(MOST_LEVELS):
        below: list[tuple[tuple[int | str, ...], Any]] = []
        for where, value in level:
            if isinstance(value, str):
                _require_whole(value, where)
            elif isinstance(value, float) and not math.isfinite(value):
                raise invalid(f"'{field_of(where)}' is beyond the largest number.", field_of(where), "invalid_value")
            elif isinstance(value, dict):
                for key in value:
                    _require_whole(key, where)
                below += [((*where, key), part) for key, part in value.items()]
            elif isinstance(value, list):
                below += [((*where, index), part) for index, part in enumerate(value)]
        if not below:
            return
        level = below
    raise invalid(f"The body is nested deeper than {MOST_LEVELS} levels.", code="invalid_json")


def _require_whole(text: str, where: tuple[int | str, ...]) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        path = field_of(where)
        raise invalid(
            f"'{path or 'the body'}' holds half of a character (a lone surrogate, \\u{ord(text[error.start]):04x}); "
            "it was probably cut in the middle of an emoji.",
            path or None,
            "invalid_unicode",
        ) from None


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
        raise invalid("The connection closed before the complete body arrived.") from None
    return b"".join(parts)


def too_large(limit: int) -> ApiError:
    """413, with the limit in the largest unit that tells it."""
    return ApiError(413, f"The body is larger than {limit >> 20:,} MiB, the most that is taken here.", code="too_large")


def understood(request_document: dict[str, Any], model: type[AnyAsked]) -> AnyAsked:
    """`told` as `model`, or an `ApiError` about its first problem."""
    try:
        return model.model_validate(request_document)
    except ValidationError as error:
        raise _first(error) from None


def _first(error: ValidationError) -> ApiError:
    """Unknown fields first, since they explain what else is missing; then in the order of the body."""
    problems = error.errors(include_url=False, include_context=False)
    chosen = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    param = field_of(chosen["loc"])
    same = closest([problem for problem in problems if field_of(problem["loc"]) == param])
    chosen = chosen if chosen in same else same[0]
    expected = _lower(" or ".join([same[0]["msg"], *(one["msg"].removeprefix("Input should be ") for one in same[1:])]))
    match chosen["type"]:
        case "extra_forbidden":
            return invalid(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
        case "missing":
            return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
        case kind if kind.endswith(("_type", "_parsing")):
            return invalid(f"'{param}' has the wrong type: {expected}.", param, "invalid_type")
        case _:
            return invalid(f"'{param}' is not acceptable: {expected}.", param, "invalid_value")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
