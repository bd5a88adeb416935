"""A .json file that is one object: its list of examples, or one example."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

from ftbridge.data.detect import detect_record
from ftbridge.data.reading.json_text import Document, Unreadable, parse, read_array

_LISTS = (
    "data",
    "examples",
    "train",
    "training",
    "records",
    "items",
    "rows",
    "dataset",
    "samples",
    "instances",
    "results",
)
_SPLITS = frozenset(
    {"train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation", "holdout"}
)
"""Names of lists that are a data set's parts."""

_LOOKED_AT = 20
"""Elements of a list that are looked at."""


def read_object(raw: bytes) -> Iterator[Document]:
    """The examples in one JSON object, each with its line: those of its list, or itself. Other fields are of the file."""
    try:
        text = raw.decode()
        value = parse(text)
    except UnicodeDecodeError as error:
        yield 1, Unreadable(f"is not UTF-8 at byte {error.start + 1} (0x{raw[error.start]:02x}).")
        return
    except json.JSONDecodeError as error:
        yield (
            error.lineno,
            Unreadable(f"is not valid JSON at column {error.colno}: {error.msg[0].lower()}{error.msg[1:]}."),
        )
        return
    except Unreadable as error:
        yield 1, error
        return
    if not isinstance(value, dict) or detect_record(value):
        yield 1, value
        return
    lists = [key for key, one in value.items() if isinstance(one, list) and one and isinstance(one[0], (dict, list))]
    parts = [key for key, one in value.items() if isinstance(one, list) and _holds_examples(key, one)]
    named = lists
    if len(lists) != 1:
        named = parts or [key for key in lists if key.lower() in _LISTS]
    if len(named) == 1:
        parts = [key for key in value if key in (*named, *parts) or _is_alike(value[key], value[named[0]])]
    if len(parts) > 1:
        counts = ", ".join(f"{key} with {len(value[key]):,}" for key in parts)
        hint = "Only one of them would be read: write each list to a separate file."
        yield 0, Unreadable(f"is one object that contains several lists of examples: {counts}.", hint=hint)
        return
    if len(named) != 1:
        about = (
            f"several lists ({', '.join(lists)})"
            if lists
            else f"no list of examples; its fields are {', '.join(value)[:80]}"
        )
        hint = (
            "Write each list to a separate file."
            if lists
            else "A .json file must be a list of examples, or an object with one list."
        )
        yield 0, Unreadable(f"is one object that contains {about}.", hint=hint)
        return
    start, end = _place(text, named[0])
    before = text.count("\n", 0, start)
    for line, document in read_array(io.BytesIO(text[start:end].encode())):
        yield line + before, document


def _holds_examples(key: str, elements: list[Any]) -> bool:
    """Whether a list under this key holds examples: by its name, or by what its first elements are."""
    if not elements:
        return False
    return key.lower() in _SPLITS or any(detect_record(element) for element in elements[:_LOOKED_AT])


def _is_alike(one: Any, other: list[Any]) -> bool:
    """Whether the first elements of two lists have the same fields."""
    first = one[0] if isinstance(one, list) and one else None
    return isinstance(first, dict) and isinstance(other[0], dict) and first.keys() == other[0].keys()


def _place(text: str, wanted: str) -> tuple[int, int]:
    """Where the value of a key of the outermost object begins and ends."""
    decoder, at = json.JSONDecoder(), text.index("{") + 1

    def skip(at: int) -> int:
        while text[at] in " \t\r\n:,":
            at += 1
        return at

    while True:
        key: Any
        key, at = decoder.raw_decode(text, skip(at))
        at = skip(at)
        _, end = decoder.raw_decode(text, at)
        if key == wanted:
            return at, end
        at = end
