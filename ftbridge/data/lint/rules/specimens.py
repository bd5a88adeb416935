"""Short lines of each method, of which the rules' bad and good lines are made."""

from __future__ import annotations

import json

from ftbridge.data.lint.rule import JSON

Object = dict[str, JSON]


def user(content: JSON = "Capital of France?", **more: JSON) -> Object:
    """A user message."""
    return {"role": "user", "content": content, **more}


def assistant(content: JSON = "Paris", **more: JSON) -> Object:
    """An assistant message with content."""
    return {"role": "assistant", "content": content, **more}


def system(content: JSON = "Answer in one word.", role: str = "system") -> Object:
    """A system message, or a developer message."""
    return {"role": role, "content": content}


def call(id: str = "call_1", name: str = "weather", arguments: JSON = '{"city": "Rome"}', **more: JSON) -> Object:
    """A tool call."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calling(*calls: Object, **more: JSON) -> Object:
    """An assistant message that calls tools."""
    return {"role": "assistant", "tool_calls": list(calls) or [call()], **more}


def result(content: JSON = "21 degrees", id: str = "call_1", **more: JSON) -> Object:
    """A tool's result."""
    return {"role": "tool", "tool_call_id": id, "content": content, **more}


def tool(name: str = "weather", parameters: JSON = None) -> Object:
    """A tool's definition."""
    schema = parameters or {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def image(url: JSON = "https://example.com/cat.png", **more: JSON) -> Object:
    """An image part."""
    return {"type": "image_url", "image_url": {"url": url, **more}}


def text(content: str = "What is this?") -> Object:
    """A text part."""
    return {"type": "text", "text": content}


def chat(*messages: JSON, **more: JSON) -> str:
    """A supervised or reinforcement line."""
    return json.dumps({"messages": list(messages), **more}, ensure_ascii=False)


def preference(*messages: JSON, better: JSON = None, worse: JSON = None, **more: JSON) -> str:
    """A preference line."""
    document = {
        "input": {"messages": list(messages) or [user()]},
        "preferred_output": [assistant()] if better is None else better,
        "non_preferred_output": [assistant("Lyon")] if worse is None else worse,
    }
    return json.dumps({**document, **more}, ensure_ascii=False)


GOOD = chat(user(), assistant())
GOOD_CALL = chat(user("Weather in Rome?"), calling(), result(), assistant("Warm."), tools=[tool()])
GOOD_IMAGE = chat(user([text(), image()]), assistant("A cat."))
GOOD_PREFERENCE = preference()
GOOD_REINFORCEMENT = chat(user("2 + 2?"), reference_answer="4")
