"""Typed examples: one line of a fine-tuning dataset, as OpenAI publishes it, read and written back without loss.

    method          a line                                                                          type
    supervised      {messages, tools?, parallel_tool_calls?, functions?, …}                         ChatExample
    dpo             {input: {messages, tools?, parallel_tool_calls?}, preferred_output,
                     non_preferred_output}: each output one assistant message                       PreferenceExample
    reinforcement   {messages, tools?, …}: the last message is the user's                           ReinforcementExample

Unknown keys are kept (graders see those of a line as `item.*`). The checks here are those without which an example means
nothing; advice belongs to the linter. Sources: OpenAI's supervised, preference and reinforcement guides, and its published
schemas `FineTuneChatRequestInput`, `FineTunePreferenceRequestInput` and `FineTuneReinforcementRequestInput`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge.spec.problems import field_of, reason

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
Method = Literal["supervised", "dpo", "reinforcement"]


class _Open(BaseModel):
    """Frozen, and open: keys that are not known are kept, after those that are."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Part(_Open):
    """A content part: text, refusal or image_url. Only text and refusal can be rendered locally."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(_Open):
    """A function's name and its arguments: a JSON string as OpenAI writes them, or an object as templates want them."""

    name: str
    arguments: str | dict[str, Any]


class ToolCall(_Open):
    """One call of a tool by the assistant."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(_Open):
    """One message. `weight` 0 keeps an assistant message out of the loss; absent or 1 trains it."""

    role: Role
    content: str | list[Part] | None = None
    name: str | None = None
    weight: Annotated[int, Field(ge=0, le=1)] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None

    @property
    def has_loss(self) -> bool:
        """Whether the loss falls on this message."""
        return self.role == "assistant" and self.weight != 0

    @property
    def text(self) -> str:
        """The content as plain text; parts are joined without a separator."""
        if isinstance(self.content, list):
            return "".join(part.text or part.refusal or "" for part in self.content)
        return self.content or self.refusal or ""


class _Line(_Open):
    """What every kind of example can do."""

    def document(self) -> dict[str, Any]:
        """The line as JSON values: known keys in the order of these classes, then the others as given."""
        return self.model_dump(mode="json", exclude_unset=True)

    def canonical(self) -> str:
        """One line of JSON: the document, nothing added or lost."""
        return json.dumps(self.document(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    @property
    def extra(self) -> dict[str, Any]:
        """The line's own fields, beside those of its kind."""
        return dict(self.model_extra or {})


class ChatExample(_Line):
    """One supervised example: messages, the last of them the answer to learn, and the tools they may call."""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None

    @property
    def functions(self) -> list[dict[str, Any]]:
        """Tools written in the deprecated way; empty where there are none."""
        functions = (self.model_extra or {}).get("functions")
        return [function for function in functions if isinstance(function, dict)] if isinstance(functions, list) else []

    @property
    def prompt(self) -> list[Message]:
        """Everything before the last message, which is the assistant's answer."""
        return self.messages[:-1]

    @property
    def completion(self) -> Message:
        """The last message."""
        return self.messages[-1]


class PreferenceInput(_Open):
    """What both answers of a preference reply to."""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None


_Output = Annotated[list[Message], Field(min_length=1, max_length=1)]


class PreferenceExample(_Line):
    """One preference: an input and two answers to it. Each output is a list of one assistant message."""

    input: PreferenceInput
    preferred_output: _Output
    non_preferred_output: _Output

    @property
    def prompt(self) -> list[Message]:
        """What both answers reply to."""
        return self.input.messages

    @property
    def conversations(self) -> tuple[ChatExample, ChatExample]:
        """The preferred and the other conversation as supervised examples, whose last message alone is trained."""
        before = [
            message.model_copy(update={"weight": 0}) if message.role == "assistant" else message
            for message in self.input.messages
        ]
        sides = (*self.preferred_output, *self.non_preferred_output)
        first, second = (ChatExample(messages=[*before, side], tools=self.input.tools) for side in sides)
        return first, second

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """The tools that the answers may call."""
        return self.input.tools

    @property
    def messages(self) -> list[Message]:
        """The conversation with the better answer, as a supervised example would have it."""
        return [*self.input.messages, *self.preferred_output]

    @property
    def completion(self) -> Message:
        """The answer to learn: the better one."""
        return self.preferred_output[0]

    @property
    def preferred(self) -> Message:
        """The better answer."""
        return self.preferred_output[0]

    @property
    def non_preferred(self) -> Message:
        """The worse answer."""
        return self.non_preferred_output[0]


class ReinforcementExample(_Line):
    """One item to practise on: messages that end with the user's, tools, and fields of its own for graders."""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None

    @property
    def prompt(self) -> list[Message]:
        """All messages; the model writes the next one."""
        return self.messages


Example = ChatExample | PreferenceExample | ReinforcementExample

_TYPES: dict[Method, type[Example]] = {
    "supervised": ChatExample,
    "dpo": PreferenceExample,
    "reinforcement": ReinforcementExample,
}


class ExampleError(ValueError):
    """What is wrong with one example: `problems` are (field, sentence) pairs."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field} {text}" for field, text in problems))
        self.problems = problems


@overload
def parse_example(document: object, method: Literal["supervised"] = "supervised") -> ChatExample: ...
@overload
def parse_example(document: object, method: Literal["dpo"]) -> PreferenceExample: ...
@overload
def parse_example(document: object, method: Literal["reinforcement"]) -> ReinforcementExample: ...
@overload
def parse_example(document: object, method: Method) -> Example: ...
def parse_example(document: object, method: Method = "supervised") -> Example:
    """Check one parsed line and type it for its method. Raises `ExampleError` naming each field."""
    if not isinstance(document, dict):
        raise ExampleError([("", f"is {_kind(document)}; each example is a JSON object with {_WANTED[method]}.")])
    needed = "input" if method == "dpo" else "messages"
    if needed not in document:
        raise ExampleError([(needed, f"is missing.{_other_kind(document, method)}")])
    try:
        example = _TYPES[method].model_validate(document, strict=True)
    except ValidationError as error:
        raise ExampleError([_problem(item) for item in error.errors()]) from None
    if problems := list(_meaning(example)):
        raise ExampleError(problems)
    return example


# What types cannot see

_WANTED = {
    "supervised": "a messages list",
    "dpo": "input, preferred_output and non_preferred_output",
    "reinforcement": "a messages list",
}

_Problems = Iterator[tuple[str, str]]


def _meaning(example: Example) -> _Problems:
    if isinstance(example, PreferenceExample):
        yield from _messages(example.input.messages, "input.messages")
        for field in ("preferred_output", "non_preferred_output"):
            output: list[Message] = getattr(example, field)
            yield from _messages(output, field)
            if output[0].role != "assistant":
                yield f"{field}[0].role", f"is {output[0].role}; an output must be one assistant message."
        return
    yield from _messages(example.messages, "messages")
    last = example.messages[-1]
    at = f"messages[{len(example.messages) - 1}].role"
    if isinstance(example, ReinforcementExample):
        if last.role != "user":
            yield at, f"is {last.role}; the last message must be the user's, which the model learns to answer."
    elif last.role != "assistant":
        yield at, f"is {last.role}; the last message must be the completion to learn."
    elif not any(message.has_loss for message in example.messages):
        yield "messages", "has no assistant message with a weight other than 0, so there is nothing to train on."


def _messages(messages: Sequence[Message], field: str) -> _Problems:
    for index, message in enumerate(messages):
        at = f"{field}[{index}]"
        calls = message.tool_calls or message.function_call
        if message.content is None and not calls and message.refusal is None:
            hint = " but the message has no tool_calls" if message.role == "assistant" else ""
            yield f"{at}.content", f"is null{hint}. Give it text, or remove the message. (FTB021)"
        if message.role == "tool" and not message.tool_call_id:
            yield f"{at}.tool_call_id", "is missing. Name the call that this result belongs to."
        if message.tool_calls is not None and not message.tool_calls:
            yield f"{at}.tool_calls", "is empty. Remove the key, or list the calls."
        if message.weight is not None and message.role != "assistant":
            yield f"{at}.weight", f"belongs to assistant messages, not to {message.role}."
        for part_index, part in enumerate(message.content if isinstance(message.content, list) else []):
            if part.type == "text" and part.text is None:
                yield f"{at}.content[{part_index}].text", "is missing."


def _other_kind(document: dict[str, Any], method: Method) -> str:
    """What a line without its method's first key may be instead."""
    if {"prompt", "completion"} <= document.keys():
        return " This looks like the old prompt and completion format."
    if "preferred_output" in document and method != "dpo":
        return " This looks like preference data, for method dpo."
    if "messages" in document and method == "dpo":
        return " This looks like chat data, for method supervised or reinforcement."
    return ""


def _problem(item: Any) -> tuple[str, str]:
    field = field_of(item["loc"])
    if field in ("preferred_output", "non_preferred_output") and item["type"] in ("too_long", "too_short"):
        return field, f"has {len(item['input'])} messages; an output must be one assistant message."
    return field, f"{reason(item)}."


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(value), "null")
