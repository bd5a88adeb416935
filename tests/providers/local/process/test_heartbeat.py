"""Workers that are stuck while they live: what each reports of itself, and when another gives it up."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from ftbridge.providers.local.process.activity import Activity, Signs
from ftbridge.providers.local.process.heartbeat import (
    BEAT_SECONDS,
    IDLE_SECONDS,
    SILENCE_SECONDS,
    START_SECONDS,
    Report,
    Watch,
    watched,
)

LATE = IDLE_SECONDS + 1


def seen(watch: Watch, now: float, mine: Report | None = None, **report: int) -> str | None:
    """What the watch says at `now` of a worker whose beats go on."""
    beats = watch.last.beats + 1
    latest = Report(beats, report.get("entered", 5), bool(report.get("waits_inside", 0)), report.get("signs", 9))
    return watch.see(latest, mine or Report(beats, 6, waits_inside=True), now)


def test_a_report_survives_the_store() -> None:
    for report in (
        Report(),
        Report(3, 12, waits_inside=True, signs=7),
        Report(1 << 40, 0, waits_inside=False, signs=1),
    ):
        assert Report.decode(report.encode().encode()) == report


def test_one_that_keeps_another_waiting_and_does_nothing_is_stuck() -> None:
    watch = Watch(1, 0.0)
    assert seen(watch, 1.0) is None
    assert seen(watch, 1.0 + IDLE_SECONDS) is None
    reason = seen(watch, 1.0 + LATE)
    assert reason is not None
    assert "worker 1 has done nothing" in reason
    assert "wait for it" in reason


@pytest.mark.parametrize("sign", ["signs", "entered"])
def test_one_that_works_while_another_waits_is_left_alone(sign: str) -> None:
    watch = Watch(1, 0.0)
    for second in range(0, 4000, 20):
        report = {"signs": second} if sign == "signs" else {"entered": second}
        assert seen(watch, float(second), mine=Report(second, 9999, waits_inside=True), **report) is None


def test_one_that_waits_for_this_one_is_not_stuck() -> None:
    """It has entered what this worker has not."""
    watch = Watch(0, 0.0)
    for second in range(0, 4000, 20):
        assert seen(watch, float(second), mine=Report(1, 4), entered=5, waits_inside=1) is None


def test_two_that_wait_in_the_same_exchange_do_not_blame_each_other() -> None:
    """A third keeps both waiting, or one of them is stuck inside: the main worker sees all, and says so."""
    watch, mine = Watch(0, 0.0), Report(1, 5, waits_inside=True)
    for second in range(0, 400, 20):
        assert seen(watch, float(second), mine=mine, entered=5, waits_inside=1) is None


def test_silence_comes_before_idleness_and_later_at_the_start() -> None:
    watch = Watch(1, 0.0)
    assert watch.see(Report(), Report(1, 1, waits_inside=True), START_SECONDS - 1) is None
    assert "has not reported for 300 s" in str(watch.see(Report(), Report(1, 1), START_SECONDS + 1))
    watch = Watch(1, 0.0)
    watch.see(Report(4, 1), Report(4, 1), 1.0)
    reason = watch.see(Report(4, 1), Report(9, 1), 2.0 + SILENCE_SECONDS)
    assert "has not reported for 25 s" in str(reason)


def test_a_worker_reports_as_soon_as_it_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that gets stuck before its first report is given the five minutes in which libraries are loaded."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    ended: list[str] = []
    with watched(1, 2, ended.append):
        began = time.monotonic()
        while not store.check(["ftbridge/heartbeat/1"]):
            assert time.monotonic() - began < 0.9 * BEAT_SECONDS
            time.sleep(0.01)
    assert Report.decode(store.get("ftbridge/heartbeat/1")).beats == 1
    assert not ended


def test_a_worker_that_stood_still_itself_counts_from_new() -> None:
    watch = Watch(1, 0.0)
    assert seen(watch, 1.0) is None
    watch.start_over(500.0)
    assert seen(watch, 501.0) is None
    assert seen(watch, 501.0 + LATE) is not None


# Signs of life of this very process


def is_still(signs: Signs) -> bool:
    """Whether a look after a second of doing nothing finds nothing done; some tries, since the test runner has threads too."""
    for _ in range(5):
        before = signs.count
        time.sleep(1.0)
        if signs.look() == before:
            return True
    return False


def test_computing_and_deliberate_waits_are_signs_and_sleeping_is_none() -> None:
    activity = Activity()
    signs = Signs(activity)
    assert is_still(signs)
    before = signs.count
    with activity.outside():
        with activity.outside():
            time.sleep(0.2)
        assert signs.look() == before + 1
    assert is_still(signs)
    before = signs.count
    worker = threading.Thread(target=lambda: sum(range(20_000_000)))
    worker.start()
    worker.join()
    assert signs.look() == before + 1


def test_an_exchange_within_a_wait_outside_is_no_wait_outside() -> None:
    """A worker that waits for another to save is no sign of life; another thread's wait for a judge is one."""
    activity = Activity()
    with activity.outside():
        with activity.outside(), activity.exchange():
            assert not activity.waits_outside
            judge = threading.Event()
            ends = threading.Event()

            def ask() -> None:
                with activity.outside():
                    judge.set()
                    ends.wait(10)

            thread = threading.Thread(target=ask)
            thread.start()
            assert judge.wait(10)
            assert activity.waits_outside
            ends.set()
            thread.join()
            assert not activity.waits_outside
        assert activity.waits_outside
    assert not activity.waits_outside


def test_a_thread_that_waits_for_a_disk_is_a_sign(tmp_path: Path) -> None:
    """A kernel's list of threads, one of which is in fsync; another has an odd name, a third ends while it is read."""
    for name, line in {"1": "1 (python) S 0 1", "2": "2 (a) D x) S 0 1", "3": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "stat").write_text(line)
    signs = Signs(Activity(), tmp_path)
    assert is_still(signs)
    before = signs.count
    (tmp_path / "1" / "stat").write_text("1 (python) D 0 1")
    time.sleep(0.5)
    assert signs.look() == before + 1


def test_without_a_list_of_threads_nothing_is_concluded(tmp_path: Path) -> None:
    signs = Signs(Activity(), tmp_path / "none")
    assert [signs.look(), signs.look()] == [1, 2]
