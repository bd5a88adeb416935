"""Function calls that data sets write into texts: Hermes tags in ShareGPT, xLAM's lists, Glaive's dialogues.

    Hermes   <tools>[…]</tools> in the system text, <tool_call>{…}</tool_call>, <tool_response>…</tool_response>
    xLAM     {query, tools: "[…]", answers: "[{name, arguments}]"}; parameters without a schema around them
    Glaive   system: "SYSTEM: … {functions}", chat: "USER: … ASSISTANT: <functioncall> {…} <|endoftext|> FUNCTION RESPONSE: …"

Sources: the data cards of NousResearch/hermes-function-calling-v1, Salesforce/xlam-function-calling-60k and
glaiveai/glaive-function-calling-v2.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from ftbridge.data.convert.fields import Document, Messages, ShapeError
from ftbridge.data.convert.messages import as_text, call_of, normal_messages
from ftbridge.data.convert.tools import read_tools

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*(?:</tool_response>|\Z)", re.DOTALL)
_TOOLS = re.compile(r"<tools>\s*(\[.*?\]|\{.*?\})\s*</tools>", re.DOTALL)
_GLAIVE_TURN = re.compile(r"(?:^|\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE|FUNCTION|A):", re.DOTALL)
_GLAIVE_CALL = re.compile(r"<functioncall>\s*(\{.*\})", re.DOTALL)
_GLAIVE_ARGUMENTS = re.compile(r"(\"arguments\"\s*:\s*)'(.*)'\s*\}\s*\Z", re.DOTALL)
_TYPES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object",
    "tuple": "array", "set": "array",
}  # fmt: skip


def reply_in_text(text: str) -> Document | None:
    """Content and calls of an answer in Hermes tags; None for a text without them. Raises `ShapeError` for a broken call."""
    if "<tool_call>" not in text:
        return None
    calls = [_loose(match) for match in _CALL.findall(text)]
    content = _CALL.sub("", text).strip()
    reply: Document = {"content": content} if content else {}
    reply["tool_calls"] = [{"type": "function", "function": call_of(call, "<tool_call>")} for call in calls]
    return reply


def results_in_text(text: str) -> list[str]:
    """The results in a turn of Hermes, without their tags; the text itself where there are none."""
    return _RESULT.findall(text) if "<tool_response>" in text else [text]


def tools_in_text(text: str) -> list[Document]:
    """The tools that a system text of Hermes lists; none where it lists none that can be read."""
    match = _TOOLS.search(text)
    if not match:
        return []
    try:
        return read_tools(_loose(match[1]))
    except ShapeError:
        lines = [_loose(line) for line in match[1].splitlines() if line.strip()]
        return read_tools(lines) if all(isinstance(line, dict) for line in lines) else []


def read_function_text(record: Document) -> Document:
    """A record of xLAM or Glaive as a chat with calls. Raises `ShapeError`."""
    return _glaive(record) if "chat" in record else _xlam(record)


def _xlam(record: Document) -> Document:
    query, answers_field, tools = record.pop("query"), record.pop("answers"), record.pop("tools")
    calls = _loose(answers_field) if isinstance(answers_field, str) else answers_field
    if not isinstance(query, str) or not isinstance(calls, list):
        raise ShapeError("query is not text, or answers is not a list of calls")
    reply: Document = {"role": "assistant"}
    if calls:
        functions = [call_of(call, f"answers[{index}]") for index, call in enumerate(calls)]
        reply["tool_calls"] = [{"type": "function", "function": function} for function in functions]
    else:
        raise ShapeError("answers is an empty list; there is no completion to learn")
    example: Document = {"messages": normal_messages([{"role": "user", "content": query}, reply], "messages", [])}
    if listed := read_tools(tools):
        example["tools"] = [{**tool, "function": _schema(tool["function"])} for tool in listed]
    return example


def _schema(function: Document) -> Document:
    """A function whose parameters stand without a schema around them (name: {type: str, …}) with a schema."""
    parameters = function.get("parameters")
    if not isinstance(parameters, dict) or "properties" in parameters or parameters.get("type") == "object":
        return function
    properties: Document = {}
    required = []
    for name, about in parameters.items():
        about = about if isinstance(about, dict) else {"description": as_text(about)}
        words = str(about.get("type", "str")).lower()
        kind = re.split(r"[\[, ]", words)[0]
        properties[name] = {**about, "type": _TYPES.get(kind, kind)}
        if "optional" not in words and "default" not in about:
            required.append(name)
    schema: Document = {"type": "object", "properties": properties}
    return {**function, "parameters": {**schema, "required": required} if required else schema}


def _glaive(record: Document) -> Document:
    system, chat = record.pop("system", None) or "", record.pop("chat")
    if not isinstance(system, str) or not isinstance(chat, str):
        raise ShapeError("system or chat is not text")
    about, tools = _glaive_tools(system.strip().removeprefix("SYSTEM:").strip())
    pieces = _GLAIVE_TURN.split(f"\n{chat}")
    turns: Messages = [{"role": "system", "content": about}] if about else []
    for speaker, turn_text in zip(pieces[1::2], pieces[2::2], strict=True):
        text = turn_text.replace("<|endoftext|>", "").strip()
        turns.append(_glaive_turn(speaker, text))
    if not pieces[1:]:
        raise ShapeError("chat has no turns of USER and ASSISTANT")
    messages = normal_messages(turns, "messages", [])
    if any(one["role"] == "tool" and not one.get("tool_call_id") for one in messages):
        raise ShapeError("chat has a FUNCTION RESPONSE that follows no <functioncall>")
    return {"messages": messages, **({"tools": tools} if tools else {})}


def _glaive_turn(speaker: str, text: str) -> Document:
    if speaker == "USER":
        return {"role": "user", "content": text}
    if speaker.startswith("FUNCTION"):
        return {"role": "tool", "content": text}
    match = _GLAIVE_CALL.search(text)
    if not match:
        return {"role": "assistant", "content": text}
    quoted = _GLAIVE_ARGUMENTS.sub(lambda part: f"{part[1]}{part[2]}}}", match[1])
    call = call_of(_loose(quoted), "<functioncall>")
    before = text[: match.start()].strip()
    return {
        "role": "assistant",
        **({"content": before} if before else {}),
        "tool_calls": [{"type": "function", "function": call}],
    }


def _glaive_tools(system: str) -> tuple[str, list[Document]]:
    """The system text without its functions, and these."""
    start = system.find("{")
    if start < 0:
        return system, []
    functions, rest, decoder = [], system[start:], json.JSONDecoder()
    while rest.startswith("{"):
        try:
            function, end = decoder.raw_decode(rest)
        except ValueError:
            raise ShapeError("system lists a function that is not JSON") from None
        functions.append(function)
        rest = rest[end:].lstrip()
    about = " ".join(filter(None, [system[:start].strip().rstrip("-").strip(), rest]))
    return about, read_tools(functions)


def _loose(text: str) -> Any:
    """JSON, or the same in Python's notation. Raises `ShapeError`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise ShapeError(f"holds a call that is not JSON: {shown}") from None
