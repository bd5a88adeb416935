"""Warnings of reinforcement: each once, with its number, and in a run that was interrupted as in one that was not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ftbridge.providers.local.process.job import Job, JobInterrupted
from ftbridge.providers.local.process.worker import JournalReporter
from ftbridge.providers.local.training import checkpoint, health
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.health import Health, Reports, reports_of
from ftbridge.providers.local.training.loop import train
from ftbridge.providers.local.training.policy_gradient import PolicyGradient
from support import practice_cases

FINE = {
    "completion_tokens_mean": 20.0, "entropy": 1.5, "clipped_share": 0.0, "live_groups": 1.0,
    "mean_unresponsive_rewards": 0.0, "train_mean_reward": 0.5,
}  # fmt: skip
LAST = 24


def step_of(step: int) -> dict[str, float]:
    """What a step of a run reports in which everything goes wrong, one after the other."""
    figures = {"step": step, **FINE, "train_log_prob_shift": 1e-5}
    figures["live_groups"] = 1.0 if step < 7 else 0.0  # the mean of ten steps falls below half at step 12
    figures["mean_unresponsive_rewards"] = 0.08 if step > 10 else 0.0
    figures["completion_tokens_mean"] = 20.0 + 3 * step  # three times 23 after step 16
    if step >= 5:
        figures["entropy"] = 0.01
    if step == 9:
        figures["train_log_prob_shift"] = 0.03
    if step == 14:
        figures["clipped_share"] = 0.5
    if step % 4 == 0:
        figures["full_valid_mean_reward"] = 0.5 if step < 20 else 0.2
    return figures


class Process:
    """A process of the run, from the step after `first`: what it says and reports goes to the journal."""

    def __init__(self, journal: tuple[list[Mapping[str, float]], list[str]]) -> None:
        self.figures, self.warnings = journal
        earlier = Reports(list(self.figures), frozenset(self.warnings))
        self.health = Health(lambda text, level: self.warnings.append(text), earlier=earlier)

    def run(self, first: int, last: int, *, cut_short: bool = False) -> None:
        """Steps `first` + 1 to `last`; the last one is killed before it is reported if `cut_short`."""
        for step in range(first + 1, last + 1):
            figures = step_of(step)
            self.health.look(step, {name: figures[name] for name in FINE})
            if cut_short and step == last:
                return
            self.health.look_at_update({"loss": 0.1, "log_prob_shift": figures["train_log_prob_shift"]})
            if "full_valid_mean_reward" in figures:
                self.health.look_at_validation(step, {"full_valid_mean_reward": figures["full_valid_mean_reward"]})
            self.figures.append(figures)


def uninterrupted() -> list[str]:
    process = Process(([], []))
    process.run(0, LAST)
    return process.warnings


def test_each_warning_is_said_once_at_its_step_with_its_number() -> None:
    starts = [
        text.split(";")[0].split(":")[0] + text[text.index(":") : text.index(":") + 30] for text in uninterrupted()
    ]
    assert [text.split(":")[0] for text in starts] == [
        "step 5", "step 9", "step 12", "step 14", "step 17", "step 17", "step 20",
    ]  # fmt: skip
    words = " ".join(uninterrupted())
    for part in ("entropy is 0.010", "disagree by 0.03 nats a token", "taught nothing", "50% of completions were cut",
                 "3.1 times as long", "grader failed", "0.30 above the validation reward"):  # fmt: skip
        assert part in words


@pytest.mark.parametrize("checkpoint_every", [1, 3, 5])
@pytest.mark.parametrize("cut_short", [False, True], ids=["paused", "killed within a step"])
@pytest.mark.parametrize("ended", range(1, LAST))
def test_a_resumed_run_warns_as_one_that_was_not_interrupted(
    ended: int, cut_short: bool, checkpoint_every: int
) -> None:
    """It ends in step `ended` and goes on from its last checkpoint: some steps are trained, and looked at, twice."""
    journal: tuple[list[Mapping[str, float]], list[str]] = ([], [])
    Process(journal).run(0, ended, cut_short=cut_short)
    done = ended - cut_short
    Process(journal).run(done - done % checkpoint_every, LAST)
    assert journal[1] == uninterrupted()


def test_a_run_that_is_interrupted_often_warns_once_all_the_same() -> None:
    journal: tuple[list[Mapping[str, float]], list[str]] = ([], [])
    for step in range(LAST):
        Process(journal).run(step, step + 1)
    assert journal[1] == uninterrupted()


@pytest.mark.parametrize("broken", [{}, {"entropy": None}, {"train_log_prob_shift": None}])
def test_a_step_without_a_number_is_passed_over(tmp_path: Path, broken: dict[str, Any]) -> None:
    journal = Job(tmp_path).journal
    journal.append("metrics", **({"step": 1, **FINE, **broken} if broken else {"step": 1, "train_loss": 0.3}))
    journal.append("message", text="step 1: entropy is low", level="warn")
    journal.append("message", text="all is well", level="info")
    reports = reports_of(tmp_path)
    assert reports.warnings == {"step 1: entropy is low"}
    messages: list[str] = []
    Health(lambda text, level: messages.append(text), earlier=reports).look(2, {**FINE, "completion_tokens_mean": 61.0})
    assert bool(messages) == ("train_log_prob_shift" in broken), "the first step's length is known, or it is not"


def test_a_run_without_a_journal_has_nothing_to_look_back_at(tmp_path: Path) -> None:
    assert reports_of(tmp_path) == ([], frozenset())


@pytest.fixture(scope="module")
def model(base_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return practice_cases.small_model(tmp_path_factory.mktemp("health") / "model", base_model_dir)


def job_in(folder: Path, model: Path, stop_after: int | None = None) -> Any:
    """A job of eight steps that reports to its run's journal, and stops when it has reported so many."""

    def requested() -> str | None:
        return "pause" if stop_after is not None and len(reports_of(folder).figures) >= stop_after else None

    trainer, _ = practice_cases.trainer_of(folder, model, requested, n_epochs=4)
    source, trainer.reporter = trainer.source, JournalReporter(Job(folder))
    source.say = source.health._say = trainer.reporter.message
    trainer.objective = PolicyGradient(shared=True, on_figures=source.health.look_at_update)
    return trainer


@pytest.mark.parametrize("stop_after", [2, 3, 5])
def test_a_paused_job_has_the_warnings_of_one_that_ran_through(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    monkeypatch.setattr(health, "ENTROPY", 100.0)  # at the first step
    monkeypatch.setattr(health, "_LAST", 4)  # at the fourth step, from figures of both processes
    monkeypatch.setattr(health, "LIVE", 1.1)
    monkeypatch.setattr(health, "GAP", -1.0)
    monkeypatch.setattr(health, "SHIFT", -1.0)
    train(job_in(tmp_path / "uninterrupted", model), TrainingState())
    try:
        assert train(job_in(tmp_path / "cut", model, stop_after), TrainingState())[0] == "pause"
    except JobInterrupted:
        pass
    trainer = job_in(tmp_path / "cut", model)
    newest = checkpoint.latest(tmp_path / "cut" / "checkpoints")
    assert newest is not None
    checkpoint.restore(newest[0], trainer.forward.model, trainer.optimizer, trainer.scaler)
    train(trainer, newest[1])
    warned = [[event.data["text"] for event in Job(tmp_path / name).journal.read() if event.type == "message"
               and event.data["level"] == "warn"] for name in ("uninterrupted", "cut")]  # fmt: skip
    assert warned[0] == warned[1]
    assert "entropy is" in warned[0][0]
    for part in ("disagree by", "above the validation reward", "step 4: in "):
        assert any(part in text for text in warned[0])
