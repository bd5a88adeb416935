"""From a source to typed examples: find the files (path, glob, https, hf://), read them, name every bad line.

A source becomes files, a file becomes documents with line numbers, a document becomes a `SourcedExample`; what goes
wrong on the way becomes a problem, and all problems of a source come in one `DataError`. Whatever `ftbridge convert` reads
is read here too: CSV, TSV, Parquet, compressed files, and records of other shapes (alpaca, ShareGPT, chosen and rejected, …).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, Literal, TypeVar

from ftbridge.data.convert.exports import ENVELOPE
from ftbridge.data.convert.fields import UnknownKey, without
from ftbridge.data.convert.recipe import EXPORTS, UNNAMED, judgement_warning, record_in, stays
from ftbridge.data.convert.shapes import METHODS, NATIVE, Shape, ShapeError, WouldBeLost, detect, read
from ftbridge.data.convert.unfinished import unfinished
from ftbridge.data.detect import Detection, detect_record
from ftbridge.data.examples import Example, ExampleError, Method, parse_example
from ftbridge.data.reading.containers import Reading, read_records
from ftbridge.data.reading.sources import find_files, opened
from ftbridge.errors import DataError, UsageError

_SHOWN = 20
_UNFINISHED_HINT = (
    "`ftbridge convert FILE OUT` leaves out such completions; with --include-unfinished it includes them."
)

E = TypeVar("E", bound=Example, covariant=True)


@dataclass(frozen=True)
class SourcedExample(Generic[E]):
    """An example and where it stands: `file` as the user would name it, `line` counted from 1 (a Parquet file's row)."""

    example: E
    file: str
    line: int

    @property
    def origin(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class FieldChoice:
    """What to do with fields that examples do not have: which to drop, which to keep, and which to rename.

    `drop` and `keep` are paths, `columns` pairs of new and old name. With `keep_item_fields`, every field of a
    line may stay, for graders to read.
    """

    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    keep_item_fields: bool = True


def read_examples(
    source: str | list[str],
    *,
    base: Path,
    format: Literal["auto", "jsonl", "json"] = "auto",
    method: Method = "supervised",
    fields: FieldChoice | None = None,
) -> list[SourcedExample[Example]]:
    """Read every example of a source, in the order of its files and lines; a file that is named twice is read once.

    A source is a path or glob relative to `base`, an http or https URL, hf://datasets/OWNER/NAME/FILE[@REVISION], or a
    list of these. `auto` tells files by their content and ending; jsonl and json are believed. `fields` says which fields
    that no example holds may stay with it as its own (any, if it is left out; none with a preference).

    Raises `UsageError` when a file cannot be found or fetched or is plainly for another method, `FtbridgeError` when the
    network fails three times, and `DataError` with every problem of every line.
    """
    examples: list[SourcedExample[Example]] = []
    problems: list[str] = []
    for file in find_files([source] if isinstance(source, str) else source, base):
        with opened(file) as stream:
            reading = _Reading(file.label, method, fields or FieldChoice(), examples, problems)
            reading.read(stream, format)
    if problems:
        raise data_error(problems)
    return examples


def read_line(document: object, method: Method, fields: FieldChoice) -> tuple[Example | None, list[str]]:
    """One line of a file as `read_examples` takes it: its example, or None and what is wrong with it."""
    examples: list[SourcedExample[Example]] = []
    problems: list[str] = []
    _Reading("", method, fields, examples, problems).take(1, document)
    return examples[0].example if examples else None, [problem.removeprefix(":1 ") for problem in problems]


def data_error(problems: Sequence[str], total: int | None = None) -> DataError:
    """One error for all problems of a dataset; the message shows the first 20 and counts the rest (of `total`, if given)."""
    total = total or len(problems)
    shown = [f"  {problem}" for problem in problems[:_SHOWN]]
    if total > len(shown):
        shown.append(f"  … and {total - len(shown):,} more")
    count = "1 problem" if total == 1 else f"{total:,} problems"
    return DataError("\n".join([f"{count} in the data:", *shown]), problems=problems)


class _Reading:
    """Reads one file, adding to the examples and problems of its source."""

    def __init__(
        self,
        label: str,
        method: Method,
        fields: FieldChoice,
        examples: list[SourcedExample[Example]],
        problems: list[str],
    ) -> None:
        self.label, self.method, self.fields = label, method, fields
        self.examples, self.problems = examples, problems
        self._said: set[str] = set()  # what is said once for a file

    def read(self, stream: BinaryIO, format: Literal["auto", "jsonl", "json"]) -> None:
        before = len(self.examples), len(self.problems)
        ignored = tuple(path for path in self.fields.drop if "." not in path)
        reading = Reading(None if format == "auto" else format, ignored=ignored)
        for line, document, problem, hint in read_records(stream, self.label, reading):
            if problem is not None:
                at = f"{self.label}:{line}" if line else self.label
                self.problems.append(f"{at} {problem}{' ' * bool(hint)}{hint}")
                continue
            if (len(self.examples), len(self.problems)) == before:
                _refuse_other_method(document, self.label, self.method)
            self.take(line, document)

    def take(self, line: int, document: object) -> None:
        at = f"{self.label}:{line}"
        try:
            example = parse_example(_in_shape(document, self.method, self.fields), self.method)
            example.canonical().encode()
        except ShapeError as error:
            if not (error.once and str(error) in self._said):
                hint = "" if error.hint in self._said else error.hint
                self.problems.append(f"{at} {str(error).rstrip('.')}.{' ' * bool(hint)}{hint}")
            self._said |= {str(error), error.hint}
        except ExampleError as error:
            self.problems += [f"{at} {field}{' ' if field else ''}{text}" for field, text in error.problems]
        except UnicodeEncodeError:
            self.problems.append(f"{at} holds half of a \\u surrogate pair, which UTF-8 cannot encode.")
        except (ValueError, RecursionError):
            self.problems.append(f"{at} is nested too deeply to be written again.")
        else:
            self.examples.append(SourcedExample(example, self.label, line))


# From a document to an example of the method


def _refuse_other_method(document: object, label: str, method: Method) -> None:
    """A file of preferences is not for a chat method, nor the other way round: one error, not one for each line."""
    if not isinstance(document, dict):
        return
    preferences = "preferred_output" in document and "input" in document
    if preferences and method != "dpo":
        what, needs = "preferences", "dpo"
    elif "messages" in document and not preferences and "input" not in document and method == "dpo":
        what, needs = "chats", "supervised"
    else:
        return
    raise UsageError(
        f"{label} holds {what}, which are not data for method {method}.",
        hint=f"Set method: {needs}, or give data for {method}: {_LINES[method]}.",
    )


_LINES: dict[Method, str] = {
    "supervised": "lines with messages that end with the assistant's",
    "dpo": "lines with input, preferred_output and non_preferred_output",
    "reinforcement": "lines with messages that end with the user's",
}


def _in_shape(document: object, method: Method, fields: FieldChoice) -> object:
    """A record of another shape in the one that its method has; what has no known shape as it is, to be judged.

    Raises `ShapeError` for a record that is known and cannot be read, and for fields that would be lost.
    """
    try:
        record = record_in(document, fields.columns)
    except ShapeError:
        if isinstance(document, dict):
            raise
        return document
    shape = detect(record)
    if shape in ("chat", "reinforcement") and method != "dpo":
        shape = NATIVE[method]
    elif shape is None and not record.keys() & {"messages", "input", "preferred_output"}:
        detection = detect_record(record)
        if detection is None:
            return record
        raise ShapeError(
            f"is in the format of {detection.name}, not of {_LINES[method]}", once=True, hint=_convert(detection)
        )
    if shape is not None and METHODS.get(shape) == "dpo" and method != "dpo":
        raise ShapeError(
            f"holds a preference ({shape}), and method {method} would train one of its completions and lose the other",
            once=True,
            hint="Set method: dpo, or write only the preferred completions, as chats.",
        )
    if reason := unfinished(record):
        raise ShapeError(reason, hint=_UNFINISHED_HINT)
    if shape is None or (METHODS.get(shape) == "dpo") != (method == "dpo"):
        return record
    for name in UNNAMED:
        record.pop(name, None)
    for path in fields.drop:
        record, _ = without(record, path)
    try:
        example, left, unknown = read(record, shape)
    except WouldBeLost as error:
        raise ShapeError(str(error), once=True, hint=_choose(error.fields)) from None
    except ShapeError as error:
        error.args = (f"{error} ({shape})",)
        raise
    if left and method == "dpo" and shape != "preference":
        text = "cannot be in a preference. Convert the file: ftbridge convert … --drop"
        raise ExampleError([(key, f"{text} {shlex.quote(key)}.") for key in left])
    _refuse_lost(left, unknown, shape, fields)
    return {**example, **left}


def _refuse_lost(left: dict[str, object], unknown: list[UnknownKey], shape: Shape, fields: FieldChoice) -> None:
    """Raise `ShapeError` for keys that nothing reads, unless the spec says what to do with them."""
    lost = {key.path: key.field_path for key in unknown if key.path not in fields.keep or key.trains}
    if not fields.keep_item_fields:
        for name in [name for name, value in left.items() if value is None and not stays(name, shape)]:
            del left[name]
        lost |= {name: name for name in left if name not in fields.keep and not stays(name, shape)}
        lost = {path: field_path for path, field_path in lost.items() if not (shape in EXPORTS and path in ENVELOPE)}
    if lost:
        which = ", ".join(lost.values())
        raise ShapeError(f"{which} would be lost: training does not read it", once=True, hint=_choose(list(lost)))


def _choose(paths: Sequence[str]) -> str:
    """What a spec can say about fields that would be lost."""
    names = ", ".join(json.dumps(path) for path in paths)
    options = " ".join(f"--drop {shlex.quote(path)}" for path in paths)
    warning = judgement_warning(paths)
    choice = (
        f"Say in the spec what to do with it (data.drop: [{names}], data.keep or data.map), or convert the file: "
        f"ftbridge convert FILE OUT {options}."
    )
    return " ".join(filter(None, [warning, choice]))


def _convert(detection: Detection) -> str:
    if detection.shape is None:
        return detection.advice
    return f"Convert the file: ftbridge convert FILE OUT {detection.options}".rstrip() + "."
