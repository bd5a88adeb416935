"""Completions that a client stored at the service (`store=true`), and the features that clients use, as these show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from ftbridge.migrate.objects import AccountObject, number_in, object_in, text_in


class StoredCompletion(AccountObject):
    """A completion that a client stored (`store=true`), with its input where that was downloaded.

    `request` holds the settings it was made with, as the service kept them; `messages` is None where the input was not
    downloaded, and `missing` says why an input cannot be used, such as an image that the service did not keep.
    """

    id: str
    source: str = ""
    model: str = ""
    created: float | None = None
    request: dict[str, Any] = Field(default={})
    metadata: dict[str, str] = Field(default={})
    completion: dict[str, Any] = Field(default={})
    finish_reason: str | None = None
    usage: dict[str, Any] = Field(default={})
    messages: tuple[dict[str, Any], ...] | None = None
    missing: str | None = None
    logprobs: dict[str, Any] | None = None
    raw: dict[str, Any] = Field(default={})

    @classmethod
    def of(
        cls, document: Mapping[str, Any], source: str, messages: tuple[dict[str, Any], ...] | None = None
    ) -> StoredCompletion:
        """A stored completion from the service's object and, if there are any, the messages of its input."""
        choice = next((one for one in document.get("choices") or () if isinstance(one, dict)), {})
        settings = {name: document[name] for name in _SETTINGS if document.get(name) is not None}
        plain = tuple(_message(message) for message in messages) if messages is not None else None
        return cls(
            id=str(document.get("id")),
            source=source,
            model=text_in(document.get("model")) or "",
            created=number_in(document.get("created")),
            request=settings,
            metadata={str(name): str(value) for name, value in object_in(document.get("metadata")).items()},
            completion=object_in(choice.get("message")),
            finish_reason=text_in(choice.get("finish_reason")),
            usage=object_in(document.get("usage")),
            messages=plain,
            missing=_missing(plain) if plain is not None else None,
            logprobs=object_in(choice.get("logprobs")) or None,
            raw=dict(document),
        )


class Features(AccountObject):
    """What clients use, as stored completions show; `seen` is how many were looked at, 0 for not known."""

    seen: int = 0
    tools: bool = False
    json_schema: bool = False
    json_object: bool = False
    images: bool = False
    logprobs: bool = False
    several_choices: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The features in use, in words."""
        words = {
            "tools": "tools",
            "json_schema": "JSON schema",
            "json_object": "JSON object",
            "images": "images",
            "logprobs": "logprobs",
            "several_choices": "n > 1",
        }
        return tuple(word for name, word in words.items() if getattr(self, name))


def features_of(completions: list[StoredCompletion]) -> Features:
    """What the clients that made these completions use."""
    formats = {str(object_in(one.request.get("response_format")).get("type")) for one in completions}
    parts = [part for one in completions for message in one.messages or () for part in _parts(message)]
    return Features(
        seen=len(completions),
        tools=any(one.request.get("tools") or one.completion.get("tool_calls") for one in completions),
        json_schema="json_schema" in formats,
        json_object="json_object" in formats,
        images=any(part.get("type") == "image_url" for part in parts),
        logprobs=any(one.logprobs for one in completions),
        several_choices=any(len(one.raw.get("choices") or ()) > 1 for one in completions),
    )


_SETTINGS = (
    "model", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "tools", "tool_choice",
    "parallel_tool_calls", "response_format", "service_tier", "max_completion_tokens", "stop", "reasoning_effort",
)  # fmt: skip
"""Fields of a stored completion that a client chose."""
_KEPT_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "function_call")


def _message(document: Mapping[str, Any]) -> dict[str, Any]:
    """A stored message as a request takes it: without its id, content parts in the place of the content that they repeat."""
    message = {name: document[name] for name in _KEPT_KEYS if document.get(name) is not None}
    parts = document.get("content_parts")
    if isinstance(parts, list) and parts:
        message["content"] = parts
    if "content" not in message and not message.get("tool_calls") and "content" in document:
        message["content"] = document["content"]
    return message


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _missing(messages: tuple[dict[str, Any], ...]) -> str | None:
    for number, message in enumerate(messages):
        content = message.get("content")
        for part in _parts(message):
            if part.get("type") == "image_url":
                address = part.get("image_url")
                url = address.get("url") if isinstance(address, dict) else address
                if not url:
                    return f"messages[{number}]: the service did not store the image"
        if content is None and not message.get("tool_calls") and not message.get("refusal"):
            return f"messages[{number}]: the content is null"
    return None if messages else "the service stored no input"
