"""Near duplicates: rows whose sketches share a band are candidates, and their texts decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ftbridge.data.lint.dataset import Dataset
from ftbridge.data.lint.rule import Context, Line, look, texts
from ftbridge.data.lint.sketch import overlap, triples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALIKE = 0.85
"""Jaccard similarity of word triples from which two examples are near duplicates. Lee et al., Deduplicating Training Data
Makes Language Models Better (2022), use 0.8 on longer documents."""

COMPARED = 30_000
"""Pairs whose texts are read and compared at most: about six seconds. Where there are more, a finding says so."""

PAIRED = 200_000
"""Pairs of each band that are ranked for that, which bounds memory in files whose lines are all alike."""

_LONGEST = 200_000
"""Characters of a text that are compared."""


class NearPair(NamedTuple):
    """Two rows and their similarity."""

    row: int
    other: int
    similarity: float


@dataclass(frozen=True)
class Near:
    """Near duplicates, in the order of their rows; how many pairs were compared, of how many that may be alike."""

    pairs: list[NearPair]
    compared: int
    candidates: int
    at_least: bool
    """Whether there are more candidates than were counted."""

    @property
    def note(self) -> str:
        """A sentence where not all were compared; empty where all were."""
        if self.compared >= self.candidates and not self.at_least:
            return ""
        of = f"{'more than ' if self.at_least else ''}{self.candidates:,}"
        return (
            f"has {of} pairs of lines that may be nearly the same, of which {self.compared:,} were compared. Lint it "
            "again after you have fixed the reported ones."
        )


class _Candidates(NamedTuple):
    """Pairs as row << 32 | earlier row, the likeliest first."""

    keys: NDArray[np.int64]
    cut: bool


def pairs_within(dataset: Dataset, context: Context) -> Near:
    """Near duplicates in one file: each row with an earlier one that stands for its cluster. Exact ones are left out."""
    columns = dataset.columns
    candidates = _candidates(columns.sketch, columns.content)
    return _verified(candidates.keys, candidates.cut, dataset, dataset, context)


def pairs_between(held_out: Dataset, train: Dataset, context: Context) -> Near:
    """Near duplicates of a file's rows in another file, one for each row. Exact ones are left out."""
    import numpy as np

    sketch = np.concatenate([train.columns.sketch, held_out.columns.sketch])
    content = np.concatenate([train.columns.content, held_out.columns.content])
    candidates = _candidates(sketch, content, first_of=train.rows)
    later, earlier = candidates.keys >> 32, candidates.keys & 0xFFFFFFFF
    between = (later >= train.rows) & (earlier < train.rows)
    keys = (later[between] - train.rows) << 32 | earlier[between]
    return _verified(keys, candidates.cut, held_out, train, context)


def _candidates(sketch: NDArray[np.uint32], content: NDArray[np.uint64], first_of: int | None = None) -> _Candidates:
    """Pairs (row, earlier row) that share a band, those sharing most bands first, each once.

    In each band a row is paired with the first row that has the same value, so that many alike make few pairs. Rows from
    `first_of` on are not such firsts. Of rows with the same content only the first takes part.
    """
    import numpy as np

    keys: list[NDArray[np.int64]] = []
    cut = False
    once = np.unique(content, return_index=True)[1]
    rows = np.sort(once[sketch[once].any(axis=1)])
    for band in range(sketch.shape[1]):
        _, first, which = np.unique(sketch[rows, band], return_index=True, return_inverse=True)
        paired = rows[first][which]
        keep = paired != rows
        if first_of is not None:
            keep &= (paired < first_of) & (rows >= first_of)
        alike = np.flatnonzero(keep)
        cut |= len(alike) > PAIRED
        alike = alike[:PAIRED]
        keys.append(rows[alike].astype(np.int64) << 32 | paired[alike].astype(np.int64))
    pairs, shared = np.unique(np.concatenate(keys) if keys else np.zeros(0, np.int64), return_counts=True)
    return _Candidates(pairs[np.argsort(-shared, kind="stable")], cut)


def _verified(keys: NDArray[np.int64], cut: bool, dataset: Dataset, other: Dataset, context: Context) -> Near:
    """The pairs whose texts are alike; a row that has found its like is not looked at again."""
    alike: dict[int, NearPair] = {}
    read = _reader(dataset, context)
    read_other = read if other is dataset else _reader(other, context)
    compared = passed = 0
    for key in keys.tolist():
        row, earlier = key >> 32, key & 0xFFFFFFFF
        if row in alike:
            passed += 1
            continue
        if compared == COMPARED:
            break
        compared += 1
        similarity = overlap(read(row), read_other(earlier))
        if similarity >= ALIKE:
            alike[row] = NearPair(row, earlier, similarity)
    return Near(sorted(alike.values()), compared, len(keys) - passed, cut)


def _reader(dataset: Dataset, context: Context) -> Callable[[int], set[tuple[str, ...]]]:
    """Reads a row's triples; the last few hundred are kept."""
    cache: dict[int, set[tuple[str, ...]]] = {}

    def read(row: int) -> set[tuple[str, ...]]:
        if row not in cache:
            if len(cache) > 500:
                cache.clear()
            cache[row] = triples(messages_text(dataset.example(row), context)[:_LONGEST])
        return cache[row]

    return read


def messages_text(document: Any, context: Context) -> str:
    """What an example's messages say, system messages aside."""
    spots = tuple(spot for spot in look(document, context).messages if spot.role not in ("system", "developer"))
    return " ".join(text for _, text in texts(Line(None, context, messages=spots)))
