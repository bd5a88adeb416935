"""From a source to typed examples: find the files (path, glob, https, hf://), read them, name every bad line.

A source becomes files, a file becomes documents with line numbers, a document becomes a `SourcedExample`; what goes
wrong on the way becomes a problem, and all problems of a source come in one `DataError`. Whatever `ftbridge convert` reads
is read here too: CSV, TSV, Parquet, compressed files, and records of other shapes (alpaca, ShareGPT, chosen and rejected, …).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, Literal, TypeVar

from ftbridge.data.convert.containers import Reading, read_records
from ftbridge.data.convert.shapes import METHODS, ShapeError, detect, read
from ftbridge.data.examples import Example, ExampleError, Method, parse_example
from ftbridge.data.sources import find_files, opened
from ftbridge.errors import DataError, UsageError

_SHOWN = 20

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


def read_examples(
    source: str | list[str],
    *,
    base: Path,
    format: Literal["auto", "jsonl", "json"] = "auto",
    method: Method = "supervised",
) -> list[SourcedExample[Example]]:
    """Read every example of a source, in the order of its files and lines; a file that is named twice is read once.

    A source is a path or glob relative to `base`, an http or https URL, hf://datasets/OWNER/NAME/FILE[@REVISION], or a
    list of these. `auto` tells files by their content and ending; jsonl and json are believed. Fields of a record that its
    shape does not know stay with the example as its own, except in a preference, which has none.

    Raises `UsageError` when a file cannot be found or fetched or is plainly for another method, `FtbridgeError` when the
    network fails three times, and `DataError` with every problem of every line.
    """
    examples: list[SourcedExample[Example]] = []
    problems: list[str] = []
    for file in find_files([source] if isinstance(source, str) else source, base):
        with opened(file) as stream:
            _read_file(stream, file.label, format, method, examples, problems)
    if problems:
        raise data_error(problems)
    return examples


def data_error(problems: Sequence[str], total: int | None = None) -> DataError:
    """One error for all problems of a dataset; the message shows the first 20 and counts the rest (of `total`, if given)."""
    total = total or len(problems)
    shown = [f"  {problem}" for problem in problems[:_SHOWN]]
    if total > len(shown):
        shown.append(f"  … and {total - len(shown):,} more")
    count = "1 problem" if total == 1 else f"{total:,} problems"
    return DataError("\n".join([f"{count} in the data:", *shown]), problems=problems)


def _read_file(
    stream: BinaryIO,
    label: str,
    format: Literal["auto", "jsonl", "json"],
    method: Method,
    examples: list[SourcedExample[Example]],
    problems: list[str],
) -> None:
    before = len(examples), len(problems)
    for line, document, problem in read_records(stream, label, Reading(None if format == "auto" else format)):
        if problem is not None:
            problems.append(f"{label}:{line} {problem}" if line else f"{label} {problem}")
            continue
        if (len(examples), len(problems)) == before:
            _refuse_other_method(document, label, method)
        try:
            example = parse_example(_in_shape(document, method), method)
            example.canonical().encode()
        except ExampleError as error:
            problems += [f"{label}:{line} {field}{' ' if field else ''}{text}" for field, text in error.problems]
        except UnicodeEncodeError:
            problems.append(f"{label}:{line} holds half of a \\u surrogate pair, which no UTF-8 text can hold.")
        except (ValueError, RecursionError):
            problems.append(f"{label}:{line} is nested too deeply to be written again.")
        else:
            examples.append(SourcedExample(example, label, line))


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


def _in_shape(document: object, method: Method) -> object:
    """A record of another shape in the one that its method has; anything else as it is, for `parse_example` to judge."""
    if not isinstance(document, dict) or {"messages", "preferred_output"} & document.keys():
        return document
    shape = detect(document)
    if shape is None or (METHODS.get(shape) == "dpo") != (method == "dpo"):
        return document
    try:
        example, left = read(document, shape)
    except ShapeError as error:
        raise ExampleError([("", f"{error} ({shape}).")]) from None
    if left and method == "dpo":
        raise ExampleError([(key, "has no place in a preference. Convert the file, with --drop.") for key in left])
    return {**example, **left}
