"""A prompt as a chat-completions body, and the answer back: shared by direct sampling and the Batch API."""

from __future__ import annotations

import json
from typing import Any

from ftbridge.providers.base import Completion, Prompt
from ftbridge.providers.openai.errors import whole
from ftbridge.providers.openai.targets import Target

_OURS = {"weight"}
"""Keys of training examples that no request may hold."""


def body_of(prompt: Prompt, model: str, target: Target, max_tokens: int) -> dict[str, Any]:
    """The request for a greedy answer: temperature 0, the limit under the name that the service knows."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [message.model_dump(mode="json", exclude_unset=True, exclude=_OURS) for message in prompt.messages],
        "temperature": 0,
        target.max_tokens: max_tokens,
    }
    if prompt.tools:
        body["tools"] = list(prompt.tools)
    return body


def without(body: dict[str, Any], param: str | None) -> dict[str, Any] | None:
    """The body as a model wants it that objects to `param`; None when there is nothing to change.

    Reasoning models take no temperature and only `max_completion_tokens`; older hosts know only `max_tokens`.
    """
    changed = dict(body)
    if param == "temperature" and "temperature" in changed:
        del changed["temperature"]
        return changed
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}.get(param or "")
    if param in changed and other is not None:
        changed[other] = changed.pop(param)
        return changed
    return None


def completion_of(key: str, told: Any) -> Completion:
    """The answer as the contract has it. An answer that only calls tools is the JSON of its calls."""
    choice = whole(told, "choices").choices[0]
    usage = getattr(told, "usage", None)
    return Completion(
        key=key,
        text=_text(choice.message),
        finish_reason=getattr(choice, "finish_reason", None) or "stop",
        prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
    )


def _text(message: Any) -> str:
    text = getattr(message, "content", None) or getattr(message, "refusal", None)
    if text:
        return str(text)
    calls = getattr(message, "tool_calls", None) or []
    if not calls:
        return ""
    plain = [
        {"type": "function", "function": {"name": call.function.name, "arguments": call.function.arguments}}
        for call in calls
        if getattr(call, "function", None) is not None
    ]
    return json.dumps(plain, ensure_ascii=False)
