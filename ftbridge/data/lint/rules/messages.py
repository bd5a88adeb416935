"""Rules about a message: its role, its name, its content, and the parts of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from ftbridge.data.lint.meaning import TRAIN_FLAGS, empty, stray
from ftbridge.data.lint.rule import Line, Problem, Repair, kind_of, rule
from ftbridge.data.lint.rules.specimens import GOOD, assistant, chat, system, text, user
from ftbridge.data.lint.structure import (
    COOKBOOK,
    LLMCOMP,
    MOST_PARTS,
    SUPERVISED_SCHEMA,
    blank,
    listed,
    near,
    parts,
    put,
    shown,
)

ROLES = {
    "supervised": frozenset({"system", "developer", "user", "assistant", "tool", "function"}),
    "dpo": frozenset({"system", "developer", "user", "assistant", "tool", "function"}),
    "reinforcement": frozenset({"system", "developer", "user", "assistant", "tool"}),
}
"""Roles by method, those included that rules of their own speak of (developer, system)."""

_OTHER_NAMES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant"}


@rule(
    "FTB021",
    "missing-content",
    kind="line",
    severity="error",
    reason="A message without content says nothing; only an assistant message that calls tools or refuses may have none.",
    source=f"{SUPERVISED_SCHEMA}; {COOKBOOK}: missing_content",
    bad=chat(user(), assistant(None)),
    good=GOOD,
)
def missing_content(line: Line) -> Iterator[Problem]:
    """A message has no content, or null."""
    for at, message, role, _ in line.messages:
        if message.get("content") is not None:
            continue
        what = "is null" if "content" in message else "is missing"
        if role == "assistant":
            if message.get("tool_calls") or message.get("function_call") or isinstance(message.get("refusal"), str):
                continue
            description = f"{what} but the message has no tool_calls. Give it text, or remove the message."
            yield Problem(f"{at}.content", description)
        elif role != "function" or "content" not in message:
            yield Problem(f"{at}.content", f"{what}. Give it text, or remove the message.")


@rule(
    "FTB028",
    "missing-role",
    kind="line",
    severity="error",
    reason="The role tells the service which kind of message it is: Discriminator 'role' is missing in value.",
    source=f"OpenAI's server, public report; {COOKBOOK}: message_missing_key",
    bad=chat({"content": "Capital of France?"}, assistant()),
    good=GOOD,
    fixable=True,
)
def missing_role(line: Line) -> Iterator[Problem]:
    """A message has no role, or one that is not text."""
    for at, message, _, output in line.messages:
        if "role" not in message:
            description = "is missing. Say who speaks: system, user, assistant or tool."
            repair = put(message, "role", "assistant", "added role assistant") if output else None
            yield Problem(f"{at}.role", description, repair)
        elif not isinstance(message["role"], str):
            yield Problem(f"{at}.role", f"is {kind_of(message['role'])}. Write system, user, assistant or tool.")


@rule(
    "FTB029",
    "unknown-role",
    kind="line",
    severity="error",
    reason="Roles are a fixed list and must be spelled exactly.",
    source=f"{SUPERVISED_SCHEMA}; {COOKBOOK}: unrecognized_role",
    bad=chat(user(), {"role": "Assistant", "content": "Paris"}),
    good=GOOD,
    fixable=True,
)
def unknown_role(line: Line) -> Iterator[Problem]:
    """A message's role is none of the format's."""
    roles = ROLES[line.context.method]
    for at, message, role, _ in line.messages:
        if role in roles or not isinstance(message.get("role"), str):
            continue
        plain = role.strip().lower()
        if plain in roles:
            yield Problem(
                f"{at}.role", f"is {shown(role)}. Write {plain}.", put(message, "role", plain, f"wrote {plain}")
            )
        else:
            meant = _OTHER_NAMES.get(plain) or near(plain, roles)
            hint = f"Write {meant}." if meant else f"Write {listed(roles - {'developer', 'function'})}."
            yield Problem(f"{at}.role", f"is {shown(role)}, which is not a role. {hint}")


@rule(
    "FTB030",
    "developer-role",
    kind="line",
    severity="warning",
    methods=("supervised", "dpo"),
    severities={"local": None},
    reason=(
        "The published schema for chat lines has the role system; the role developer exists only in the one for "
        "reinforcement."
    ),
    source=f"{SUPERVISED_SCHEMA}: system, user, assistant, tool, function. No refusal was observed",
    bad=chat(system(role="developer"), user(), assistant()),
    good=chat(system(), user(), assistant()),
    fixable=True,
)
def developer_role(line: Line) -> Iterator[Problem]:
    """A chat message has the role developer."""
    for at, message, role, output in line.messages:
        if role == "developer" and not output:
            description = "is developer, which the schema of chat lines does not list. Write system."
            yield Problem(f"{at}.role", description, put(message, "role", "system", "wrote system"))


_NAME = re.compile(r"[^\s<|\\/>]{1,64}")


@rule(
    "FTB032",
    "bad-name",
    kind="line",
    severity="error",
    reason="A message's name is text of at most 64 characters, without spaces and without < | \\ / >.",
    source=f"{SUPERVISED_SCHEMA}: name is a string; the chat completions API states the pattern when it refuses one",
    bad=chat(user(name=7), assistant()),
    good=chat(user(name="ann"), assistant()),
)
def bad_name(line: Line) -> Iterator[Problem]:
    """A message's name is not text, or cannot be a name."""
    for at, message, role, _ in line.messages:
        name = message.get("name")
        if name is None or role == "function":
            continue
        if not isinstance(name, str):
            yield Problem(f"{at}.name", f"is {kind_of(name)}, not text. Write it as text.")
        elif not _NAME.fullmatch(name):
            description = "cannot be a name: 1 to 64 characters, without spaces and without < | \\ / >. Change it."
            yield Problem(f"{at}.name", description, severity="warning")


@rule(
    "FTB033",
    "content-shape",
    kind="line",
    severity="error",
    reason="Content is text, or a list of parts that is not empty.",
    source=f"{SUPERVISED_SCHEMA}; {COOKBOOK}: missing_content; OpenAI's server ('str' object has no attribute 'get')",
    bad=chat(user(42), assistant()),
    good=GOOD,
)
def content_shape(line: Line) -> Iterator[Problem]:
    """Content is neither text nor a list of parts."""
    for at, message, _, _ in line.messages:
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if isinstance(content, list):
            if not content:
                yield Problem(f"{at}.content", "is an empty list. Give it text or parts, or remove the message.")
            for index, part in enumerate(content):
                if not isinstance(part, dict):
                    description = f"is {kind_of(part)}, not a part. Write an object with type and text."
                    yield Problem(f"{at}.content[{index}]", description)
        else:
            yield Problem(f"{at}.content", f"is {kind_of(content)}. Write text, or a list of parts.")


@rule(
    "FTB034",
    "empty-content",
    kind="line",
    severity="warning",
    reason="Such a message has nothing to read or to learn; older checkers treat its content as missing.",
    source=f"{COOKBOOK}: missing_content; the published schema allows it",
    bad=chat(user(""), assistant()),
    good=GOOD,
)
def empty_content(line: Line) -> Iterator[Problem]:
    """Content is empty, or only white space."""
    for at, message, role, _ in line.messages:
        content = message.get("content")
        if isinstance(content, list):
            texts = [part.get("text") if isinstance(part, dict) else None for part in content]
            if not content or not all(blank(content_text) for content_text in texts):
                continue
        elif not blank(content):
            continue
        description = "is empty" if content == "" else "is only white space"
        if role in ("tool", "function"):
            yield Problem(f"{at}.content", f"{description}. Add the tool's result, if there was one.", severity="info")
        elif role != "assistant":
            yield Problem(f"{at}.content", f"{description}. Give it text, or remove the message.")
        elif not message.get("tool_calls") and not message.get("function_call") and not message.get("refusal"):
            yield Problem(
                f"{at}.content", f"{description}: there is nothing to learn. Give it text, or remove the example."
            )


@rule(
    "FTB035",
    "no-user-message",
    kind="line",
    severity="warning",
    methods=("supervised",),
    severities={"nebius": "info", "local": "info"},
    reason="A model responds to a user's message; a completion without one is rarely intended.",
    source=f"{COOKBOOK}: counts examples without a user message and warns",
    bad=chat(system(), assistant()),
    good=GOOD,
)
def no_user_message(line: Line) -> Iterator[Problem]:
    """An example has no message of a user."""
    roles = {spot.role.strip().lower() for spot in line.messages}
    if "assistant" in roles and not roles & {"user", "", *_OTHER_NAMES}:
        yield Problem("messages", "has no user message, so the completion responds to nothing. Add the user's message.")


@rule(
    "FTB036",
    "part-type",
    kind="line",
    severity="error",
    reason="A part is identified by its type; chat lines have text, image_url and refusal.",
    source=f"{SUPERVISED_SCHEMA}: parts are discriminated by type; {LLMCOMP}",
    bad=chat(user([{"text": "Capital of France?"}]), assistant()),
    good=chat(user([text("Capital of France?")]), assistant()),
    fixable=True,
)
def part_type(line: Line) -> Iterator[Problem]:
    """A part has no type, or one that no content has."""
    for at, _, part, kind in parts(line):
        if not isinstance(part, dict) or kind in ("text", "image_url", "refusal") or kind in SOUND_AND_FILES:
            continue
        if "type" not in part:
            typed = part.keys() == {"text"} and isinstance(part["text"], str)
            repair = Repair("added type text", _typed(part)) if typed else None
            yield Problem(f"{at}.type", "is missing. Write text, or image_url for an image.", repair)
        elif kind in ("input_text", "output_text") and isinstance(part.get("text"), str):
            description = f"is {kind}, which the Responses API uses. Write text."
            yield Problem(f"{at}.type", description, put(part, "type", "text", "wrote text"))
        else:
            yield Problem(f"{at}.type", f"is {shown(part['type'])}, which is not part of a chat line. Write text.")


def _typed(part: dict[str, object]) -> Callable[[], None]:
    def apply() -> None:
        typed = dict(part)
        part.clear()
        part.update({"type": "text", **typed})

    return apply


@rule(
    "FTB037",
    "part-without-text",
    kind="line",
    severity="error",
    reason="A text part has its text in text, a refusal part in refusal.",
    source=f"{SUPERVISED_SCHEMA}; {LLMCOMP}: missing text",
    bad=chat(user([{"type": "text"}]), assistant()),
    good=chat(user([text("Capital of France?")]), assistant()),
)
def part_without_text(line: Line) -> Iterator[Problem]:
    """A text or refusal part lacks its text."""
    for at, _, part, kind in parts(line):
        if kind not in ("text", "refusal"):
            continue
        if kind not in part:
            yield Problem(f"{at}.{kind}", "is missing. Give the part its text, or remove the part.")
        elif not isinstance(part[kind], str):
            yield Problem(f"{at}.{kind}", f"is {kind_of(part[kind])}, not text. Write it as text.")


SOUND_AND_FILES = frozenset({"input_audio", "audio", "audio_url", "file", "input_file", "video_url", "video"})


@rule(
    "FTB039",
    "audio-or-file",
    kind="line",
    severity="error",
    reason="Fine-tuning reads text and images; audio, video and files cannot be in an example.",
    source=f"{SUPERVISED_SCHEMA}: audio and file parts are not supported, in all three methods",
    bad=chat(user([{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]), assistant()),
    good=GOOD,
)
def audio_or_file(line: Line) -> Iterator[Problem]:
    """A part is audio, video or a file."""
    for at, _, _, kind in parts(line):
        if kind in SOUND_AND_FILES:
            yield Problem(f"{at}.type", f"is {kind}: only text and images can be trained on. Remove the part.")
    for at, message, role, _ in line.messages:
        if role == "assistant" and message.get("audio") is not None:
            yield Problem(f"{at}.audio", "is audio, which cannot be trained on. Write what was said as content.")


@rule(
    "FTB040",
    "misplaced-refusal",
    kind="line",
    severity="error",
    severities={"local": "info"},
    reason="An assistant's parts are texts, or exactly one refusal; only the assistant may refuse.",
    source=f"{SUPERVISED_SCHEMA}: one or more text parts, or exactly one refusal",
    bad=chat(user(), assistant([text("Paris"), {"type": "refusal", "refusal": "No"}])),
    good=chat(user(), assistant([{"type": "refusal", "refusal": "No"}])),
)
def misplaced_refusal(line: Line) -> Iterator[Problem]:
    """A refusal part stands beside others, or in another's message."""
    for at, message, role, _ in line.messages:
        content = message.get("content")
        if isinstance(content, list):
            looked_at = enumerate(islice(content, MOST_PARTS))
            refusals = [index for index, part in looked_at if _type(part) == "refusal"]
            if refusals and role != "assistant":
                yield Problem(f"{at}.content[{refusals[0]}]", f"is a refusal in a {role} message. Write a text part.")
            elif refusals and len(content) > 1:
                yield Problem(f"{at}.content", "mixes a refusal with other parts. Keep the text, or one refusal.")
        refusal = message.get("refusal")
        if role == "assistant" and refusal is not None and not isinstance(refusal, str):
            yield Problem(f"{at}.refusal", f"is {kind_of(refusal)}, not text. Write it as text, or leave it out.")


def _type(part: object) -> object:
    return part.get("type") if isinstance(part, dict) else None


@rule(
    "FTB041",
    "extra-part-key",
    kind="line",
    severity="warning",
    severities={"local": "info"},
    reason="A part's other keys belong to other services; fine-tuning does not read them, and may refuse them.",
    source=f"{SUPERVISED_SCHEMA}: type and text, refusal or image_url; the service refuses extra keys elsewhere",
    bad=chat(user([{**text(), "cache_control": {"type": "ephemeral"}}]), assistant()),
    good=chat(user([text()]), assistant()),
    fixable=True,
)
def extra_part_key(line: Line) -> Iterator[Problem]:
    """A part has a key that such parts do not have."""
    for at, _, part, kind in parts(line):
        if kind in ("text", "refusal", "image_url") and len(part) > 2 and kind in part:
            for key in [key for key in part if key not in ("type", kind)]:
                if key in TRAIN_FLAGS and not empty(part[key]):
                    description = "says whether a part is learnt, but weight is for complete messages only."
                    yield Problem(
                        f"{at}.{key}", f"{description} Split the message, or remove the key.", severity="error"
                    )
                    continue
                hint, repair = stray(part, key)
                yield Problem(f"{at}.{key}", f"is not a key of {kind} parts. {hint}", repair)
