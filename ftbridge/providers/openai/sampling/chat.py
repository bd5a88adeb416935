"""A prompt as a chat-completions body, and the completion back: shared by direct sampling, recording and the Batch API."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ftbridge.chat_completions import NotAChatCompletion, Objections, read_reply
from ftbridge.data.notation import answer_text
from ftbridge.providers.base import Completion, Prompt
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import NotTheService, fault_of, require_fields
from ftbridge.providers.openai.targets import Target

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


@dataclass(frozen=True)
class Response:
    """A response of the service to one body: its JSON, its headers in lower case, and the seconds it took."""

    document: dict[str, Any]
    headers: dict[str, str]
    seconds: float


def send(at: Connection, body: dict[str, Any], objections: Objections) -> Response:
    """Send a body, without what the model objects to. Raises the SDK's errors, and `NotTheService` for a page."""

    def once(body: dict[str, Any]) -> Response:
        began = time.monotonic()
        raw = at.client.chat.completions.with_raw_response.create(**body)
        try:
            document = raw.http_response.json()
        except ValueError:
            document = raw.http_response.text
        if not isinstance(require_fields(document), dict):
            raise NotTheService("the response is not a JSON object")
        headers = {name.lower(): value for name, value in raw.headers.items()}
        return Response(document, headers, round(time.monotonic() - began, 3))

    return objections.send(body, once, _param_of)


def _param_of(error: Exception) -> str | None:
    fault = fault_of(error)
    return fault.param if fault.status == 400 else None


class NoCompletion(NotTheService):
    """A chat completion without a completion in it, such as one whose `choices` are empty: asking again may help."""


def completion_of(key: str, document: Any) -> Completion:
    """The completion as the contract has it. One that calls tools and says nothing is the JSON of its calls, as a reference is.

    Raises `NoCompletion`.
    """
    try:
        reply = read_reply(document)
    except NotAChatCompletion as error:
        raise NoCompletion(str(error)) from None
    calls = list(reply.tool_calls)
    text = reply.text or reply.refusal
    if not text:
        text = answer_text("", [(call["function"]["name"], call["function"]["arguments"]) for call in calls])
    return Completion(
        key=key,
        text=text,
        finish_reason=reply.finish_reason or "stop",
        prompt_tokens=reply.prompt_tokens or 0,
        completion_tokens=reply.completion_tokens or 0,
        reasoning_content=reply.reasoning,
        tool_calls=calls or None,
    )
