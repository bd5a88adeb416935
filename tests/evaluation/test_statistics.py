"""Intervals against published examples, at their edges, and by how often they hold the truth."""

import random
import statistics

import pytest

from ftbridge.evaluation.statistics import mean_interval, paired_difference, spread_of, wilson


def _pairs(both, first_only, second_only, neither):
    first = [1.0] * (both + first_only) + [0.0] * (second_only + neither)
    second = [1.0] * both + [0.0] * first_only + [1.0] * second_only + [0.0] * neither
    return first, second


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_those_of_newcombes_table(successes, n, low, high):
    # Newcombe 1998, Statist. Med. 17:857, table I, method 3.
    values = [1.0] * successes + [0.0] * (n - successes)
    assert mean_interval(values) == pytest.approx((successes / n, low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "difference", "low", "high", "places"),
    [
        # Fagerland, Lydersen and Laake 2017, Statistical Analysis of Contingency Tables, chapter 8 (Cavo et al. 2012)
        ((59, 6, 16, 80), -0.0621, -0.1186, -0.0046, 5e-5),
        # Fagerland, Lydersen and Laake 2014, Statist. Med. 33:2850 (Bentur et al. 2009)
        ((1, 1, 7, 12), -0.286, -0.507, -0.026, 5e-4),
    ],
)
def test_paired_intervals_are_the_published_ones(counts, difference, low, high, places):
    first, second = _pairs(*counts)
    assert paired_difference(first, second) == pytest.approx((difference, low, high), abs=places)


def test_exchanging_the_sides_turns_a_difference_around():
    first, second = _pairs(30, 12, 3, 15)
    forth, back = paired_difference(first, second), paired_difference(second, first)
    assert back == pytest.approx((-forth[0], -forth[2], -forth[1]))


def test_pairing_narrows_the_interval_of_sides_that_agree():
    agree = paired_difference(*_pairs(40, 5, 0, 40))
    # The same two means over items that have nothing to do with each other.
    unrelated = paired_difference(*_pairs(21, 24, 19, 21))
    assert agree[0] == pytest.approx(unrelated[0])
    assert agree[2] - agree[1] < 0.6 * (unrelated[2] - unrelated[1])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_item_leaves_almost_everything_open(value):
    mean, low, high = mean_interval([value])
    assert mean == value
    assert (low, high) == pytest.approx((0.0, 0.7935) if value == 0 else (0.2065, 1.0), abs=1e-4)
    assert mean_interval([0.4]) == (0.4, 0.0, 1.0)
    assert paired_difference([0.4], [0.2]) == (pytest.approx(0.2), -1.0, 1.0)


@pytest.mark.parametrize("n", [1, 2, 7, 90])
@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_unanimous_scores_have_intervals_within_bounds_around_their_mean(n, first, second):
    difference, low, high = paired_difference([first] * n, [second] * n)
    assert -1 <= low <= difference <= high <= 1
    assert high > low
    assert mean_interval([first] * n)[1:] == wilson(first * n, n)


def test_nothing_to_average_is_an_error_not_a_number():
    with pytest.raises(ValueError, match="at least 1"):
        mean_interval([])
    with pytest.raises(ValueError, match="at least 1"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference([1.0], [1.0, 0.0])


def test_graded_scores_get_the_same_interval_every_time_in_any_order():
    values = [where / 40 for where in range(40)]
    shuffled = random.Random(1).sample(values, len(values))
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(shuffled) == pytest.approx(mean_interval(values))


def test_many_graded_scores_get_the_interval_of_normal_theory():
    draw = random.Random(5)
    values = [draw.random() for _ in range(400)]
    mean, low, high = mean_interval(values)
    spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    reach = 1.96 * spread / len(values) ** 0.5
    assert (low, high) == pytest.approx((mean - reach, mean + reach), abs=0.004)
    worse = [value * 0.5 for value in values]
    difference, below, above = paired_difference(values, worse)
    assert difference == pytest.approx(0.5 * mean)
    assert (below, above) == pytest.approx((0.5 * low, 0.5 * high), abs=0.001)


@pytest.mark.parametrize(("share", "n"), [(0.9, 40), (0.5, 20), (0.97, 90)])
def test_wilson_holds_the_true_share_about_95_times_in_100(share, n):
    draw = random.Random(11)
    held = 0
    for _ in range(2000):
        low, high = wilson(sum(draw.random() < share for _ in range(n)), n)
        held += low <= share <= high
    assert 0.92 <= held / 2000 <= 0.985


@pytest.mark.parametrize(
    ("chances", "n"),
    [((0.5, 0.3, 0.05, 0.15), 60), ((0.8, 0.1, 0.08, 0.02), 90), ((0.15, 0.7, 0.02, 0.13), 30)],
)
def test_the_paired_interval_holds_the_true_difference_about_95_times_in_100(chances, n):
    draw = random.Random(13)
    held = 0
    for _ in range(1000):
        cells = draw.choices(range(4), weights=chances, k=n)
        first, second = _pairs(*(cells.count(cell) for cell in range(4)))
        _, low, high = paired_difference(first, second)
        held += low <= chances[1] - chances[2] <= high
    assert 0.92 <= held / 1000 <= 0.985


def test_items_that_belong_together_widen_the_interval_and_order_does_not_matter():
    first = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0] * 10
    second = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0] * 10
    apart, pairs = list(range(60)), [where // 2 for where in range(60)]
    assert paired_difference(first, second, apart) == paired_difference(first, second)
    alone, together = paired_difference(first, second), paired_difference(first, second, pairs)
    assert together[0] == alone[0]
    assert together[2] - together[1] > 1.2 * (alone[2] - alone[1])
    order = random.Random(3).sample(range(60), 60)
    shuffled = [[side[where] for where in order] for side in (first, second, pairs)]
    assert paired_difference(*shuffled) == pytest.approx(together)
    assert paired_difference(first, second, [0] * 60)[1:] == (-1.0, 1.0)


def test_the_cluster_interval_holds_the_truth_where_the_plain_one_does_not():
    draw = random.Random(17)
    held = alone = 0
    for round in range(100):
        first, second, clusters = [], [], []
        for cluster in range(15):
            shift = draw.gauss(0.1, 0.15)
            for _ in range(3):
                first.append(0.5)
                second.append(0.5 + shift + draw.gauss(0, 0.05))
                clusters.append(cluster)
        _, low, high = paired_difference(second, first, clusters)
        held += low <= 0.1 <= high
        if round % 4 == 0:
            _, low, high = paired_difference(second, first)
            alone += low <= 0.1 <= high
    assert 0.92 <= held / 100 <= 0.99
    assert alone / 25 < 0.85


@pytest.mark.parametrize("n", [6, 12])
def test_few_scores_still_get_an_interval_that_holds_the_truth(n):
    draw = random.Random(19)
    held = 0
    for _ in range(120):
        _, low, high = mean_interval([draw.random() for _ in range(n)])
        held += low <= 0.5 <= high
    assert held / 120 >= 0.9


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_number_are_refused_by_their_place(bad):
    with pytest.raises(ValueError, match=r"score 2 of 2 is .*not a finite number"):
        mean_interval([0.5, bad])
    with pytest.raises(ValueError, match=r"score 1 of 2 is .*not a finite number"):
        paired_difference([0.5, 0.5], [bad, 0.5])


@pytest.mark.parametrize("n", [2, 9, 60])
@pytest.mark.parametrize("score", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("size", [1, 3])
def test_scores_that_are_all_equal_still_have_an_interval_that_narrows_with_the_items(n, score, size):
    def clusters(count):
        return [where // size for where in range(count * size)]

    values = [score] * (n * size)
    mean, low, high = mean_interval(values, clusters(n))
    assert mean == pytest.approx(score)
    assert 0 <= low <= mean <= high <= 1
    # Three in the same cluster are no more than one: what is not seen in n clusters may be in 3 of n.
    assert high - low >= 1.2 / n
    difference, below, above = paired_difference(values, [0.3] * (n * size), clusters(n))
    assert below < difference < above or above == 1
    more = mean_interval([score] * (4 * n * size), clusters(4 * n))
    assert more[2] - more[1] < 0.6 * (high - low)


def test_a_few_unlike_scores_among_equal_ones_do_not_narrow_the_interval():
    alike = paired_difference([0.5] * 40, [0.5] * 40)
    nearly = paired_difference([0.5] * 38 + [0.52, 0.51], [0.5] * 40)
    lost = paired_difference([0.5] * 38 + [0.0, 0.0], [0.5] * 40)
    assert nearly[1] == pytest.approx(alike[1], abs=0.002)
    assert lost[1] < alike[1]


def _share_covered(draw, truth, rounds, clusters=None):
    held = 0
    for _ in range(rounds):
        _, low, high = paired_difference(draw(), [0.5] * len(clusters or draw()), clusters)
        held += low <= truth <= high
    return held / rounds


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("n", [20, 60])
def test_an_interval_allows_for_losses_too_rare_to_be_seen(noise, n):
    dice = random.Random(29)

    def losses():
        return [0.5 + dice.uniform(-noise, noise) - 0.5 * (dice.random() < 0.1) for _ in range(n)]

    above = 0
    for _ in range(400):
        _, low, _ = paired_difference(losses(), [0.5] * n)
        above += low > -0.05
    assert above / 400 <= 0.035


@pytest.mark.parametrize("sizes", [[4] * 6, [1, 2, 3, 4, 5, 6, 7, 8], [30, 2, 2, 2, 2, 2, 2, 2, 2, 2]])
def test_few_and_unequal_clusters_keep_their_coverage(sizes):
    dice = random.Random(31)
    clusters = [name for name, size in enumerate(sizes) for _ in range(size)]

    def draw():
        shifts = [dice.gauss(0.1, 0.1) for _ in sizes]
        return [0.5 + shifts[name] + dice.gauss(0, 0.2) for name in clusters]

    assert _share_covered(draw, 0.1, 500, clusters) >= 0.92


def test_equal_clusters_of_one_size_have_one_degree_of_freedom_less_than_clusters():
    dice = random.Random(37)
    clusters = [where // 4 for where in range(28)]
    values = [dice.random() for _ in range(28)]
    spread = spread_of(values, clusters, lowest=0.0, highest=1.0)
    assert spread is not None
    sums = [sum(values[4 * where : 4 * where + 4]) / 4 for where in range(7)]
    assert (spread.center, spread.error, spread.freedom) == pytest.approx(
        (statistics.fmean(sums), statistics.stdev(sums) / 7**0.5, 6)
    )
