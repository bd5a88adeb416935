"""What a scripted account lets a request do: keys, scopes, rate limits; and the ledger of what was paid for.

    key known? ─▶ scope? ─▶ within the limits? ─▶ handler ─▶ x-ratelimit-* headers

A request of one project sees that project's objects; `pages.py` reads the project from the request's scope.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftbridge.data.tokens import count_texts
from ftbridge.server.http.errors import ApiError
from ftbridge.server.http.pages import PROJECT
from ftbridge.server.simulator.account import Account, AccountBatch, AccountKey, AccountLimit

if TYPE_CHECKING:
    from ftbridge.providers.local.inference.requests import GenerationRequest
    from ftbridge.server.service import Service

_SCOPES = (
    ("GET", r"/v1/models.*", "api.model.read"),
    ("GET", r"/v1/fine_tuning/checkpoints/.*", "api.fine_tuning.checkpoints.read"),
    ("GET", r"/v1/fine_tuning/.*", "api.fine_tuning.jobs.read"),
    ("POST", r"/v1/fine_tuning/.*", "api.fine_tuning.jobs.write"),
    ("GET", r"/v1/files.*", "api.files.read"),
    ("POST", r"/v1/files.*", "api.files.write"),
    ("GET", r"/v1/chat/completions.*", "api.chat.completions.read"),
    ("POST", r"/v1/(?:chat/)?completions", "api.model.request"),
    ("GET", r"/v1/batches.*", "api.batches.read"),
    ("POST", r"/v1/batches.*", "api.batches.write"),
    ("GET", r"/v1/organization/usage/.*", "api.usage.read"),
    ("GET", r"/v1/organization/.*", "api.management.read"),
)
"""Method, path, and the scope that it needs."""
_ADMIN = ("api.usage.read", "api.management.read", "api.fine_tuning.checkpoints.read")
"""Scopes of admin keys, which have no others."""


@dataclass
class _Window:
    """One minute of a limit."""

    since: float = float("-inf")
    requests: int = 0
    tokens: int = 0


@dataclass
class AccountState:
    """An account while it is played. `ledger` holds every request that was answered by a model, in their order."""

    account: Account
    start: float
    ledger: list[dict[str, Any]] = field(default_factory=list)
    batches: int = 0
    completed_requests: Counter[str] = field(default_factory=Counter)
    _windows: dict[tuple[str, str], _Window] = field(default_factory=dict)

    def paid(self, model: str, ask: GenerationRequest, moment: float) -> None:
        """Write down a request that a model answers. Equal `key`s are the same request."""
        request = ask.model_dump(mode="json", exclude={"id"})
        text = json.dumps([model, request], sort_keys=True, ensure_ascii=False)
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        prompt = ask.messages[-1].text if ask.messages else ""
        entry = {
            "time": moment,
            "model": model,
            "key": key,
            "n": ask.n,
            "temperature": ask.temperature,
            "prompt": prompt,
        }
        self.ledger.append(entry)
        self.completed_requests[model.split(":ckpt-step-")[0]] += 1

    def stopped(self, model: str, now: float) -> bool:
        """Whether a model has stopped answering: its day has come, or it answered as often as it was to."""
        most = self.account.behaviour(model).stops_after
        if most is not None and self.completed_requests[model.split(":ckpt-step-")[0]] >= most:
            return True
        day = self.account.shutdown(model, self.start)
        return day is not None and time.gmtime(now)[:3] >= day.timetuple()[:3]

    def ending(self, model_limit: int | None, tokens: int, number: int) -> AccountBatch | None:
        """How the `number`-th batch ends badly, if it does: as scripted, or because the queue cannot hold its tokens."""
        for batch in self.account.batches:
            if batch.nth == number:
                return batch
        if model_limit is not None and tokens > model_limit:
            return AccountBatch(nth=number, ends="failed", code="token_limit_exceeded")
        return None

    def batch_ending(self, lines: list[dict[str, Any]]) -> AccountBatch | None:
        """How a batch with these lines ends badly, if it does. Called once for each batch."""
        self.batches += 1
        model = str(lines[0]["body"].get("model")) if lines else ""
        limit = self.limit(None, model)
        texts = [json.dumps(line["body"].get("messages"), ensure_ascii=False) for line in lines]
        queue = limit.batch_queue_tokens if limit is not None else None
        return self.ending(queue, sum(count_texts(texts)) if queue is not None else 0, self.batches)

    def limit(self, project: str | None, model: str | None) -> AccountLimit | None:
        """The limit of a model, by its name or its base model's."""
        names = [model, (model or "").removeprefix("ft:").split(":")[0]] if model else ["*"]
        for name in names:
            for limit in self.account.limits:
                if self.account.name_of(limit.model) == name and limit.project in (None, project):
                    return limit
        return None

    def admit(self, project: str | None, model: str | None, tokens: int, now: float) -> dict[str, str]:
        """The limits' headers after a request. Raises `ApiError` 429 where it is beyond them."""
        headers: dict[str, str] = {}
        for name in ("*", model) if model is not None else ("*",):
            limit = self.limit(project, None if name == "*" else name)
            if limit is None or (limit.requests_per_minute is None and limit.tokens_per_minute is None):
                continue
            window = self._windows.setdefault((project or "", str(name)), _Window())
            if now - window.since >= self.account.minute:
                window.since, window.requests, window.tokens = now, 0, 0
            left = max(0.0, self.account.minute - (now - window.since))
            beyond = [
                most is not None and used + more > most and used > 0
                for most, used, more in (
                    (limit.requests_per_minute, window.requests, 1),
                    (limit.tokens_per_minute, window.tokens, tokens),
                )
            ]
            if any(beyond):
                what = "requests" if beyond[0] else "tokens"
                text = f"Rate limit reached for {name} on {what} per min. Please try again in {left:.3f}s."
                again = {"Retry-After": f"{left:.3f}"}
                raise ApiError(429, text, code="rate_limit_exceeded", type=what, headers=again)
            window.requests += 1
            window.tokens += tokens
            for what, most, used in (
                ("requests", limit.requests_per_minute, window.requests),
                ("tokens", limit.tokens_per_minute, window.tokens),
            ):
                if most is not None:
                    headers[f"x-ratelimit-limit-{what}"] = str(most)
                    headers[f"x-ratelimit-remaining-{what}"] = str(max(0, most - used))
                    headers[f"x-ratelimit-reset-{what}"] = f"{left:.3f}s"
        return headers


class FaultGate:
    """The application behind an account's keys and limits."""

    def __init__(self, app: ASGIApp, service: Service, state: AccountState) -> None:
        self.app, self.service, self.state = app, service, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        try:
            key = self._key(scope)
            self._require_scope(scope, key)
            model, tokens = None, 0
            if scope["method"] == "POST" and scope["path"] in ("/v1/chat/completions", "/v1/completions"):
                content, receive = await _body(receive)
                model, tokens = _model(content)
            headers = self.state.admit(key.project, model, tokens, self.service.clock())
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        scope[PROJECT] = key.project
        if key.project is not None:
            headers["openai-project"] = key.project

        async def send_message(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in headers.items()]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self.app(scope, receive, send_message)

    def _key(self, scope: Scope) -> AccountKey:
        keys = self.state.account.keys
        sent = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ").strip()
        if not keys:
            return AccountKey()
        if sent not in keys:
            shown = f"{sent[:3]}…{sent[-2:]}" if len(sent) > 8 else "(none)"
            raise ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")
        return keys[sent]

    def _require_scope(self, scope: Scope, key: AccountKey) -> None:
        path, method = scope["path"], scope["method"]
        needed = next((name for verb, form, name in _SCOPES if verb == method and re.fullmatch(form, path)), None)
        if needed is None or not self.state.account.keys:
            return
        if needed in key.without or (needed in _ADMIN) != key.admin:
            text = (
                f"You have insufficient permissions for this operation. Missing scopes: {needed}. Check that you have the "
                "correct role in your organization and project, and if you're using a restricted API key, that it has "
                "the necessary scopes."
            )
            raise ApiError(key.status, text)


async def _body(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body, and a `receive` that gives it again."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    content, consumed = b"".join(parts), False

    async def again() -> Message:
        nonlocal consumed
        if consumed:
            return await receive()
        consumed = True
        return {"type": "http.request", "body": content, "more_body": False}

    return content, again


def _model(content: bytes) -> tuple[str | None, int]:
    """The model of a request, and about how many tokens it uses: a quarter of its characters and what it may write."""
    try:
        document = json.loads(content)
    except ValueError:
        return None, 0
    if not isinstance(document, dict):
        return None, 0
    most = document.get("max_completion_tokens") or document.get("max_tokens") or 16
    model = document.get("model")
    tokens = len(json.dumps(document.get("messages"))) // 4 + (most if isinstance(most, int) else 16)
    return (model if isinstance(model, str) else None), tokens
