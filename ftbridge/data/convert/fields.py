"""Fields by their paths: `conversations[].markdown`, `messages[].content[].train`, `data.text`; and what is wrong with them.

A path names a field of every element of a list with `[]`. A field whose whole name is the path (a column `a.b`) comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

Document = dict[str, Any]
Messages = list[Document]


class ShapeError(ValueError):
    """Why a record cannot be read in a shape, or written in one: "field sentence".

    `once` marks what is true of the whole file, to be said for its first record only; `hint` is what to do then.
    """

    def __init__(self, message: str, *, once: bool = False, hint: str = "") -> None:
        super().__init__(message)
        self.once = once
        self.hint = hint


class WouldBeLost(ShapeError):
    """Fields that have no place where the record goes; only the caller may let them go, by these names."""

    def __init__(self, fields: Sequence[str], where: str, field_names: Sequence[str] = ()) -> None:
        super().__init__(f"{', '.join(field_names or fields)} would be lost: {where}")
        self.fields = tuple(fields)


class LeftOut(Exception):
    """A record that is not to be learned from: the caller asked to leave it out, or its completion is not whole.

    The text says what it is.
    """


class Unfinished(LeftOut):
    """A record whose completion was cut off, filtered or broken off."""


class UnknownKey(NamedTuple):
    """A key that no message or part has: its path for --drop, where it stands, and whether it says what is to be trained.

    What is to be trained cannot be kept as a field that nobody reads.
    """

    path: str
    field_path: str
    trains: bool = False


def without(record: Document, path: str) -> tuple[Document, bool]:
    """A copy of the record without the fields of a path, and whether there were any. Roles and contents stay."""
    if path in record:
        return {key: value for key, value in record.items() if key != path}, True
    name, rest, is_list = _split(path)
    if rest is None or name not in record:
        return record, False
    changed, removed = _inside(record[name], rest, is_list)
    return ({**record, name: changed}, True) if removed else (record, False)


def renamed(record: Document, new: str, old: str) -> Document:
    """A copy in which the field at the path `old` is called `new`; both in the same object, or `new` of the record itself.

    Raises `ShapeError` where `old` is missing, `new` is there already, or the two are in different lists.
    """
    if old not in record and old.strip() in record:  # a header without the spaces around its names, as tables are read
        old = old.strip()
        if old == new:
            return record
    if old in record:
        return _rename_key(record, new, old)
    before, _, leaf = old.rpartition(".")
    new_before, _, new_leaf = new.rpartition(".")
    if "[]" not in old and before and not new_before:
        value, present = _at(record, old.split("."))
        if present:
            taken, _ = without(record, old)
            return _rename_key({**taken, "\0": value}, new, "\0")
    if before and before == new_before:
        renamed_any = [False]
        changed: Document = _rename_inside(record, before, leaf, new_leaf, renamed_any)
        if renamed_any[0]:
            return changed
    elif before and (new_before or "[]" in old):
        raise ShapeError(f"{old} cannot be mapped to {new}: they are not in the same object", once=True)
    raise ShapeError(f"{old} is missing, which is mapped to {new}; there are {as_columns(list(record))}", once=True)


def as_columns(names: Sequence[str]) -> str:
    """Field names for a message: the first few."""
    shown = list(names)[:8]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")


def message_lists(held: Document) -> Iterator[Messages]:
    """Every list of messages of an example."""
    lists = [held.get("messages"), held.get("preferred_output"), held.get("non_preferred_output")]
    if isinstance(held.get("input"), dict):
        lists.append(held["input"].get("messages"))
    for one in lists:
        if isinstance(one, list):
            yield [message for message in one if isinstance(message, dict)]


def _split(path: str) -> tuple[str, str | None, bool]:
    head, dot, rest = path.partition(".")
    is_list = head.endswith("[]")
    return head.removesuffix("[]"), rest if dot else None, is_list


def _inside(value: Any, rest: str, is_list: bool) -> tuple[Any, bool]:
    if is_list:
        if not isinstance(value, list):
            return value, False
        changed = [without_protected(one, rest) if isinstance(one, dict) else (one, False) for one in value]
        return [one for one, _ in changed], any(removed for _, removed in changed)
    return without(value, rest) if isinstance(value, dict) else (value, False)


def without_protected(record: Document, path: str) -> tuple[Document, bool]:
    """As `without`, for an element of a list, whose role and content cannot be let go."""
    return (record, False) if path in ("role", "content", "from", "value") else without(record, path)


def _at(record: Any, names: list[str]) -> tuple[Any, bool]:
    for name in names:
        if not isinstance(record, dict) or name not in record:
            return None, False
        record = record[name]
    return record, True


def _rename_key(record: Document, new: str, old: str) -> Document:
    if new in record:
        raise ShapeError(f"{new} exists already, but another field is mapped to it", once=True)
    changed = {key: value for key, value in record.items() if key != old}
    changed[new] = record[old]
    return changed


def _rename_inside(value: Any, before: str, leaf: str, new: str, renamed_any: list[bool]) -> Any:
    if not before:
        if not isinstance(value, dict) or leaf not in value:
            return value
        renamed_any[0] = True
        if value.get(new) is not None:
            raise ShapeError(f"{new} exists already, but {leaf} is mapped to it", once=True)
        return {**{key: one for key, one in value.items() if key not in (leaf, new)}, new: value[leaf]}
    name, rest, is_list = _split(before)
    if not isinstance(value, dict) or name not in value:
        return value
    inner: Any = value[name]
    if is_list and isinstance(inner, list):
        return {**value, name: [_rename_inside(one, rest or "", leaf, new, renamed_any) for one in inner]}
    return {**value, name: _rename_inside(inner, rest or "", leaf, new, renamed_any)}
