"""Which requests that clients made elsewhere this server could not answer, and why: before a client finds out.

Each request is read exactly as `POST /chat/completions` would read it, up to the point where a model would be asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from ftbridge.server.http.errors import ApiError
from ftbridge.server.http.validation import understood
from ftbridge.server.requests.chat import CreateChat, to_ask

_READ = frozenset({"text", "refusal"})


class Unsupported(BaseModel):
    """One reason, and how many of the requests have it."""

    model_config = ConfigDict(frozen=True)

    reason: str
    requests: int


def unsupported(requests: Iterable[Mapping[str, Any]]) -> list[Unsupported]:
    """The reasons for which these requests would be refused here, the most frequent first."""
    reasons: Counter[str] = Counter()
    for request in requests:
        reasons.update(f"Parts of type '{kind}' cannot be read here: models read text." for kind in _parts(request))
        try:
            to_ask(understood(dict(request), CreateChat), "check")
        except ApiError as error:
            reasons[error.message] += 1
    return [Unsupported(reason=reason, requests=count) for reason, count in reasons.most_common()]


def _parts(request: Mapping[str, Any]) -> set[str]:
    """The kinds of content parts in a request that no model here reads."""
    messages = request.get("messages")
    contents = [message.get("content") for message in messages or () if isinstance(message, Mapping)]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, Mapping)]
    return {str(part.get("type")) for part in parts} - _READ
