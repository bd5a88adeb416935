"""The evaluator's model in several processes: what is completed is what one process completes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftbridge.errors import FtbridgeError, ModelUnavailable, WorkerDied
from ftbridge.providers.base import Completion, Prompt
from ftbridge.providers.local.data.batches import dealt
from ftbridge.providers.local.inference.sampler import LocalSampler, _environment
from ftbridge.providers.local.request import SampleRequest
from support import training_requests
from support.waiting import wait_for

WORDS = (
    "tea",
    "a lamp",
    "two chairs and a table that wobbles",
    "my order",
    "blue paint",
    "a mirror of some size",
    "ink",
)


def prompts(count: int) -> list[Prompt]:
    return [
        Prompt.model_validate(
            {
                "key": f"item-{number}",
                "messages": [{"role": "user", "content": f"{WORDS[number % len(WORDS)]}? " * (1 + number % 4)}],
                "temperature": 1.0 if number % 3 == 0 else None,
                "seed": number,
            }
        )
        for number in range(count)
    ]


@pytest.fixture
def sampler(tiny_model_dir: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LocalSampler]:
    changes: dict[str, Any] = {"model": str(tiny_model_dir), "workers": getattr(request, "param", 3)}
    model = SampleRequest(request=training_requests.request(**changes), tuned=None)
    one = LocalSampler(model, tmp_path / "worker.log")
    yield one
    one.close()


def processes() -> list[psutil.Process]:
    """This test's own processes that complete."""
    running = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ftbridge.providers.local.inference.completions" in process.cmdline():
                running.append(process)
        except psutil.Error:
            continue
    return running


def completed(sampler: LocalSampler, wanted: list[Prompt], max_tokens: int = 8) -> dict[str, Completion]:
    completions = list(sampler.generate(wanted, max_tokens=max_tokens, batch_size=4))
    assert len(completions) == len(wanted)
    return {one.key: one for one in completions}


def texts(completions: dict[str, Completion]) -> dict[str, tuple[str, int, int]]:
    return {key: (one.text, one.prompt_tokens, one.completion_tokens) for key, one in completions.items()}


@pytest.mark.slow
def test_three_processes_complete_and_score_as_one_does(sampler: LocalSampler, tmp_path: Path) -> None:
    wanted = prompts(14)
    several = texts(completed(sampler, wanted))
    assert len(processes()) == 3
    assert (tmp_path / "worker-2.log").exists()
    scored = {one.key: one.nats for one in sampler.score(wanted, ["yes, please"] * len(wanted), batch_size=2)}
    assert texts(completed(sampler, wanted[:2])) == {key: several[key] for key in ("item-0", "item-1")}
    assert list(sampler.generate([], max_tokens=4, batch_size=4)) == []
    sampler.close()
    assert processes() == []

    model = SampleRequest(request=sampler._model.request.model_copy(update={"workers": "auto"}), tuned=None)
    alone = LocalSampler(model, tmp_path / "alone.log")
    assert texts(completed(alone, wanted)) == several
    assert len(processes()) == 1
    for one in alone.score(wanted, ["yes, please"] * len(wanted), batch_size=2):
        assert one.nats == pytest.approx(scored[one.key], rel=1e-4)
    alone.close()


@pytest.mark.slow
def test_no_process_is_started_without_a_prompt_for_it(sampler: LocalSampler) -> None:
    completed(sampler, prompts(2), 2)
    assert len(processes()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [1, 2], indirect=True)
def test_one_that_leaves_early_leaves_nothing_to_the_next(sampler: LocalSampler) -> None:
    first = sampler.generate(prompts(6), max_tokens=3, batch_size=1)
    assert len(list(islice(first, 1))) == 1
    again = [prompt.model_copy(update={"key": f"again-{prompt.key}"}) for prompt in prompts(4)]
    assert set(completed(sampler, again, 3)) == {prompt.key for prompt in again}


@pytest.mark.slow
def test_one_that_dies_is_named_with_its_log_and_the_next_question_starts_anew(
    sampler: LocalSampler, tmp_path: Path
) -> None:
    wanted = prompts(6)
    completed(sampler, wanted, 2)
    victim = max(processes(), key=lambda process: process.create_time())
    victim.kill()
    wait_for(lambda: victim.status() == psutil.STATUS_ZOMBIE)
    with pytest.raises(WorkerDied, match="killed by signal 9") as caught:
        completed(sampler, wanted, 2)
    assert f"Its log: {tmp_path / 'worker'}-" in str(caught.value.hint)
    assert len(completed(sampler, wanted, 2)) == 6


def test_a_model_that_is_not_there_is_one_error(sampler: LocalSampler, tmp_path: Path) -> None:
    request = sampler._model.request.model_copy(update={"model": str(tmp_path / "none")})
    missing = LocalSampler(SampleRequest(request=request, tuned=None), tmp_path / "missing.log")
    with pytest.raises(FtbridgeError) as caught:
        completed(missing, prompts(4))
    assert isinstance(caught.value, ModelUnavailable), caught.value
    missing.close()


def test_rows_are_dealt_by_length_and_none_is_lost() -> None:
    lengths = [len(str({"prompts": {"text": "x" * length}})) for length in (5, 400, 7, 390, 1, 1, 200, 210)]
    parts = dealt(lengths, 3)
    assert sorted(number for part in parts for number in part) == list(range(len(lengths)))
    sizes = [sum(lengths[number] for number in part) for part in parts]
    assert max(sizes) < 1.3 * min(sizes)
    assert dealt(lengths, 1) == [list(range(len(lengths)))]


@pytest.mark.parametrize(
    ("visible", "number", "expected"),
    [
        (None, 0, None),
        (None, 2, "2"),
        ("4,6,7", 0, None),
        ("4,6,7", 2, "7"),
        ("GPU-a, GPU-b", 1, " GPU-b"),
        ("", 1, "1"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(
    visible: str | None, number: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sees all of them, and counts them."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _environment(number, "auto").get("CUDA_VISIBLE_DEVICES") == expected


def test_processes_on_a_cpu_share_its_cores_unless_threads_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert _environment(0, 3)["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in _environment(0, "auto")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in _environment(1, 3)
