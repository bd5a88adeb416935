"""Chat completions over HTTP, for whoever asks a model: one client, one reader of replies, one way to drop parameters.

    body ──▶ Objections.send ──▶ ChatClient.send, or the SDK of a hosted service ──▶ read_reply ──▶ ChatReply
                  └── 400 names a parameter that the model does not take: dropped or renamed, sent again at once

Judges and servers of our own are asked with `ChatClient`. A hosted service is asked through OpenAI's SDK, which knows the paths
of Azure and the headers of organisations; its replies and objections are read here as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ftbridge.redaction import whole_characters, without_keys

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


class NotAChatCompletion(ValueError):
    """A document that contains no chat completion, such as one whose `choices` are empty."""


@dataclass(frozen=True)
class ChatReply:
    """One choice of a chat completion; text is free of keys and of halves of characters.

    `text` is None for a reply without content. `reasoning` is what a service returns apart. `tool_calls` are
    `{"id", "type": "function", "function": {"name", "arguments"}}`. Tokens are None where the service does not count them.
    """

    text: str | None
    refusal: str | None
    reasoning: str | None
    tool_calls: tuple[dict[str, Any], ...]
    finish_reason: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None


class ChatClient:
    """Sends bodies to `{base_url}/chat/completions` over a pool of connections that the caller owns. Safe for threads."""

    def __init__(self, base_url: str, http: httpx.Client, key: str | None = None) -> None:
        self._url = f"{base_url}/chat/completions"
        self._http = http
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def send(self, body: Mapping[str, Any], timeout: httpx.Timeout | None = None) -> httpx.Response:
        """The response, whatever its status. Raises httpx's errors where none comes."""
        content = json.dumps(body).encode()
        if timeout is None:
            return self._http.post(self._url, content=content, headers=self._headers)
        return self._http.post(self._url, content=content, headers=self._headers, timeout=timeout)


# Replies


def read_reply(document: Any) -> ChatReply:
    """The first choice of a response's JSON. Raises `NotAChatCompletion`."""
    choices = document.get("choices") if isinstance(document, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping) or not isinstance(choice.get("message"), Mapping):
        raise NotAChatCompletion("the reply contains no completion (no choices)")
    return reply_of(choice, document)


def reply_of(choice: Mapping[str, Any], document: Mapping[str, Any]) -> ChatReply:
    """One choice of a response, with the response's model and usage."""
    content = choice.get("message")
    message: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
    usage = document.get("usage")
    prompt, completion, total = (count(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    content, refusal = message.get("content"), message.get("refusal")
    return ChatReply(
        text=None if content is None else _clean(_text(content)),
        refusal=_clean(str(refusal)) if refusal else None,
        reasoning=_clean(reasoning) if (reasoning := _reasoning(message)) else None,
        tool_calls=tuple(_calls(message)),
        finish_reason=word(choice.get("finish_reason")),
        model=word(document.get("model")),
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
    )


def count(usage: Any, name: str) -> int | None:
    """A number of tokens in a `usage` object, 0 or more; None where the service does not say it, or says something else."""
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def word(value: Any) -> str | None:
    """A value of a response that should be a word; None for anything else."""
    return value if isinstance(value, str) and value else None


def _clean(text: str) -> str:
    return without_keys(whole_characters(text))


def _text(content: Any) -> str:
    if isinstance(content, list):  # some hosts reply in parts
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _reasoning(message: Mapping[str, Any]) -> str | None:
    """The reasoning that a service returns beside the text.

    OpenAI-compatible servers call it `reasoning_content` (DeepSeek, SGLang, llama.cpp, vLLM before 0.12) or `reasoning` (vLLM,
    OpenRouter, Groq); Mistral puts it into parts of the content, of type thinking.
    """
    for name in ("reasoning_content", "reasoning"):
        value = message.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    thoughts = [part.get("thinking") for part in parts if part.get("type") == "thinking"]
    pieces = [piece for thought in thoughts for piece in (thought if isinstance(thought, list) else [thought])]
    texts = (
        piece if isinstance(piece, str) else str(piece.get("text") or "") if isinstance(piece, Mapping) else ""
        for piece in pieces
    )
    return "".join(texts).strip() or None


def _calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    raw = message.get("tool_calls")
    calls = [call for call in raw if isinstance(call, Mapping)] if isinstance(raw, list) else []
    if isinstance(message.get("function_call"), Mapping):  # the form before tools
        calls.append({"function": message["function_call"]})
    return [
        {
            "id": word(call.get("id")) or f"call_{index}",
            "type": "function",
            "function": {"name": str(function.get("name")), "arguments": _arguments(function.get("arguments"))},
        }
        for index, call in enumerate(calls)
        if isinstance(function := call.get("function"), Mapping)
    ]


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


# Parameters


_RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""Reasoning models know only `max_completion_tokens`, older hosts only `max_tokens`."""
_TOGETHER = {"logprobs": "top_logprobs", "store": "metadata"}
"""A parameter that goes with another, without which it means nothing."""


class Objections:
    """The parameters that one model objects to: each is met once, and left out of every later body. Safe for threads.

    `optional` names the parameters without which a request is still the same question.
    """

    def __init__(self, optional: frozenset[str] = frozenset({"temperature"})) -> None:
        self._optional = optional
        self._met: list[str] = []

    def send(
        self,
        body: dict[str, Any],
        send: Callable[[dict[str, Any]], T],
        param_of: Callable[[Exception], str | None],
    ) -> T:
        """What `send` returns for the body, without what the model objects to. Raises what `send` raises otherwise.

        `param_of` is the parameter that an error of `send` objects to, or None.
        """
        for param in self._met:
            body = self._without(body, param) or body
        while True:
            try:
                return send(body)
            except Exception as error:
                refused = param_of(error)
                changed = None if refused is None else self._without(body, refused)
                if refused is None or changed is None:
                    raise
                if refused not in self._met:
                    self._met.append(refused)
                body = changed

    def _without(self, body: dict[str, Any], param: str) -> dict[str, Any] | None:
        """The body as a model wants it that objects to `param`; None when the request would become another."""
        if param not in body:
            return None
        changed = {name: value for name, value in body.items() if name not in (param, _TOGETHER.get(param))}
        other = _RENAMED.get(param)
        if other is not None:
            return None if other in self._met else {**changed, other: body[param]}
        return changed if param in self._optional else None
