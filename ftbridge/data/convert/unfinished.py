"""Completions that did not end by themselves: cut off at a limit of tokens, stopped by a filter, or broken off by an error.

A model that is trained on half a completion learns to stop in the middle. What APIs and servers write about it:

    choices[].finish_reason        length, content_filter           OpenAI's chat completions; vLLM (abort), gateways (error)
    incomplete_details.reason      max_output_tokens, …             OpenAI's Responses API, with status "incomplete"
    candidates[].finishReason      MAX_TOKENS, SAFETY, …            Gemini
    stop_reason                    max_tokens, refusal, …           Anthropic
    done_reason                    length                           Ollama

Sources: the reference of each of these APIs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftbridge.data.convert.fields import Document

_REASONS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason")
_CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"})
_FILTERED = frozenset(
    {"content_filter", "content_filtered", "guardrail_intervened", "refusal", "safety", "recitation", "blocklist"}
    | {"prohibited_content", "spii", "image_safety", "image_prohibited_content", "image_recitation"}
)  # fmt: skip
_BROKEN_OFF = frozenset(
    {"abort", "aborted", "cancelled", "error", "incomplete", "malformed_function_call", "pause_turn"}
)
_RESPONSES = ("response", "response_body", "output", "completion", "result")
"""Fields of a record under which its response may be."""


def unfinished(record: Document) -> str | None:
    """Why a record's completion is not whole: "finish_reason is length (the completion was cut off)"; None if it is."""
    return next(filter(None, map(_reason, _holders(record))), None)


def _holders(record: Document) -> Iterator[Document]:
    """Every object of a record that may say how a completion ended: itself, its response, choices and messages."""
    yield record
    for name in _RESPONSES:
        if isinstance(response := record.get(name), dict):
            body = response.get("body")
            yield from _holders(response)
            if isinstance(body, dict):
                yield from _holders(body)
    for name in ("choices", "candidates", "output", "messages"):
        if isinstance(elements := record.get(name), list):
            for element in elements:
                if isinstance(element, dict):
                    yield element
                    if isinstance(message := element.get("message"), dict):
                        yield message


def _reason(holder: Document) -> str | None:
    for name in _REASONS:
        if sentence := _sentence(name, holder.get(name)):
            return sentence
    details = holder.get("incomplete_details")
    if isinstance(details, dict) and (sentence := _sentence("incomplete_details.reason", details.get("reason"))):
        return sentence
    status = holder.get("status")
    is_of_responses = isinstance(holder.get("output"), list) or "type" in holder
    return _sentence("status", status) if status == "incomplete" and is_of_responses else None


def _sentence(name: str, value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    for reasons, happened in ((_CUT, "cut off"), (_FILTERED, "stopped by a filter"), (_BROKEN_OFF, "broken off")):
        if value.strip().lower() in reasons:
            return f"{name} is {value.strip()} (the completion was {happened})"
    return None
