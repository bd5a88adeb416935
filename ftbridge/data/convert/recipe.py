"""What is asked of a conversion, and what it does to one record: rename, read, let go or keep, check, write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ftbridge.data.convert.compression import MAX_RATIO
from ftbridge.data.convert.containers import Container, as_columns
from ftbridge.data.convert.shapes import (
    METHODS,
    NATIVE,
    Document,
    Messages,
    Shape,
    ShapeError,
    WouldBeLost,
    detect,
    read,
    write,
)
from ftbridge.data.examples import Example, ExampleError, PreferenceExample, parse_example

_KNOWN = "messages; prompt and completion; instruction and output; conversations; chosen and rejected; preferred_output"


@dataclass(frozen=True)
class Recipe:
    """How to convert.

    `source` and `target` are shapes, None to find out and for chat, preference or reinforcement. `columns` renames fields
    before they are read (new name, old name). `drop` lets fields go by name: of a record, or `messages[].NAME`; `keep` keeps
    the rest as the example's own fields. `skip_bad` leaves out records that cannot be read, and reports them. `parsed` names
    columns whose cells are JSON; `delimiter` is a table's; `max_ratio` bounds what compressed files unpack to.
    """

    source: Shape | None = None
    target: Shape | None = None
    container: Container | None = None
    columns: tuple[tuple[str, str], ...] = ()
    system: str | None = None
    drop: tuple[str, ...] = ()
    keep: bool = False
    skip_bad: bool = False
    delimiter: str | None = None
    parsed: tuple[str, ...] = ()
    max_ratio: float = MAX_RATIO


def example_of(document: object, recipe: Recipe, target: Shape | None, dropped: Counter[str]) -> tuple[Shape, Example]:
    """The shape of one record, and the example it is, checked as its method wants it.

    `target` is where it goes, if that is settled; `dropped` counts the fields let go. Raises `ShapeError`.
    """
    if not isinstance(document, dict):
        raise ShapeError("is no JSON object")
    record = _renamed(document, recipe.columns)
    shape = recipe.source or detect(record)
    if shape is None:
        raise ShapeError(f"has the fields {as_columns(record)}, which are no format that is known ({_KNOWN})")
    method = METHODS.get(target or shape, "supervised")
    if recipe.target is None and METHODS.get(shape, "supervised") != method:
        raise ShapeError(
            f"is {shape} by its fields and last message, and the records before it are for method {method}"
        )
    held, left = read(record, shape, recipe.system, answered=method != "reinforcement")
    held = _for_method(held, left, shape, method)
    gone = [field for field in recipe.drop if _let_go(field, held, left)]
    stays = (shape == "preference") == (method == "dpo") and shape in NATIVE.values()
    if left and not stays:
        if not recipe.keep:
            raise WouldBeLost(list(left), f"{target or 'an example'} has no place for it")
        if method == "dpo":
            raise WouldBeLost(list(left), "a preference has no fields of its own")
    try:
        example = parse_example({**held, **left}, method)
    except ExampleError as error:
        raise ShapeError("; ".join(f"{field} {text}".strip().rstrip(".") for field, text in error.problems)) from None
    dropped.update(gone)
    return shape, example


def record_of(example: Example, target: Shape, recipe: Recipe) -> Document:
    """The example as a record of a shape. Fields of its own stay beside with `keep`. Raises `ShapeError`."""
    document = example.document()
    if target in NATIVE.values():
        return write(document, target)
    own = example.extra if recipe.keep and not isinstance(example, PreferenceExample) else {}
    own = {key: value for key, value in own.items() if key not in ("functions",)}
    record = write({key: value for key, value in document.items() if key not in own}, target)
    if taken := [key for key in own if key in record]:
        raise WouldBeLost(taken, f"{target} has a field of this name")
    return {**record, **own}


def _renamed(value: Document, columns: tuple[tuple[str, str], ...]) -> Document:
    if not columns:
        return value
    given = dict(value)
    taken = []
    for new, old in columns:
        if old not in given:
            raise ShapeError(f"{old} is missing, which is mapped to {new}; there are {as_columns(given)}")
        taken.append((new, given.pop(old)))
    for new, one in taken:
        if new in given:
            raise ShapeError(f"{new} is there already, and another field is mapped to it")
        given[new] = one
    return given


def _for_method(held: Document, left: Document, shape: Shape, method: str) -> Document:
    """What was read as an example for another method; what that does not need is put to `left`, to be decided on."""
    if ("input" in held) == (method == "dpo"):
        return _for_reinforcement(held, left) if method == "reinforcement" and shape != "reinforcement" else held
    if method == "dpo":
        raise ShapeError("messages has one answer, and a preference needs two")
    if method == "reinforcement":
        left |= {key: held[key] for key in ("preferred_output", "non_preferred_output")}
        return _for_reinforcement(held["input"], left)
    left["non_preferred_output"] = held["non_preferred_output"]
    messages = [*held["input"]["messages"], *held["preferred_output"]]
    return {**held["input"], "messages": messages}


def _for_reinforcement(held: Document, left: Document) -> Document:
    """Without the answer, which goes to `reference`, as graders read it; system messages become the developer's."""
    messages: Messages = [
        {**one, "role": "developer"} if isinstance(one, dict) and one.get("role") == "system" else one
        for one in held["messages"]
    ]
    last = messages[-1] if messages else None
    if isinstance(last, dict) and last.get("role") == "assistant":
        if last.keys() - {"role", "content", "weight"} or not isinstance(last.get("content"), str):
            raise ShapeError(f"messages[{len(messages) - 1}] is no plain text, and cannot become the field reference")
        if "reference" in left:
            raise ShapeError("reference is there already, and the answer would become it")
        return {**held, "messages": messages[:-1], "reference": last["content"]}
    return {**held, "messages": messages}


def _let_go(field: str, held: Document, left: Document) -> bool:
    """Remove a field; whether it was there."""
    if field in left:
        del left[field]
        return True
    holder = held.get("input", held)
    name = field.removeprefix("input.")
    if (
        name in ("tools", "parallel_tool_calls", "functions", "reference")
        and isinstance(holder, dict)
        and name in holder
    ):
        del holder[name]
        return True
    if not field.startswith("messages[]."):
        return False
    name = field.removeprefix("messages[].")
    found = [message for message in _messages(held) if name in message and name not in ("role", "content")]
    for message in found:
        del message[name]
    return bool(found)


def _messages(held: Document) -> Iterator[Document]:
    lists = [held.get("messages"), held.get("preferred_output"), held.get("non_preferred_output")]
    if isinstance(held.get("input"), dict):
        lists.append(held["input"].get("messages"))
    for one in lists:
        yield from (message for message in one if isinstance(message, dict)) if isinstance(one, list) else ()
