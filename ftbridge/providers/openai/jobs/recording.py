"""A run's HTTP exchange, kept in its folder with secrets removed: for a bug report, or to play again without the service.

    RUN/openai/exchange.jsonl    a line an answer: request {method, path, query, bytes, body}, response {status, headers, body}

Bodies of JSON are kept whole, keys taken out; of uploads only the size; of headers only those that say how to read the
answer or when to come back. `ftbridge simulate --replay FILE` answers from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftbridge.redaction import whole_characters, without_secrets

SWITCH = "FTBRIDGE_RECORD"
"""Set in the environment by `ftbridge run --record`; a run that was recorded goes on being so."""
NAME = "exchange.jsonl"
_HEADERS = ("content-type", "retry-after", "x-request-id", "x-should-retry")


def recorder(path: Path) -> Callable[[Any], None]:
    """A response hook for the SDK's HTTP client, whichever library it stands on."""

    def hear(response: Any) -> None:
        response.read()
        exchange = {
            "time": round(time.time(), 3),
            "request": _request(response.request),
            "response": _response(response),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as out:
            out.write(whole_characters(without_secrets(json.dumps(exchange, ensure_ascii=False))) + "\n")

    return hear


def _request(request: Any) -> dict[str, Any]:
    content = _content(request)
    kind = request.headers.get("content-type", "")
    return {
        "method": request.method,
        "path": request.url.path,
        "query": request.url.query.decode("ascii", "replace"),
        "bytes": int(request.headers.get("content-length") or len(content or b"")),
        "body": _json(content) if kind.startswith("application/json") else None,
    }


def _response(response: Any) -> dict[str, Any]:
    headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
    body = _json(response.content)
    return {"status": response.status_code, "headers": headers, "body": response.text if body is None else body}


def _content(request: Any) -> bytes | None:
    """The body, where it is at hand: a streamed upload is not."""
    try:
        return bytes(request.content)
    except Exception:  # each of the two libraries has an exception of its own for a body that was streamed
        return None


def _json(content: bytes | None) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return None
