"""A recorded request as the service takes it, and its response as samples.

Sample 0 is asked at temperature 0 with log-probabilities; the others at the production temperature, several at once (`n`) where
the service takes it, since they share one prompt's price. Everything else is as the client sent it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftbridge.data.examples import Message
from ftbridge.evaluation.items import reference
from ftbridge.migrate.recording import GREEDY, Outcome, Request, Sample, Settings, Usage
from ftbridge.redaction import whole_characters, without_keys

MARK = "ftbridge_request"
"""The metadata key that a stored completion carries its custom_id under, so that it is found after a crash."""
_LET_GO = frozenset({"temperature", "top_p", "logprobs", "top_logprobs", "store", "metadata", "parallel_tool_calls"})
"""Parameters that some models refuse, and without which a request is still the same question."""


def body_of(request: Request, settings: Settings, *, store: bool) -> dict[str, Any]:
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


def without(body: dict[str, Any], param: str | None) -> dict[str, Any] | None:
    """The body as a model wants it that objects to `param`; None when the request would become another."""
    if param not in body:
        return None
    changed = {name: value for name, value in body.items() if name != param}
    if param == "logprobs":
        changed.pop("top_logprobs", None)
    if param == "store":
        changed.pop("metadata", None)
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}.get(param or "")
    if other is not None:
        return {**changed, other: body[param]}
    return changed if param in _LET_GO else None


def samples_of(
    request: Request, document: Mapping[str, Any], *, seconds: float | None = None
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


def declined(request: Request, reason: str) -> list[Sample]:
    """The samples of a request that the service refuses for what it holds: asking again cannot help."""
    return [
        Sample(key=request.item.key, sample=number, outcome="declined", reason=reason) for number in request.samples
    ]


def answer_of(message: Mapping[str, Any]) -> str:
    """A message as text that others compare with: its content, or the JSON of its calls."""
    return reference(Message.model_validate({"role": "assistant", **message}))


def _sample(
    key: str, number: int, choice: Mapping[str, Any], document: Mapping[str, Any], seconds: float | None
) -> Sample:
    choice_message = choice.get("message")
    message: Mapping[str, Any] = choice_message if isinstance(choice_message, Mapping) else {}
    calls = _calls(message)
    refusal = message.get("refusal")
    text = _text(message.get("content"))
    outcome: Outcome = "completion"
    reason = None
    if not text and not calls:
        outcome = "refusal" if refusal else "no_content"
        reason = None if refusal else f"the content is empty (finish_reason {choice.get('finish_reason')})"
        if message.get("content") == "" and choice.get("finish_reason") == "stop":
            outcome, reason = "completion", None  # an empty text is what the model means
    return Sample(
        key=key,
        sample=number,
        outcome=outcome,
        text=_clean(text),
        tool_calls=calls or None,
        refusal=_clean(str(refusal)) if refusal else None,
        reason=reason,
        finish_reason=_word(choice.get("finish_reason")),
        system_fingerprint=_word(document.get("system_fingerprint")),
        completion_id=_word(document.get("id")),
        created=float(document["created"]) if isinstance(document.get("created"), (int, float)) else None,
        seconds=seconds,
    )


def _calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    raw = message.get("tool_calls")
    calls = [call for call in raw if isinstance(call, Mapping)] if isinstance(raw, list) else []
    functions = [call.get("function") for call in calls] + [message.get("function_call")]
    return [
        {"type": "function", "function": {"name": str(one.get("name")), "arguments": str(one.get("arguments") or "")}}
        for one in functions
        if isinstance(one, Mapping)
    ]


def _text(content: Any) -> str:
    if isinstance(content, Sequence) and not isinstance(content, str):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _clean(text: str) -> str:
    return without_keys(whole_characters(text))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
