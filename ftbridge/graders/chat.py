"""One question to a chat-completions endpoint, over HTTP, with every retry in one place.

    base_url of the grader    key FTBRIDGE_JUDGE_API_KEY, or none: OPENAI_API_KEY never goes to an address from a spec
    no base_url               OPENAI_BASE_URL or https://api.openai.com/v1, key OPENAI_API_KEY

Tried again, up to four times in all: connections that fail and the statuses of `http.is_transient`; up to twelve times, which
is three minutes or more: 429, since limits are counted by the minute. The wait is the server's Retry-After or the backoff of
`ftbridge.http`, 30 s at most. An address that was given up is tried once a question until it answers again.

An endpoint that refuses a request which asks for JSON of a shape (`response_format`), and has never answered one, is asked
without it: services word that refusal in many ways, and the prompt says what to reply as well.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftbridge.chat_completions import ChatClient, ChatReply, read_reply
from ftbridge.http import Policy, backoff, cause_of, is_transient, retry_after, retrying
from ftbridge.redaction import remember, whole_characters, without_secrets

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 4
LIMITED = 3
"""So many times as many attempts while the service says 429."""
LONGEST_WAIT = 30.0
"""Seconds between two attempts, at most."""
REPLY_SECONDS = 300.0
"""A judge that reasons may think for minutes; a grader's `timeout_seconds` says otherwise."""
_UNSHAPED = frozenset({400, 415, 422, 500, 501})
"""How services refuse a `response_format` that they do not know; some fail at it."""
_takes_shape: dict[tuple[str, str], bool] = {}
"""By address and model: whether a request with `response_format` was answered, or refused and answered without it."""
_given_up: set[str] = set()
"""Addresses whose last question was given up."""


@dataclass(frozen=True)
class Endpoint:
    """Where a judge is asked; `key` is never shown."""

    base_url: str
    key: str | None

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url})"


@dataclass(frozen=True)
class JudgeResponse:
    """What came back. `text` is None for a reply without content; `refusal` is the judge's own, or the service's filter."""

    text: str | None = None
    refusal: str | None = None
    model: str | None = None
    tokens: int | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class JudgeFailed(Exception):
    """The endpoint could not be reached, refused the request, or answered what is not a chat completion."""


def endpoint(base_url: str | None) -> Endpoint:
    """The endpoint of a grader with this `base_url`, with its key from the environment."""
    if base_url:
        return Endpoint(base_url.rstrip("/"), _key("FTBRIDGE_JUDGE_API_KEY"))
    address = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    return Endpoint(address.rstrip("/"), _key("OPENAI_API_KEY"))


Sending = Callable[[], AbstractContextManager[None]]
"""Entered around each request. It is left with an exception where a try failed; what it raises itself ends the question."""


def ask(
    where: Endpoint, body: dict[str, Any], seconds: float | None = None, sending: Sending = nullcontext
) -> JudgeResponse:
    """Ask once; `body` is that of POST /chat/completions. Raises `JudgeFailed`.

    `seconds` is how long a reply may take (`REPLY_SECONDS` where not given).
    """
    name = where.base_url, str(body.get("model"))
    plain = {key: value for key, value in body.items() if key != "response_format"}
    response = _post(where, plain if _takes_shape.get(name) is False else body, seconds, sending)
    takes_shape = _takes_shape.get(name)  # asked now, since other threads may have learnt it meanwhile
    if response.status_code in _UNSHAPED and takes_shape is None and "response_format" in body:
        without = _post(where, plain, seconds, sending)
        if without.status_code < 400:
            response = without
            _takes_shape[name] = False
    elif response.status_code < 400 and takes_shape is None and "response_format" in body:
        _takes_shape[name] = True
    if response.status_code >= 400:
        raise JudgeFailed(_clean(f"HTTP {response.status_code}: {response.text[:500]}"))
    try:
        return _reply(read_reply(response.json()))
    except ValueError:  # of JSON, or `NotAChatCompletion`
        raise JudgeFailed(_clean(f"not a chat completion: {response.text[:200]}")) from None


def _reply(reply: ChatReply) -> JudgeResponse:
    refusal = reply.refusal
    if refusal is None and reply.finish_reason == "content_filter":
        refusal = "stopped by the service's content filter"
    return JudgeResponse(
        text=reply.text,
        refusal=refusal,
        model=reply.model,
        tokens=reply.total_tokens,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )


def _post(where: Endpoint, body: dict[str, Any], seconds: float | None, sending: Sending) -> httpx.Response:
    """The last response, whatever its status. Raises `JudgeFailed` when none came."""
    import httpx

    client = ChatClient(where.base_url, _http(), where.key)
    timeout = httpx.Timeout(seconds or REPLY_SECONDS, connect=15)

    def post() -> httpx.Response:
        with sending():
            response = client.send(body, timeout)
            if is_transient(response.status_code):
                raise _Transient(response)
            return response

    attempts = 1 if where.base_url in _given_up else ATTEMPTS
    policy = Policy(
        doing=f"asking {body.get('model')} at {where.base_url}",
        again=lambda error: isinstance(error, (httpx.TransportError, _Transient)),
        attempts=lambda attempt, error: attempt >= attempts * (LIMITED if _is_limited(error) else 1),
        wait=_wait,
    )
    try:
        response: httpx.Response = retrying(policy)(post)
    except _Transient as error:
        _given_up.add(where.base_url)
        return error.response
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        _given_up.add(where.base_url)
        raise JudgeFailed(_clean(f"{where.base_url} did not answer: {cause_of(error)}")) from None
    _given_up.discard(where.base_url)
    return response


def _key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if key:
        remember(key)
    return key or None


class _Transient(Exception):
    """A response whose status may pass."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"HTTP {response.status_code}")
        self.response = response


def _is_limited(error: BaseException) -> bool:
    return isinstance(error, _Transient) and error.response.status_code == 429


def _wait(attempt: int, error: BaseException) -> float:
    """Seconds after a failed try: the server's Retry-After, else the backoff, `LONGEST_WAIT` at most.

    A limit by the minute is waited out with a backoff that starts later and has less jitter.
    """
    requested_wait = retry_after(error.response.headers) if isinstance(error, _Transient) else None
    if requested_wait is not None:
        return min(LONGEST_WAIT, requested_wait)
    if _is_limited(error):
        return LONGEST_WAIT / 2 + backoff(attempt, ceiling=LONGEST_WAIT) / 2
    return backoff(attempt, ceiling=LONGEST_WAIT)


@functools.cache
def _http() -> httpx.Client:
    import httpx

    return httpx.Client(timeout=httpx.Timeout(REPLY_SECONDS, connect=15))


def _clean(text: str) -> str:
    """The text without keys, should a server repeat one."""
    return whole_characters(without_secrets(text))
