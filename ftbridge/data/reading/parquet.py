"""Parquet, in batches. What Arrow's types can hold exactly is written in them; any other column as JSON, marked as such."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import shlex
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import IO, Any, BinaryIO

from ftbridge import extras
from ftbridge.data.reading.json_text import Unreadable, parse
from ftbridge.data.reading.tables import STRUCTURED

_MARK = {b"ftbridge": b"json"}
"""Metadata of a column whose texts are JSON."""

_ROWS = 1_000

Kind = Any
"""The exact type of a value: a word, ("list", Kind), ("struct", {field: Kind}); ANY for a list's missing items."""

ANY = "any"
MIXED = "mixed"
"""Values of different types, or of one that Arrow would change."""


def read_parquet(
    stream: BinaryIO, parsed: Collection[str] = (), ignored: Collection[str] = ()
) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    """Each row as a record, counted from 1. Nulls are absent fields, since Parquet knows no other; dates become ISO 8601.

    `parsed` names columns whose texts are JSON, `ignored` those that may hold anything. Bytes and NaN, which JSON does not
    have, are named.
    """
    parquet, arrow_error = _parquet()
    number = 0
    try:
        file = parquet.ParquetFile(stream)
        marked = {*parsed} | {
            field.name for field in file.schema_arrow if (field.metadata or {}).items() >= _MARK.items()
        }
        for batch in file.iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, _record(row, marked, ignored)
    except (arrow_error, OSError) as error:
        yield number + 1, Unreadable(f"cannot be read, nor what follows: {str(error).splitlines()[0]}.")


def write_parquet(target: IO[bytes], records: Iterator[dict[str, Any]], columns: Mapping[str, Kind]) -> None:
    """Write records. `columns` gives every field and the kind of all its values."""
    import pyarrow

    parquet, _ = _parquet()
    exact = {name: _exact(kind) for name, kind in columns.items()}
    fields = [
        pyarrow.field(name, _arrow(kind) if exact[name] else pyarrow.string(), metadata=None if exact[name] else _MARK)
        for name, kind in columns.items()
    ]
    schema = pyarrow.schema(fields)
    with parquet.ParquetWriter(target, schema) as writer:
        while batch := list(islice(records, _ROWS)):
            rows = [
                {
                    name: value if exact[name] else json.dumps(value, ensure_ascii=False)
                    for name, value in record.items()
                }
                for record in batch
            ]
            columns_of = {name: [row.get(name) for row in rows] for name in columns}
            writer.write_table(pyarrow.table(columns_of, schema=schema))


def require() -> None:
    """Raise `MissingDependency` where Parquet cannot be written, before any work is done."""
    _parquet()


def kind_of(value: object) -> Kind:
    """The exact type of a value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else MIXED
    if isinstance(value, dict):
        return ("struct", {key: kind_of(inner) for key, inner in value.items()}) if value else MIXED
    if isinstance(value, list):
        inner: Kind = ANY
        for one in value:
            inner = merged(inner, kind_of(one))
        return ("list", inner)
    return {str: "text", float: "float"}.get(type(value), MIXED)


def merged(one: Kind, other: Kind) -> Kind:
    """The kind of values of both kinds; MIXED where there is none that keeps them apart."""
    if one == other or other == ANY:
        return one
    if one == ANY:
        return other
    if isinstance(one, tuple) and isinstance(other, tuple) and one[0] == other[0]:
        if one[0] == "list":
            return ("list", merged(one[1], other[1]))
        if one[1].keys() == other[1].keys():
            return ("struct", {key: merged(kind, other[1][key]) for key, kind in one[1].items()})
    return MIXED


def _exact(kind: Kind) -> bool:
    if isinstance(kind, tuple):
        return all(map(_exact, kind[1].values())) if kind[0] == "struct" else _exact(kind[1])
    return kind not in (ANY, MIXED)


def _arrow(kind: Kind) -> Any:
    import pyarrow

    if isinstance(kind, tuple):
        if kind[0] == "list":
            return pyarrow.list_(_arrow(kind[1]))
        return pyarrow.struct([pyarrow.field(key, _arrow(inner)) for key, inner in kind[1].items()])
    return {"bool": pyarrow.bool_(), "int": pyarrow.int64(), "float": pyarrow.float64(), "text": pyarrow.string()}[kind]


def _record(row: dict[str, Any], marked: set[str], ignored: Collection[str]) -> dict[str, Any] | Unreadable:
    record: dict[str, Any] = {}
    for name, value in row.items():
        if value is None:
            continue
        is_json = name in marked or (name in STRUCTURED and isinstance(value, str) and value.lstrip()[:1] in ("[", "{"))
        try:
            record[name] = parse(value) if is_json else _as_json(value, name)
        except ValueError as error:
            if name in ignored:
                record[name] = None
                continue
            if isinstance(error, _NoJson):
                return Unreadable(str(error), hint=f"`ftbridge convert … --drop {shlex.quote(name)}` drops the column.")
            return Unreadable(f"{name} {error if isinstance(error, Unreadable) else f'is not valid JSON ({error}).'}")
    return record


class _NoJson(ValueError):
    """A value that JSON has none for; the text names its place."""


def _as_json(value: Any, at: str) -> Any:
    """Without nulls in structs: Parquet has no absent fields, so every struct has the fields of all."""
    if isinstance(value, dict):
        return {key: _as_json(inner, f"{at}.{key}") for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_as_json(inner, f"{at}[{index}]") for index, inner in enumerate(value)]
    if isinstance(value, bytes):
        raise _NoJson(f"{at} contains bytes, but JSON can contain only text.")
    if isinstance(value, float) and not math.isfinite(value):
        raise _NoJson(f"{at} is {'NaN' if math.isnan(value) else 'infinite'}, which is not a number in JSON.")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value) if isinstance(value, decimal.Decimal) else value


def _parquet() -> tuple[Any, type[Exception]]:
    pyarrow = extras.load("convert", "Parquet", "pyarrow")
    return extras.load("convert", "Parquet", "pyarrow.parquet"), pyarrow.ArrowException
