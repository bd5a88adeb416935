"""Sketches by which near duplicates find each other: MinHash over word triples, in bands.

Two texts' Jaccard similarity J is the share of word triples they have in common. A signature of 64 minima is cut into 8
bands of 8; texts whose bands agree somewhere are compared for real. A pair shares a band with probability 1-(1-J^8)^8:
0.03 at J = 0.5, 0.77 at 0.8, 0.99 at 0.9 (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ftbridge.data.lint.dataset import BANDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MINIMA = 64
SHINGLE = 3
SHORTEST = 8
"""Words below which a text gets no sketch: one changed word would change most of its triples."""

_SEED = 42


def words(text: str) -> list[str]:
    """A text's words: lower case, cut at white space."""
    return text.lower().split()


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two texts' word triples, 0..1."""
    first, second = _triples(words(one)), _triples(words(other))
    return len(first & second) / len(first | second) if first and second else 0.0


def sketches(texts: Sequence[str]) -> NDArray[np.uint64]:
    """One sketch a text, shape [texts, BANDS]; zeros for texts shorter than SHORTEST words."""
    import numpy as np
    import rensa

    split = [words(text if text.isascii() else text.encode("utf-8", "replace").decode()) for text in texts]
    hashed = rensa.RMinHash.hash_token_sets(split)
    lengths = np.array([len(item) for item in split])
    long = lengths >= SHORTEST
    result = np.zeros((len(texts), BANDS), np.uint64)
    if not long.any():
        return result
    kept = itertools.compress(hashed, long.tolist())
    flat = np.fromiter(itertools.chain.from_iterable(kept), np.uint64, int(lengths[long].sum()))
    offsets = np.concatenate([[0], np.cumsum(lengths[long])]).astype(np.uint64)
    triples = _rolled(flat)
    # The last two positions of a text would mix it with the next: they repeat the text's first triple instead.
    ends = offsets[1:].astype(np.int64)
    firsts = triples[offsets[:-1].astype(np.int64)]
    for back in range(1, SHINGLE):
        triples[ends - back] = firsts
    matrix: Any = rensa.RMinHash.digest_matrix_from_flat_token_hashes(triples, offsets, MINIMA, _SEED)
    rows = int(long.sum())
    signatures = np.fromiter(itertools.chain.from_iterable(matrix.to_rows()), np.uint64, rows * MINIMA)
    bands = signatures.reshape(rows, BANDS, -1)
    mixed = np.zeros(bands.shape[:2], np.uint64)
    for column in range(bands.shape[2]):
        mixed = (mixed ^ bands[:, :, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    result[long] = mixed | np.uint64(1)
    return result


def _rolled(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import numpy as np

    odd = np.uint64(0xC2B2AE3D27D4EB4F)
    rolled = hashes.copy()
    for ahead in range(1, SHINGLE):
        rolled[:-ahead] = rolled[:-ahead] * odd + hashes[ahead:]
    return rolled


def _triples(said: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(said[index : index + SHINGLE]) for index in range(len(said) - SHINGLE + 1)}
