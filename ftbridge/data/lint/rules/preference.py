"""Rules about preference lines (method dpo): an input, and one preferred and one non-preferred completion of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from ftbridge.data.lint.rule import JSON, Line, Problem, Repair, kind_of, rule
from ftbridge.data.lint.rules.lines import foreign
from ftbridge.data.lint.rules.specimens import GOOD_PREFERENCE, assistant, image, preference, system, text, tool, user
from ftbridge.data.lint.structure import LINE_KEYS, PREFERENCE_SCHEMA, dropped, join, parts, put, renamed

_AZURE = "microsoft/azure-skills 2026-08-21, validate_dpo.py"
_OUTPUTS = ("preferred_output", "non_preferred_output")
_OLD = {"preferred_completion": "preferred_output", "non_preferred_completion": "non_preferred_output"}
_INPUT_KEYS = LINE_KEYS["supervised"]


def _without(key: str) -> str:
    return json.dumps({name: value for name, value in json.loads(GOOD_PREFERENCE).items() if name != key})


def _with(**changed: JSON) -> str:
    return json.dumps({**json.loads(GOOD_PREFERENCE), **changed})


@rule(
    "FTB080",
    "preference-input",
    kind="line",
    severity="error",
    methods=("dpo",),
    reason="The input is an object with the messages that both completions respond to.",
    source=f"OpenAI's server (Example N is missing key 'input'); {PREFERENCE_SCHEMA}: an object, messages minItems 1",
    bad=_with(input=[user()]),
    good=GOOD_PREFERENCE,
    fixable=True,
)
def preference_input(line: Line) -> Iterator[Problem]:
    """A preference line's input is missing, is not an object, or has no messages."""
    document = line.document
    if not isinstance(document, dict) or foreign(document, "dpo"):
        return
    value = document.get("input")
    if "input" not in document:
        if isinstance(document.get("messages"), list):
            description = "is missing: the messages are at the top level of the line. Move them into input."
            yield Problem("input", description, Repair("moved messages into input", _wrapped(document)))
        else:
            yield Problem("input", "is missing. Give the line an input: an object with messages.")
    elif isinstance(value, list):
        description = "is a list. Write an object with these as its messages."
        yield Problem("input", description, put(document, "input", {"messages": value}, "put the list under messages"))
    elif not isinstance(value, dict):
        yield Problem("input", f"is {kind_of(value)}. Write an object with messages.")
    elif "messages" not in value:
        yield Problem("input.messages", "is missing. Give the input its list of messages.")
    elif not isinstance(value["messages"], list):
        yield Problem("input.messages", f"is {kind_of(value['messages'])}, not a list. Write the messages as a list.")
    elif not value["messages"]:
        yield Problem("input.messages", "is an empty list. Give the input a message, or remove the line.")


def _wrapped(document: dict[str, JSON]) -> Callable[[], None]:
    def apply() -> None:
        inside = {key: document[key] for key in document if key in _INPUT_KEYS}
        rest = {key: value for key, value in document.items() if key not in _INPUT_KEYS}
        document.clear()
        document.update({"input": inside, **rest})

    return apply


@rule(
    "FTB081",
    "preference-output",
    kind="line",
    severity="error",
    methods=("dpo",),
    reason="Each of the two completions must be a list of exactly one assistant message.",
    source=f"{PREFERENCE_SCHEMA}: arrays, maxItems 1; {_AZURE}: not empty; together 3.1.1: exactly one",
    bad=_with(preferred_output="Paris"),
    good=GOOD_PREFERENCE,
    fixable=True,
)
def preference_output(line: Line) -> Iterator[Problem]:
    """A preference line's completion is missing, is not a list, or is not exactly one message."""
    document = line.document
    if not isinstance(document, dict) or foreign(document, "dpo"):
        return
    for key in _OUTPUTS:
        if key not in document:
            if not any(old in document for old, new in _OLD.items() if new == key):
                yield Problem(key, "is missing. Give it a list with one assistant message.")
            continue
        value = document[key]
        if isinstance(value, str):
            message = {"role": "assistant", "content": value}
            repair = put(document, key, [message], "made it an assistant message")
            yield Problem(key, "is text. Write a list with one assistant message.", repair)
        elif isinstance(value, dict):
            is_message = "content" in value or "tool_calls" in value
            repair_list = put(document, key, [value], "put the message in a list") if is_message else None
            yield Problem(key, "is an object. Write a list with one assistant message.", repair_list)
        elif not isinstance(value, list):
            yield Problem(key, f"is {kind_of(value)}. Write a list with one assistant message.")
        elif len(value) != 1:
            what = f"has {len(value)} messages" if value else "is an empty list"
            yield Problem(key, f"{what}; exactly one is expected. Write one assistant message.")


@rule(
    "FTB082",
    "old-preference-keys",
    kind="line",
    severity="error",
    methods=("dpo",),
    reason="The keys were renamed: preferred_completion is now preferred_output.",
    source=f"{PREFERENCE_SCHEMA}; the older names stand in revision 9a72a42 (2025-05)",
    bad=json.dumps(
        {
            "input": {"messages": [user()]},
            "preferred_completion": [assistant()],
            "non_preferred_completion": [assistant("Lyon")],
        }
    ),
    good=GOOD_PREFERENCE,
    fixable=True,
)
def old_preference_keys(line: Line) -> Iterator[Problem]:
    """A preference line has preferred_completion or non_preferred_completion, as it was before."""
    document = line.document
    for old, new in _OLD.items() if isinstance(document, dict) else ():
        if old in document:
            repair = None if new in document else renamed(document, old, new)
            yield Problem(old, f"is the older name. Write {new}.", repair)


@rule(
    "FTB083",
    "output-not-assistant",
    kind="line",
    severity="error",
    methods=("dpo",),
    reason="The two completions must be messages of the assistant.",
    source=f"{PREFERENCE_SCHEMA}; {_AZURE}: an assistant message is needed",
    bad=preference(better=[user("Paris")]),
    good=GOOD_PREFERENCE,
)
def output_not_assistant(line: Line) -> Iterator[Problem]:
    """A preferred or non-preferred message is not the assistant's."""
    for at, _, role, output in line.messages:
        if output and role in ("system", "developer", "user", "tool", "function"):
            yield Problem(f"{at}.role", f"is {role}. Write one message of the assistant.")


@rule(
    "FTB084",
    "identical-outputs",
    kind="line",
    severity="warning",
    methods=("dpo",),
    reason="If both completions are the same, there is no preference to learn: the loss has no gradient.",
    source=f"{_AZURE}; Rafailov et al., Direct Preference Optimization (2023), equation 7",
    bad=preference(worse=[assistant()]),
    good=GOOD_PREFERENCE,
)
def identical_outputs(line: Line) -> Iterator[Problem]:
    """The preferred and the non-preferred completion are the same."""
    document = line.document if isinstance(line.document, dict) else {}
    better, worse = (_meanings(document.get(key)) for key in _OUTPUTS)
    if better and better == worse:
        yield Problem("non_preferred_output", "is the same as preferred_output. Remove the line, or change one.")


def _meanings(value: JSON) -> list[JSON]:
    """A completion's messages without what does not matter: weights, nulls, space at the ends."""
    messages: list[JSON] = []
    for message in value if isinstance(value, list) else ():
        if isinstance(message, dict):
            content = {key: item for key, item in message.items() if item is not None and key != "weight"}
            messages.append({key: item.strip() if isinstance(item, str) else item for key, item in content.items()})
    return messages


@rule(
    "FTB085",
    "tools-outside-input",
    kind="line",
    severity="error",
    methods=("dpo",),
    severities={"nebius": "warning", "local": "warning"},
    reason="Tools are part of the prompt, so they belong in input. At the top level they are an unknown key.",
    source=PREFERENCE_SCHEMA,
    bad=preference(tools=[tool()]),
    good=json.dumps({**json.loads(GOOD_PREFERENCE), "input": {"messages": [user()], "tools": [tool()]}}),
    fixable=True,
)
def tools_outside_input(line: Line) -> Iterator[Problem]:
    """Tools stand at the top of a preference line."""
    document = line.document
    value = document.get("input") if isinstance(document, dict) else None
    if not isinstance(value, dict):
        return
    for key in ("tools", "parallel_tool_calls", "functions"):
        if key not in document:
            continue
        if key not in value:
            yield Problem(key, "belongs in input. Move it there.", Repair(f"moved {key} into input", _moved(line, key)))
        elif value[key] == document[key]:
            yield Problem(key, "is also in input. Remove it here.", dropped(document, key))
        else:
            yield Problem(key, "is also in input, with another value. Keep the one in input.")
    if "messages" in document:
        yield Problem("messages", "belongs in input. Move it there, or remove it.")


def _moved(line: Line, key: str) -> Callable[[], None]:
    def apply() -> None:
        line.document["input"][key] = line.document.pop(key)

    return apply


@rule(
    "FTB086",
    "weight-in-output",
    kind="line",
    severity="error",
    methods=("dpo",),
    severities={"nebius": "warning", "local": "info"},
    reason="Both completions are always trained on; their schema has no weight.",
    source=f"{PREFERENCE_SCHEMA}: plain assistant messages",
    bad=preference(better=[assistant(weight=1)]),
    good=GOOD_PREFERENCE,
    fixable=True,
)
def weight_in_output(line: Line) -> Iterator[Problem]:
    """A preferred or non-preferred completion has a weight."""
    for at, message, role, output in line.messages:
        if output and role == "assistant" and message.get("weight") is not None:
            idle = message["weight"] in (1, True)  # with another, somebody wants less of the completion to be learnt
            repair = dropped(message, "weight") if idle else None
            yield Problem(f"{at}.weight", "is in a completion, which cannot have one. Remove it.", repair)


@rule(
    "FTB087",
    "input-without-user",
    kind="line",
    severity="warning",
    methods=("dpo",),
    severities={"azure": "error", "local": "info"},
    reason="The completions respond to no user message. Azure refuses such a line; OpenAI's schema allows it.",
    source=_AZURE,
    bad=preference(system()),
    good=GOOD_PREFERENCE,
)
def input_without_user(line: Line) -> Iterator[Problem]:
    """A preference line's input has no user message."""
    for conversation in line.conversations:
        roles = {spot.role.strip().lower() for spot in line.messages if not spot.output}
        if conversation.messages and roles and not roles & {"user", "human", ""}:
            yield Problem(conversation.at, "has no user message. Add the message that the completions respond to.")


@rule(
    "FTB088",
    "input-ends-with-assistant",
    kind="line",
    severity="warning",
    methods=("dpo",),
    severities={"local": "info"},
    reason="The completions follow the input, so after an assistant message they would be the second one in a row.",
    source="OpenAI direct preference optimization guide: one turn, the answer to the last user message",
    bad=preference(user(), assistant("Paris?")),
    good=GOOD_PREFERENCE,
)
def input_ends_with_assistant(line: Line) -> Iterator[Problem]:
    """A preference line's input ends with an assistant message."""
    for conversation in line.conversations:
        last = conversation.messages[-1] if conversation.messages else None
        if isinstance(last, dict) and last.get("role") == "assistant":
            at = join(f"{conversation.at}[{len(conversation.messages) - 1}]", "role")
            yield Problem(
                at, "is assistant; the input ends before the completion. Remove the message, or add the user's."
            )


@rule(
    "FTB089",
    "image-in-preference",
    kind="line",
    severity="warning",
    methods=("dpo",),
    severities={"local": None},
    reason="OpenAI's schema of July 2025 takes images here, its guide of early 2025 said text only.",
    source=f"{PREFERENCE_SCHEMA}; OpenAI fine-tuning guide (early 2025)",
    bad=preference(user([text(), image()])),
    good=GOOD_PREFERENCE,
)
def image_in_preference(line: Line) -> Iterator[Problem]:
    """A preference line has an image."""
    first = next((part for part in parts(line) if part.type == "image_url"), None)
    if first is not None:
        yield Problem(
            first.at, "is an image; it is not certain that preference training reads images. Try a few first."
        )
