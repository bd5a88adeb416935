"""Items: what every candidate is asked, read from a canonical test split; and slices, which are groups of them.

A slice's items share the value of one of their fields, such as a language, a queue or a source: a field beside `messages` in
a test line that has few values. Slices are for looking where a candidate is weak: there are means and intervals, and no
verdicts, since among many slices some differ by chance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ftbridge.data.examples import (
    ChatExample,
    ExampleError,
    Message,
    PreferenceExample,
    ReinforcementExample,
    parse_example,
)
from ftbridge.data.notation import answer_text, split_reasoning
from ftbridge.errors import DataError, UsageError
from ftbridge.files import sha256_bytes

NON_PREFERRED = "non_preferred"


@dataclass(frozen=True)
class Item:
    """One test example, as the evaluator uses it.

    `key` names it by content and place: 16 hex digits of the SHA-256 of its canonical line, and `index`, its place in
    the split from 0. `prompt` is every message before the expected answer, or all of them where a line ends with the user's,
    as in reinforcement. `fields` is what graders see as `item`: the line's own keys, and the expected completion as
    `reference`; of a preference that is the preferred one, and the other is `non_preferred`. Items of the same
    `cluster` belong together: they count as one draw in intervals and tests. `outputs` holds both texts of a preference, the
    preferred one first, where neither calls a tool.
    """

    key: str
    index: int
    prompt: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    fields: Mapping[str, Any]
    cluster: str = ""
    outputs: tuple[str, str] | None = None

    @property
    def content(self) -> str:
        """The key without the place: the same for the same example in another file."""
        return self.key.rpartition("-")[0]

    @property
    def line(self) -> int:
        """The item's line in its file, from 1."""
        return self.index + 1


def load_items(path: Path) -> list[Item]:
    """The items of a canonical JSONL file, in order. Raises `DataError` naming a bad line, `UsageError` for no file.

    Items belong together that have the same `cluster` key, the same prompt, or of which one goes on with the other: its
    prompt begins with all of the other's messages, as when each turn of a conversation is a line of its own.
    """
    lines = read_lines(path)
    examples = [parse_item(line, path, index + 1) for index, line in enumerate(lines)]
    clusters = _clusters(examples)
    return [
        _item(index, line, example, cluster)
        for index, (line, example, cluster) in enumerate(zip(lines, examples, clusters, strict=True))
    ]


def read_lines(path: Path) -> list[bytes]:
    """The lines of a canonical file, without their ends. Raises `UsageError` when it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from None
    # Only \n ends a line: JSON text may hold other characters that Python's splitlines would cut at.
    return content.removesuffix(b"\n").split(b"\n") if content else []


def parse_line(line: bytes, path: Path, number: int) -> ChatExample:
    """One canonical line as an example. Raises `DataError` that begins with file and line number."""
    return _parsed(line, path, number, parse_example)


ItemExample = ChatExample | PreferenceExample | ReinforcementExample
"""What a line of a test split can be."""


def parse_item(line: bytes, path: Path, number: int) -> ItemExample:
    """One canonical line as something to ask. It ends with the expected answer or, as in reinforcement, the user's message;
    a preference expects its preferred output.

    Raises as `parse_line`.
    """
    return _parsed(line, path, number, _asked)


_T = TypeVar("_T")


def _asked(document: object) -> ItemExample:
    if isinstance(document, dict) and "preferred_output" in document and "messages" not in document:
        return parse_example(document, "dpo")
    messages = document.get("messages") if isinstance(document, dict) else None
    last = messages[-1] if isinstance(messages, list) and messages else None
    if isinstance(last, dict) and last.get("role") == "user":
        return parse_example(document, "reinforcement")
    return parse_example(document)


def _parsed(line: bytes, path: Path, number: int, parse: Callable[[object], _T]) -> _T:
    try:
        return parse(json.loads(line))
    except ExampleError as error:
        problems = [f"{path}:{number} {field} {text}" for field, text in error.problems]
    except ValueError as error:
        problems = [f"{path}:{number} is not valid JSON: {error}."]
    raise DataError("\n".join(problems), problems=problems)


def reference(message: Message) -> str:
    """The expected answer as text: what it says without its reasoning, or the JSON of its calls when it calls tools.

    See `ftbridge.data.notation.answer_text`, which writes completions alike.
    """
    calls = [call.function for call in message.tool_calls or []]
    if message.function_call is not None:
        calls.append(message.function_call)
    return answer_text(split_reasoning(message.text)[1], [(call.name, call.arguments) for call in calls])


def _clusters(examples: Sequence[ItemExample]) -> list[str]:
    """A name for what each example belongs to: the number of the first example of its cluster."""
    parent = list(range(len(examples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    seen: dict[str, int] = {}
    beginnings = [_beginnings(example.messages) for example in examples]
    ends = {entry[-1]: index for index, entry in enumerate(beginnings)}
    for index, (example, entry) in enumerate(zip(examples, beginnings, strict=True)):
        names = [f"prompt {entry[len(example.prompt)]}"]
        if (cluster := example.extra.get("cluster")) is not None:
            names.append(f"cluster {json.dumps(cluster, sort_keys=True)}")
        others = [seen.setdefault(name, index) for name in names]
        others += [ends[beginning] for beginning in entry[:-1] if beginning in ends]
        for other in others:
            low, high = sorted((root(index), root(other)))
            parent[high] = low
    return [str(root(index)) for index in range(len(examples))]


def _beginnings(messages: Sequence[Message]) -> list[str]:
    """A hash of the first 0, 1, 2, … messages."""
    beginnings = [""]
    for message in messages:
        text = message.model_dump_json(exclude={"weight"}, exclude_none=True)
        beginnings.append(sha256_bytes(f"{beginnings[-1]}{text}".encode()))
    return beginnings


def _item(index: int, line: bytes, example: ItemExample, cluster: str) -> Item:
    expected = {} if isinstance(example, ReinforcementExample) else {"reference": reference(example.completion)}
    if isinstance(example, PreferenceExample):
        expected[NON_PREFERRED] = reference(example.non_preferred)
    return Item(
        key=f"{sha256_bytes(line)[:16]}-{index}",
        index=index,
        prompt=tuple(without_weight(message) for message in example.prompt),
        tools=tuple(example.tools or ()),
        fields={**expected, **example.extra},
        cluster=cluster,
        outputs=_outputs(example) if isinstance(example, PreferenceExample) else None,
    )


def _outputs(example: PreferenceExample) -> tuple[str, str] | None:
    sides = example.preferred, example.non_preferred
    if any(side.tool_calls or side.function_call for side in sides):
        return None
    return sides[0].text, sides[1].text


def without_weight(message: Message) -> Message:
    """The message as a conversation has it: `weight` concerns training, and services refuse it in a prompt."""
    return Message.model_validate(message.model_dump(exclude={"weight"}, exclude_unset=True))


MOST_VALUES = 12
"""Values that a field may have to make slices."""
_MOST_FIELDS = 8
_LONGEST = 60
_NOT_SLICES = ("cluster", "reference_tools")


def slice_values(items: Sequence[Item]) -> dict[str, list[str]]:
    """By field, the value of each item as text, for fields that every item has and that part them into a few groups.

    A field parts them when it has 2 to 12 different values, which are texts of at most 60 characters, numbers or true and
    false, and on average at least two items for each.
    """
    values: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for item in items for name in item.fields if name not in _NOT_SLICES):
        texts = [text for item in items if (text := _text(item.fields.get(name))) is not None]
        different = len(set(texts))
        if len(texts) == len(items) and 2 <= different <= MOST_VALUES and 2 * different <= len(items):
            values[name] = texts
    return dict(list(values.items())[:_MOST_FIELDS])


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int, float)) and len(str(value)) <= _LONGEST else None
