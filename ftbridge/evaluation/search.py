"""Finding the texts that are nearest to a question, by the words they share: Okapi BM25, by the library bm25s.

Robertson and Zaragoza 2009 (Found. Trends Inf. Retr. 3:333); the variant of Lucene, whose idf cannot be negative, with
k1 = 1.2 and b = 0.75.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from ftbridge import extras


def searcher(texts: Sequence[str]) -> Callable[[str, int], list[int]]:
    """A function from a question and a number to the best texts' places, best first.

    Texts without a word of the question are not found; of equally good ones the first comes first, so that the same question
    always finds the same. Raises `MissingDependency` without the library.
    """
    bm25s = extras.load("eval", "searching by BM25", "bm25s")
    words = [_words(text) for text in texts]
    vocabulary = {word for text in words for word in text}
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    if vocabulary:
        index.index(words, show_progress=False)

    @functools.cache
    def search(question: str, most: int) -> list[int]:
        terms = sorted(set(_words(question)) & vocabulary)
        if not terms:
            return []
        scores = index.get_scores(terms).tolist()
        ranked = sorted(range(len(texts)), key=lambda index: (-scores[index], index))
        return [index for index in ranked[:most] if scores[index] > 0]

    return search


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
