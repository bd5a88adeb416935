"""A recorded exchange, played again: `ftbridge simulate --replay RUN/openai/exchange.jsonl`.

A request gets the answers that its method and path got, in their order, the last one again and again. Chats are matched by what
was asked first. Queries are not looked at: they hold the token of the recorded run.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ftbridge.errors import UsageError
from ftbridge.server.http.errors import ApiError


class Exchange:
    """What was recorded, and how far each route is."""

    def __init__(self, path: Path) -> None:
        """Read a recording. Raises `UsageError` for a file that is none."""
        self._answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._chats: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._place: dict[str, int] = defaultdict(int)
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: the recording cannot be read ({error}).") from None
        for number, line in enumerate(lines, 1):
            try:
                exchange = json.loads(line)
                request, response = exchange["request"], exchange["response"]
                self._answers[_name(request["method"], request["path"])].append(response)
                if (key := _chat(request["path"], request["body"])) is not None:
                    self._chats[key].append(response)
            except (ValueError, KeyError, TypeError):
                if number == len(lines):
                    break  # torn by a crash
                raise UsageError(f"{path}:{number} is not a line of a recording.") from None
        if not self._answers:
            raise UsageError(
                f"{path} contains no exchange.", hint="Record one with: ftbridge run SPEC --provider openai --record"
            )

    @property
    def requests(self) -> int:
        """How many answers were recorded."""
        return sum(map(len, self._answers.values()))

    def next_response(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """The next answer. Raises `ApiError` 404 for a request that was never recorded."""
        key = _chat(path, body)
        name = key if key in self._chats else _name(method, path)
        responses = self._chats.get(name) or self._answers.get(name)
        if not responses:
            raise ApiError(404, f"The recording has no {method} {path}.", code="not_recorded")
        position = self._place[name]
        self._place[name] += 1
        return responses[min(position, len(responses) - 1)]


def replaying(exchange: Exchange) -> Starlette:
    """An application that answers from a recording."""

    async def play(request: Request) -> Response:
        content = await request.body()
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        try:
            response = exchange.next_response(request.method, request.url.path, body)
        except ApiError as error:
            return error.response()
        text = (
            response["body"] if isinstance(response["body"], str) else json.dumps(response["body"], ensure_ascii=False)
        )
        return Response(text, status_code=response["status"], headers=dict(response["headers"]))

    return Starlette(routes=[Route("/{path:path}", play, methods=["GET", "POST", "DELETE"])])


def _name(method: str, path: str) -> str:
    """Services differ in what comes before OpenAI's own path; ids of the recording are kept."""
    parts = unquote(urlsplit(path).path).strip("/").split("/")
    for first in ("fine_tuning", "files", "uploads", "models", "chat", "batches"):
        if first in parts:
            return f"{method} /{'/'.join(parts[parts.index(first) :])}"
    return f"{method} /{'/'.join(parts)}"


def _chat(path: str, body: Any) -> str | None:
    """What a chat asked, as text that is the same whenever it is asked again."""
    if not path.endswith("/chat/completions") or not isinstance(body, dict):
        return None
    return json.dumps([body.get("model"), body.get("messages")], sort_keys=True)
