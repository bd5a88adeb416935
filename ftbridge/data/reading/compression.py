"""gzip and zstd: reading that tells where a file was cut and stops a bomb, and writing whose bytes depend on nothing else."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, Any, BinaryIO

from ftbridge import extras
from ftbridge.errors import UsageError

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
ENDINGS = (".gz", ".zst")

MAX_RATIO = 250.0
"""How many times larger a compressed file may unpack to; repetitive JSON stays below 100."""

_UNCHECKED = 256 << 20  # small files may unpack to this, whatever their ratio
_BLOCK = 1 << 16
_ZSTD_BLOCK = 1 << 12  # zstd's output cannot be bounded; 4 kB make at most 128 MB


def inflated(stream: BinaryIO, head: bytes, name: str, max_ratio: float = MAX_RATIO) -> Inflating | None:
    """What `stream` unpacks to, told by its first bytes; None when it is not compressed.

    Raises `MissingDependency` for zstd without its library; reading raises `UsageError` for a file that unpacks to more
    than `max_ratio` times its size (0: no limit).
    """
    if head.startswith(GZIP):
        return Inflating(stream, "gzip", name, max_ratio)
    return Inflating(stream, "zstd", name, max_ratio) if head.startswith(ZSTD) else None


class Inflating(io.RawIOBase):
    """A stream that gives everything before the data end or break; then `trouble` says what is wrong, if anything."""

    def __init__(self, stream: BinaryIO, kind: str, name: str, max_ratio: float) -> None:
        self.trouble: str | None = None
        self._stream, self._kind, self._name, self._max_ratio = stream, kind, name, max_ratio
        self._codec = self._new()
        self._begun, self._rest, self._out, self._ended = False, b"", b"", False
        self._taken = self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._out and not self._ended:
            self._out = self._step()
            self._given += len(self._out)
            if 0 < self._max_ratio < self._given / max(1, self._taken) and self._given > _UNCHECKED:
                raise UsageError(
                    f"{self._name} unpacks to more than {self._max_ratio:g} times its size.",
                    hint="If you trust it, allow more with `ftbridge convert … --max-ratio`, or unpack it first.",
                )
        block = self._out[: len(buffer)]
        self._out = self._out[len(block) :]
        buffer[: len(block)] = block
        return len(block)

    def _step(self) -> bytes:
        """Some unpacked bytes, perhaps none; sets `_ended` when there are no more."""
        if self._codec.eof:
            self._rest = self._codec.unused_data
            self._codec, self._begun = self._new(), False
        block = self._rest or self._stream.read(_ZSTD_BLOCK if self._kind == "zstd" else _BLOCK)
        self._taken += 0 if self._rest else len(block)
        self._rest = b""
        if not self._begun:
            block = block.lstrip(b"\0") if self._given else block  # gzip files may be padded
        if not block:
            rest: bytes = self._codec.flush() if self._begun else b""
            return rest or self._end(
                "end early: the file looks truncated" if self._begun and not self._codec.eof else None
            )
        self._begun = True
        try:
            return self._inflate(block)
        except (zlib.error, _zstd_error()) as error:
            return self._end(f"break off: {str(error) or 'the data are damaged'}")

    def _inflate(self, block: bytes) -> bytes:
        if self._kind == "zstd":
            unpacked: bytes = self._codec.decompress(block)
            return unpacked
        unpacked = self._codec.decompress(block, 1 << 20)
        self._rest = self._codec.unconsumed_tail
        return unpacked

    def _end(self, trouble: str | None) -> bytes:
        self._ended = True
        if trouble:
            self.trouble = f"cannot be read to its end: its {self._kind} data {trouble}."
        return b""

    def _new(self) -> Any:
        return zlib.decompressobj(31) if self._kind == "gzip" else _zstd().ZstdDecompressor().decompressobj()


@contextlib.contextmanager
def deflating(target: IO[bytes], ending: str | None) -> Iterator[IO[bytes]]:
    """A stream that compresses into `target` as `ending` says; the same content gives the same bytes."""
    if ending == ".gz":
        with gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0) as stream:
            yield stream  # type: ignore[misc]
    elif ending == ".zst":
        with _zstd().ZstdCompressor().stream_writer(target, closefd=False) as stream:
            yield stream
    else:
        yield target


def _zstd() -> Any:
    return extras.load("convert", "zstd", "zstandard")


def _zstd_error() -> type[Exception]:
    try:
        import zstandard
    except ImportError:
        return zlib.error
    error: type[Exception] = zstandard.ZstdError
    return error
