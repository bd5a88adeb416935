"""Torch's threads follow what other processes leave of the processors."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest
import torch

from ftbridge.providers.local.models import threads
from ftbridge.providers.local.models.threads import Threads, allowed_cores


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def with_load(monkeypatch: pytest.MonkeyPatch, cores: int, others: float, used: float) -> Threads:
    """Threads that saw the other processes use so many of the processors for two seconds, and its own process so many."""
    looks = iter([(0.0, 0.0, 0.0), (2.0, 2 * (others + used), 2 * used)])
    monkeypatch.setattr(Threads, "_look", lambda _: next(looks))
    monkeypatch.setattr(threads, "allowed_cores", lambda: float(cores))
    monkeypatch.setattr(time, "monotonic", lambda: 2.0)
    return Threads(most=cores)


@pytest.mark.parametrize(
    ("cores", "others", "settings", "wanted"),
    [
        (2, 0.0, 2.0, 2),
        (2, 0.1, 1.9, 2),  # the system itself
        (2, 0.7, 1.3, 1),  # one busy process that this one holds back
        (2, 1.0, 1.0, 1),
        (2, 2.0, 0.0, 1),
        (8, 3.0, 5.0, 5),
        (8, 7.9, 0.1, 1),
    ],
)
def test_threads_are_the_processors_that_others_leave(
    monkeypatch: pytest.MonkeyPatch, cores: int, others: float, settings: float, wanted: int
):
    assert with_load(monkeypatch, cores, others, settings).left() == wanted


def test_small_work_has_one_thread_and_large_work_all_that_are_free(monkeypatch: pytest.MonkeyPatch):
    ours = with_load(monkeypatch, 2, 0.0, 0.0)
    assert ours.use(1e6) == torch.get_num_threads() == 1
    assert ours.use() == torch.get_num_threads() == 2


def test_after_a_pause_what_others_did_meanwhile_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    """Both processors were busy for a minute in which nothing was computed here, and then quiet."""
    looks = iter([(0.0, 0.0, 0.0), (60.0, 120.0, 0.0), (60.3, 120.0, 0.0), (61.4, 122.2, 0.0)])
    now = [0.0]
    monkeypatch.setattr(Threads, "_look", lambda _: next(looks))
    monkeypatch.setattr(threads, "allowed_cores", lambda: 2.0)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    ours = Threads(most=2)
    threads_used = []
    for moment in (60.0, 60.3, 60.9, 61.4):
        now[0] = moment
        ours.start()
        threads_used.append(ours.left())
    assert threads_used == [2, 2, 2, 1], "two busy again since 60.3, which is seen a second later"


def test_what_the_user_allows_is_never_exceeded():
    assert Threads(most=1).use() == torch.get_num_threads()
    assert Threads().most <= min(torch.get_num_threads(), allowed_cores() + 1)


def test_busy_processes_take_threads_away(monkeypatch: pytest.MonkeyPatch):
    cores = max(2, int(allowed_cores()))
    ours = Threads(most=cores)
    ours.most = cores  # also where the container allows one
    busy: list[Any] = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(1.5)
        assert ours.left() <= max(1, cores // 2)
    finally:
        for process in busy:
            process.kill()
            process.wait()
