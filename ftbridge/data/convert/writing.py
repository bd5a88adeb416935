"""Records to files: JSON Lines, JSON arrays, CSV, TSV, Parquet; gzip and zstd of these.

A table's columns are known only after its last record, so records wait for it in a temporary file, not in memory.
"""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ftbridge.data.reading.compression import deflating
from ftbridge.data.reading.containers import Container
from ftbridge.data.reading.tables import plain, write_table
from ftbridge.errors import DataError
from ftbridge.files import disk_full_is_an_error


@dataclass
class Writer:
    """Takes one record after the other. After the last, `json_columns` are columns to be read back as JSON, by name."""

    _put: Any
    json_columns: list[str] = field(default_factory=list)

    def put(self, record: dict[str, Any]) -> None:
        """Write one record."""
        self._put(record)


@contextlib.contextmanager
def written(target: IO[bytes], container: Container, compression: str | None) -> Iterator[Writer]:
    """A writer; the file is whole when the context ends. `compression` is .gz, .zst or None."""
    with deflating(target, compression) as stream:
        if container == "jsonl":
            yield Writer(lambda record: stream.write(_text(record).encode() + b"\n"))
        elif container == "json":
            yield from _array(stream)
        elif container == "parquet":
            yield from _parquet(stream)
        else:
            yield from _table(stream, "\t" if container == "tsv" else ",")


_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _array(stream: IO[bytes]) -> Iterator[Writer]:
    count = 0

    def put(record: dict[str, Any]) -> None:
        nonlocal count
        stream.write((b",\n" if count else b"[\n") + _text(record).encode())
        count += 1

    yield Writer(put)
    stream.write(b"\n]\n" if count else b"[]\n")


def _table(stream: IO[bytes], delimiter: str) -> Iterator[Writer]:
    with _waiting() as spool:
        as_json: dict[str, bool] = {}

        def put(record: dict[str, Any]) -> None:
            for name, value in record.items():
                _check_name(name)
                as_json[name] = as_json.get(name, False) or not plain(name, value)
            spool.write(_text(record).encode() + b"\n")

        writer = Writer(put)
        yield writer
        writer.json_columns += [name for name, parsed in as_json.items() if parsed]
        if as_json:
            write_table(stream, delimiter, _again(spool), as_json)


def _parquet(stream: IO[bytes]) -> Iterator[Writer]:
    from ftbridge.data.reading.parquet import ANY, kind_of, merged, require, write_parquet

    require()
    with _waiting() as spool:
        kinds: dict[str, Any] = {}

        def put(record: dict[str, Any]) -> None:
            for name, value in record.items():
                kinds[name] = merged(kinds.get(name, ANY), kind_of(value))
            spool.write(_text(record).encode() + b"\n")

        yield Writer(put)
        if kinds:
            write_parquet(stream, _again(spool), kinds)


@contextlib.contextmanager
def _waiting() -> Iterator[IO[bytes]]:
    with disk_full_is_an_error(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as spool:
        yield spool


def _again(spool: IO[bytes]) -> Iterator[dict[str, Any]]:
    spool.seek(0)
    yield from map(json.loads, spool)


@functools.lru_cache(maxsize=1_000)
def _check_name(name: str) -> None:
    if not name or name != name.strip() or "\0" in name:
        raise DataError(f"the field {name!r} cannot be a column name.")
