"""Sketches find near duplicates: texts that are alike share a band, others hardly ever do."""

import random

import numpy as np

from ftbridge.data.lint.sketch import SHORTEST, similarity, sketches

_random = random.Random(3)
_WORDS = [f"{_random.choice(['card', 'bank', 'überweisung', 'カード'])}{number}" for number in range(3_000)]


def said(count):
    return [_random.choice(_WORDS) for _ in range(count)]


def share(one, other):
    return bool((one == other).any())


def test_texts_that_are_alike_share_a_band_and_others_do_not():
    texts = [said(120) for _ in range(300)]
    changed = [[*text[:60], "other", *text[61:]] for text in texts]
    one, other = sketches([" ".join(text) for text in texts]), sketches([" ".join(text) for text in changed])

    assert min(similarity(" ".join(a), " ".join(b)) for a, b in zip(texts, changed, strict=True)) > 0.9
    assert sum(map(share, one, other)) >= 290
    assert sum(share(one[row], other[row - 1]) for row in range(300)) == 0


def test_case_and_white_space_make_no_difference_and_neighbours_neither():
    text = " ".join(said(40))
    alone = sketches([text])[0]
    among = sketches(
        [" ".join(said(9)), "", "  \n", text.upper().replace(" ", "\n\t "), "short one", " ".join(said(30))]
    )

    np.testing.assert_array_equal(alone, among[3])
    assert not among[1].any()
    assert not among[2].any()
    assert not among[4].any()


def test_texts_too_short_to_compare_have_none():
    texts = [" ".join(said(SHORTEST - 1)), " ".join(said(SHORTEST)), "\ud83d " * 20]
    assert sketches(texts).any(axis=1).tolist() == [False, True, True]
    assert sketches([]).shape[0] == sketches([""]).any() == 0
