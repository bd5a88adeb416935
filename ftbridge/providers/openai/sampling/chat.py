"""A prompt as a chat-completions body, and the answer back: shared by direct sampling and the Batch API."""

from __future__ import annotations

from typing import Any

from ftbridge.data.notation import answer_text
from ftbridge.providers.base import Completion, Prompt
from ftbridge.providers.openai.errors import NotTheService, require_fields
from ftbridge.providers.openai.targets import Target
from ftbridge.redaction import whole_characters, without_keys

_OURS = {"weight"}
"""Keys of training examples that no request may hold."""


def body_of(prompt: Prompt, model: str, target: Target, max_tokens: int) -> dict[str, Any]:
    """The request for an answer: temperature 0 or the prompt's, the limit under the name that the service knows."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [message.model_dump(mode="json", exclude_unset=True, exclude=_OURS) for message in prompt.messages],
        "temperature": prompt.temperature or 0,
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


class NoCompletion(NotTheService):
    """A chat completion without a completion in it, such as one whose `choices` are empty: asking again may help."""


def completion_of(key: str, response: Any) -> Completion:
    """The completion as the contract has it. One that calls tools and says nothing is the JSON of its calls, as a reference is.

    Reasoning that a service returns apart (`reasoning_content`, `reasoning`, or parts of type thinking) is never text.

    Halves of characters become U+FFFD, and a key that the service repeats is taken out. Raises `NoCompletion`.
    """
    choices = getattr(require_fields(response), "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None:
        raise NoCompletion("the answer holds no completion (no choices)")
    reason = getattr(choice, "finish_reason", None)
    usage = getattr(response, "usage", None)
    calls = _calls(message)
    reasoning = reasoning_of(message)
    return Completion(
        key=key,
        text=without_keys(whole_characters(_text(message, calls))),
        finish_reason=reason if isinstance(reason, str) and reason else "stop",
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        reasoning_content=without_keys(whole_characters(reasoning)) if reasoning else None,
        tool_calls=calls or None,
    )


def reasoning_of(message: Any) -> str | None:
    """The reasoning that a service returns beside the text; None where there is none.

    OpenAI-compatible servers call it `reasoning_content` (DeepSeek, SGLang, llama.cpp, vLLM before 0.12) or `reasoning` (vLLM,
    OpenRouter, Groq); Mistral puts it into parts of the content.
    """
    for name in ("reasoning_content", "reasoning"):
        reasoning = getattr(message, name, None)
        if isinstance(reasoning, str) and reasoning.strip():
            return reasoning.strip()
    thoughts = [part.get("thinking") for part in _parts(message) if part.get("type") == "thinking"]
    inner = [one for thought in thoughts for one in (thought if isinstance(thought, list) else [thought])]
    return (
        "".join(one if isinstance(one, str) else str(_fields(one).get("text") or "") for one in inner).strip() or None
    )


def _parts(message: Any) -> list[dict[str, Any]]:
    content = getattr(message, "content", None)
    return [_fields(part) for part in content] if isinstance(content, list) else []


def _fields(part: Any) -> dict[str, Any]:
    """A part's fields, as a dictionary or an object has them; none of anything else."""
    return dict(part) if isinstance(part, dict) else dict(getattr(part, "__dict__", {}))


def _calls(message: Any) -> list[dict[str, Any]]:
    calls = getattr(message, "tool_calls", None)
    return [
        {
            "id": getattr(call, "id", None) or f"call_{index}",
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for index, call in enumerate(calls if isinstance(calls, list) else [])
        if getattr(call, "function", None) is not None
    ]


def _count(usage: Any, name: str) -> int:
    """A number of tokens; 0 where the service does not say it, or says something else."""
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0


def _text(message: Any, calls: list[dict[str, Any]]) -> str:
    content = getattr(message, "content", None)
    if isinstance(content, list):  # some hosts answer in parts
        content = "".join(str(part.get("text") or "") for part in _parts(message))
    text = content or getattr(message, "refusal", None)
    if text:
        return str(text)
    return answer_text("", [(call["function"]["name"], call["function"]["arguments"]) for call in calls])
