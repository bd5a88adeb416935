"""Verdicts on paired scores."""

from __future__ import annotations

import random
import time

import pytest
from scipy import stats

from ftbridge.evaluation.verdict import compare_family, compare_paired, detectable, holm, paired_p_value


def one(first, second, margin=None):
    return compare_paired({"g": first}, {"g": second}, margin)["g"]


def binary(both: int, only_first: int, only_second: int, neither: int):
    first = [1.0] * both + [1.0] * only_first + [0.0] * (only_second + neither)
    second = [1.0] * both + [0.0] * only_first + [1.0] * only_second + [0.0] * neither
    return first, second


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [(1, 9, 0.021484375), (9, 1, 0.021484375), (0, 5, 0.0625), (0, 6, 0.03125), (5, 5, 1.0), (0, 0, 1.0), (3, 12, 0.03515625)],
)  # fmt: skip
def test_mcnemars_exact_test_has_its_tabled_values(only_first, only_second, expected):
    assert paired_p_value(*binary(20, only_first, only_second, 20)) == pytest.approx(expected, abs=1e-12)


def test_sign_flips_of_whole_steps_are_mcnemars_test_and_halves_the_same():
    first, second = binary(3, 2, 8, 4)
    halves = [value / 2 for value in first], [value / 2 for value in second]
    assert paired_p_value(*halves) == pytest.approx(paired_p_value(first, second), abs=1e-12)


def test_many_drawn_flips_come_near_the_exact_answer():
    dice = random.Random(4)
    first = [dice.random() for _ in range(13)]
    second = [value + dice.gauss(0.15, 0.3) for value in first]
    exact = paired_p_value(first, second)
    drawn = paired_p_value(first * 1, second * 1)
    assert exact == drawn
    padded = paired_p_value([*first, 0.5, 0.5], [*second, 0.5 + 1e-9, 0.5 - 1e-9])
    assert padded == pytest.approx(exact, abs=0.02)


def test_holm_is_step_down_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_better_worse_and_neither():
    assert one(*binary(30, 1, 15, 14)).verdict == "better"
    assert one(*binary(30, 15, 1, 14)).verdict == "worse"
    assert one(*binary(30, 5, 6, 14)).verdict == "not_enough_data"


def test_a_margin_turns_no_difference_into_not_worse_when_there_is_enough_data():
    few, many = binary(40, 2, 2, 6), binary(900, 10, 10, 80)
    assert one(*few, margin=0.02).verdict == "not_enough_data"
    assert one(*few, margin=0.02).margin_met is False
    result = one(*many, margin=0.02)
    assert (result.verdict, result.margin_met) == ("not_worse", True)
    assert one(*many, margin=0.2).ci95[0] == result.ci95[0]
    slightly = one(*binary(900, 30, 10, 60), margin=0.05)
    assert (slightly.verdict, slightly.difference) == ("not_worse", pytest.approx(-0.02))


def test_identical_answers_meet_any_margin_but_zero_width_is_not_claimed():
    result = one(*binary(50, 0, 0, 50), margin=0.05)
    assert result.verdict == "not_worse"
    assert result.ci95[0] < 0 < result.ci95[1]
    assert one(*binary(5, 0, 0, 5), margin=0.05).verdict == "not_enough_data"


def test_several_graders_are_corrected_together():
    alone = one(*binary(30, 3, 12, 15))
    assert alone.verdict == "better"
    scores = {f"g{n}": binary(30, 3, 12, 15) for n in range(4)}
    outcome = compare_paired(
        {name: pair[0] for name, pair in scores.items()}, {name: pair[1] for name, pair in scores.items()}
    )
    assert {result.verdict for result in outcome.values()} == {"not_enough_data"}


def test_what_can_be_detected_shrinks_with_the_root_of_the_items():
    small, large = detectable(*binary(20, 5, 5, 30)), detectable(*binary(80, 20, 20, 120))
    assert small == pytest.approx(2 * large, rel=0.1)
    assert small > 2 * large  # few are charged for the steps of the exact test
    assert 0.1 < small < 0.2
    assert detectable([1.0], [1.0]) == 1.0


def test_unequal_or_no_items_are_refused():
    with pytest.raises(ValueError, match=r"shorter|longer|pairs|argument"):
        one([1.0, 0.0], [1.0])
    with pytest.raises(ValueError, match="at least 1"):
        one([], [])


def test_copies_of_an_item_are_no_more_evidence_than_the_item():
    first, second = binary(10, 1, 7, 6)
    alone = one(first, second)
    clusters = [where for where in range(24) for _ in range(3)]
    copied = [[value for value in side for _ in range(3)] for side in (first, second)]
    naive = one(*copied)
    counted = compare_paired({"g": copied[0]}, {"g": copied[1]}, None, clusters)["g"]
    assert naive.verdict == "better"
    assert (alone.verdict, counted.verdict) == ("not_enough_data", "not_enough_data")
    assert counted.p_value == pytest.approx(alone.p_value)
    assert alone.detectable <= counted.detectable < 1.5 * alone.detectable
    assert naive.detectable < 0.7 * counted.detectable


def test_drawn_flips_agree_with_the_paired_t_test_where_that_holds():
    dice = random.Random(8)
    first = [dice.random() for _ in range(300)]
    second = [value + dice.gauss(0.03, 0.2) + 0.015 for value in first]
    expected = float(stats.ttest_rel(second, first).pvalue)
    assert 0.001 < expected < 0.5
    assert paired_p_value(first, second) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_number_are_refused(bad):
    with pytest.raises(ValueError, match="not a finite number"):
        one([1.0, 0.5], [0.5, bad])


def test_equal_scores_never_meet_a_margin_of_zero_and_worse_ones_are_worse():
    assert one([0.5] * 20, [0.5] * 20, margin=0.0).verdict == "not_enough_data"
    assert one([0.5] * 200, [0.4] * 200, margin=0.0).verdict == "worse"


def test_a_single_item_says_nothing():
    for first, second in (([0.0], [1.0]), ([0.2], [0.9])):
        assert one(first, second, margin=0.1).verdict == "not_enough_data"


def test_binary_scores_in_clusters_are_judged_by_clusters():
    first, second = [0.0, 0.0, 0.0] * 12, [1.0, 1.0, 0.0] * 12
    clusters = [where // 3 for where in range(36)]
    result = compare_paired({"g": first}, {"g": second}, None, clusters)["g"]
    assert result.p_value == pytest.approx(2 / 2**12)
    assert result.verdict == "better"


@pytest.mark.parametrize("graded", [False, True])
def test_a_hundred_thousand_items_take_less_than_two_seconds(graded):
    dice = random.Random(2)
    first = [dice.random() if graded else float(dice.random() < 0.5) for _ in range(100_000)]
    second = [dice.random() if graded else float(dice.random() < 0.52) for _ in range(100_000)]
    one(first[:30], second[:30])  # scipy's import is not what is timed
    began = time.process_time()
    result = one(first, second, margin=0.05)
    assert time.process_time() - began < 2
    assert result.verdict == ("not_worse" if graded else "better")


@pytest.mark.parametrize(
    ("scores", "clusters"),
    [
        ([0.9, 0.8], None),
        ([0.31, 0.62, 0.93], None),
        ([1.0] * 6, [0, 0, 1, 1, 2, 2]),
        ([0.5] * 60, [0] * 60),
        ([0.7] * 40, None),
        ([1.0] * 120, [where // 3 for where in range(120)]),
    ],
)
def test_equal_scores_of_few_items_or_clusters_do_not_show_that_nothing_is_lost(scores, clusters):
    result = compare_paired({"g": scores}, {"g": scores}, 0.02, clusters)["g"]
    assert result.verdict == "not_enough_data"
    assert result.ci95[0] < -0.02 < 0.02 < result.ci95[1]


def test_equal_scores_of_enough_items_meet_the_margin():
    assert one([0.5, 1.0] * 100, [0.5, 1.0] * 100, margin=0.02).verdict == "not_worse"
    assert one([0.5, 1.0] * 100, [0.5, 1.0] * 100, margin=0.01).verdict == "not_enough_data"


def test_small_gains_do_not_hide_rare_losses():
    dice = random.Random(41)
    false = 0
    for _ in range(200):
        second = [0.5 + (-0.4 if dice.random() < 0.05 else 0.4 * 0.05 / 0.95) for _ in range(30)]
        false += one([0.5] * 30, second).verdict in ("better", "worse")
    assert false / 200 <= 0.05


@pytest.mark.parametrize("n", [2, 5])
def test_too_few_items_for_the_exact_test_detect_nothing(n):
    assert detectable([0.0] * n, [1.0] * n) == 1.0
    assert one([0.0] * n, [1.0] * n).verdict == "not_enough_data"


def test_more_comparisons_need_more_items_to_detect_anything():
    first, second = [0.0] * 7, [1.0] * 6 + [0.0]
    assert detectable(first, second) < 1.0
    assert detectable(first, second, comparisons=5) == 1.0
    assert detectable(first * 20, second * 20, comparisons=8) > detectable(first * 20, second * 20)
    clusters = [where // 4 for where in range(20)]
    assert detectable([0.0] * 20, [1.0, 0.0] * 10, clusters) == 1.0


@pytest.mark.parametrize("n", [13, 40])
def test_what_is_detectable_is_found_four_times_in_five(n):
    dice = random.Random(43)
    pilots = [detectable(*_noisy(dice, n, 0.0)) for _ in range(60)]
    shown = sum(pilots) / len(pilots)
    result = sum(one(*_noisy(dice, n, shown)).verdict == "better" for _ in range(300))
    assert 0.72 <= result / 300 <= 0.9


def _noisy(dice: random.Random, n: int, shift: float):
    first = [dice.random() for _ in range(n)]
    return first, [value + shift + dice.gauss(0, 0.3) for value in first]


def test_candidates_are_corrected_together_and_a_baseline_under_two_names_counts_once():
    first, second = binary(30, 3, 12, 15)
    alone = compare_family({"a": ({"g": first}, {"g": second})})["a"]["g"]
    assert alone.verdict == "better"
    candidates = {f"c{n}": ({"g": first}, {"g": [*second[n:], *second[:n]]}) for n in range(5)}
    together = compare_family({"a": ({"g": first}, {"g": second}), **candidates})
    assert together["a"]["g"].verdict == "not_enough_data"
    assert together["a"]["g"].p_value == alone.p_value
    same = compare_family({"a": ({"g": first}, {"g": second}), "b": ({"g": first}, {"g": second})})
    assert same["a"]["g"].p_adjusted == same["b"]["g"].p_adjusted == alone.p_adjusted
