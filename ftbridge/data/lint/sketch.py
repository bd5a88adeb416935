"""Sketches by which near duplicates find each other: MinHash over word triples, in bands.

Scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) have each character for a
word, so that their triples are character trigrams: what is usual there (Manning, Raghavan, Schütze, Introduction to
Information Retrieval, section 2.2.1), and independent of any dictionary.

Two texts' Jaccard similarity J is the share of word triples they have in common. A signature of 63 minima is cut into 9
bands of 7; texts whose bands agree somewhere are compared for real. A pair shares a band with probability 1-(1-J^7)^9:
0.07 at J = 0.5, 0.97 at 0.85, 0.997 at 0.9 (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ftbridge.data.lint.dataset import BANDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MINIMA = 7 * BANDS
SHINGLE = 3
SHORTEST = 8
"""Words below which a text gets no sketch: one changed word would change most of its triples."""

LONGEST = 200_000
"""Characters of a text that are looked at."""

_SEED = 42


_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]+"
)
"""Runs of characters of scripts that do not put spaces between words."""


def words(text: str) -> list[str]:
    """A text's words: lower case, cut at white space, and each character of a script without spaces."""
    return _apart(text.lower()).split()


def _apart(text: str) -> str:
    """The text with spaces between the characters of scripts that have none between words."""
    if text.isascii() or not _UNSPACED.search(text):
        return text
    return _UNSPACED.sub(lambda run: f" {' '.join(run[0])} ", text)


def triples(text: str) -> set[tuple[str, ...]]:
    """A text's word triples."""
    tokens = words(text)
    return {tuple(tokens[index : index + SHINGLE]) for index in range(len(tokens) - SHINGLE + 1)}


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two texts' word triples, 0..1."""
    return overlap(triples(one), triples(other))


def overlap(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    """The Jaccard similarity of two sets of triples, 0..1; 0 where one is empty."""
    if not first or not second:
        return 0.0
    both = len(first & second)
    return both / (len(first) + len(second) - both)


def sketches(texts: Sequence[str]) -> NDArray[np.uint32]:
    """One sketch a text, shape [texts, BANDS]; zeros for texts shorter than SHORTEST words.

    Words are cut at ASCII white space and around characters of scripts without spaces; only the first LONGEST characters
    of a text count.
    """
    import numpy as np
    import rensa

    result: NDArray[np.uint32] = np.zeros((len(texts), BANDS), np.uint32)
    hashed, offsets = _word_hashes([_apart(text[:LONGEST].lower()).encode("utf-8", "surrogatepass") for text in texts])
    long = np.flatnonzero(np.diff(offsets) >= SHORTEST)
    if not len(long):
        return result
    triples = _rolled(hashed)
    # The last two positions of a text would mix it with the next: they repeat the text's first triple instead.
    for back in range(1, SHINGLE):
        triples[offsets[long + 1] - back] = triples[offsets[long]]
    lengths = offsets[long + 1] - offsets[long]
    if len(long) < len(texts):
        triples = triples[np.repeat(np.isin(np.arange(len(texts)), long), np.diff(offsets))]
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)
    matrix: Any = rensa.RMinHash.digest_matrix_from_flat_token_hashes(triples, bounds, MINIMA, _SEED)
    rows = itertools.chain.from_iterable(matrix.to_rows())
    bands = np.fromiter(rows, np.uint64, len(long) * MINIMA).reshape(len(long), BANDS, -1)
    mixed = np.zeros(bands.shape[:2], np.uint64)
    for column in range(bands.shape[2]):
        mixed = (mixed ^ bands[:, :, column]) * np.uint64(_ODD)
        mixed ^= mixed >> np.uint64(29)
    result[long] = (mixed >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    return result


_ODD = 0x9E3779B97F4A7C15
_OTHER_ODD = 0xC2B2AE3D27D4EB4F


def _word_hashes(texts: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A hash for each word of all texts, and where each text's words begin and end among them.

    A hash is made of a word's first and last eight bytes and its length: words of up to 16 bytes have their own.
    """
    import numpy as np

    raw = b" " + b" ".join(texts) + b" " * 9
    letters = np.frombuffer(raw, np.uint8, len(raw) - 8) > 32
    edges: NDArray[np.int64] = np.flatnonzero(letters[1:] != letters[:-1]) + 1
    begins, ends = edges[::2], edges[1::2]
    eights: NDArray[np.uint64] = np.ndarray((len(raw) - 7,), "<u8", raw, strides=(1,))
    lengths = ends - begins
    spare = (np.uint64(8) * (8 - np.minimum(lengths, 8)).astype(np.uint64)).astype(np.uint64)
    first = eights[begins] << spare
    last = eights[np.maximum(ends - 8, begins)] << spare
    hashed = (first * np.uint64(_ODD) ^ last) * np.uint64(_OTHER_ODD) + lengths.astype(np.uint64)
    hashed ^= hashed >> np.uint64(31)
    hashed *= np.uint64(_ODD)
    ends_of_texts = np.cumsum([len(text) + 1 for text in texts])
    offsets = np.concatenate([[0], np.searchsorted(begins, ends_of_texts)])
    return hashed ^ (hashed >> np.uint64(29)), offsets.astype(np.int64)


def _rolled(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import numpy as np

    rolled = hashes.copy()
    for ahead in range(1, SHINGLE):
        rolled[:-ahead] = rolled[:-ahead] * np.uint64(_OTHER_ODD) + hashes[ahead:]
    return rolled
