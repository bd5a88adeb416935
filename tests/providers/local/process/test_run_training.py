"""One local job from its request to tuned weights, in this process, on a random model of two layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ftbridge.providers.local.process.job import Job
from ftbridge.providers.local.process.run_training import run_training
from support.jobs import submitted_job
from support.tiny_training import Steps


class Crash(BaseException):
    """The process dies here."""


class Recorder(Steps):
    """A reporter that keeps messages and checkpoints too, and that can pause, or die, after a step."""

    def __init__(self, job: Job, *, dies_after: int | None = None, pauses_after: int | None = None) -> None:
        super().__init__()
        self.job, self.dies_after, self.pauses_after = job, dies_after, pauses_after
        self.messages: list[str] = []
        self.checkpoints: list[int] = []

    def message(self, text: str, level: str = "info") -> None:
        self.messages.append(text)

    def metrics(self, **figures: Any) -> None:
        super().metrics(**figures)
        if figures["step"] == self.pauses_after:
            self.job.ask("pause")
        if figures["step"] == self.dies_after:
            raise Crash

    def checkpoint(self, path: Path, step: int) -> None:
        self.checkpoints.append(step)

    @property
    def losses(self) -> dict[int, float]:
        return {figures["step"]: figures["train_loss"] for figures in self.figures}


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, one_thread: None
) -> tuple[Job, Recorder]:
    job = submitted_job(tmp_path_factory.mktemp("undisturbed"), tiny_model_dir)
    recorder = Recorder(job)
    assert run_training(job, recorder) == "succeeded"
    return job, recorder


def weights(job: Job) -> dict[str, Any]:
    return load_file(job.folder / "adapter" / "adapter_model.safetensors")


def same_weights(one: Job, other: Job) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all((mine[name] == theirs[name]).all() for name in mine)


def test_a_job_trains_validates_and_saves_an_adapter(undisturbed: tuple[Job, Recorder]) -> None:
    job, recorder = undisturbed
    losses = recorder.losses
    assert list(losses) == list(range(1, 11))
    assert losses[10] < losses[1] - 0.1
    validated = [figures["step"] for figures in recorder.figures if "valid_loss" in figures]
    assert validated == recorder.checkpoints
    assert (job.folder / "adapter" / "README.md").exists()


@pytest.mark.parametrize("step", [1, 4, 9])
def test_a_job_that_dies_after_any_step_resumes_to_the_same_losses_and_weights(
    tmp_path: Path, tiny_model_dir: Path, undisturbed: tuple[Job, Recorder], step: int
) -> None:
    job = submitted_job(tmp_path, tiny_model_dir, **{"local.checkpoint_minutes": 0.00001})
    first = Recorder(job, dies_after=step)
    with pytest.raises(Crash):
        run_training(job, first)
    second = Recorder(job)
    assert run_training(job, second) == "succeeded"
    assert (step == 1) != any("resumed from step" in message for message in second.messages)
    complete, expected = {**first.losses, **second.losses}, undisturbed[1].losses
    assert complete == expected
    assert same_weights(job, undisturbed[0])


def test_a_pause_saves_a_checkpoint_of_its_step_and_resuming_ends_the_same(
    tmp_path: Path, tiny_model_dir: Path, undisturbed: tuple[Job, Recorder]
) -> None:
    job = submitted_job(tmp_path, tiny_model_dir)
    first = Recorder(job, pauses_after=4)
    assert run_training(job, first) == "paused"
    assert first.checkpoints[-1] == 4
    job.clear_control()
    second = Recorder(job)
    assert run_training(job, second) == "succeeded"
    assert min(second.losses) == 5
    assert {**first.losses, **second.losses} == undisturbed[1].losses
    assert same_weights(job, undisturbed[0])


def test_a_cancelled_job_saves_no_adapter(tmp_path: Path, tiny_model_dir: Path) -> None:
    job = submitted_job(tmp_path, tiny_model_dir)
    job.ask("cancel")
    assert run_training(job, Recorder(job)) == "cancelled"
    assert not (job.folder / "adapter").exists()


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, tiny_model_dir: Path, undisturbed: tuple[Job, Recorder]
) -> None:
    job = submitted_job(tmp_path, tiny_model_dir, **{"local.checkpoint_minutes": 0.00001})
    with pytest.raises(Crash):
        run_training(job, Recorder(job, dies_after=6))
    newest = max((job.folder / "checkpoints").glob("step-*"))
    content = bytearray((newest / "optimizer.pt").read_bytes())
    content[-1] ^= 1
    (newest / "optimizer.pt").write_bytes(bytes(content))
    second = Recorder(job)
    assert run_training(job, second) == "succeeded"
    assert second.messages.count(f"resumed from step {int(newest.name[5:]) - 1}") == 1
    assert same_weights(job, undisturbed[0])


def test_training_stops_early_and_keeps_the_best_weights(tmp_path: Path, tiny_model_dir: Path) -> None:
    changes = {
        "local.early_stopping": {"patience": 1},
        "hyperparameters.learning_rate_multiplier": 4000,
        "hyperparameters.n_epochs": 30,
        "local.lr_schedule": "constant",
    }
    job = submitted_job(tmp_path, tiny_model_dir, **changes)
    recorder = Recorder(job)
    assert run_training(job, recorder) == "succeeded"
    assert any(message.startswith("stopped early at step") for message in recorder.messages)
    valid = {figures["step"]: figures["valid_loss"] for figures in recorder.figures if "valid_loss" in figures}
    best = min(valid, key=valid.__getitem__)
    assert best < max(valid)
    at_best = load_file(job.folder / "checkpoints" / f"step-{best:06d}" / "adapter_model.safetensors")
    mine = weights(job)
    assert all((mine[name] == at_best[name]).all() for name in mine)


def test_full_tuning_trains_every_weight_and_saves_a_whole_model(tmp_path: Path, tiny_model_dir: Path) -> None:
    job = submitted_job(tmp_path, tiny_model_dir, **{"local.tuning": "full", "hyperparameters.n_epochs": 1})
    recorder = Recorder(job)
    assert run_training(job, recorder) == "succeeded"
    assert recorder.losses[5] < recorder.losses[1]
    before, after = (load_file(path / "model.safetensors") for path in (tiny_model_dir, job.folder / "model"))
    assert all((before[name] != after[name].to(before[name].dtype)).any() for name in before if name in after)
