"""/fine_tuning/alpha/graders: run one on a sample, or have its definition checked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.graders import grade, judges_of
from ftbridge.graders.result import openai_document
from ftbridge.server.http.connection import while_connected
from ftbridge.server.http.errors import ApiError, invalid, without_paths
from ftbridge.server.http.validation import RequestBody, body
from ftbridge.spec.graders import Grader, MultiGrader, PanelGrader
from ftbridge.spec.problems import field_of, reason


class RunGrader(RequestBody):
    """POST /fine_tuning/alpha/graders/run."""

    grader: dict[str, Any]
    model_sample: str
    item: dict[str, Any] | None = None


class ValidateGrader(RequestBody):
    """POST /fine_tuning/alpha/graders/validate."""

    grader: dict[str, Any]


async def run(request: Request) -> Response:
    """Run a grader on one completion: its reward, and errors by OpenAI's names."""
    request_body = await body(request, RunGrader)
    grader = with_judge(understood(request_body.grader), request.app.state.service.judges)
    grading = asyncio.to_thread(grade, grader, request_body.item or {}, {"output_text": request_body.model_sample})
    try:
        result = await while_connected(request, grading)
    except FtbridgeError as error:
        raise invalid(without_paths(str(error)), "grader", "invalid_grader") from None
    return JSONResponse(openai_document(result))


async def validate(request: Request) -> Response:
    """Validate a grader and return it as it is understood."""
    request_body = await body(request, ValidateGrader)
    understood(request_body.grader)
    return JSONResponse({"grader": request_body.grader})


def with_judge(grader: Grader, judges: Sequence[str]) -> Grader:
    """The grader with the judge that the operator named, for each part that asks a model.

    A client may name one of `judges`, or leave the address out for the first. Nothing else is asked, and by default nothing at
    all: a request must not choose whom this machine talks to, nor who gets the operator's key. Raises `ApiError` 403.
    """
    if isinstance(grader, MultiGrader):
        parts = {name: with_judge(part, judges) for name, part in grader.graders.items()}
        return grader.model_copy(update={"graders": parts})
    if isinstance(grader, PanelGrader):
        return grader.model_copy(update={"judges": [with_judge(judge, judges) for judge in grader.judges]})
    if not judges_of([grader]):
        return grader
    address = getattr(grader, "base_url", None) or (judges[0] if judges else None)
    wanted = comparable(address) if address else None
    for judge in judges:
        if comparable(judge) == wanted:
            return grader.model_copy(update={"base_url": judge})
    reason = f"{address!r} is not a judge of this server" if address else "This server has no judge"
    raise ApiError(
        403, f"{reason}. Its operator can add judges with --judge.", param="grader.base_url", code="judge_not_allowed"
    )


def comparable(address: str) -> tuple[str, str, int | None, str]:
    """An address by its parts: scheme, host, port and path, so that spellings of one are the same.

    User names, queries and fragments make it another address, which nothing equals. Raises `ValueError` for a bad port.
    """
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
    more = "".join(mark for mark in ("@", "?", "#") if mark in address)
    return parts.scheme.lower(), f"{(parts.hostname or '').rstrip('.')}{more}", port, parts.path.rstrip("/")


def judges(addresses: Sequence[str]) -> tuple[str, ...]:
    """The operator's judges. Raises `UsageError` for what is not an http address, and for several hosts.

    FTBRIDGE_JUDGE_API_KEY is sent to them, and a key belongs to one host.
    """
    hosts = set()
    for address in addresses:
        try:
            scheme, host, port, _ = comparable(address)
        except ValueError:
            scheme, host, port = "", "", None
        if scheme not in ("http", "https") or not host or "@" in host:
            raise UsageError(f"the judge {address!r} is not an http or https address.")
        hosts.add((scheme, host, port))
    if len(hosts) > 1:
        raise UsageError("the judges are of several hosts, and FTBRIDGE_JUDGE_API_KEY belongs to one.")
    return tuple(addresses)


def understood(document: dict[str, Any]) -> Grader:
    """A grader from its JSON. Raises `ApiError` 400 that names the field at fault."""
    try:
        return TypeAdapter[Grader](Grader).validate_python(document)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        path = field_of(problem["loc"], "grader", root=Grader)
        raise invalid(f"'{path}': {reason(problem)}.", path, "invalid_grader") from None
