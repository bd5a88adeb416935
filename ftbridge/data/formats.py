"""From a source to typed examples: find the files (path, glob, https, hf://), read them, name every bad line.

A source becomes files, a file becomes documents with line numbers, a document becomes a `SourcedExample`; what goes
wrong on the way becomes a problem, and all problems of a source come in one `DataError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ftbridge.data.examples import ChatExample, ExampleError, parse_example
from ftbridge.data.sources import find_files, opened
from ftbridge.errors import DataError

_SHOWN = 20
_TRUNCATED = " The text ends there: the file looks truncated."
_SIGNATURES = {
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet file",
}


@dataclass(frozen=True)
class SourcedExample:
    """An example and where it stands: `file` as the user would name it, `line` counted from 1."""

    example: ChatExample
    file: str
    line: int

    @property
    def origin(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"


def read_examples(
    source: str | list[str], *, base: Path, format: Literal["auto", "jsonl", "json"] = "auto"
) -> list[SourcedExample]:
    """Read every example of a source, in the order of its files and lines; a file that is named twice is read once.

    A source is a path or glob relative to `base`, an http or https URL, hf://datasets/OWNER/NAME/FILE[@REVISION], or a
    list of these. Raises `UsageError` when a file cannot be found or fetched, `FtbridgeError` when the network fails
    three times, and `DataError` with every problem of every line.
    """
    examples: list[SourcedExample] = []
    problems: list[str] = []
    for file in find_files([source] if isinstance(source, str) else source, base):
        with opened(file) as stream:
            _read_file(stream, file.label, format, examples, problems)
    if problems:
        raise data_error(problems)
    return examples


def data_error(problems: Sequence[str]) -> DataError:
    """One error for all problems of a dataset; the message shows the first 20 and counts the rest."""
    shown = [f"  {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  … and {len(problems) - _SHOWN:,} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
    return DataError("\n".join([f"{count} in the data:", *shown]), problems=problems)


# Reading one file


class _Unreadable(ValueError):
    """A line or file that holds no usable JSON; the text says why."""


def _read_file(stream: BinaryIO, label: str, format: str, examples: list[SourcedExample], problems: list[str]) -> None:
    first = _first_line(stream)
    signature = next((kind for start, kind in _SIGNATURES.items() if first.startswith(start)), None)
    if signature:
        problems.append(f"{label} is {signature}; ftbridge reads JSON Lines or JSON in UTF-8.")
        return
    if not first:
        problems.append(f"{label} is empty; it holds no examples.")
        return
    array = format == "json" or (format == "auto" and first.lstrip().startswith(b"["))
    if not array and first.strip() == b"{":
        problems.append(f"{label}:1 opens an object over several lines; JSON Lines has one example a line.")
        return
    before = len(examples), len(problems)
    for line, document in _array(stream) if array else _lines(stream):
        if isinstance(document, _Unreadable):
            problems.append(f"{label}:{line} {document}")
            continue
        try:
            example = parse_example(document)
            example.canonical().encode()
        except ExampleError as error:
            problems += [f"{label}:{line} {field}{' ' if field else ''}{text}" for field, text in error.problems]
        except UnicodeEncodeError:
            problems.append(f"{label}:{line} holds half of a \\u surrogate pair, which no UTF-8 text can hold.")
        except (ValueError, RecursionError):
            problems.append(f"{label}:{line} is nested too deeply to be written again.")
        else:
            examples.append(SourcedExample(example, label, line))
    if (len(examples), len(problems)) == before:
        problems.append(f"{label} is an empty list; it holds no examples.")


def _first_line(stream: BinaryIO) -> bytes:
    """The first line that is not blank, without a byte order mark; empty when there is none."""
    for raw in stream:
        if line := raw.removeprefix(b"\xef\xbb\xbf"):
            if not line.strip():
                continue
            stream.seek(0)
            return line
    return b""


def _lines(stream: BinaryIO) -> Iterator[tuple[int, object]]:
    """Each line's number and its document or what is wrong. Only a line feed ends a line: a text may hold U+2028."""
    for number, raw in enumerate(stream, start=1):
        raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if not raw.strip():
            continue
        try:
            yield number, _parse(raw.rstrip().decode())
        except UnicodeDecodeError as error:
            cut = error.reason == "unexpected end of data" and not raw.endswith(b"\n")
            yield number, _Unreadable(f"{_not_utf8(error)[1]}{_TRUNCATED if cut else ''}")
        except json.JSONDecodeError as error:
            cut = _is_cut(error) and not raw.endswith(b"\n")
            yield number, _Unreadable(f"{_json_problem(error)}{_TRUNCATED if cut else ''}")
        except _Unreadable as error:
            yield number, error


def _array(stream: BinaryIO) -> Iterator[tuple[int, object]]:
    """The same for one JSON array: each element with the line it begins on. Broken JSON ends the reading."""
    try:
        text = stream.read().removeprefix(b"\xef\xbb\xbf").rstrip().decode()
    except UnicodeDecodeError as error:
        lines_down, problem = _not_utf8(error)
        yield 1 + lines_down, problem
        return
    position, line = _next(text, 0), 1
    if text[position] != "[":
        yield 1 + text.count("\n", 0, position), _Unreadable("is not a JSON array; format json is a list of examples.")
        return
    counted, position = 0, _next(text, position + 1)
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            try:
                document, position = _DECODER.raw_decode(text, position)
            except _Unreadable as error:  # valid JSON that an example may not hold: pass over it and go on
                document, position = error, json.JSONDecoder().raw_decode(text, position)[1]
            yield line, document
            position = _separator(text, _next(text, position))
        except json.JSONDecodeError as error:
            yield error.lineno, _Unreadable(f"{_json_problem(error)}{_TRUNCATED if _is_cut(error) else ''}")
            return
        except (ValueError, RecursionError) as error:
            yield line, _Unreadable("is nested too deeply." if isinstance(error, RecursionError) else f"{error}")
            return
    if (end := _next(text, position + 1)) < len(text):
        yield 1 + text.count("\n", 0, end), _Unreadable("goes on after the end of the JSON array.")


def _next(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _separator(text: str, position: int) -> int:
    """The start of the next element, or the closing bracket."""
    if text[position : position + 1] == ",":
        after = _next(text, position + 1)
        if text[after : after + 1] != "]":
            return after
        raise json.JSONDecodeError("Illegal trailing comma before end of array", text, position)
    if text[position : position + 1] != "]":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
    return position


def _not_utf8(error: UnicodeDecodeError) -> tuple[int, _Unreadable]:
    """How many lines down the bad byte is, and what is wrong."""
    before = error.object[: error.start]
    byte = error.start - before.rfind(b"\n")
    return before.count(b"\n"), _Unreadable(f"is not UTF-8 at byte {byte} (0x{error.object[error.start]:02x}).")


def _parse(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise _Unreadable("is nested too deeply.") from None
    except ValueError as error:
        raise _Unreadable(str(error)) from None


def _json_problem(error: json.JSONDecodeError) -> str:
    if error.msg == "Extra data":
        return f"goes on after its JSON ends, at column {error.colno}; each line holds one example."
    return f"is not valid JSON at column {error.colno}: {error.msg[0].lower()}{error.msg[1:]}."


def _is_cut(error: json.JSONDecodeError) -> bool:
    """Whether the text ended too early, rather than being wrong."""
    return error.pos >= len(error.doc) or error.msg.startswith("Unterminated string")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Unreadable(f'has the key "{twice}" twice in one object; only one of the two could be kept.')
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Unreadable(f"holds {text}, which is not a number JSON can hold.")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
