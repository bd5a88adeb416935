"""A recorded request as the service takes it, and its response as samples.

Sample 0 is asked at temperature 0 with log-probabilities; the others at the production temperature, several at once (`n`) where
the service takes it, since they share one prompt's price. Everything else is as the client sent it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftbridge.chat_completions import reply_of, word
from ftbridge.migrate.recording import GREEDY, Outcome, RecordingRequest, Sample, Settings, Usage

MARK = "ftbridge_request"
"""The metadata key that a stored completion carries its custom_id under, so that it is found after a crash."""
OPTIONAL = frozenset({"temperature", "top_p", "logprobs", "top_logprobs", "store", "metadata", "parallel_tool_calls"})
"""Parameters that some models refuse, and without which a request is still the same question."""


def body_of(request: RecordingRequest, settings: Settings, *, store: bool) -> dict[str, Any]:
    """The body of `POST /chat/completions` for a request."""
    item = request.item
    body: dict[str, Any] = {"model": settings.model, **item.request}
    if settings.max_completion_tokens is not None and not {"max_tokens", "max_completion_tokens"} & body.keys():
        body["max_completion_tokens"] = settings.max_completion_tokens
    if request.samples == (GREEDY,):
        body |= {"temperature": 0}
        if settings.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": settings.top_logprobs}
    else:
        body["temperature"] = settings.temperature if item.temperature is None else item.temperature
        if item.top_p is not None:
            body["top_p"] = item.top_p
        if len(request.samples) > 1:
            body["n"] = len(request.samples)
    if store:
        body |= {"store": True, "metadata": {MARK: request.id}}
    return body


def samples_of(
    request: RecordingRequest, document: Mapping[str, Any], *, seconds: float | None = None
) -> tuple[list[Sample], Usage, Any]:
    """The samples in a response, the tokens that it used, and the log-probabilities of a greedy one.

    There may be fewer samples than were asked for: a service that does not take `n` returns one. A response without any choice
    gives none. Halves of characters become U+FFFD, and a key that the service repeats is taken out.
    """
    raw = document.get("choices")
    choices = [choice for choice in raw if isinstance(choice, Mapping)] if isinstance(raw, list) else []
    choices.sort(key=lambda choice: _count(choice.get("index")))
    samples = [
        _sample(request.item.key, number, choice, document, seconds)
        for number, choice in zip(request.samples, choices, strict=False)
    ]
    reported = document.get("usage")
    counts = reported if isinstance(reported, Mapping) else {}
    usage = Usage(read=_count(counts.get("prompt_tokens")), written=_count(counts.get("completion_tokens")))
    logprobs = choices[0].get("logprobs") if choices and request.samples == (GREEDY,) else None
    return samples, usage, logprobs


def declined(request: RecordingRequest, reason: str) -> list[Sample]:
    """The samples of a request that the service refuses for what it holds: asking again cannot help."""
    return [
        Sample(key=request.item.key, sample=number, outcome="declined", reason=reason) for number in request.samples
    ]


def _sample(
    key: str, number: int, choice: Mapping[str, Any], document: Mapping[str, Any], seconds: float | None
) -> Sample:
    reply = reply_of(choice, document)
    calls = [{"type": call["type"], "function": call["function"]} for call in reply.tool_calls]
    outcome: Outcome = "completion"
    reason = None
    if not reply.text and not calls:
        outcome = "refusal" if reply.refusal else "no_content"
        reason = None if reply.refusal else f"the content is empty (finish_reason {choice.get('finish_reason')})"
        if (choice.get("message") or {}).get("content") == "" and reply.finish_reason == "stop":
            outcome, reason = "completion", None  # an empty text is what the model means
    return Sample(
        key=key,
        sample=number,
        outcome=outcome,
        text=reply.text or "",
        tool_calls=calls or None,
        refusal=reply.refusal,
        reason=reason,
        finish_reason=reply.finish_reason,
        system_fingerprint=word(document.get("system_fingerprint")),
        completion_id=word(document.get("id")),
        created=float(document["created"]) if isinstance(document.get("created"), (int, float)) else None,
        seconds=seconds,
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
