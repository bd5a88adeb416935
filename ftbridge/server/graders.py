"""/fine_tuning/alpha/graders: run one on a sample, or have its definition checked."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ftbridge.errors import FtbridgeError
from ftbridge.grader_schema import Grader
from ftbridge.graders import grade
from ftbridge.graders.result import openai_document
from ftbridge.server.asking import Asked, body
from ftbridge.server.errors import invalid


class RunGrader(Asked):
    """POST /fine_tuning/alpha/graders/run."""

    grader: dict[str, Any]
    model_sample: str
    item: dict[str, Any] | None = None


class ValidateGrader(Asked):
    """POST /fine_tuning/alpha/graders/validate."""

    grader: dict[str, Any]


async def run(request: Request) -> Response:
    """The reward of one answer, with its errors by OpenAI's names."""
    asked = await body(request, RunGrader)
    grader = understood(asked.grader)
    try:
        result = await asyncio.to_thread(grade, grader, asked.item or {}, {"output_text": asked.model_sample})
    except FtbridgeError as error:
        raise invalid(str(error), "grader", "invalid_grader") from None
    return JSONResponse(openai_document(result))


async def validate(request: Request) -> Response:
    """The grader back, as it is understood."""
    asked = await body(request, ValidateGrader)
    understood(asked.grader)
    return JSONResponse({"grader": asked.grader})


def understood(told: dict[str, Any]) -> Grader:
    """A grader from its JSON. Raises `ApiError` 400 that names the field at fault."""
    try:
        return TypeAdapter[Grader](Grader).validate_python(told)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        path = ".".join(["grader", *(str(part) for part in problem["loc"][1:])])
        raise invalid(f"'{path}': {problem['msg']}", path, "invalid_grader") from None
