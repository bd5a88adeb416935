"""What a chat template must not lose of a conversation: tools, messages, calls and completions. Each is a `RenderError`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftbridge.providers.local.data.messages import NO_CALLS
from ftbridge.providers.local.data.template import SENTINEL, ChatTemplate, RenderError, TemplateMessage


def require_tools(text: str, tools: Sequence[dict[str, Any]] | None, template: ChatTemplate) -> None:
    """Raise where the text that the template wrote offers no such tool."""
    for tool in tools or ():
        name = (tool.get("function") or tool).get("name", "")
        if name not in text or not template.writes_tools:
            raise RenderError(f"offers the tool {name!r}, which this model's chat template does not render")


def require_messages(
    messages: Sequence[TemplateMessage], tools: list[dict[str, Any]] | None, text: str, template: ChatTemplate
) -> None:
    """Raise where a message, or one of several calls, is not in the text: as it is, or as a probe shows it written."""
    for index, message in enumerate(messages):
        calls = message.get("tool_calls") or []
        if any(call["function"]["name"] not in text for call in calls):
            raise RenderError(NO_CALLS)
        if len(calls) > 1:
            last_call = {**calls[-1], "function": {**calls[-1]["function"], "name": SENTINEL}}
            asks = {**message, "tool_calls": [*calls[:-1], last_call]}
            other = template.attempt([*messages[:index], asks, *messages[index + 1 :]], tools)
            if other is not None and SENTINEL not in other:
                raise RenderError(
                    f"messages[{message['at']}] makes {len(calls)} parallel calls, but this model's chat template "
                    "does not write all of them"
                )
        content = (message.get("content") or "").strip()
        if message["role"] == "assistant" or content in text:
            continue
        # Not there word for word: as JSON, or in part, is well; a template that ignores the message is not.
        changed = [*messages[:index], {**message, "content": SENTINEL}, *messages[index + 1 :]]
        last = changed[-1]["role"] == "assistant"
        other = template.attempt(changed[:-1] if last else changed, tools, generation=True)
        if other is not None and SENTINEL not in other:
            at, role = message["at"], message["role"]
            raise RenderError(f"messages[{at}] (role {role}) is left out by this model's chat template")


def require_answer(message: TemplateMessage, completion: str) -> None:
    """Raise where the last completion lacks the message's text or the names of its calls."""
    content = (message.get("content") or "").strip()
    text = content.rsplit("</think>", 1)[-1].strip() or content
    names = [call["function"]["name"] for call in message.get("tool_calls") or []]
    if text not in completion or any(name not in completion for name in names):
        raise RenderError(
            f"messages[{message['at']}] cannot be found in the text that this model's chat template writes"
        )
