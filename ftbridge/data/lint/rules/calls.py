"""Rules about tool calls: their shape, their arguments, and the results that answer them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from ftbridge.data.lint.rule import JSON, Line, Problem, Repair, Severity, kind_of, rule
from ftbridge.data.lint.rules.answering import pairs_of
from ftbridge.data.lint.rules.specimens import GOOD_CALL, assistant, call, calling, chat, result, text, tool, user
from ftbridge.data.lint.structure import LLMCOMP, SCHEMA, calls, dropped, function_of, near, put, shown

_CALL = f"{SCHEMA}, ChatCompletionMessageToolCall"
_CHAT_API = "the chat completions API refuses it; fine-tuning publishes no rule"
_TOOLS = [tool()]
_ASK = user("Weather in Rome?")


@rule(
    "FTB059",
    "tool-calls-shape",
    kind="line",
    severity="error",
    reason="tool_calls are a list with at least one call.",
    source=f"{LLMCOMP}: not empty; {SCHEMA}, ChatCompletionMessageToolCalls: an array",
    bad=chat(_ASK, assistant(tool_calls=[])),
    good=GOOD_CALL,
    fixable=True,
)
def tool_calls_shape(line: Line) -> Iterator[Problem]:
    """An assistant's tool_calls are not a list, or an empty one."""
    for at, message, role, _ in line.messages:
        calls, path = message.get("tool_calls"), f"{at}.tool_calls"
        if role != "assistant" or calls is None:
            continue
        if not isinstance(calls, list):
            lone = isinstance(calls, dict) and isinstance(calls.get("function"), dict)
            repair = put(message, "tool_calls", [calls], "put the call in a list") if lone else None
            yield Problem(path, f"is {kind_of(calls)}, not a list. Write the calls as a list.", repair)
        elif not calls:
            has_content = message.get("content") is not None or message.get("function_call") or message.get("refusal")
            yield Problem(
                path, "is an empty list. Remove the key.", dropped(message, "tool_calls") if has_content else None
            )


@rule(
    "FTB060",
    "call-shape",
    kind="line",
    severity="error",
    reason='A call needs an id, the type "function", and a function with a name and arguments.',
    source=f"{_CALL}: id, type and function are required",
    bad=chat(_ASK, calling({"id": "call_1", "function": call()["function"]}), tools=_TOOLS),
    good=GOOD_CALL,
    fixable=True,
)
def call_shape(line: Line) -> Iterator[Problem]:
    """A call lacks its id, its type, its function or its name, or is not an object."""
    lenient: Severity | None = "info" if line.context.target.name == "local" else None
    for at, message, role, _ in line.messages:
        held_calls = message.get("tool_calls")
        for index, value in enumerate(held_calls if role == "assistant" and isinstance(held_calls, list) else ()):
            if not isinstance(value, dict):
                description = f"is {kind_of(value)}, not a call. Write an object with id, type and function."
                yield Problem(f"{at}.tool_calls[{index}]", description)
    for _, at, value in calls(line):
        identity = value.get("id")
        if identity is None or identity == "":
            what = "is missing" if "id" not in value else "is empty" if identity == "" else "is null"
            description = f"{what}. Give the call an id, and its result the same as tool_call_id."
            yield Problem(f"{at}.id", description, severity=lenient)
        elif not isinstance(identity, str):
            yield Problem(f"{at}.id", f"is {kind_of(identity)}, not text. Write it as text, here and in its result.")
        function = value.get("function")
        if "type" not in value:
            repair = put(value, "type", "function", 'added type "function"') if isinstance(function, dict) else None
            yield Problem(f"{at}.type", 'is missing. Write "function".', repair, severity=lenient)
        elif value["type"] != "function":
            yield Problem(f"{at}.type", f'is {shown(value["type"])}. Write "function", the only type of calls.')
        if not isinstance(function, dict):
            what = f"is {kind_of(function)}" if "function" in value else "is missing"
            yield Problem(f"{at}.function", f"{what}. Write an object with name and arguments.")
        else:
            yield from _named(function, f"{at}.function")


def _named(function: dict[str, JSON], at: str) -> Iterator[Problem]:
    name = function.get("name")
    if not isinstance(name, str):
        what = f"is {kind_of(name)}, not text" if "name" in function else "is missing"
        yield Problem(f"{at}.name", f"{what}. Name the function that is called.")


@rule(
    "FTB061",
    "arguments-not-text",
    kind="line",
    severity="error",
    severities={"local": "info"},
    reason="Arguments are a string of JSON, as a model writes them, not an object.",
    source=f"{_CALL}: function.arguments is a string",
    bad=chat(_ASK, calling(call(arguments={"city": "Rome"})), tools=_TOOLS),
    good=GOOD_CALL,
    fixable=True,
)
def arguments_not_text(line: Line) -> Iterator[Problem]:
    """A call's arguments are not text."""
    for at, function in called(line):
        arguments, path = function.get("arguments"), f"{at}.arguments"
        if isinstance(arguments, str):
            continue
        if arguments is None:
            what = "is null" if "arguments" in function else "is missing"
            yield Problem(path, f'{what}. Write "{{}}" for a call without arguments.', severity="error")
        elif isinstance(arguments, dict):
            repair = Repair("wrote the arguments as text", _written(function, arguments))
            yield Problem(path, "is an object. Write it as a string of JSON.", repair)
        else:
            yield Problem(path, f"is {kind_of(arguments)}. Write an object, as text.", severity="error")


def _written(function: dict[str, JSON], arguments: dict[str, JSON]) -> Callable[[], None]:
    def apply() -> None:
        function["arguments"] = json.dumps(arguments, ensure_ascii=False)

    return apply


@rule(
    "FTB062",
    "arguments-not-json",
    kind="line",
    severity="warning",
    reason="The model learns to write arguments that no program can read.",
    source=f"{_CALL}: the text may be invalid JSON, so the service does not check it",
    bad=chat(_ASK, calling(call(arguments="{city: Rome}")), tools=_TOOLS),
    good=GOOD_CALL,
)
def arguments_not_json(line: Line) -> Iterator[Problem]:
    """A call's arguments are text, but no JSON object."""
    for at, function in called(line):
        arguments, path = function.get("arguments"), f"{at}.arguments"
        if not isinstance(arguments, str):
            continue
        try:
            value = json.loads(arguments)
        except ValueError as error:
            if not arguments.strip():
                yield Problem(path, 'is empty. Write "{}" for a call without arguments.')
            elif isinstance(error, json.JSONDecodeError):
                yield Problem(path, f"is not JSON: {error.msg} at character {error.pos + 1:,}. Write valid JSON.")
            else:
                yield Problem(path, "is not JSON that can be read. Write valid JSON.")
        except RecursionError:
            yield Problem(path, "is nested too deeply to be read.")
        else:
            if not isinstance(value, dict):
                yield Problem(path, f"is {kind_of(value)} as JSON; arguments must be an object. Write one.")


@rule(
    "FTB063",
    "call-id-twice",
    kind="line",
    severity="warning",
    reason="A result refers to its call by the id; if two calls share an id, it is not clear which one it belongs to.",
    source=f"ids of one message: {_CHAT_API}",
    bad=chat(_ASK, calling(call(), call(arguments='{"city": "Oslo"}')), tools=_TOOLS),
    good=GOOD_CALL,
)
def call_id_twice(line: Line) -> Iterator[Problem]:
    """Two calls of one message have the same id."""
    seen: dict[str, set[str]] = {}
    for spot, at, value in calls(line):
        identity = value.get("id")
        if isinstance(identity, str) and identity:
            seen_ids = seen.setdefault(spot.at, set())
            if identity in seen_ids:
                yield Problem(
                    f"{at}.id",
                    f"is {shown(identity)}, the id of another call in this message. Give each call its own id.",
                )
            seen_ids.add(identity)


@rule(
    "FTB064",
    "result-without-call",
    kind="line",
    severity="warning",
    reason="A tool's result belongs to an earlier call, which it names by tool_call_id.",
    source=_CHAT_API,
    bad=chat(_ASK, calling(), result(id="call_9"), assistant("Warm."), tools=_TOOLS),
    good=GOOD_CALL,
)
def result_without_call(line: Line) -> Iterator[Problem]:
    """A tool message's tool_call_id is not a call's before it."""
    for conversation in line.conversations:
        call_ids: set[str] = set()
        for index, message in enumerate(conversation.messages):
            if not isinstance(message, dict):
                continue
            call_ids.update(_ids(message))
            identity = message.get("tool_call_id")
            if message.get("role") == "tool" and isinstance(identity, str) and identity and identity not in call_ids:
                description = f"is {shown(identity)}, but no call before it has this id."
                yield Problem(
                    f"{conversation.at}[{index}].tool_call_id", f"{description} Name the call that it belongs to."
                )


@rule(
    "FTB065",
    "missing-tool-call-id",
    kind="line",
    severity="error",
    reason="A tool's result names the call that it belongs to, by tool_call_id.",
    source=f"{SCHEMA}, ChatCompletionRequestToolMessage: tool_call_id is required",
    bad=chat(_ASK, calling(), {"role": "tool", "content": "21"}, assistant("Warm."), tools=_TOOLS),
    good=GOOD_CALL,
    fixable=True,
)
def missing_tool_call_id(line: Line) -> Iterator[Problem]:
    """A tool message does not name its call."""
    for conversation in line.conversations:
        pairs = pairs_of(conversation.messages)
        for index, message in enumerate(conversation.messages):
            if not isinstance(message, dict) or message.get("role") != "tool":
                continue
            identity, at = message.get("tool_call_id"), f"{conversation.at}[{index}].tool_call_id"
            if identity is None or identity == "":
                what = "is missing" if "tool_call_id" not in message else "is empty" if identity == "" else "is null"
                call = pairs.get(index)
                repair = put(message, "tool_call_id", call.id, f"wrote {call.id}, {call.how}") if call else None
                yield Problem(at, f"{what}. Name the call that this result belongs to.", repair)
            elif not isinstance(identity, str):
                yield Problem(at, f"is {kind_of(identity)}, not text. Write the call's id as text.")


@rule(
    "FTB066",
    "call-without-result",
    kind="line",
    severity="warning",
    reason="A conversation that continues after a call has to contain the tool's result; otherwise the model learns to "
    "invent it. Azure refuses the file.",
    source=f"{_CHAT_API}; Azure's validator refuses it (reported: contains invalid schema)",
    bad=chat(_ASK, calling(), user("Well?"), assistant("Warm."), tools=_TOOLS),
    good=GOOD_CALL,
    severities={"azure": "error"},
)
def call_without_result(line: Line) -> Iterator[Problem]:
    """A call has no result before the conversation goes on."""
    for conversation in line.conversations:
        waiting: dict[str, str] = {}
        for index, message in enumerate(conversation.messages):
            if not isinstance(message, dict):
                return
            if message.get("role") == "tool":
                identity = message.get("tool_call_id")
                if isinstance(identity, str):
                    waiting.pop(identity, None)
                continue
            yield from _unanswered(waiting)
            at = f"{conversation.at}[{index}].tool_calls"
            calls = message.get("tool_calls")
            waiting = {
                value["id"]: f"{at}[{index}]"
                for index, value in enumerate(calls if isinstance(calls, list) else ())
                if isinstance(value, dict) and isinstance(value.get("id"), str) and value["id"]
            }
        last = conversation.messages[-1] if conversation.messages else None
        if isinstance(last, dict) and last.get("role") == "tool":
            yield from _unanswered(waiting)


def _unanswered(waiting: dict[str, str]) -> Iterator[Problem]:
    for identity, at in waiting.items():
        yield Problem(at, f"has no result: add a tool message with tool_call_id {shown(identity)} after it.")


@rule(
    "FTB067",
    "undefined-tool",
    kind="line",
    severity="warning",
    severities={"local": "info"},
    reason="A model that is trained to call tools that it is not offered will call them when they do not exist.",
    source="OpenAI function calling and supervised fine-tuning guides: each example lists the tools",
    bad=chat(_ASK, calling(call(name="forecast")), tools=_TOOLS),
    good=GOOD_CALL,
)
def undefined_tool(line: Line) -> Iterator[Problem]:
    """A call is of a tool that the example does not offer."""
    holder = line.conversations[0].holder if line.conversations else {}
    tools, functions = holder.get("tools"), holder.get("functions")
    offered = [function_of(value) for value in tools if isinstance(value, dict)] if isinstance(tools, list) else []
    offered += [value for value in functions if isinstance(value, dict)] if isinstance(functions, list) else []
    names = {function["name"] for function in offered if isinstance(function.get("name"), str)}
    if (tools or functions) and not names:
        return
    for at, function in called(line):
        name = function.get("name")
        if not isinstance(name, str) or not name or name in names:
            continue
        if not names:
            yield Problem(
                f"{at}.name", f"is {shown(name)}, but the example offers no tools. Add tools.", severity="info"
            )
            return
        meant = next((tool_name for tool_name in names if tool_name.lower() == name.lower()), None) or near(
            name, frozenset(names)
        )
        hint = f"Is it {meant}?" if meant else "Add its definition to tools."
        yield Problem(f"{at}.name", f"is {shown(name)}, which is not among the tools. {hint}")


@rule(
    "FTB068",
    "tool-content-parts",
    kind="line",
    severity="warning",
    severities={"local": None},
    reason="The schema allows text parts in a tool's result, but the service has refused them: should be a valid string.",
    source="OpenAI's server, community.openai.com 965584 (2024)",
    bad=chat(_ASK, calling(), result([text("21")]), assistant("Warm."), tools=_TOOLS),
    good=GOOD_CALL,
    fixable=True,
)
def tool_content_parts(line: Line) -> Iterator[Problem]:
    """A tool's result is a list of parts."""
    for at, message, role, _ in line.messages:
        content = message.get("content")
        if role not in ("tool", "function") or not isinstance(content, list) or not content:
            continue
        part_texts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        texts = [one for one in part_texts if isinstance(one, str)]
        repair = put(message, "content", "".join(texts), "joined the parts") if len(texts) == len(part_texts) else None
        yield Problem(f"{at}.content", "is a list of parts. Write one text.", repair)


@rule(
    "FTB069",
    "function-message",
    kind="line",
    severity="error",
    methods=("supervised", "dpo"),
    reason="A deprecated function message must name its function, and a function_call needs a name and arguments.",
    source=f"{SCHEMA}, ChatCompletionRequestFunctionMessage: name is required",
    bad=chat(_ASK, {"role": "function", "content": "21"}, assistant("Warm.")),
    good=chat(_ASK, {"role": "function", "name": "weather", "content": "21"}, assistant("Warm.")),
)
def function_message(line: Line) -> Iterator[Problem]:
    """A function message has no name, or a function_call is not one."""
    for at, message, role, _ in line.messages:
        name = message.get("name")
        if role == "function" and not isinstance(name, str):
            what = "is missing" if name is None else f"is {kind_of(name)}, not text"
            yield Problem(f"{at}.name", f"{what}. Name the function that gave this result.")
        call = message.get("function_call")
        if role != "assistant" or call is None:
            continue
        if isinstance(call, dict):
            yield from _named(call, f"{at}.function_call")
        else:
            description = f"is {kind_of(call)}, not a call. Write an object with name and arguments."
            yield Problem(f"{at}.function_call", description)


def called(line: Line) -> Iterator[tuple[str, dict[str, JSON]]]:
    """Every function that is called, in either way, with its path."""
    for spot in line.messages:
        call = spot.message.get("function_call")
        if isinstance(call, dict) and spot.role == "assistant":
            yield f"{spot.at}.function_call", call
    for _, at, value in calls(line):
        if isinstance(value.get("function"), dict):
            yield f"{at}.function", value["function"]


def _ids(message: dict[str, JSON]) -> list[str]:
    calls = message.get("tool_calls")
    ids = [value.get("id") for value in calls if isinstance(value, dict)] if isinstance(calls, list) else []
    return [identity for identity in ids if isinstance(identity, str) and identity]
