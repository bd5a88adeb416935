"""The evaluation of a run: who is asked what, their answers in the run folder, and the verdict in evaluation.json.

    test.jsonl ──────▶ base, baselines ─▶ predictions/NAME.jsonl ──────────▶ graders ─▶ scores, differences, verdicts
    retention.jsonl ─▶ base, tuned     ─▶ predictions/NAME.retention.jsonl ─▶ checks ─▶ kept or not

What is answered is never asked again: each candidate is journalled before and after, and its file is taken up where it ends.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from ftbridge import files
from ftbridge.evaluation.answering import Prediction, answer, read_predictions
from ftbridge.evaluation.baselines import candidates_of
from ftbridge.evaluation.candidates import Candidate
from ftbridge.evaluation.evaluate import Evaluation, judge
from ftbridge.evaluation.grades import read_grades, write_grades
from ftbridge.evaluation.items import Item, load_items
from ftbridge.evaluation.retention.judge import SUFFIX, Retention, judge_retention, retention_candidate
from ftbridge.providers.base import Sampler
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec
from ftbridge.watching import Watcher


class RunEvaluation:
    """What the judge asks in one run. `between` is called after each answer, and may raise to stop."""

    def __init__(self, run: Run, spec: JobSpec, watcher: Watcher, between: Callable[[], None]) -> None:
        self.run, self.spec, self.watcher, self.between = run, spec, watcher, between
        test = run.data / "test.jsonl"
        self.items: list[Item] = load_items(test) if test.exists() else []
        self.questions: list[Item] = load_items(run.questions) if run.questions.exists() else []

    def candidates(self, *, tuned: bool) -> list[Candidate]:
        """Who answers on the tuned model, or on the base: the test items, and what retention asks."""
        return [told for told in self._everybody if (told.name.removesuffix(SUFFIX) == "tuned") == tuned]

    @functools.cached_property
    def _everybody(self) -> list[Candidate]:
        asked = candidates_of(self.spec, self.run.data / "train.jsonl") if self.items else []
        return asked + [retention_candidate(name) for name in ("base", "tuned") if self.questions]

    def answer(self, sampler_of: Callable[[], Sampler], *, tuned: bool) -> None:
        """Let the candidates on one model answer what they have not answered; without such, no sampler is made."""
        waiting = [candidate for candidate in self.candidates(tuned=tuned) if not self._is_answered(candidate)]
        if not waiting:
            return
        sampler = sampler_of()
        try:
            for candidate in waiting:
                self._let_answer(candidate, sampler)
        finally:
            sampler.close()

    def judge(self) -> Evaluation | None:
        """Score every candidate's answers and write evaluation.json; None for a run that asks nothing."""
        if not self.items and not self.questions:
            return None
        asked = self.spec.evaluation
        evaluation = Evaluation(items=0, graders=[grader.name for grader in asked.graders], candidates={})
        if self.items:
            kept = read_grades([self.run.grades_path])
            evaluation = judge(self.items, self._told(), asked.graders, margin=asked.margin, kept=kept)
            write_grades(self.run.grades_path, kept)
        evaluation = evaluation.model_copy(update={"retention": self._retention(), "notes": self._notes(evaluation)})
        files.write_text(self.run.evaluation_path, evaluation.model_dump_json(indent=2) + "\n")
        return evaluation

    def _told(self) -> Mapping[str, Sequence[Prediction]]:
        """Answers to the test items, by candidate."""
        names = [candidate.name for candidate in self._everybody if not candidate.name.endswith(SUFFIX)]
        return {name: read_predictions(self.run.predictions(name)) for name in names}

    def _retention(self) -> Retention | None:
        asked = self.spec.evaluation
        if not self.questions or asked.retention is None:
            return None
        answers = {name: read_predictions(self.run.predictions(name + SUFFIX)) for name in ("base", "tuned")}
        return judge_retention(self.questions, answers, asked.graders, baseline="base", margin=asked.retention.margin)

    def _notes(self, evaluation: Evaluation) -> list[str]:
        """What a reader should know, above all whose results these are."""
        state = self.run.state()
        if (origin := state.continues) is None:
            return evaluation.notes
        told = f"These results come from {state.provider}: {origin['provider']} ({origin['run']}) did not do it."
        return [told, *evaluation.notes]

    def _let_answer(self, candidate: Candidate, sampler: Sampler) -> None:
        items = self._items_of(candidate)
        self.run.append("evaluating", candidate=candidate.name)
        self.watcher.stage(self.run, f"answering with {candidate.name}")
        self.watcher.answered(candidate.name, 0, len(items))

        def progress(done: int, total: int) -> None:
            self.watcher.answered(candidate.name, done, total)
            self.between()

        answer(
            candidate,
            items,
            sampler,
            self.run.predictions(candidate.name),
            max_tokens=self.spec.evaluation.max_completion_tokens,
            batch_size=self.spec.evaluation.batch_size,
            on_progress=progress,
        )
        self.run.append("evaluated", candidate=candidate.name)

    def _items_of(self, candidate: Candidate) -> list[Item]:
        return self.questions if candidate.name.endswith(SUFFIX) else self.items

    def _is_answered(self, candidate: Candidate) -> bool:
        """Whether a candidate's answers are complete: journalled, and still all there."""
        if candidate.name not in self.run.state().evaluated:
            return False
        return len(read_predictions(self.run.predictions(candidate.name))) >= len(self._items_of(candidate))
