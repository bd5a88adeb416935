"""Typed examples: one line of a supervised chat dataset, as OpenAI publishes it, read and written back without loss.

Unknown keys are kept (graders see them as `item.*`). The checks here are those without which an example means nothing;
advice belongs to the linter.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class Part(BaseModel):
    """A content part: text, refusal or image_url. Only text and refusal can be rendered locally."""

    model_config = ConfigDict(frozen=True, extra="allow")
    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(BaseModel):
    """A function's name and its arguments: a JSON string as OpenAI writes them, or an object as templates want them."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str
    arguments: str | dict[str, Any]


class ToolCall(BaseModel):
    """One call of a tool by the assistant."""

    model_config = ConfigDict(frozen=True, extra="allow")
    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(BaseModel):
    """One message. `weight` 0 keeps an assistant message out of the loss; absent or 1 trains it."""

    model_config = ConfigDict(frozen=True, extra="allow")
    role: Role
    content: str | list[Part] | None = None
    name: str | None = None
    weight: Literal[0, 1] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None

    @property
    def trained(self) -> bool:
        """Whether the loss falls on this message."""
        return self.role == "assistant" and self.weight != 0

    @property
    def text(self) -> str:
        """The content as plain text; parts are joined without a separator."""
        if isinstance(self.content, list):
            return "".join(part.text or part.refusal or "" for part in self.content)
        return self.content or self.refusal or ""


class ChatExample(BaseModel):
    """One supervised example: messages, and the tools they may call."""

    model_config = ConfigDict(frozen=True, extra="allow")
    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None

    def canonical(self) -> str:
        """One line of JSON: known keys in the order of these classes, then the others as given; nothing added or lost."""
        return json.dumps(
            self.model_dump(mode="json", exclude_unset=True), ensure_ascii=False, separators=(",", ":"), allow_nan=False
        )

    @property
    def prompt(self) -> list[Message]:
        """Everything before the last message, which is the assistant's answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> Message:
        """The last message."""
        return self.messages[-1]

    @property
    def extra(self) -> dict[str, Any]:
        """The item's own fields, beside messages and tools."""
        return dict(self.model_extra or {})


class ExampleError(ValueError):
    """What is wrong with one example: `problems` are (field, sentence) pairs."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field} {text}" for field, text in problems))
        self.problems = problems


def parse_example(document: object) -> ChatExample:
    """Check one parsed line and type it. Raises `ExampleError` naming each field."""
    if not isinstance(document, dict):
        raise ExampleError([("", f"is {_kind(document)}; each example is a JSON object with a messages list.")])
    if "messages" not in document:
        hint = ""
        if {"prompt", "completion"} <= document.keys():
            hint = " This looks like the old prompt and completion format."
        elif "preferred_output" in document:
            hint = " This looks like preference data, for method dpo."
        raise ExampleError([("messages", f"is missing.{hint}")])
    try:
        example = ChatExample.model_validate(document, strict=True)
    except ValidationError as error:
        raise ExampleError([_problem(item) for item in error.errors()]) from None
    if problems := _meaning(example):
        raise ExampleError(problems)
    return example


def _meaning(example: ChatExample) -> list[tuple[str, str]]:
    """Problems that types cannot see. Sources: OpenAI's supervised guide and its published per-line schema."""
    problems: list[tuple[str, str]] = []
    for index, message in enumerate(example.messages):
        at = f"messages[{index}]"
        calls = message.tool_calls or message.function_call
        if message.content is None and not calls and message.refusal is None:
            hint = " but the message has no tool_calls" if message.role == "assistant" else ""
            problems.append((f"{at}.content", f"is null{hint}. Give it text, or remove the message. (FTB021)"))
        if message.role == "tool" and not message.tool_call_id:
            problems.append((f"{at}.tool_call_id", "is missing. Name the call this result answers."))
        if message.tool_calls is not None and not message.tool_calls:
            problems.append((f"{at}.tool_calls", "is empty. Remove the key, or list the calls."))
        if message.weight is not None and message.role != "assistant":
            problems.append((f"{at}.weight", f"belongs to assistant messages, not to {message.role}."))
        for part_index, part in enumerate(message.content if isinstance(message.content, list) else []):
            if part.type == "text" and part.text is None:
                problems.append((f"{at}.content[{part_index}].text", "is missing."))
    if example.messages[-1].role != "assistant":
        role = example.messages[-1].role
        problems.append(
            (f"messages[{len(example.messages) - 1}].role", f"is {role}; the last message is the answer to learn.")
        )
    elif not any(message.trained for message in example.messages):
        problems.append(("messages", "has no assistant message with a weight other than 0: nothing to train on."))
    return problems


def _problem(item: Any) -> tuple[str, str]:
    field = ""
    for part in item["loc"]:
        if isinstance(part, int):
            field += f"[{part}]"
        elif part in ("str", "list[Part]", "dict[str,any]", "bool"):
            continue
        else:
            field += f".{part}" if field else str(part)
    if item["type"] == "missing":
        return field, "is missing."
    value = json.dumps(item["input"], ensure_ascii=False, default=str)
    shown = value if len(value) <= 40 else value[:37] + "..."
    return field, f"{item['msg'].removeprefix('Input ').rstrip('.')}, not {shown}."


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(value), "null")
