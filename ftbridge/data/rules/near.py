"""Near duplicates: rows whose sketches share a band are candidates, and their texts decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ftbridge.data.lint.dataset import Dataset
from ftbridge.data.lint.sketch import similarity
from ftbridge.data.rules.base import Context, Line, look, texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALIKE = 0.85
"""Jaccard similarity of word triples from which two examples are near duplicates. Lee et al., Deduplicating Training Data
Makes Language Models Better (2022), use 0.8 on longer documents."""

COMPARED = 2_000
"""Pairs whose texts are read and compared at most; a file with more candidates is told by what was found in these."""

PAIRED = 100_000
"""Pairs of each band that are ranked for that, which bounds memory in files whose lines are all alike."""

_LONGEST = 200_000
"""Characters of a text that are compared."""


class Pair(NamedTuple):
    """Two rows and their similarity."""

    row: int
    other: int
    similarity: float


def pairs_within(dataset: Dataset, context: Context) -> Iterator[Pair]:
    """Near duplicates in one file: each row with an earlier one that stands for its cluster. Exact ones are left out."""
    columns = dataset.columns
    yield from _verified(_candidates(columns.sketch, columns.content), dataset, dataset, context)


def pairs_between(held_out: Dataset, train: Dataset, context: Context) -> Iterator[Pair]:
    """Near duplicates of a file's rows in another file, one for each row. Exact ones are left out."""
    import numpy as np

    size = held_out.rows
    sketch = np.concatenate([train.columns.sketch, held_out.columns.sketch])
    content = np.concatenate([train.columns.content, held_out.columns.content])
    found = (
        (row - train.rows, other)
        for row, other in _candidates(sketch, content, first_of=train.rows)
        if row >= train.rows > other
    )
    if size:
        yield from _verified(found, held_out, train, context)


def _candidates(
    sketch: NDArray[np.uint64], content: NDArray[np.uint64], first_of: int | None = None
) -> Iterator[tuple[int, int]]:
    """Pairs (row, earlier row) that share a band, those sharing most bands first, each once.

    In each band a row is paired with the first row that has the same value, so that many alike make few pairs. Rows from
    `first_of` on are not such firsts. Of rows with the same content only the first takes part.
    """
    import numpy as np

    keys: list[NDArray[np.int64]] = []
    once = np.unique(content, return_index=True)[1]
    rows = np.sort(once[sketch[once].any(axis=1)])
    for band in range(sketch.shape[1]):
        _, first, which = np.unique(sketch[rows, band], return_index=True, return_inverse=True)
        paired = rows[first][which]
        keep = paired != rows
        if first_of is not None:
            keep &= paired < first_of
        kept = np.flatnonzero(keep)[:PAIRED]
        keys.append(rows[kept].astype(np.int64) << 32 | paired[kept].astype(np.int64))
    pairs, shared = np.unique(np.concatenate(keys) if keys else np.zeros(0, np.int64), return_counts=True)
    for key in pairs[np.argsort(-shared, kind="stable")].tolist():
        yield key >> 32, key & 0xFFFFFFFF


def _verified(pairs: Iterator[tuple[int, int]], dataset: Dataset, other: Dataset, context: Context) -> Iterator[Pair]:
    """The pairs whose texts are alike; a row that has found its like is not looked at again."""
    done: set[int] = set()
    read = _reader(dataset, context)
    read_other = read if other is dataset else _reader(other, context)
    compared = 0
    for row, earlier in pairs:
        if row in done:
            continue
        if compared == COMPARED:
            return
        compared += 1
        alike = similarity(read(row), read_other(earlier))
        if alike >= ALIKE:
            done.add(row)
            yield Pair(row, earlier, alike)


def _reader(dataset: Dataset, context: Context) -> Callable[[int], str]:
    kept: dict[int, str] = {}

    def read(row: int) -> str:
        if row not in kept:
            if len(kept) > 500:
                kept.clear()
            kept[row] = said(dataset.example(row), context)[:_LONGEST]
        return kept[row]

    return read


def said(document: Any, context: Context) -> str:
    """What an example's messages say, system messages aside."""
    spots = tuple(spot for spot in look(document, context).messages if spot.role not in ("system", "developer"))
    return " ".join(text for _, text in texts(Line(None, context, messages=spots)))
