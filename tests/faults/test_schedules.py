"""Never twice, never lost: seeded schedules of faults, and a kill -9 at every write to a journal."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401

from ftbridge.runner import drive
from ftbridge.runner.start import create_run
from ftbridge.runs.run import Run
from ftbridge.spec import SpecFile
from support.faults.schedules import draw, play
from support.kills import outcome
from support.simulated_service import Service

FEW, MANY = 12, 200


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "FTBRIDGE_WAIT_SCALE"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))


@pytest.mark.parametrize("seed", range(1000, 1000 + FEW))
def test_a_schedule_ends_right_with_one_job_and_one_copy_of_each_file(
    seed: int, tmp_path: Path, service: Service
) -> None:
    assert play(draw(seed), tmp_path, service) == []


@pytest.mark.slow
def test_two_hundred_schedules_end_right(tmp_path: Path, service: Service) -> None:
    wrong = {seed: result for seed in range(MANY) if (result := play(draw(seed), tmp_path / str(seed), service))}
    assert wrong == {}


def prepared(folder: Path) -> Path:
    """A run of a small job, prepared and not yet driven."""
    folder.mkdir()
    for name, start, count in (("train", 0, 12), ("test", 100, 2)):
        lines = [
            {
                "messages": [
                    {"role": "user", "content": f"{n}: the red lamp"},
                    {"role": "assistant", "content": f"red{n}"},
                ]
            }
            for n in range(start, start + count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = {
        "name": "small",
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")},
        "model": {"openai": "gpt-test"},
    }
    return create_run(SpecFile.of(spec), "openai", home=folder / "home").path


def driving(run: Path) -> Callable[[], None]:
    """Drive a run to its end, without waiting between looks at its job."""

    def work() -> None:
        drive.POLL_SECONDS = 0.01
        drive.drive(Run.open(run))

    return work


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_write_to_a_journal_leaves_a_run_that_ends_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, service: Service
) -> None:
    write = 0
    while True:
        write += 1
        service.reset(jobs={"walk": ["running", "succeeded"], "steps": 1})
        monkeypatch.setenv("FTBRIDGE_HOME", str(tmp_path / f"home-{write}"))
        run = prepared(tmp_path / f"{when}-{write}")
        ended = outcome(driving(run), kill_at=write, when=when)
        if ended == 0:
            break
        assert ended == signal.SIGKILL, f"write {write}"
        assert outcome(driving(run)) == 0, f"write {write}"
        [job] = service.jobs
        assert len(service.uploads()) == 1, f"write {write}: {len(service.uploads())} files"
        lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
        messages = [event["data"]["message"] for event in lines if event["type"] == "job_event"]
        assert messages == [event["message"] for event in service.events(job)], f"write {write}"
        assert any(message.startswith("Step 1/1") for message in messages)
        assert lines[-1]["type"] == "succeeded"
    assert write > 20
