"""Multipart bodies, read as they come: fields into memory, the file straight onto the disk, both within limits."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from ftbridge.files import disk_full_is_an_error
from ftbridge.server.http.errors import invalid
from ftbridge.server.http.validation import too_large

_MOST_FIELDS = 32
_MOST_FIELD_BYTES = 64 << 10
_FRAMING = 1 << 20
"""What boundaries, headers and fields may add to the file's own bytes."""


@dataclass
class Form:
    """What came: the fields as text, and the file, if there was one, at a temporary path that the caller moves or removes."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    path: Path | None = None
    size: int = 0

    def discard(self) -> None:
        """Remove the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


async def receive(request: Request, folder: Path, *, file_field: str, limit: int) -> Form:
    """The body, its file (the part called `file_field`) written and flushed under `folder`.

    Raises `ApiError`: 400 for what is not a multipart body, 413 for a file of more than `limit` bytes, 507 for a full disk.
    Whatever is raised, nothing is left on the disk.
    """
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit + _FRAMING:
        raise too_large(limit)
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise invalid("The body must be multipart/form-data with a boundary.", code="invalid_multipart")
    reading = _Reading(folder, file_field, limit)
    try:
        parser = MultipartParser(boundary, cast(Any, reading.callbacks()))
        with disk_full_is_an_error(folder):
            async for piece in request.stream():
                parser.write(piece)
            parser.finalize()
            reading.finish()
    except MultipartParseError as error:
        reading.abandon()
        raise invalid(f"The multipart body is malformed: {error}.", code="invalid_multipart") from None
    except ClientDisconnect:
        reading.abandon()
        raise invalid("The connection closed before the complete body arrived.") from None
    except BaseException:
        reading.abandon()
        raise
    return reading.form


class _Reading:
    """A body half read."""

    def __init__(self, folder: Path, file_field: str, limit: int) -> None:
        self.folder, self.file_field, self.limit = folder, file_field, limit
        self.form = Form()
        self.headers: dict[bytes, bytes] = {}
        self.header_name, self.header_value = b"", b""
        self.name = ""
        self.value = bytearray()
        self.stream: IO[bytes] | None = None
        self.ended = False

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self.part_begin,
            "on_header_field": self.header_field,
            "on_header_value": self.header_more,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_finished,
            "on_part_data": self.data,
            "on_part_end": self.part_end,
            "on_end": self.end,
        }

    def part_begin(self) -> None:
        self.headers = {}
        self.value = bytearray()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.header_name += data[start:end]

    def header_more(self, data: bytes, start: int, end: int) -> None:
        self.header_value += data[start:end]

    def header_end(self) -> None:
        self.headers[self.header_name.lower()] = self.header_value
        self.header_name, self.header_value = b"", b""

    def headers_finished(self) -> None:
        _, options = parse_options_header(self.headers.get(b"content-disposition"))
        self.name = options.get(b"name", b"").decode("utf-8", "replace")
        if self.name != self.file_field:
            if len(self.form.fields) >= _MOST_FIELDS:
                raise invalid("The multipart body has too many fields.", code="invalid_multipart")
            return
        if self.form.path is not None:
            raise invalid(f"'{self.file_field}' was sent more than once.", self.file_field, "invalid_multipart")
        self.form.filename = _filename(options)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.form.path = self.folder / f"{secrets.token_hex(12)}.part"
        self.stream = self.form.path.open("xb")

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.stream is not None:
            self.form.size += end - start
            if self.form.size > self.limit:
                raise too_large(self.limit)
            self.stream.write(data[start:end])
            return
        self.value += data[start:end]
        if len(self.value) > _MOST_FIELD_BYTES:
            raise invalid(f"'{self.name}' is too long for a field.", self.name, "invalid_multipart")

    def part_end(self) -> None:
        if self.stream is not None:
            self.stream.flush()
            os.fsync(self.stream.fileno())
            self.stream.close()
            self.stream = None
        else:
            self.form.fields[self.name] = self.value.decode("utf-8", "replace")

    def end(self) -> None:
        self.ended = True

    def finish(self) -> None:
        if not self.ended:
            raise invalid("The multipart body ends before its last boundary.", code="invalid_multipart")

    def abandon(self) -> None:
        if self.stream is not None:
            self.stream.close()
        self.form.discard()


def _filename(options: dict[bytes, bytes]) -> str | None:
    """The file's name: `filename*` of RFC 5987 (charset, language, percent-encoded) before `filename`."""
    extended = options.get(b"filename*", b"").decode("latin-1").split("'", 2)
    if len(extended) == 3 and extended[0].lower() in ("utf-8", "iso-8859-1", ""):
        return _base(unquote_to_bytes(extended[2]).decode(extended[0] or "utf-8", "replace"))
    plain = options.get(b"filename")
    return None if plain is None else _base(plain.decode("utf-8", "replace"))


def _base(filename: str) -> str:
    """The last part of a name, whichever way its folders are written; at most 255 characters."""
    last = filename.replace("\\", "/").rsplit("/", 1)[-1][:255]
    return "".join(one for one in last if one.isprintable())
