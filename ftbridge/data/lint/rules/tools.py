"""Rules about the tools an example offers: their list, their names, their parameters; and the deprecated functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from ftbridge.data.lint.rule import JSON, Line, Problem, Repair, kind_of, rule
from ftbridge.data.lint.rules.specimens import GOOD_CALL, assistant, call, calling, chat, tool, user
from ftbridge.data.lint.structure import SCHEMA, SUPERVISED_SCHEMA, calls, dropped, function_of, join, put, shown

MOST_TOOLS = 128

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A tool's or function's name."""

_OBJECT = f"{SCHEMA}, FunctionObject"


@rule(
    "FTB050",
    "tools-shape",
    kind="line",
    severity="error",
    reason="Tools must be a list of definitions.",
    source=f"{SUPERVISED_SCHEMA}: tools is an array",
    bad=chat(user(), assistant(), tools=tool()),
    good=GOOD_CALL,
    fixable=True,
)
def tools_shape(line: Line) -> Iterator[Problem]:
    """Tools are not a list, or too many. An empty list is none: OpenAI's own guide to preferences has it."""
    for _, _, holder, holder_at in line.conversations:
        tools, at = holder.get("tools"), join(holder_at, "tools")
        if isinstance(tools, list):
            if len(tools) > MOST_TOOLS:
                description = f"has {len(tools)} tools; the chat API takes {MOST_TOOLS}. Offer fewer."
                yield Problem(at, description, severity="warning")
        elif tools is not None:
            lone = isinstance(tools, dict) and isinstance(tools.get("function"), dict)
            repair = put(holder, "tools", [tools], "put the tool in a list") if lone else None
            yield Problem(at, f"is {kind_of(tools)}, not a list. Write the tools as a list.", repair)


@rule(
    "FTB051",
    "tool-shape",
    kind="line",
    severity="error",
    reason='A tool needs type "function" and a function with a name.',
    source=f"{SCHEMA}, ChatCompletionTool and FunctionObject",
    bad=chat(user(), assistant(), tools=[{"function": tool()["function"]}]),
    good=GOOD_CALL,
    fixable=True,
)
def tool_shape(line: Line) -> Iterator[Problem]:
    """A tool's definition lacks its type, its function or its name, or is not an object."""
    for at, value in _tools(line):
        if not isinstance(value, dict):
            yield Problem(at, f"is {kind_of(value)}, not a tool. Write an object with type and function.")
            continue
        function, kind = value.get("function"), value.get("type")
        if "type" not in value:
            is_object = isinstance(function, dict)
            repair = put(value, "type", "function", 'added type "function"') if is_object else None
            yield Problem(f"{at}.type", 'is missing. Write "function".', repair)
        elif kind != "function":
            yield Problem(f"{at}.type", f'is {shown(kind)}; fine-tuning knows tools of type "function" only.')
            continue
        if "function" not in value and isinstance(value.get("name"), str) and kind == "function":
            description = "is missing: the tool has the flat form of the Responses API. Put its keys under function."
            yield Problem(f"{at}.function", description, Repair("put the tool's keys under function", _nest(value)))
        elif not isinstance(function, dict):
            what = f"is {kind_of(function)}" if "function" in value else "is missing"
            yield Problem(f"{at}.function", f"{what}. Write an object with name and parameters.")
        else:
            yield from _named(function, f"{at}.function")


def _nest(value: dict[str, JSON]) -> Callable[[], None]:
    def apply() -> None:
        rest = {key: item for key, item in value.items() if key != "type"}
        value.clear()
        value.update({"type": "function", "function": rest})

    return apply


def _named(function: dict[str, JSON], at: str) -> Iterator[Problem]:
    name, description, strict = function.get("name"), function.get("description"), function.get("strict")
    if not isinstance(name, str):
        what = f"is {kind_of(name)}, not text" if "name" in function else "is missing"
        yield Problem(f"{at}.name", f"{what}. Name the function.")
    if description is not None and not isinstance(description, str):
        yield Problem(f"{at}.description", f"is {kind_of(description)}, not text. Write it as text.")
    if strict is not None and not isinstance(strict, bool):
        yield Problem(f"{at}.strict", f"is {kind_of(strict)}. Write true or false.")


@rule(
    "FTB052",
    "tool-name",
    kind="line",
    severity="error",
    severities={"local": "warning"},
    reason="A tool's name consists of at most 64 letters, digits, _ and -.",
    source=f"{_OBJECT}.name",
    bad=chat(user(), assistant(), tools=[tool("get weather")]),
    good=GOOD_CALL,
)
def tool_name(line: Line) -> Iterator[Problem]:
    """A tool's or function's name has other characters, or too many."""
    named = [(f"{at}.function", function_of(value)) for at, value in _tools(line) if isinstance(value, dict)]
    named += [(at, value) for at, value in _functions(line) if isinstance(value, dict)]
    named += [(f"{at}.function", function_of(value)) for _, at, value in calls(line)]
    named += [(spot.at, spot.message) for spot in line.messages if spot.role == "function"]
    for spot in line.messages:
        called = spot.message.get("function_call")
        if isinstance(called, dict):
            named.append((f"{spot.at}.function_call", called))
    for at, function in named:
        name = function.get("name")
        if isinstance(name, str) and not NAME.fullmatch(name):
            why = f"has {len(name)} characters" if len(name) > 64 else f"is {shown(name)}"
            yield Problem(f"{at}.name", f"{why}; names have letters, digits, _ and -, 1 to 64 of them. Change it.")


_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}


@rule(
    "FTB053",
    "tool-parameters",
    kind="line",
    severity="error",
    severities={"local": "warning"},
    reason='Parameters must be a JSON Schema of type "object".',
    source=f"{SCHEMA}, FunctionParameters; the chat completions API refuses schemas of another type; JSON Schema 2020-12",
    bad=chat(user(), assistant(), tools=[tool(parameters=["city"])]),
    good=GOOD_CALL,
)
def tool_parameters(line: Line) -> Iterator[Problem]:
    """A tool's parameters are not a JSON Schema object."""
    named = [(f"{at}.function", function_of(value)) for at, value in _tools(line) if isinstance(value, dict)]
    named += [(at, value) for at, value in _functions(line) if isinstance(value, dict)]
    for at, function in named:
        schema, path = function.get("parameters"), f"{at}.parameters"
        if schema is None or schema == {}:
            continue
        if not isinstance(schema, dict):
            yield Problem(path, f"is {kind_of(schema)}, not a JSON Schema object. Write one of type object.")
            continue
        kind, properties, required = schema.get("type"), schema.get("properties"), schema.get("required")
        if kind is None and not schema.keys() & {"anyOf", "oneOf", "allOf", "$ref"}:
            yield Problem(f"{path}.type", 'is missing. Write "object".', severity="warning")
        elif kind not in (None, "object") and kind != ["object"]:
            yield Problem(f"{path}.type", f'is {shown(kind)}; arguments must be an object. Write "object".')
        if properties is not None and not isinstance(properties, dict):
            yield Problem(f"{path}.properties", f"is {kind_of(properties)}, not an object.", severity="warning")
        elif properties:
            yield from _properties(properties, f"{path}.properties")
        if required is not None and not (isinstance(required, list) and all(isinstance(r, str) for r in required)):
            yield Problem(f"{path}.required", "is not a list of names.", severity="warning")
        elif required and isinstance(properties, dict):
            unknown = [name for name in required if name not in properties]
            if unknown:
                description = f"names {shown(unknown[0])}, which is not among the properties."
                yield Problem(f"{path}.required", description, severity="warning")


def _properties(properties: dict[str, JSON], at: str) -> Iterator[Problem]:
    for name, schema in properties.items():
        if not isinstance(schema, (dict, bool)):
            description = f"is {kind_of(schema)}, not a schema. Write an object with type."
            yield Problem(f"{at}.{name}", description, severity="warning")
        elif isinstance(schema, dict) and isinstance(schema.get("type"), str) and schema["type"] not in _TYPES:
            description = f"is {shown(schema['type'])}, which is not a type of JSON Schema."
            yield Problem(f"{at}.{name}.type", description, severity="warning")


@rule(
    "FTB054",
    "tool-twice",
    kind="line",
    severity="warning",
    reason="A call refers to its tool by name; if two tools share a name, it is not clear which one is meant.",
    source="the chat completions API refuses functions of the same name; fine-tuning publishes no rule",
    bad=chat(user(), assistant(), tools=[tool(), tool()]),
    good=GOOD_CALL,
)
def tool_twice(line: Line) -> Iterator[Problem]:
    """Two tools have the same name."""
    for conversation in line.conversations:
        tools = conversation.holder.get("tools")
        named = [function_of(v).get("name") for v in tools if isinstance(v, dict)] if isinstance(tools, list) else []
        counted = Counter(name for name in named if isinstance(name, str))
        for name, count in counted.items():
            if count > 1:
                at = join(conversation.holder_at, "tools")
                yield Problem(at, f"has {count} tools named {shown(name)}. Keep one, or rename the others.")


@rule(
    "FTB055",
    "parallel-tool-calls-type",
    kind="line",
    severity="error",
    methods=("supervised", "dpo"),
    reason="parallel_tool_calls must be true or false.",
    source=f"{SUPERVISED_SCHEMA}, ParallelToolCalls: boolean",
    bad=chat(user(), assistant(), parallel_tool_calls="false"),
    good=chat(user(), assistant(), parallel_tool_calls=False),
    fixable=True,
)
def parallel_tool_calls_type(line: Line) -> Iterator[Problem]:
    """parallel_tool_calls is neither true nor false."""
    for conversation in line.conversations:
        value = conversation.holder.get("parallel_tool_calls")
        if value is None or isinstance(value, bool):
            continue
        plain = value.strip().lower() if isinstance(value, str) else value
        meant = {"true": True, "false": False}.get(plain) if isinstance(plain, str) else None
        if not isinstance(value, str) and value in (0, 1):
            meant = bool(value)
        repair = None
        if meant is not None:
            repair = put(conversation.holder, "parallel_tool_calls", meant, f"wrote {str(meant).lower()}")
        description = f"is {shown(value)}. Write true or false, without quotes."
        yield Problem(join(conversation.holder_at, "parallel_tool_calls"), description, repair)


@rule(
    "FTB056",
    "parallel-calls-forbidden",
    kind="line",
    severity="warning",
    methods=("supervised", "dpo"),
    severities={"local": "info"},
    reason="The example teaches parallel calls while it says that there are none.",
    source="OpenAI supervised fine-tuning guide: parallel_tool_calls false keeps a model to one call at a time",
    bad=chat(user(), calling(call(), call("call_2")), tools=[tool()], parallel_tool_calls=False),
    good=chat(user(), calling(call(), call("call_2")), tools=[tool()], parallel_tool_calls=True),
)
def parallel_calls_forbidden(line: Line) -> Iterator[Problem]:
    """A message calls several tools at once, though parallel_tool_calls is false."""
    if not any(conversation.holder.get("parallel_tool_calls") is False for conversation in line.conversations):
        return
    for at, message, _, _ in line.messages:
        calls = message.get("tool_calls")
        if isinstance(calls, list) and len(calls) > 1:
            detail = f"has {len(calls)} calls at once, but parallel_tool_calls is false. Remove that key, or split the calls."
            yield Problem(f"{at}.tool_calls", detail)


@rule(
    "FTB057",
    "functions-shape",
    kind="line",
    severity="error",
    methods=("supervised", "dpo"),
    reason="The deprecated functions are a list of 1 to 128 objects with a name.",
    source=f"{SUPERVISED_SCHEMA}: functions, minItems 1, maxItems 128",
    bad=chat(user(), assistant(), functions=[]),
    good=chat(user(), assistant(), functions=[{"name": "weather", "parameters": {"type": "object", "properties": {}}}]),
    fixable=True,
)
def functions_shape(line: Line) -> Iterator[Problem]:
    """The deprecated functions are not a list, too few, too many, or without names."""
    for conversation in line.conversations:
        functions, at = conversation.holder.get("functions"), join(conversation.holder_at, "functions")
        if functions is None:
            continue
        if not isinstance(functions, list):
            yield Problem(at, f"is {kind_of(functions)}, not a list. Write the functions as a list.")
        elif not functions:
            yield Problem(at, "is an empty list. Remove the key.", dropped(conversation.holder, "functions"))
        elif len(functions) > MOST_TOOLS:
            yield Problem(at, f"has {len(functions)} functions; {MOST_TOOLS} are allowed. Offer fewer.")
    for at, value in _functions(line):
        if isinstance(value, dict):
            yield from _named(value, at)
        else:
            yield Problem(at, f"is {kind_of(value)}, not a function. Write an object with name and parameters.")


@rule(
    "FTB058",
    "deprecated-functions",
    kind="line",
    severity="info",
    reason="functions and function_call are deprecated; tools and tool_calls replace them.",
    source=f"{SUPERVISED_SCHEMA} and ChatCompletionRequestAssistantMessage: deprecated",
    bad=chat(user(), assistant(), functions=[{"name": "weather"}]),
    good=GOOD_CALL,
)
def deprecated_functions(line: Line) -> Iterator[Problem]:
    """An example uses functions or function_call, which are deprecated."""
    for conversation in line.conversations:
        if conversation.holder.get("functions"):
            yield Problem(join(conversation.holder_at, "functions"), "is deprecated. Write tools.")
            return
    for at, message, _, _ in line.messages:
        if message.get("function_call"):
            yield Problem(f"{at}.function_call", "is deprecated. Write tool_calls.")
            return


def _tools(line: Line) -> Iterator[tuple[str, JSON]]:
    yield from _elements(line, "tools")


def _functions(line: Line) -> Iterator[tuple[str, JSON]]:
    if line.context.method != "reinforcement":
        yield from _elements(line, "functions")


def _elements(line: Line, key: str) -> Iterator[tuple[str, JSON]]:
    for conversation in line.conversations:
        elements = conversation.holder.get(key)
        for index, value in enumerate(elements if isinstance(elements, list) else ()):
            yield f"{join(conversation.holder_at, key)}[{index}]", value
