"""Rules about what is trained and in which order messages stand: weights, the last message, turns."""

from __future__ import annotations

from collections.abc import Iterator

from ftbridge.data.lint.rule import JSON, Line, Problem, rule
from ftbridge.data.lint.rules.specimens import GOOD, assistant, chat, system, user
from ftbridge.data.lint.structure import COOKBOOK, KEYS, LLMCOMP, SUPERVISED_SCHEMA, dropped, put, shown


@rule(
    "FTB042",
    "bad-weight",
    kind="line",
    severity="error",
    reason="A weight is the integer 0 (not trained on) or 1; nothing in between is allowed.",
    source=f"{SUPERVISED_SCHEMA}: enum [0, 1]; openai-cookbook#1270",
    bad=chat(user(), assistant(weight="1")),
    good=chat(user(), assistant(weight=1)),
    fixable=True,
)
def bad_weight(line: Line) -> Iterator[Problem]:
    """An assistant message's weight is neither 0 nor 1."""
    for at, message, role, output in line.messages:
        weight = message.get("weight")
        if role != "assistant" or output or weight is None or (type(weight) is int and weight in (0, 1)):
            continue
        meant = _meant(weight)
        if meant is None:
            yield Problem(f"{at}.weight", f"is {shown(weight)}. Write 0 or 1.")
        else:
            likely = isinstance(weight, (bool, float))
            description = f"is {shown(weight)}, not the integer {meant}. Write {meant}."
            repair = put(message, "weight", meant, f"wrote {meant}")
            yield Problem(f"{at}.weight", description, repair, severity="warning" if likely else None)


def _meant(weight: JSON) -> int | None:
    """The integer that was meant: true, 1.0 and "1" are 1."""
    if isinstance(weight, (bool, float)) and weight in (0, 1):
        return int(weight)
    return {"0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(weight.strip()) if isinstance(weight, str) else None


@rule(
    "FTB043",
    "weight-of-others",
    kind="line",
    severity="error",
    severities={"nebius": "warning"},
    reason="Only the assistant's messages are trained on, so only they have a weight.",
    source=f"{LLMCOMP}: keys by role; {SUPERVISED_SCHEMA}",
    bad=chat(user(weight=0), assistant()),
    good=chat(user(), assistant(weight=1)),
    fixable=True,
)
def weight_of_others(line: Line) -> Iterator[Problem]:
    """A message that is not the assistant's has a weight."""
    for at, message, role, _ in line.messages:
        if "weight" in message and role != "assistant" and role in KEYS:
            description = f"is in a {role} message; only assistant messages are trained on. Remove it."
            idle = not message["weight"] or _zero(message)  # with another, somebody wants the message to be learnt
            yield Problem(f"{at}.weight", description, dropped(message, "weight") if idle else None)


@rule(
    "FTB044",
    "every-weight-zero",
    kind="line",
    severity="error",
    methods=("supervised",),
    reason="If every weight is 0, the example teaches nothing but still costs money.",
    source=f"{LLMCOMP}: the last assistant message's weight is not 0; {SUPERVISED_SCHEMA}",
    bad=chat(user(), assistant(weight=0)),
    good=chat(user(), assistant("Rome", weight=0), user("Really?"), assistant(weight=1)),
)
def every_weight_zero(line: Line) -> Iterator[Problem]:
    """Every assistant message has weight 0."""
    weights = [_zero(spot.message) for spot in line.messages if spot.role == "assistant"]
    if weights and all(weights):
        yield Problem("messages", "has weight 0 in every assistant message: nothing is trained. Give the last one 1.")


@rule(
    "FTB045",
    "last-weight-zero",
    kind="line",
    severity="error",
    methods=("supervised",),
    severities={"nebius": "warning", "local": None},
    reason="The last assistant message is the completion to learn; the service refuses weight 0 there.",
    source=f"{LLMCOMP}: the last assistant message's weight is not 0",
    bad=chat(user(), assistant("Rome"), user("Really?"), assistant(weight=0)),
    good=chat(user(), assistant("Rome", weight=0), user("Really?"), assistant()),
)
def last_weight_zero(line: Line) -> Iterator[Problem]:
    """The last assistant message has weight 0, while others are trained."""
    spots = [spot for spot in line.messages if spot.role == "assistant"]
    weights = [_zero(spot.message) for spot in spots]
    if weights and weights[-1] and not all(weights):
        yield Problem(f"{spots[-1].at}.weight", "is 0 in the last assistant message. Write 1, or remove the message.")


def _zero(message: dict[str, JSON]) -> bool:
    weight = message.get("weight")
    return (weight is not None and _meant(weight) == 0) or weight == 0


@rule(
    "FTB046",
    "no-assistant-message",
    kind="line",
    severity="error",
    methods=("supervised",),
    reason="The assistant's messages are what is learned; without one there is nothing to learn.",
    source=f"{COOKBOOK}: example_missing_assistant_message; {LLMCOMP}",
    bad=chat(system(), user()),
    good=GOOD,
)
def no_assistant_message(line: Line) -> Iterator[Problem]:
    """An example has no assistant message."""
    if _readable(line) and not any(spot.role.strip().lower() == "assistant" for spot in line.messages):
        yield Problem("messages", "has no assistant message: there is nothing to learn. Add the completion.")


@rule(
    "FTB047",
    "last-message-not-assistant",
    kind="line",
    severity="error",
    methods=("supervised",),
    reason="An example ends with the completion to learn; what comes after it cannot be learned.",
    source=f"{LLMCOMP}: the last message is the assistant's; microsoft/azure-skills 2026-08-21, dataset-formats.md",
    bad=chat(user(), assistant(), user("Thanks")),
    good=GOOD,
)
def last_message_not_assistant(line: Line) -> Iterator[Problem]:
    """The last message is not the assistant's."""
    if not _readable(line):
        return
    roles = [spot.role.strip().lower() for spot in line.messages]
    if roles[-1] != "assistant" and "assistant" in roles:
        description = (
            f"is {roles[-1]}; the last message must be the completion to learn. Add it, or remove this message."
        )
        yield Problem(f"{line.messages[-1].at}.role", description)


def _readable(line: Line) -> bool:
    """Whether every message has a role that is known: else it is not known what is missing."""
    conversation = line.conversations[0] if line.conversations else None
    return bool(
        conversation
        and conversation.messages
        and len(conversation.messages) == len(line.messages)
        and all(spot.role.strip().lower() in KEYS for spot in line.messages)
    )


@rule(
    "FTB048",
    "system-not-first",
    kind="line",
    severity="info",
    reason=(
        "Chat templates and products put the system message first; some templates refuse or move one that comes later."
    ),
    source="the chat templates of Llama, Mistral, Gemma and Qwen, which read a system message at the beginning",
    bad=chat(user(), system(), assistant()),
    good=chat(system(), user(), assistant()),
)
def system_not_first(line: Line) -> Iterator[Problem]:
    """A system message follows another's message."""
    for conversation in line.conversations:
        others = False
        for index, message in enumerate(conversation.messages):
            role = message.get("role") if isinstance(message, dict) else None
            if role not in ("system", "developer"):
                others = True
            elif others:
                description = f"is {role} after the conversation began; most models are used with it at the beginning."
                yield Problem(f"{conversation.at}[{index}].role", description)
                break


@rule(
    "FTB049",
    "same-role-twice",
    kind="line",
    severity="info",
    reason="Services accept it; some chat templates require user and assistant to alternate and refuse anything else.",
    source="the chat templates of Llama 2, Mistral and Gemma, which raise an exception; OpenAI has no such rule",
    bad=chat(user(), user("Quickly!"), assistant()),
    good=GOOD,
)
def same_role_twice(line: Line) -> Iterator[Problem]:
    """Two messages in a row are of the user, or of the assistant."""
    for conversation in line.conversations:
        before: JSON = None
        for index, message in enumerate(conversation.messages):
            role = message.get("role") if isinstance(message, dict) else None
            if role == before and role in ("user", "assistant"):
                description = (
                    f"is {role} twice in a row; some chat templates refuse that. Join the messages if they are one."
                )
                yield Problem(f"{conversation.at}[{index}].role", description)
                break
            before = role
