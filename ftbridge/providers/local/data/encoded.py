"""Encoded splits as files of a run: rendered, tokenized and masked once, and read by every process after that.

    preflight ── encode ──▶ RUN/local/encoded/train.npz, validation.npz ──▶ the worker, and each that resumes it · plan
                            key: what the tokens depend on

A file is used only where its key is that of the job at hand: the bytes of both splits, the files of the tokenizer, the method,
the length policy, and the versions of ftbridge and transformers. Otherwise both splits are encoded, and written, again.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from ftbridge import __version__
from ftbridge.files import sha256_bytes, sha256_file, write_bytes
from ftbridge.providers.local.data.batches import Encoded, Unit
from ftbridge.providers.local.request import LocalRequest

if TYPE_CHECKING:
    from ftbridge.providers.local.data.rendering import Renderer

U = TypeVar("U", bound=Unit)
_LAYOUT = 1
"""Counts changes of the file's layout, and of rendering within one version."""
_WEIGHTS = frozenset({".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack"})


@dataclass(frozen=True)
class EncodedSplit(Generic[U]):
    """A split as tokens: one unit for each example, or several where completions are trained in sequences of their own.

    `cut` and `dropped` name the lines that were shortened or left out; `notes` are doubts. `longest` is the number of tokens of
    the longest sequence before the length policy, 0 where it is not known.
    """

    examples: tuple[U, ...]
    cut: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    longest: int = 0

    @property
    def tokens(self) -> int:
        """All tokens, with a loss or without."""
        return sum(len(example) for example in self.examples)

    @property
    def num_loss_tokens(self) -> int:
        """Tokens the loss is computed on."""
        return sum(example.num_loss_tokens for example in self.examples)


@dataclass(frozen=True)
class StoredForm(Generic[U]):
    """How a method's units are kept as sequences: `pack` gives the sequences of units, in order, `unpack` the units again.

    `unpack` reads what sequences do not hold from the canonical split, whose lines `Encoded.index` counts from 0.
    """

    pack: Callable[[Sequence[U]], list[Encoded]]
    unpack: Callable[[list[Encoded], Path, LocalRequest], list[U]]


STORED_EXAMPLES = StoredForm[Encoded](list, lambda sequences, path, request: sequences)
"""How the sequences of supervised training are kept: as they are."""


class Encoder(Protocol):
    """What encoding needs of a training method (`training.methods.TrainingMethod`)."""

    @property
    def encode(self) -> Callable[[Path, str, Renderer, LocalRequest], EncodedSplit[Any]]: ...

    @property
    def stored(self) -> StoredForm[Any]: ...


@dataclass(frozen=True)
class SplitCounts:
    """What a stored split holds: its tokens, and the examples that the length policy shortened or left out."""

    tokens: int
    num_loss_tokens: int
    longest: int
    too_long: int


def encode_once(
    method: Encoder,
    splits: Mapping[str, Path],
    renderer: Renderer,
    request: LocalRequest,
    model: Path,
    folder: Path | None = None,
) -> dict[str, EncodedSplit[Any]]:
    """Every split as tokens: read from `folder` where they stand there for this very job, else encoded, and written there.

    `model` is the folder whose tokenizer `renderer` uses. Without a `folder` nothing is read or written. Raises `DataError` as
    the method's encoder does, and `DiskFull`.
    """
    key = _key(splits, model, request) if folder is not None else ""
    if folder is not None and (stored := _read_all(folder, key, method, splits, request)) is not None:
        for note in chain.from_iterable(notes for _, notes in stored.values()):
            renderer.modes.note(note)
        return {name: split for name, (split, _) in stored.items()}
    encoded = {}
    for name, path in splits.items():
        before = len(renderer.notes)
        encoded[name] = method.encode(path, name, renderer, request)
        if folder is not None:
            _write(folder / f"{name}.npz", key, path, encoded[name], method.stored, renderer.notes[before:])
    return encoded


def stored_counts(folder: Path, split: str, sha256: str) -> SplitCounts | None:
    """Counts of a stored split of these bytes; None where it is not stored. The rest of the key is not looked at."""
    try:
        with np.load(folder / f"{split}.npz", allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header["sha256"] != sha256:
                return None
            lengths, mask = file["lengths"], file["loss_mask"]
            counts = np.unpackbits(mask, count=int(lengths.sum()))
            starts = np.cumsum(lengths) - lengths
            return SplitCounts(
                tokens=int(lengths.sum()),
                num_loss_tokens=int(counts.sum() - counts[starts].sum()),
                longest=header["longest"],
                too_long=len(header["cut"]) + len(header["dropped"]),
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _key(splits: Mapping[str, Path], model: Path, request: LocalRequest) -> str:
    """Names everything that the tokens of a job depend on."""
    tokenizer = {
        path.name: sha256_file(path)
        for path in sorted(model.iterdir())
        if path.is_file() and path.suffix not in _WEIGHTS and not path.name.startswith(".")
    }
    settings = request.model_dump(
        mode="json", include={"method", "max_length", "overlength", "thinking", "reinforcement"}
    )
    parts = {
        "layout": _LAYOUT,
        "versions": {"ftbridge": __version__, "transformers": _version("transformers")},
        "splits": {name: sha256_file(path) for name, path in splits.items()},
        "tokenizer": tokenizer,
        "settings": settings,
    }
    return sha256_bytes(json.dumps(parts, sort_keys=True).encode())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _write(
    target: Path, key: str, source: Path, split: EncodedSplit[U], form: StoredForm[U], renderer_notes: Sequence[str]
) -> None:
    sequences = form.pack(split.examples)
    header = {
        "key": key,
        "sha256": sha256_file(source),
        "cut": split.cut,
        "dropped": split.dropped,
        "notes": split.notes,
        "longest": split.longest,
        "renderer_notes": renderer_notes,
    }
    masks = chain.from_iterable(sequence.loss_mask for sequence in sequences)
    content = io.BytesIO()
    np.savez(
        content,
        header=json.dumps(header),
        lengths=np.array([len(sequence) for sequence in sequences], dtype=np.int64),
        lines=np.array([sequence.index for sequence in sequences], dtype=np.int64),
        input_ids=np.fromiter(chain.from_iterable(sequence.input_ids for sequence in sequences), dtype=np.int32),
        loss_mask=np.packbits(np.fromiter(masks, dtype=np.bool_)),
    )
    write_bytes(target, content.getvalue())


def _read_all(
    folder: Path, key: str, method: Encoder, splits: Mapping[str, Path], request: LocalRequest
) -> dict[str, tuple[EncodedSplit[Any], list[str]]] | None:
    """Each split with what its renderer noted; None where one is not there, damaged, or of another job."""
    try:
        return {name: _read(folder / f"{name}.npz", key, path, method.stored, request) for name, path in splits.items()}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _read(
    path: Path, key: str, source: Path, form: StoredForm[U], request: LocalRequest
) -> tuple[EncodedSplit[U], list[str]]:
    with np.load(path, allow_pickle=False) as file:
        header = json.loads(str(file["header"]))
        if header["key"] != key:
            raise ValueError(f"{path} holds the tokens of another job")
        lengths = file["lengths"]
        ends = np.cumsum(lengths)
        ids = file["input_ids"].tolist()
        mask = np.unpackbits(file["loss_mask"], count=len(ids)).astype(np.bool_).tolist()
        bounds = zip((ends - lengths).tolist(), ends.tolist(), file["lines"].tolist(), strict=True)
        sequences = [Encoded(tuple(ids[start:end]), tuple(mask[start:end]), line) for start, end, line in bounds]
    split = EncodedSplit(
        tuple(form.unpack(sequences, source, request)),
        cut=tuple(header["cut"]),
        dropped=tuple(header["dropped"]),
        notes=tuple(header["notes"]),
        longest=header["longest"],
    )
    return split, header["renderer_notes"]
