"""Slices: groups of items that share the value of one of their fields, such as a language, a queue or a source.

Fields beside `messages` in a test line are fields of its item. One with few values makes slices. They are for looking where a
candidate is weak: there are means and intervals, and no verdicts, since among many slices some differ by chance.
"""

from __future__ import annotations

from collections.abc import Sequence

from ftbridge.evaluation.items import Item

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
