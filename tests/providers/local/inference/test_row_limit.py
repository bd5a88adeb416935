"""How many rows run at once after memory ran out: passes are counted, nothing is computed."""

from __future__ import annotations

from collections.abc import Callable

from ftbridge.providers.local.inference.row_limit import MOST_PATIENCE, PATIENCE, TRIAL, RowLimit


def run(limit: RowLimit, passes: int, fails: Callable[[int, int], bool], max_rows: int = 64) -> tuple[list[int], int]:
    """The rows of each pass that ended well, where as many run as may, and how often memory ran out."""
    rows: list[int] = []
    failures = 0
    for number in range(passes):
        now = limit.at_most(max_rows)
        if fails(now, number):
            failures += 1
            limit.failed(now)
        else:
            limit.passed(now)
            rows.append(now)
    return rows, failures


def test_nothing_is_limited_before_memory_runs_out():
    rows, failures = run(RowLimit(), 1000, lambda now, number: False)
    assert (set(rows), failures) == ({64}, 0)


def test_one_failure_is_made_up_for_within_some_hundred_passes():
    rows, failures = run(RowLimit(), 1000, lambda now, number: number == 3)
    assert failures == 1
    assert rows[3] == 32
    assert 64 in rows[:400]
    assert set(rows[400:]) == {64}


def test_the_way_back_leads_to_the_number_that_failed_in_steps_that_halve():
    rows, _ = run(RowLimit(), 500, lambda now, number: number == 0, max_rows=32)
    assert list(dict.fromkeys(rows)) == [16, 24, 28, 30, 31, 32]


def test_failures_on_end_down_to_one_row_are_made_up_for_too():
    rows, failures = run(RowLimit(), 1500, lambda now, number: number < 6)
    assert failures == 6
    assert rows[0] == 1
    assert set(rows[800:]) == {64}


def test_a_number_of_rows_that_always_fails_is_tried_ever_less_often():
    limit = RowLimit()
    rows, failures = run(limit, 3_000, lambda now, number: now > 20)
    assert max(rows) == 20
    assert failures <= 10
    assert limit.patience > PATIENCE
    later, rare = run(limit, 50_000, lambda now, number: now > 20)
    assert rare <= 50_000 // (TRIAL * MOST_PATIENCE)
    assert sum(later) / len(later) > 18


def test_rows_that_fail_long_after_they_joined_settle_as_well():
    """Memory that runs out as rows grow, not as they join: each number beyond 20 lasts for 100 passes."""
    limit, since = RowLimit(), [0, 0]

    def fails(now: int, number: int) -> bool:
        since[:] = [now, since[1] + 1] if now == since[0] else [now, 0]
        return now > 20 and since[1] >= 100

    _, early = run(limit, 10_000, fails)
    rows, late = run(limit, 50_000, fails)
    assert early < 30
    assert late <= 25
    assert sum(rows) / len(rows) > 15


def test_passes_with_fewer_rows_than_may_run_prove_nothing():
    limit = RowLimit()
    limit.failed(40)
    for _ in range(100_000):
        limit.passed(19)
    assert limit.at_most(64) == 20
    for _ in range(PATIENCE):
        limit.passed(20)
    assert limit.at_most(64) == 30


def test_a_single_row_that_fails_limits_nothing():
    limit = RowLimit()
    limit.failed(1)
    assert limit.at_most(64) == 64


def test_no_more_rows_run_than_are_set_and_a_larger_setting_finds_the_limit_as_it_was():
    limit = RowLimit()
    limit.failed(40)
    assert [limit.at_most(rows) for rows in (8, 64)] == [8, 20]
    for _ in range(10_000):
        limit.passed(8)
    assert limit.at_most(64) == 20
