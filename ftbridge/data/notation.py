"""How families of models write reasoning and tool calls: one table, and the reader that turns a completion into a reply.

    <think>⏎Peru has one.⏎</think>⏎⏎Lima.<tool_call>⏎{"name": "look_up", "arguments": {"city": "Lima"}}⏎</tool_call>
           └─ reasoning_content ─┘  content                        └──────────── tool_calls ───────────┘

`notation_of` finds a chat template's notation by the marks it writes; `read_reply` reads a completion by it. The local
provider, the evaluator, graders and the server read completions here, so that text, reasoning and calls mean the same
everywhere. A completion is given with the special tokens of its notation (`Notation.marks`): many families write calls with
them. Sources: the chat templates and model cards of each family, and OpenAI's harmony format guide for gpt-oss.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ftbridge.data import call_forms
from ftbridge.data.call_forms import Call, CallForm, NotACall
from ftbridge.data.examples import ExampleError, Message, parse_example

Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Reply:
    """A completion in its parts.

    `reasoning_content` is None where there is no reasoning, or where it is empty. `tool_calls` are OpenAI's: `{"id", "type":
    "function", "function": {"name", "arguments"}}` with arguments as JSON text. Ids are counted (`call_0`) where the notation
    has none.
    """

    content: str
    reasoning_content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()

    @property
    def calls(self) -> list[tuple[str, Any]]:
        """Name and arguments of each call."""
        return [(call["function"]["name"], call["function"]["arguments"]) for call in self.tool_calls]


@dataclass(frozen=True)
class Notation:
    """One family's way of writing reasoning and calls.

    `reasoning` is the pair of marks around reasoning; None where the family has none. `form` reads and writes calls. `wrappers`
    are marks around the text itself, which are taken away. `channels` tells whether messages have channels (gpt-oss).
    """

    name: str
    form: CallForm | None = None
    reasoning: tuple[str, str] | None = None
    wrappers: tuple[str, ...] = ()
    channels: bool = False
    recipients: bool = False

    @property
    def marks(self) -> frozenset[str]:
        """Special tokens that a reader of completions must not lose."""
        markers = {*(self.reasoning or ()), *self.wrappers, *(self.form.marks if self.form else ())}
        return frozenset(markers | (set(_HARMONY) if self.channels else set()))


_HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>", "<|eom|>")

REASONING_MARKS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"),
    ("<|channel>thought\n", "<channel|>"),
    ("◁think▷", "◁/think▷"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)
"""Marks around reasoning, in this order: Qwen, GLM, Kimi, DeepSeek, Nemotron and many others; Magistral; Command A; Seed;
OpenThinker; Solar; three of small families; Gemma 4; Kimi-VL; Apertus."""

_RESPONSE = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>", "<response>", "</response>")
_RESPONSE_MARKS = (*_RESPONSE, "<|python_start|>", "<|python_end|>", "<|begin_of_solution|>", "<|end_of_solution|>")

PLAIN = Notation("plain", reasoning=REASONING_MARKS[0])
"""For a template that has no place for calls. A reply that begins with a `<think>` block has reasoning all the same."""

_CACHE: dict[str, Notation] = {}


def notation_of(chat_template: str) -> Notation:
    """The notation that a chat template writes, found by its marks; `PLAIN` where it has none.

    The first form of the table whose marks all stand in the template is its form of calls.
    """
    if chat_template not in _CACHE:
        _CACHE[chat_template] = _find_notation(chat_template.replace("\\n", "\n"))
    return _CACHE[chat_template]


def _find_notation(source: str) -> Notation:
    reasoning = next((pair for pair in REASONING_MARKS if pair[1].strip() in source), None)
    channels = "<|message|>" in source and ("<|channel|>" in source or ("<|start|>" in source and " to=" in source))
    wrappers = tuple(mark for mark in _RESPONSE_MARKS if mark in source)
    form = next((form for form in call_forms.FORMS if form.is_written_in(source)), None)
    recipients = ">>>" in source and ("all\\n" in source or "all\n" in source)
    name = form.name if form else "plain"
    if channels:
        return Notation("harmony", call_forms.HARMONY, None, wrappers, channels=True)
    if form is None and reasoning is None and not wrappers and not recipients:
        return PLAIN
    return Notation(name, form, reasoning, wrappers, recipients=recipients)


def read_reply(
    text: str, notation: Notation | None = None, thinking_open: bool = False, tools: Tools | None = None
) -> Reply:
    """The parts of a completion.

    Args:
        text: What the model wrote, up to its end of turn, with the special tokens of `Notation.marks`.
        notation: The family's; None reads a leading block of reasoning and every form of calls that has marks of its own.
        thinking_open: Whether the prompt ended within a block of reasoning. A completion that never closes it is all reasoning.
        tools: The tools that were offered: with none (`()`), nothing is a call. Their schemas give the types of arguments in
            notations that do not write types. None: it is not known.

    Text that looks like a call but cannot be read stays in `content`, whole.
    """
    used = notation or PLAIN
    if used.channels:
        return _read_channels(text, tools, thinking_open)
    text = _unwrapped(text, used)
    reasoning, rest = _split_reasoning(text, used, thinking_open)
    calls: list[Call] = []
    if tools is None or len(tools):
        rest, calls = _read_calls(rest, notation, tools)
    rest = _unwrapped(rest, used)
    if reasoning is not None or calls:
        rest = rest.strip()
    return Reply(rest, (reasoning or "").strip() or None, _as_openai(calls))


def _unwrapped(text: str, notation: Notation) -> str:
    """The text without marks around all of it, and without the name of the recipient who is the user."""
    for wrapper in notation.wrappers:
        text = text.replace(wrapper, "")
    match = re.match(r"(?:>>>)?all\n", text) if notation.recipients else None
    return text[match.end() :] if match and ">>>" not in text[match.end() :] else text


def split_reasoning(text: str) -> tuple[str | None, str]:
    """Reasoning and the rest of a text that begins with a block of reasoning: (None, text) for any other text.

    This is how data without a field for reasoning carry it, and how services without a parser return it.
    """
    reasoning, rest = _split_reasoning(text, PLAIN, False)
    return reasoning, rest.strip() if reasoning is not None else text


def _split_reasoning(text: str, notation: Notation, thinking_open: bool) -> tuple[str | None, str]:
    """None for a text without a block; an empty string for an empty block."""
    pairs = (notation.reasoning,) if notation.reasoning else ()
    if PLAIN.reasoning not in pairs:
        pairs = (*pairs, PLAIN.reasoning)
    for pair in pairs:
        if pair is None:
            continue
        opening, closing = (mark.strip() for mark in pair)
        bare = text.lstrip()
        if bare.startswith(opening):
            inner, separator, rest = bare[len(opening) :].partition(closing)
            if not separator:  # cut within its reasoning: without a close all of it is reasoning
                return (inner, "") if pair == notation.reasoning and notation is not PLAIN else (None, text)
            return inner, rest
        if pair != notation.reasoning:
            continue
        inner, separator, rest = text.partition(closing)
        if separator and (thinking_open or (notation is not PLAIN and opening not in inner)):
            return inner, rest
        if thinking_open:
            return text, ""
    return None, text


REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Keys under which data carry an assistant's reasoning."""


def reasoning_of(message: Message) -> str | None:
    """A message's reasoning: a field of its own, or the block that its text begins with. None without any."""
    if message.role != "assistant":
        return None
    extra = message.model_extra or {}
    reasoning = next((extra[key] for key in REASONING_KEYS if isinstance(extra.get(key), str)), None)
    if reasoning is None:
        reasoning = split_reasoning(message.text)[0]
    return reasoning.strip("\n") if reasoning and reasoning.strip() else None


def count_reasoning(path: Path) -> int:
    """How many lines of a canonical split have an answer with reasoning that is trained."""
    count = 0
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if any(mark in line for mark in ("reason", "think")):
                try:
                    count += learns_reasoning(json.loads(line))
                except ValueError:
                    continue
    return count


def learns_reasoning(document: Any) -> bool:
    """Whether a parsed line has an answer with reasoning that is trained; of a preference, either answer counts."""
    try:
        if isinstance(document, dict) and "input" in document:
            preference = parse_example(document, "dpo")
            return any(reasoning_of(completion) for completion in (preference.preferred, preference.non_preferred))
        return any(message.has_loss and reasoning_of(message) for message in parse_example(document).messages)
    except (ExampleError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False  # no example: the rules of lines tell why


def answer_text(content: str, calls: Sequence[tuple[str, Any]]) -> str:
    """An answer as one text, which a reference and a completion have alike: its content, or the JSON of its calls.

    Calls are (name, arguments) and become `[{"name": ..., "arguments": {...}}]`, without ids, which differ every time;
    arguments that are not JSON stay text.
    """
    documents = [{"name": name, "arguments": call_forms.json_or_text(arguments)} for name, arguments in calls]
    return json.dumps(documents, ensure_ascii=False) if documents else content


# Calls


def _read_calls(text: str, notation: Notation | None, tools: Tools | None) -> tuple[str, list[Call]]:
    """The text without its calls, and the calls."""
    names = _names(tools)
    for form in forms_of(notation):
        if not (form.has_marks or tools or (notation is not None and notation.form)):
            continue
        if form.has_marks and not any(mark in text for mark in form.openers):
            continue
        try:
            rest, calls = form.read(text, tools or ())
        except NotACall:
            continue
        if calls and (form.has_marks or not names or all(call.name in names for call in calls)):
            return rest, calls
    return text, []


def forms_of(notation: Notation | None) -> list[CallForm]:
    """The forms of calls that are looked for, in their order: the family's own and those it writes as well, or all of them."""
    if notation is None or notation.form is None:
        return list(call_forms.FORMS)
    return [notation.form, *(form for form in call_forms.FORMS if form.name in notation.form.also)]


def _names(tools: Tools | None) -> set[str]:
    return {str((tool.get("function") or tool).get("name", "")) for tool in tools or ()}


def _as_openai(calls: Sequence[Call]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "id": call_forms.whole_characters(call.id or f"call_{index}"),
            "type": "function",
            "function": {
                "name": call_forms.whole_characters(call.name),
                "arguments": call_forms.whole_characters(call_forms.as_json(call.arguments)),
            },
        }
        for index, call in enumerate(calls)
    )


# gpt-oss

_MESSAGE = re.compile(
    r"(?P<head>[^<]*(?:<\|channel\|>[^<]*)?(?:<\|constrain\|>[^<]*)?)<\|message\|>(?P<body>.*?)"
    r"(?:<\|end\|>|<\|return\|>|<\|call\|>|<\|eom\|>|(?=<\|start\|>)|$)",
    re.DOTALL,
)


def _read_channels(text: str, tools: Tools | None, thinking_open: bool) -> Reply:
    """Messages with channels: analysis is reasoning, final is content, a message with a recipient is a call.

    Families without channels name a recipient alone: `self` hears reasoning, `user` the text.
    """
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[Call] = []
    first = re.match(r"(?:(?!<\|(?:start|channel|message)\|>).)*", text, re.DOTALL)
    lead = re.split(r"<\|end\|>|<\|return\|>|<\|call\|>|<\|eom\|>", first.group() if first else text)[0]
    rest = text
    if lead.strip() and not re.match(r"\s*to=[^\s<]+\s*(?:<\||$)", text) and not lead.strip().startswith("assistant"):
        (reasoning if thinking_open else content).append(lead)  # the prompt had opened the channel
        rest = text[len(lead) :]
    for match in _MESSAGE.finditer(rest):
        head, body = match["head"], match["body"]
        kind, name = channel_of(head, tools)
        if kind == "call":
            try:
                calls += call_forms.invokes(body, tools or ())
            except NotACall:
                calls.append(Call(name, call_forms.json_or_text(body)))
        else:
            (reasoning if kind == "analysis" else content).append(body)
    joined = "\n".join(part.strip("\n") for part in content)
    thoughts = "\n".join(part.strip() for part in reasoning)
    return Reply(joined, thoughts or None, _as_openai(calls))


def channel_of(head: str, tools: Tools | None) -> tuple[Literal["call", "analysis", "final"], str]:
    """What a message of gpt-oss is by its head: a call, with the function's name, or one of the analysis or final channel."""
    recipient = re.search(r"to=(?:functions\.)?([^\s<]+)", head)
    if recipient and recipient[1] not in ("user", "assistant", "self") and (tools is None or len(tools)):
        return "call", recipient[1]
    channel = re.search(r"<\|channel\|>\s*(\w+)", head)
    inner = (channel and channel[1] == "analysis") or (recipient and recipient[1] == "self")
    return ("analysis" if inner else "final"), ""


# Templates without a place for tools


def write_calls(calls: Sequence[Mapping[str, Any]]) -> str:
    """Calls as text in Hermes' notation (`<tool_call>` around JSON), which `read_reply` reads back.

    For chat templates that have no place for calls: text beside calls stands before them, each on lines of its own.
    """
    return call_forms.HERMES.write(calls)


def write_result(name: str | None, content: str) -> str:
    """A tool's result as text of a user's message, for chat templates that have no tool role."""
    head = json.dumps({"name": name}, ensure_ascii=False)[:-1] + ", " if name else "{"
    body = json.dumps({"content": content}, ensure_ascii=False)[1:]
    return f"<tool_response>\n{head}{body}\n</tool_response>"


def tools_prompt(tools: Tools) -> str:
    """A system prompt that offers tools and tells how to call them, for chat templates that have no place for tools.

    It is Hermes' wording in short; models answer with `<tool_call>` blocks, which `read_reply` reads.
    """
    offered = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        "You may call the functions below, which are described by JSON Schema.\n"
        f"<tools>\n{offered}\n</tools>\n"
        "To call a function, answer with a JSON object within <tool_call> tags, one for each call:\n"
        '<tool_call>\n{"name": "FUNCTION", "arguments": {"PARAMETER": "VALUE"}}\n</tool_call>'
    )
