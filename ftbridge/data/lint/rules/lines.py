"""Rules about a line as an example: that it is one, of this method and format, with the keys it may have."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from ftbridge.data.lint import shape
from ftbridge.data.lint.meaning import (
    SYSTEM_PROMPTS,
    TRAIN_FLAGS,
    KeyAdvice,
    empty,
    keeps_count,
    stray,
    system_beside,
    train_flag,
)
from ftbridge.data.lint.rule import JSON, Conversation, Line, Problem, Severity, kind_of, rule
from ftbridge.data.lint.rules.specimens import GOOD, assistant, chat, preference, user
from ftbridge.data.lint.structure import (
    COOKBOOK,
    KEYS,
    LINE_KEYS,
    LLMCOMP,
    PREFERENCE_SCHEMA,
    REASONING,
    SUPERVISED_SCHEMA,
    dropped,
    function_of,
    join,
    near,
    renamed,
    shown,
)

_METHOD_NAMES = {
    "supervised": "a chat example, for method supervised",
    "dpo": "a preference example, for method dpo",
    "reinforcement": "a reinforcement example, for method reinforcement",
}


@rule(
    "FTB020",
    "line-not-an-object",
    kind="line",
    severity="error",
    reason="Each line is one example, and an example is a JSON object; the upload is refused otherwise.",
    source="OpenAI's server (HTTP 400: every line must be a JSON dictionary), OkGoDoIt/OpenAI-API-dotnet#59",
    bad='["Capital of France?", "Paris"]',
    good=GOOD,
)
def line_not_an_object(line: Line) -> Iterator[Problem]:
    """A line is JSON, but no object."""
    if not isinstance(line.document, dict):
        hint = ""
        if isinstance(line.document, str) and line.document.lstrip().startswith(("{", "[")):
            hint = " The text holds JSON: it was encoded twice. Decode it once."
        yield Problem("", f"is {kind_of(line.document)}; each line is one example, a JSON object.{hint}")


@rule(
    "FTB022",
    "missing-messages",
    kind="line",
    severity="error",
    methods=("supervised", "reinforcement"),
    reason="An example is a list of messages; the service says that the example is missing the key messages.",
    source=f"OpenAI's server (Example N is missing key 'messages'); {SUPERVISED_SCHEMA}: at least one message",
    bad=json.dumps({"Messages": [user(), assistant()]}),
    good=GOOD,
    fixable=True,
)
def missing_messages(line: Line) -> Iterator[Problem]:
    """A line has no list of messages, or an empty one."""
    document = line.document
    if not isinstance(document, dict) or foreign(document, line.context.method):
        return
    if "messages" not in document:
        like = next((key for key in document if key.strip().lower() == "messages"), None)
        if like is not None:
            yield Problem(like, "is not a key of examples; the key is messages.", renamed(document, like, "messages"))
        else:
            near_it = next((key for key, value in document.items() if _looks_like_messages(value)), None)
            hint = f" Rename {near_it} to messages." if near_it else " Give the line its list of messages."
            yield Problem("messages", f"is missing.{hint}")
    elif not isinstance(document["messages"], list):
        messages = document["messages"]
        text = isinstance(messages, str) and messages.lstrip().startswith("[")
        hint = f"`ftbridge convert {shlex.quote(line.context.path)} out.jsonl` reads it." if text else "Write a list."
        if isinstance(messages, dict) and _is_by_columns(document):
            hint = f"The line holds columns: {_BY_ROWS}"
        yield Problem("messages", f"is {'JSON text' if text else kind_of(messages)}, not a list. {hint}")
    elif not document["messages"]:
        yield Problem("messages", "is an empty list. Give the line messages, or remove it.")


@rule(
    "FTB023",
    "other-format",
    kind="line",
    severity="error",
    reason=(
        "OpenAI-compatible fine-tuning services read chat messages; lines in other formats lack the keys that they "
        "require."
    ),
    source=f"OpenAI's server (Example N is missing key 'messages' or 'input'); {SUPERVISED_SCHEMA}",
    bad='{"prompt": "Capital of France?", "completion": "Paris"}',
    good=GOOD,
)
def other_format(line: Line) -> Iterator[Problem]:
    """A line is in another format, such as prompt and completion, alpaca, ShareGPT or Gemini's contents."""
    kind = foreign(line.document, line.context.method)
    detection = shape.other_format(line.document) if kind and kind not in _METHOD_NAMES else None
    if detection is None:
        return
    description = f"is in another format ({detection.name}: {detection.reason})."
    if line.context.trains_here and line.as_run.document is not None:
        yield Problem("", f"{description} Runs on this machine read it as it is.", severity="info")
        return
    if "body" in line.document and "response" not in line.document:
        yield Problem(
            "",
            (
                f"{description} It is a request without its response: `ftbridge convert` joins it with the batch's "
                "output."
            ),
        )
    elif _is_by_columns(line.document):
        yield Problem("", f"{description} It holds columns, not one example: {_BY_ROWS}")
    else:
        yield Problem("", f"{description} {detection.hint(line.context.path)}")


@rule(
    "FTB019",
    "refused-by-run",
    kind="line",
    severity="error",
    severities={"openai": None, "azure": None, "nebius": None},
    reason="A run on this machine prepares each line first, and stops at one that it cannot read without a loss.",
    source="ftbridge's own preparation of data, which this rule applies to the line",
    bad=json.dumps({"messages": [user("Capital of France\ud83d"), assistant()]}),
    good=GOOD,
)
def refused_by_run(line: Line) -> Iterator[Problem]:
    """A run on this machine refuses the line."""
    if not line.context.is_prepared:
        for problem in line.as_run.problems:
            yield Problem("", problem)


@rule(
    "FTB024",
    "other-method",
    kind="line",
    severity="error",
    reason="Each method needs its own kind of lines: a chat file fails in a preference job, and vice versa.",
    source="OpenAI's server refuses chat files for methods other than supervised; the published per-line schemas",
    bad=preference(),
    good=GOOD,
)
def other_method(line: Line) -> Iterator[Problem]:
    """A line is an example of another method."""
    kind = foreign(line.document, line.context.method)
    if kind in _METHOD_NAMES:
        yield Problem(
            "", f"is {_METHOD_NAMES[kind]}, in a file for method {line.context.method}. Use one file per method."
        )


@rule(
    "FTB025",
    "extra-key",
    kind="line",
    severity="error",
    methods=("supervised", "dpo"),
    severities={"nebius": "warning", "local": "info"},
    reason='The service refuses lines with unknown keys: Example 1 contains an extra "weight".',
    source="OpenAI's server, code invalid_file_format (2025); reported for metadata and weight",
    bad=chat(user(), assistant(), metadata={"id": 7}),
    good=GOOD,
    fixable=True,
)
def extra_key(line: Line) -> Iterator[Problem]:
    """A line has a key that no example has."""
    document, method = line.document, line.context.method
    if not isinstance(document, dict) or not line.conversations:
        return
    holders = [(document, "", LINE_KEYS[method])]
    if method == "dpo":
        holders.append((line.conversations[0].holder, "input", LINE_KEYS["supervised"]))
    trains_here = line.context.target.name == "local"
    idle = "is not read" if trains_here else "is not a key of examples"
    for holder, at, allowed in holders:
        for key in [] if holder.keys() <= allowed else [key for key in holder if key not in allowed]:
            if method == "dpo" and not at and (key in LINE_KEYS["supervised"] or key.endswith("preferred_completion")):
                continue  # FTB082 and FTB085 tell of those
            hint, repair = _advice(holder, key, allowed)
            if trains_here and key == "system" and repair is not None:
                yield Problem(
                    join(at, key), f"is outside messages; runs on this machine move it into them. {hint}", repair
                )
                continue
            yield Problem(join(at, key), f"{idle}. {hint}", repair, severity=_lost(trains_here, key, holder[key]))


def _advice(holder: dict[str, JSON], key: str, allowed: frozenset[str]) -> KeyAdvice:
    if key in SYSTEM_PROMPTS and not empty(holder[key]) and "messages" in holder:
        return system_beside(holder, key)
    meant = None if keeps_count(key, holder[key]) else near(key, allowed)
    return KeyAdvice(f"Is it {meant}?") if meant else stray(holder, key)


def _lost(trains_here: bool, key: str, value: JSON) -> Severity | None:
    """The severity on this machine, where a key that may mean something is lost without a word."""
    return "warning" if trains_here and not empty(value) and not keeps_count(key, value) else None


_NOT_NULL = ("name", "weight", "tool_calls", "tool_call_id")


@rule(
    "FTB026",
    "null-key",
    kind="line",
    severity="warning",
    severities={"local": "info"},
    reason=(
        "The schema allows null only for content, refusal and function_call; leave other keys out if they have no "
        "value."
    ),
    source=f"{SUPERVISED_SCHEMA}: name, weight, tool_calls, tools and parallel_tool_calls are not nullable",
    bad=chat(user(), assistant(tool_calls=None)),
    good=GOOD,
    fixable=True,
)
def null_key(line: Line) -> Iterator[Problem]:
    """An optional key is null instead of left out."""
    for conversation in line.conversations:
        for key in ("tools", "parallel_tool_calls", "functions"):
            if key in conversation.holder and conversation.holder[key] is None:
                yield Problem(
                    join(conversation.holder_at, key), "is null. Leave the key out.", dropped(conversation.holder, key)
                )
    for at, message, role, _ in line.messages:
        for key in _NOT_NULL:
            needed = (role, key) in (("tool", "tool_call_id"), ("function", "name"))
            if key in message and message[key] is None and key in KEYS.get(role, ()) and not needed:
                yield Problem(f"{at}.{key}", "is null. Leave the key out.", dropped(message, key))


@rule(
    "FTB027",
    "message-not-an-object",
    kind="line",
    severity="error",
    reason="A message is an object with a role and content.",
    source=f"{SUPERVISED_SCHEMA}; {COOKBOOK}: data_type",
    bad=chat("Capital of France?", assistant()),
    good=GOOD,
)
def message_not_an_object(line: Line) -> Iterator[Problem]:
    """An element of messages is not an object."""
    lists = [(conversation.at, conversation.messages) for conversation in line.conversations]
    if line.context.method == "dpo" and isinstance(line.document, dict):
        outputs = {key: line.document.get(key) for key in ("preferred_output", "non_preferred_output")}
        lists += [(key, value) for key, value in outputs.items() if isinstance(value, list)]
    for at, messages in lists:
        for index, message in enumerate(messages):
            if not isinstance(message, dict):
                yield Problem(f"{at}[{index}]", f"is {kind_of(message)}; a message is an object with role and content.")


@rule(
    "FTB031",
    "extra-message-key",
    kind="line",
    severity="error",
    severities={"nebius": "warning", "local": "info"},
    reason="Each role has its own keys, and the service refuses others.",
    source=f"{LLMCOMP}; {COOKBOOK}: message_unrecognized_key; {PREFERENCE_SCHEMA}",
    bad=chat(user(timestamp=1_700_000_000), assistant()),
    good=GOOD,
    fixable=True,
)
def extra_message_key(line: Line) -> Iterator[Problem]:
    """A message has a key that messages of its role do not have."""
    trains_here = line.context.target.name == "local"
    for at, message, role, output in line.messages:
        allowed = KEYS.get(role)
        if allowed is None or message.keys() <= allowed:
            continue
        for key in [key for key in message if key not in allowed and key != "weight"]:
            if trains_here and (key in REASONING or key == "name" or message[key] is None):
                continue
            if role == "tool" and key == "name":
                yield _name_of_result(line, at, message)
            elif key == "audio" and message[key] is None:
                yield Problem(f"{at}.audio", "is null. Leave the key out.", dropped(message, key), severity="info")
            elif any(key in others for others in KEYS.values()):
                if empty(message[key]):
                    yield Problem(f"{at}.{key}", f"is not a key of {role} messages. Remove it.", dropped(message, key))
                else:
                    yield Problem(
                        f"{at}.{key}", f"is not a key of {role} messages. Move it to the message it belongs to."
                    )
            else:
                hint, repair = _message_advice(message, key, allowed, role, output)
                description = f"is not a key of {role} messages. {hint}"
                read = key in TRAIN_FLAGS and repair is not None  # a run reads it as the weight
                lost = None if read else _lost(trains_here, key, message[key])
                yield Problem(f"{at}.{key}", description, repair, severity=lost)


def _message_advice(message: dict[str, JSON], key: str, allowed: frozenset[str], role: str, output: bool) -> KeyAdvice:
    value = message[key]
    if key in TRAIN_FLAGS and not empty(value) and not output:
        return train_flag(message, key, assistant=role == "assistant")
    meant = None if keeps_count(key, value) else near(key, allowed)
    return KeyAdvice(f"Is it {meant}?") if meant else stray(message, key)


def _name_of_result(line: Line, at: str, message: dict[str, JSON]) -> Problem:
    """The name of the tool on its result: it can go once tool_call_id says the same."""
    name, identity = message["name"], message.get("tool_call_id")
    description = "belongs to tool calls; a tool's result is identified by its tool_call_id."
    called = {function for conversation in line.conversations for function in _called_as(conversation, identity)}
    if empty(name) or (isinstance(name, str) and called == {name}):
        return Problem(f"{at}.name", f"{description} Remove it.", dropped(message, "name"), severity="warning")
    if called:
        other = next(iter(called))
        description = (
            f"is {shown(name)}, but the call that tool_call_id names calls {shown(other)}. Correct one of them."
        )
        return Problem(f"{at}.name", description, severity="warning")
    return Problem(f"{at}.name", f"{description} Name the call there first.", severity="warning")


def _called_as(conversation: Conversation, identity: JSON) -> set[str]:
    """The functions that calls with this id are of."""
    names = set()
    for message in conversation.messages:
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        for value in calls if isinstance(calls, list) else ():
            if isinstance(value, dict) and identity is not None and value.get("id") == identity:
                name = function_of(value).get("name")
                names.update([name] if isinstance(name, str) else [])
    return names


def foreign(document: JSON, method: str) -> str | None:
    """The other method or format that a line is of; None if it is of this method, or of no kind that is known."""
    if not isinstance(document, dict):
        return None
    if method == "dpo":
        outputs = any(key.endswith(("preferred_output", "preferred_completion")) for key in document)
        ours = outputs or isinstance(document.get("input"), (dict, list))
    else:
        ours = isinstance(document.get("messages"), (list, str)) and not shape.is_answered_outside(document)
    kind = "unknown" if ours else shape.kind_of_line(document)
    return None if kind in ("unknown", method) else kind


_BY_ROWS = "write one object per row (pandas: to_json(path, orient='records', lines=True))."


def _is_by_columns(document: dict[str, JSON]) -> bool:
    """Whether every field is a list of plain values, or an object with numbers for keys, as tables are written by columns."""
    return bool(document) and all(
        bool(value) and _is_column(value) if isinstance(value, (list, dict)) else False for value in document.values()
    )


def _is_column(value: list[JSON] | dict[str, JSON]) -> bool:
    if isinstance(value, dict):
        return all(key.isdigit() for key in value)
    return not any(isinstance(item, (list, dict)) for item in value)


def _looks_like_messages(value: JSON) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and "role" in m for m in value)
