from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftbridge.providers.local.data.batches import (
    Encoded,
    cut_packed,
    cut_padded,
    epoch_order,
    evaluation_steps,
    steps_of_epoch,
)

ORDER = [7, 1, 6, 5, 4, 2, 3, 0]
LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


def test_an_epoch_visits_every_example_once_and_another_epoch_in_another_order() -> None:
    steps = steps_of_epoch(103, 16, seed=7, epoch=0)
    assert [len(step) for step in steps] == [16] * 6 + [7]
    assert sorted(index for step in steps for index in step) == list(range(103))
    assert epoch_order(103, 7, 0) != epoch_order(103, 7, 1)


def test_the_order_is_fixed_by_the_seed_on_every_machine() -> None:
    assert epoch_order(8, 7, 0) == ORDER
    assert epoch_order(50, 7, 0) == epoch_order(50, 7, 0) != epoch_order(50, 8, 0)


@given(LENGTHS, st.integers(1, 400))
def test_packed_passes_hold_every_example_once_within_the_budget(lengths: list[int], budget: int) -> None:
    passes = cut_packed(lengths, budget)
    assert sorted(index for part in passes for index in part) == list(range(len(lengths)))
    for part in passes:
        assert sum(lengths[i] for i in part) <= budget or len(part) == 1


@given(LENGTHS, st.integers(1, 400))
def test_no_two_packed_passes_would_fit_in_one(lengths: list[int], budget: int) -> None:
    sums = sorted(sum(lengths[i] for i in part) for part in cut_packed(lengths, budget))
    assert all(a + b > budget for a, b in pairwise(sums))


@given(LENGTHS, st.integers(1, 400))
def test_padded_passes_count_their_padding(lengths: list[int], budget: int) -> None:
    passes = cut_padded(lengths, budget)
    assert sorted(index for part in passes for index in part) == list(range(len(lengths)))
    for part in passes:
        assert len(part) * max(lengths[i] for i in part) <= budget or len(part) == 1


@pytest.mark.parametrize(
    ("steps_per_epoch", "epochs", "evals", "expected"),
    [
        (10, 1, 2, {5, 10}),
        (10, 2, 1, {10, 20}),
        (3, 1, 2, {2, 3}),
        (1, 3, 4, {1, 2, 3}),
        (7, 1, 3, {3, 5, 7}),
    ],
)
def test_validation_is_spread_over_each_epoch_and_falls_on_its_end(
    steps_per_epoch: int, epochs: int, evals: int, expected: set[int]
) -> None:
    assert evaluation_steps(steps_per_epoch, epochs, evals) == expected


def test_the_first_token_is_never_counted_as_trained() -> None:
    assert Encoded((1, 2, 3), (True, True, False), 0).num_loss_tokens == 1
