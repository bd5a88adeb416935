"""What APIs and logs hold as examples: requests with their responses, items of the Responses API, contents of Gemini.

Sources: OpenAI's API reference (stored chat completions, batches, responses); Vertex AI's page on tuning data for Gemini.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftbridge.data.convert.fields import Document, Messages, ShapeError, UnknownKey
from ftbridge.data.convert.messages import as_text, call_of, normal_messages, text_of
from ftbridge.data.convert.tools import read_tools

ENVELOPE = frozenset(
    [
        "object",
        "id",
        "model",
        "created",
        "request_id",
        "input_user",
        "metadata",
        "usage",
        "service_tier",
        "system_fingerprint",
        "seed",
        "temperature",
        "top_p",
        "n",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "presence_penalty",
        "frequency_penalty",
        "user",
        "store",
        "stream",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "tool_choice",
        "custom_id",
        "method",
        "url",
        "error",
        "status",
        "status_code",
        "created_at",
        "generationConfig",
        "generation_config",
        "safetySettings",
        "safety_settings",
        "labels",
        "tags",
        "max_output_tokens",
        "top_k",
        "truncation",
        "text",
        "background",
        "incomplete_details",
        "previous_response_id",
        "prompt_cache_key",
        "safety_identifier",
        "reasoning",
        "completed_at",
        "latency",
        "latency_ms",
        "timestamp",
        "finish_reason",
        "finishReason",
        "stop_reason",
        "stopReason",
        "stop_sequence",
        "done_reason",
    ]
)
"""Fields that are about a call, not what it asks or answers; they are let go and counted, or kept with --keep."""


def read_stored_completion(record: Document, unknown: list[UnknownKey]) -> Document:
    """A request with its response: a stored completion, a line of a log, a batch's request joined with its response."""
    request = _taken(record, ("request", "body", "request_body", "kwargs")) or _taken_request(record)
    response = _taken(record, ("response", "response_body"))
    if not response and isinstance(record.get("output"), dict):
        response = record.pop("output")
    request, response = _of_body(request), _of_body(response)
    if "choices" in record:
        response = {"choices": record.pop("choices"), **response}
    if not response:
        raise ShapeError(
            "is a request without its response",
            once=True,
            hint="Give the file of responses too: ftbridge convert requests.jsonl responses.jsonl OUT.",
        )
    if not request:
        raise ShapeError(
            "is a response without its request",
            once=True,
            hint="Give the file of requests too: ftbridge convert requests.jsonl responses.jsonl OUT.",
        )
    for name in ("request", "response"):  # what else a log says of the two is about the call
        record.pop(name, None)
    if response.get("error"):
        raise ShapeError(f"response.error is {as_text(response['error'])[:80]}; there is no completion to learn")
    if isinstance(response.get("output"), list):
        return read_responses({**request, "output": response["output"]}, unknown)
    if isinstance(response.get("candidates"), list):
        content = response["candidates"][0].get("content") if response["candidates"] else None
        return read_gemini({**request, "contents": [*request.get("contents", []), content]}, unknown)
    return _chat(request, _answer(response), unknown)


def _of_body(call: Document) -> Document:
    """A request or response with its `body` in place of what HTTP adds."""
    body = call.get("body")
    return {**{key: value for key, value in call.items() if key != "body"}, **body} if isinstance(body, dict) else call


def _taken(record: Document, names: tuple[str, ...]) -> Document:
    name = next((name for name in names if isinstance(record.get(name), dict)), None)
    return dict(record.pop(name)) if name else {}


def _taken_request(record: Document) -> Document:
    """The request of a record that has its fields beside the answer's; `messages` may be a page of the API."""
    request: Document = {}
    if isinstance(record.get("input"), dict):
        request = dict(record.pop("input"))
    for name in ("messages", "tools", "functions", "parallel_tool_calls", "instructions", "system", "contents"):
        if name in record:
            request[name] = record.pop(name)
    if isinstance(record.get("input"), (str, list)):
        request["messages" if "choices" in record else "input"] = record.pop("input")
    return request


def _answer(response: Document) -> Document:
    choices = response.get("choices")
    if isinstance(choices, list):
        if len(choices) != 1:
            raise ShapeError(f"choices has {len(choices)} completions; an example has one")
        reply = choices[0].get("message") if isinstance(choices[0], dict) else None
    else:
        reply = {"role": "assistant", "content": response["content"]} if "content" in response else None
    if not isinstance(reply, dict):
        raise ShapeError("the response contains no message")
    return _without_nulls(reply)


def _chat(request: Document, reply: Document, unknown: list[UnknownKey]) -> Document:
    messages = request.get("messages")
    if isinstance(messages, dict):
        if messages.get("has_more"):
            raise ShapeError("messages is one page of several (has_more); list them to the end")
        messages = messages.get("data")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list):
        raise ShapeError("messages is missing or is not a list")
    prompt_messages = [
        {key: value for key, value in _without_nulls(one).items() if key != "id"} if isinstance(one, dict) else one
        for one in messages
    ]
    turns = normal_messages([*prompt_messages, reply], "messages", unknown)
    if request.get("system") and not any(one.get("role") == "system" for one in turns):
        turns = [{"role": "system", "content": text_of(request["system"], "system")}, *turns]
    example: Document = {"messages": turns}
    if tools := read_tools(request.get("tools")):
        example["tools"] = tools
    for name in ("functions", "parallel_tool_calls"):
        if request.get(name) not in (None, []):
            example[name] = request[name]
    return example


def _without_nulls(message: Document) -> Document:
    """A message without what the API gives as null, but for content, which a call may lack."""
    plain = {key: value for key, value in message.items() if value is not None}
    if plain.keys() & {"tool_calls", "function_call"} and "content" in message:
        return {**plain, "content": message["content"]}
    return plain


# Responses


def read_responses(record: Document, unknown: list[UnknownKey]) -> Document:
    """The input and output items of a response as a chat. Raises `ShapeError`."""
    inputs, output = record.pop("input", None), record.pop("output", None)
    instructions = record.pop("instructions", None)
    items = [{"role": "user", "content": inputs}] if isinstance(inputs, str) else inputs
    if isinstance(output, str):
        output = [{"role": "assistant", "content": output}]
    if not isinstance(items, list) or not isinstance(output, list):
        raise ShapeError("input is not text or a list of items, or output is not a list")
    turns = list(_items([*items, *output]))
    if isinstance(instructions, str) and instructions:
        turns = [{"role": "system", "content": instructions}, *turns]
    example: Document = {"messages": normal_messages(turns, "messages", unknown)}
    if tools := read_tools(record.pop("tools", None)):
        example["tools"] = tools
    if isinstance(calls := record.pop("parallel_tool_calls", None), bool) and tools:
        example["parallel_tool_calls"] = calls
    return example


def _items(items: list[Any]) -> Iterator[Document]:
    """Messages; calls that follow each other are one message's, and reasoning belongs to what follows it."""
    calls: list[Document] = []
    thought = ""
    for index, item in enumerate(items):
        kind = item.get("type", "message") if isinstance(item, dict) else ""
        if kind == "function_call":
            calls.append({"id": item.get("call_id"), "type": "function", "function": call_of(item, f"item {index}")})
            continue
        if calls:
            yield _with_thought({"role": "assistant", "content": None, "tool_calls": calls}, thought)
            calls, thought = [], ""
        if kind == "reasoning":
            texts = [one.get("text", "") for one in [*(item.get("summary") or []), *(item.get("content") or [])]]
            thought = "\n".join(filter(None, [thought, *texts]))
        elif kind == "function_call_output":
            yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": as_text(item.get("output"))}
        elif kind == "message":
            message = {key: item[key] for key in ("role", "content") if key in item}
            content = message.get("content")
            if isinstance(content, list) and all(
                isinstance(part, dict) and part.get("type") in ("input_text", "output_text") for part in content
            ):
                message["content"] = "".join(str(part.get("text", "")) for part in content)
            if message.get("role") == "assistant":
                message, thought = _with_thought(message, thought), ""
            yield message
        else:
            raise ShapeError(f"item {index} is a {kind or 'value'}, which an example cannot contain")
    if calls:
        yield _with_thought({"role": "assistant", "content": None, "tool_calls": calls}, thought)


def _with_thought(message: Document, thought: str) -> Document:
    return {**message, "reasoning_content": thought} if thought else message


# Gemini


def read_gemini(record: Document, unknown: list[UnknownKey]) -> Document:
    """Contents with parts as a chat. Raises `ShapeError`."""
    messages = gemini_messages(record.pop("contents", None), "contents")
    return gemini_system_and_tools(record, messages)


def gemini_system_and_tools(record: Document, messages: Messages) -> Document:
    """The example of some messages, with the record's system instruction before them and its tools beside them."""
    for name in ("systemInstruction", "system_instruction"):
        system = record.pop(name, None)
        if system and (text := text_of(system, name)):
            messages = [{"role": "system", "content": text}, *messages]
    example: Document = {"messages": messages}
    if tools := read_tools(record.pop("tools", None)):
        example["tools"] = tools
    return example


def gemini_messages(contents: Any, at: str) -> Messages:
    """Gemini's contents as messages. Raises `ShapeError` for parts that no example holds."""
    if not isinstance(contents, list) or not all(isinstance(one, dict) for one in contents):
        raise ShapeError(f"{at} is not a list of objects with parts")
    turns: Messages = []
    for index, content in enumerate(contents):
        parts = content.get("parts")
        parts = [parts] if isinstance(parts, dict) else parts
        if not isinstance(parts, list):
            raise ShapeError(f"{at}[{index}].parts is missing or is not a list")
        turns += _gemini_turn(str(content.get("role", "user")), parts, f"{at}[{index}]")
    return normal_messages(turns, at, [])


def _gemini_turn(role: str, parts: list[Any], at: str) -> Messages:
    pieces: list[Document] = []
    calls, results, thoughts = [], [], list[str]()
    for number, part in enumerate(parts):
        part_path = f"{at}.parts[{number}]"
        if not isinstance(part, dict):
            raise ShapeError(f"{part_path} is not an object")
        if isinstance(call := part.get("functionCall", part.get("function_call")), dict):
            calls.append({"id": call.get("id"), "type": "function", "function": call_of(call, part_path)})
        elif isinstance(result := part.get("functionResponse", part.get("function_response")), dict):
            results.append({"role": "tool", "name": result.get("name"), "content": as_text(result.get("response"))})
        elif isinstance(data := part.get("inlineData", part.get("inline_data")), dict):
            mime = data.get("mimeType", data.get("mime_type", "image/png"))
            pieces.append({"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data.get('data')}"}})
        elif part.get("thought") is True and isinstance(part.get("text"), str):
            thoughts.append(part["text"])
        elif isinstance(part.get("text"), str):
            pieces.append({"type": "text", "text": part["text"]})
        else:
            raise ShapeError(
                f"{part_path} has {', '.join(part)}; an example can contain text, calls, results and inline images"
            )
    messages: Messages = results
    if pieces or calls:
        only_text = all(piece["type"] == "text" for piece in pieces)
        content = "".join(piece["text"] for piece in pieces) if only_text else pieces
        message: Document = {"role": role, "content": content if pieces else None}
        if calls:
            message["tool_calls"] = calls
        messages = [*results, _with_thought(message, "\n".join(thoughts))]
    return messages


# Batches


class BatchJoin:
    """Joins the lines of a batch's input with those of its output, by `custom_id`."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, int, Document]] = {}

    def joined(self, label: str, line: int, record: object) -> tuple[str, int, object] | None:
        """The record, or the two joined when the second comes; None while one waits for the other."""
        if not isinstance(record, dict) or not isinstance(record.get("custom_id"), str):
            return label, line, record
        if ("body" in record) == ("response" in record):  # a line that holds both, or neither
            return label, line, record
        other = self._waiting.pop(record["custom_id"], None)
        if other is None or ("body" in other[2]) == ("body" in record):
            self._waiting[record["custom_id"]] = (label, line, record)
            return other
        return (*(other[:2] if "body" in other[2] else (label, line)), {**other[2], **record})

    def rest(self) -> Iterator[tuple[str, int, object]]:
        """What found no partner."""
        yield from self._waiting.values()
