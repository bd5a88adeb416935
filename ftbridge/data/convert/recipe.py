"""What is asked of a conversion, and what it does to one record: rename, read, let go or keep, check, write."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from ftbridge.data.convert.exports import ENVELOPE
from ftbridge.data.convert.fields import Unfinished, UnknownKey, as_columns, message_lists, renamed, without
from ftbridge.data.convert.shapes import (
    METHODS,
    NATIVE,
    SHAPES,
    WRITABLE,
    Document,
    Messages,
    Shape,
    ShapeError,
    WouldBeLost,
    detect,
    read,
    write,
)
from ftbridge.data.convert.unfinished import unfinished
from ftbridge.data.detect import detect_record
from ftbridge.data.examples import Example, ExampleError, PreferenceExample, parse_example
from ftbridge.data.field_names import is_bookkeeping, is_judgement, meaning_of
from ftbridge.data.reading.compression import MAX_RATIO
from ftbridge.data.reading.containers import CONTAINERS, Container
from ftbridge.data.reading.tables import with_json_read
from ftbridge.errors import UsageError

_KNOWN = "messages; prompt and completion; instruction and output; conversations; chosen and rejected; preferred_output"
_STRUCTURE = frozenset(
    {"messages", "conversations", "prompt", "completion", "chosen", "rejected", "instruction", "output", "input", "contents"}
    | {"preferred_output", "non_preferred_output", "choices", "request", "response", "rejected_response"}
)  # fmt: skip
EXPORTS = ("stored_completion", "responses", "gemini")
"""Shapes of calls to an API, whose fields about the call are let go."""
UNNAMED = ("", "Unnamed: 0", "__index_level_0__")
"""What the index is called that pandas writes as the first column."""


@dataclass(frozen=True)
class Recipe:
    """How to convert.

    `source` and `target` are shapes, None to find out and for chat, preference or reinforcement. `columns` renames fields
    before they are read (new name, old name). `drop` lets fields go by their paths: of a record, or `messages[].NAME`;
    `keep` keeps the rest as the example's own fields. `skip_bad` leaves out records that cannot be read, and reports them;
    `only_liked` those whose answer was not liked (KTO); completions that were cut off or filtered are left out unless
    `include_unfinished`. `parsed` names columns whose cells are JSON; `delimiter` is a table's,
    `encoding` that of a text which is not UTF-8; `max_ratio` bounds what compressed files unpack to.
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
    encoding: str | None = None
    only_liked: bool = False
    include_unfinished: bool = False

    def __post_init__(self) -> None:
        """Raise `UsageError` for a shape or container that is none of those there are."""
        for argument, value, choices in (
            ("shape", self.source, SHAPES),
            ("to", self.target, WRITABLE),
            ("container", self.container, CONTAINERS),
        ):
            if value is not None and value not in choices:
                raise UsageError(f"{argument} {value!r} is not known.", hint=f"Use one of {', '.join(choices)}.")


def example_of(
    document: object,
    recipe: Recipe,
    target: Shape | None,
    dropped: Counter[str],
    carried: Counter[str] | None = None,
) -> tuple[Shape, Example]:
    """The shape of one record, and the example it is, checked as its method wants it.

    `target` is where it goes, if that is settled; `dropped` counts the fields let go, and `carried` those that stay beside
    the messages without being asked for, though training does not read them. Raises `ShapeError`, and `LeftOut` for
    an answer that was not liked, or that is not whole.
    """
    record = record_in(document, recipe.columns)
    if not recipe.include_unfinished and (reason := unfinished(record)):
        raise Unfinished(reason)
    shape = recipe.source or detect(record)
    if shape is None:
        raise unknown_format(record)
    method = METHODS.get(target or shape, "supervised")
    if recipe.target is None and METHODS.get(shape, "supervised") != method:
        raise ShapeError(f"is {shape} by its fields and last message, and most records are for method {method}")
    gone = set[str]()
    for name in UNNAMED:
        if name in record:
            record = {key: value for key, value in record.items() if key != name}
            gone.add("the unnamed index column")
    for path in recipe.drop:
        if path not in _STRUCTURE:
            record, removed = without(record, path)
            gone |= {path} if removed else set()
    held, left, unknown = read(
        record, shape, recipe.system, with_completion=method != "reinforcement", only_liked=recipe.only_liked
    )
    held = _for_method(held, left, shape, method)
    gone |= {field for field in recipe.drop if _let_go(field, held, left)}
    if not recipe.keep and _repeats_first_message(left.get("prompt"), held):
        del left["prompt"]
        gone.add("prompt, a copy of the first message,")
    gone |= _settle(left, shape, method, recipe, target)
    _refuse_unknown(unknown, recipe)
    try:
        example = parse_example({**held, **left}, method)
    except ExampleError as error:
        raise ShapeError("; ".join(f"{field} {text}".strip().rstrip(".") for field, text in error.problems)) from None
    dropped.update(gone)
    if carried is not None and shape not in NATIVE.values() and method == "supervised" and not recipe.keep:
        carried.update(left.keys() - {"reference"})
    return shape, example


def _repeats_first_message(prompt: object, held: Document) -> bool:
    """Whether a field beside the messages says again what the first user message says."""
    messages = held.get("messages")
    if not isinstance(prompt, str) or not isinstance(messages, list):
        return False
    first = next((message.get("content") for message in messages if message.get("role") == "user"), None)
    return isinstance(first, str) and first.strip() == prompt.strip()


def record_in(document: object, columns: tuple[tuple[str, str], ...] = ()) -> Document:
    """A document as a record: a bare list of turns named, JSON in its texts read, fields renamed. Raises `ShapeError`."""
    if isinstance(document, list) and document and all(_is_turn(turn) for turn in document):
        document = {"conversations" if "from" in document[0] else "messages": document}
    if isinstance(document, str) and document.lstrip()[:1] in ("{", "["):
        raise ShapeError(
            "is JSON inside a JSON string: it was encoded twice",
            once=True,
            hint="Write each record once: json.dumps(record), not json.dumps(json.dumps(record)).",
        )
    if not isinstance(document, dict):
        raise ShapeError("is not a JSON object")
    record = document
    for new, old in columns:
        record = renamed(record, new, old)
    return with_json_read(record)


def _is_turn(value: object) -> bool:
    return isinstance(value, dict) and bool(value.keys() & {"role", "from"})


def unknown_format(record: Document) -> ShapeError:
    """The error for a record whose shape is not known, with what would read it if that can be told."""
    detection = detect_record(record)
    if detection and detection.shape is None:
        return ShapeError(
            f"is in the format of {detection.name}, which ftbridge does not read", once=True, hint=detection.advice
        )
    hint = ""
    if detection and detection.options:
        hint = f"{detection.options} reads {'it' if len(record) == 1 else 'them'} as {detection.name}."
        if rest := [name for name in detection.others if name not in UNNAMED]:
            hint += (
                f" Of {as_columns(rest)}, --keep keeps what does not fit into an example, and --drop FIELD drops it."
            )
    names = as_columns(list(record)) or "(none)"
    return ShapeError(
        f"has the fields {names}, which belong to no known format ({_KNOWN})", once=bool(record), hint=hint
    )


def stays(name: str, shape: Shape, extra_fields: Collection[str] = ()) -> bool:
    """Whether a field that an example does not hold stays beside it without being asked for.

    Fields of a reinforcement item are for its graders; those of a chat that say where it is from have always stayed.
    `own` names more that stay.
    """
    if shape == "reinforcement" or name in extra_fields:
        return True
    return shape in ("chat", "sharegpt", "kto", "preference") and (is_bookkeeping(name) or name == "reference")


def _settle(left: Document, shape: Shape, method: str, recipe: Recipe, target: Shape | None) -> set[str]:
    """Decide on what an example does not hold: what stays is left, what is let go is returned. Raises `WouldBeLost`."""
    for name in [name for name, value in left.items() if value is None and not recipe.keep and not stays(name, shape)]:
        del left[name]
    gone = set[str]()
    if shape in EXPORTS and not recipe.keep:
        gone = {name for name in left if name in ENVELOPE or is_bookkeeping(name)}
        for name in gone:
            del left[name]
    if method == "dpo" and left and shape != "preference":
        raise WouldBeLost(list(left), "a preference has no extra fields")
    rest = [name for name in left if not stays(name, shape)]
    if rest and not recipe.keep:
        where = "training does not read it" if shape in NATIVE.values() else f"{target or 'an example'} cannot hold it"
        raise WouldBeLost(rest, where)
    return gone


def _refuse_unknown(unknown: list[UnknownKey], recipe: Recipe) -> None:
    """Raise `WouldBeLost` for keys of messages that none has, unless they are dropped or kept by the caller."""
    dropped = {path.partition(".")[2] for path in recipe.drop if path.startswith("messages[].")}
    first: dict[str, str] = {}
    for key in unknown:
        if (
            key.path not in recipe.drop
            and key.path.partition(".")[2] not in dropped
            and (key.trains or not recipe.keep)
        ):
            first.setdefault(key.path, key.field_path)
    if first:
        trains = any(key.trains and key.path in first for key in unknown)
        where = "a part cannot be trained separately from its message" if trains else "a message cannot hold it"
        raise WouldBeLost(list(first), where, list(first.values()))


def judgement_warning(fields: Collection[str]) -> str:
    """What to do before fields are dropped that may say how good a completion is; empty where there are none."""
    names = [name for name in fields if is_judgement(name.rpartition(".")[2])]
    if not names:
        return ""
    return (
        f"If {' and '.join(names)} {'says' if len(names) == 1 else 'say'} how good a completion is, first remove the records "
        "whose completion is bad, or write a field `label` of true or false, which `ftbridge convert … --only-liked` reads: "
        "once it is dropped, bad completions are trained like good ones."
    )


def advice(fields: Collection[str], keeps: bool) -> str:
    """What can be done about fields that would be lost: how to read them by another name, then to keep them, or let go."""
    sentences = []
    for name in fields:
        meaning = meaning_of(name)
        if meaning in ("input", "system") and name != meaning:
            sentences.append(f"--map {shlex.quote(f'{meaning}={name}')} reads {name} as the {meaning}.")
    if warning := judgement_warning(fields):
        sentences.append(warning)
    names = " ".join(f"--drop {shlex.quote(name)}" for name in fields)
    sentences.append(f"{names} drops them{'; --keep keeps them beside the rest' * keeps}.")
    return " ".join(sentences)


def record_of(example: Example, target: Shape, recipe: Recipe) -> Document:
    """The example as a record of a shape. Fields of its own stay beside with `keep`. Raises `ShapeError`."""
    document = example.document()
    if target in NATIVE.values():
        return write(document, target)
    extra = example.extra if recipe.keep and not isinstance(example, PreferenceExample) else {}
    extra = {key: value for key, value in extra.items() if key not in ("functions",)}
    record = write({key: value for key, value in document.items() if key not in extra}, target)
    if taken := [key for key in extra if key in record]:
        raise WouldBeLost(taken, f"{target} has a field of this name")
    return {**record, **extra}


def _for_method(held: Document, left: Document, shape: Shape, method: str) -> Document:
    """What was read as an example for another method; what that does not need is put to `left`, to be decided on."""
    if ("input" in held) == (method == "dpo"):
        return _for_reinforcement(held, left) if method == "reinforcement" and shape != "reinforcement" else held
    if method == "dpo":
        raise ShapeError("messages has one completion, but a preference needs two")
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
            raise ShapeError(f"messages[{len(messages) - 1}] is not plain text, and cannot become the field reference")
        if "reference" in left:
            raise ShapeError("reference exists already, but the completion would become it")
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
    matching = [
        message
        for messages in message_lists(held)
        for message in messages
        if name in message and name not in ("role", "content")
    ]
    for message in matching:
        del message[name]
    return bool(matching)
