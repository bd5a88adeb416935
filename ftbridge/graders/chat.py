"""One question to a chat-completions endpoint, over HTTP, with every retry in one place.

    base_url of the grader    key FTBRIDGE_JUDGE_API_KEY, or none: OPENAI_API_KEY never goes to an address from a spec
    no base_url               OPENAI_BASE_URL or https://api.openai.com/v1, key OPENAI_API_KEY

Tried again, up to four times in all: 408, 409, 429, 5xx, and connections that fail; the wait is the server's Retry-After, or
0.5 s doubling with jitter, 30 s at most. Source of the list: OpenAI's own library.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftbridge.redaction import remember, whole_characters, without_keys, without_secrets

if TYPE_CHECKING:
    import httpx
    import tenacity

ATTEMPTS = 4
LONGEST_WAIT = 30.0
"""Seconds between two attempts, at most."""
REPLY_SECONDS = 300.0
"""A judge that reasons may think for minutes."""


@dataclass(frozen=True)
class Endpoint:
    """Where a judge is asked; `key` is never shown."""

    base_url: str
    key: str | None

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url})"


@dataclass(frozen=True)
class Reply:
    """What came back. `text` is None for a reply without content; `refusal` is the judge's own, or the service's filter."""

    text: str | None
    refusal: str | None
    model: str | None
    tokens: int | None


class JudgeFailed(Exception):
    """The endpoint could not be reached, refused the request, or answered what is no chat completion."""


def endpoint(base_url: str | None) -> Endpoint:
    """The endpoint of a grader with this `base_url`, with its key from the environment."""
    if base_url:
        return Endpoint(base_url.rstrip("/"), _key("FTBRIDGE_JUDGE_API_KEY"))
    address = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    return Endpoint(address.rstrip("/"), _key("OPENAI_API_KEY"))


def ask(where: Endpoint, body: dict[str, Any]) -> Reply:
    """Ask once; `body` is that of POST /chat/completions. Raises `JudgeFailed`.

    `response_format` is left out when the endpoint refuses it: the prompt says what to reply as well.
    """
    response = _post(where, body)
    if response.status_code in (400, 422) and "response_format" in body and "response_format" in response.text:
        response = _post(where, {key: value for key, value in body.items() if key != "response_format"})
    if response.status_code >= 400:
        raise JudgeFailed(_clean(f"HTTP {response.status_code}: {response.text[:500]}"))
    try:
        return _reply(response.json())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise JudgeFailed(_clean(f"not a chat completion: {response.text[:200]}")) from None


def _reply(document: dict[str, Any]) -> Reply:
    choice = document["choices"][0]
    message, usage = choice["message"], document.get("usage") or {}
    text, refusal = message.get("content"), message.get("refusal")
    if isinstance(text, list):
        text = "".join(part.get("text") or "" for part in text)
    if refusal is None and choice.get("finish_reason") == "content_filter":
        refusal = "stopped by the service's content filter"
    model, tokens = document.get("model"), usage.get("total_tokens")
    return Reply(
        text=None if text is None else whole_characters(without_keys(str(text))),
        refusal=None if not refusal else whole_characters(without_keys(str(refusal))),
        model=model if isinstance(model, str) else None,
        tokens=tokens if isinstance(tokens, int) else None,
    )


def _post(where: Endpoint, body: dict[str, Any]) -> httpx.Response:
    """The last response, whatever its status. Raises `JudgeFailed` when none came."""
    import httpx
    import tenacity

    headers = {"Content-Type": "application/json"}
    if where.key:
        headers["Authorization"] = f"Bearer {where.key}"
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=_wait,
        retry=tenacity.retry_if_exception_type(httpx.TransportError) | tenacity.retry_if_result(_is_transient),
        retry_error_callback=_last,
    )
    try:
        response: httpx.Response = retrying(
            _client().post, f"{where.base_url}/chat/completions", content=json.dumps(body).encode(), headers=headers
        )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        told = str(error) or type(error).__name__
        raise JudgeFailed(_clean(f"{where.base_url} did not answer: {told}")) from None
    return response


def _key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if key:
        remember(key)
    return key or None


def _is_transient(response: httpx.Response) -> bool:
    return response.status_code in (408, 409, 429) or response.status_code >= 500


def _last(state: tenacity.RetryCallState) -> Any:
    """What the last attempt gave: its response, or its exception."""
    assert state.outcome is not None
    return state.outcome.result()


def _wait(state: tenacity.RetryCallState) -> float:
    import tenacity

    outcome = state.outcome
    if outcome is not None and not outcome.failed:
        try:
            return min(LONGEST_WAIT, max(0.0, float(outcome.result().headers["retry-after"])))
        except (KeyError, ValueError):
            pass
    return tenacity.wait_exponential_jitter(initial=0.5, max=LONGEST_WAIT, jitter=0.5)(state)


@functools.cache
def _client() -> httpx.Client:
    import httpx

    return httpx.Client(timeout=httpx.Timeout(REPLY_SECONDS, connect=15))


def _clean(text: str) -> str:
    """The text without keys, should a server repeat one."""
    return whole_characters(without_secrets(text))
