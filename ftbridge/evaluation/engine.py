"""The engine of every evaluation, in a run and outside one: candidates complete, measures are taken, graders score.

    items, questions ── complete ──▶ completions, perplexity, pair log-probabilities     one candidate, one model at a time
                     ── grade ─────▶ scores.jsonl, Evaluation                            all candidates together
                     ── retention, preference, calibration ──▶ what they add to it

Called again, it does only what is missing: completions and measures stand in the candidate's files, replies of judges in the
engine's. Callers decide which models there are, where files lie, and what is journalled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ftbridge.evaluation.calibration import Calibration, Labelled
from ftbridge.evaluation.candidates import Candidate, plain
from ftbridge.evaluation.document import Evaluation
from ftbridge.evaluation.generate import Prediction, Sampling, generate, read_predictions
from ftbridge.evaluation.grade_cache import stored_grades
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.job_data import JobData
from ftbridge.evaluation.perplexity import perplexity, read_perplexity
from ftbridge.evaluation.preference import (
    Estimate,
    Preferences,
    against_base,
    measurable,
    measure,
    preferences,
)
from ftbridge.evaluation.preference import read as read_pairs
from ftbridge.evaluation.results import ItemScore, item_scores, write_scores
from ftbridge.evaluation.retention.measure import SUFFIX, Retention, measure_retention
from ftbridge.evaluation.score import JudgeRequests, Results, calibrated, judge
from ftbridge.graders import Calls
from ftbridge.graders.judge_keys import check_judges
from ftbridge.providers.base import Sampler, Scorer

OnProgress = Callable[[int, int], None]
"""Receives the completions so far, and their number in the end."""


@dataclass(frozen=True)
class CandidateFiles:
    """Where one candidate's results lie. Without a file for it, a measure is not taken."""

    completions: Path
    perplexity: Path | None = None
    preference: Path | None = None


@dataclass(frozen=True)
class Graded:
    """An evaluation, the results of each grader behind it, and the same as lines of `scores.jsonl`."""

    evaluation: Evaluation
    results: Results
    scores: list[ItemScore]


class EvaluationEngine:
    """Evaluates candidates on the test items and retention questions of one job.

    Args:
        job: The spec and its data.
        grades: What graders that ask models replied, kept between calls (`grades.jsonl`).
        calls: Makes the record of questions to judges, with the budget that holds now.
        scores: Where scores are written (`scores.jsonl`); None writes none.
        between: Called after each score; may raise to stop.
        at_once: The most questions to judges in flight; None for the graders' own number.
    """

    def __init__(
        self,
        job: JobData,
        *,
        grades: Path,
        calls: Callable[[], Calls],
        scores: Path | None = None,
        between: Callable[[], None] = lambda: None,
        at_once: int | None = None,
    ) -> None:
        self.job, self.spec = job, job.spec
        self._grades, self._calls, self._scores = grades, calls, scores
        self._between, self._at_once = between, at_once

    def items_of(self, candidate: Candidate) -> list[Item]:
        """What a candidate completes: the test items, or what retention asks."""
        return self.job.questions if candidate.name.endswith(SUFFIX) else self.job.items

    def number_of_completions(self, candidate: Candidate) -> int:
        """How many completions a candidate gives; retention questions are completed once each."""
        samples = 1 if candidate.name.endswith(SUFFIX) else self.spec.evaluation.samples
        return samples * len(self.items_of(candidate))

    def complete(
        self,
        candidate: Candidate,
        sampler: Sampler,
        files: CandidateFiles,
        *,
        can_score: bool = False,
        on_progress: OnProgress | None = None,
    ) -> list[Prediction]:
        """Every completion of a candidate, and its measures, of which only those that are missing are requested.

        `can_score`: the sampler is a `Scorer`. Raises what `generate` and the sampler raise; what is done stays done.
        """
        settings, items = self.spec.evaluation, self.items_of(candidate)
        predictions = generate(
            candidate,
            items,
            sampler,
            files.completions,
            max_tokens=settings.max_completion_tokens,
            batch_size=settings.batch_size,
            sampling=None if candidate.name.endswith(SUFFIX) else Sampling.of(self.spec),
            on_progress=on_progress,
        )
        if can_score and files.perplexity is not None and self.has_perplexity(candidate):
            perplexity(items, cast(Scorer, sampler), files.perplexity, batch_size=settings.batch_size)
        if can_score and files.preference is not None and self._has_preference(candidate):
            measure(items, cast(Scorer, sampler), files.preference, batch_size=settings.batch_size)
        return predictions

    def is_complete(self, candidate: Candidate, files: CandidateFiles, *, can_score: bool = False) -> bool:
        """Whether `complete` would request nothing."""
        if can_score and self.has_perplexity(candidate) and self.perplexity_of(files) is None:
            return False
        wants_pairs = can_score and self._has_preference(candidate)
        if wants_pairs and files.preference is not None and read_pairs(self.job.items, files.preference) is None:
            return False
        predictions = read_predictions(files.completions)
        return sum(len(one.samples) for one in predictions) >= self.number_of_completions(candidate)

    def has_perplexity(self, candidate: Candidate) -> bool:
        """Whether perplexity is measured with this candidate: the spec wants it, and prompts are the items' own."""
        return self.spec.evaluation.perplexity and self._is_plain(candidate)

    def perplexity_of(self, files: CandidateFiles) -> float | None:
        """The perplexity that was measured for just these items; None when it was not."""
        return None if files.perplexity is None else read_perplexity(self.job.items, files.perplexity)

    def _has_preference(self, candidate: Candidate) -> bool:
        is_preference = self.spec.method == "dpo" and bool(measurable(self.job.items))
        return is_preference and self._is_plain(candidate)

    def _is_plain(self, candidate: Candidate) -> bool:
        """Whether a model is measured with this candidate: not with prompts of its own, nor under a second name."""
        return candidate.prompt is plain and candidate.shares is None and not candidate.name.endswith(SUFFIX)

    def grade(
        self,
        predictions: Mapping[str, Sequence[Prediction]],
        *,
        margin: float | None = None,
        pairs: Sequence[tuple[str, str]] | None = None,
        models: Mapping[str, str] | None = None,
    ) -> Graded:
        """Score completions of all test items by candidate, and compare the candidates. Arguments and errors as `judge`.

        `margin` defaults to the spec's. Scores are written before they are compared; replies of judges, whatever happens.
        """
        check_judges(self.spec)  # again: the environment of a run that is resumed may be another
        graders = self.spec.evaluation.graders
        graded: Results = {}
        scores: list[ItemScore] = []

        def on_results(results: Results) -> None:
            graded.update(results)
            scores.extend(item_scores(self.job.items, predictions, graders, results))
            if self._scores is not None:
                write_scores(self._scores, scores)

        with stored_grades(self._grades) as grades:
            evaluation = judge(
                self.job.items,
                predictions,
                graders,
                margin=self.spec.evaluation.margin if margin is None else margin,
                pairs=pairs,
                grades=grades,
                models=models,
                on_results=on_results,
                grading_with=JudgeRequests(self._calls(), self._between, self._at_once),
            )
        return Graded(evaluation, graded, scores)

    def calibrate(self, graded: Graded, labelled: Sequence[Labelled]) -> dict[str, Calibration]:
        """Each grader beside people's scores, by its name; none without `labelled`. Raises as `grade`."""
        if not labelled:
            return {}
        with stored_grades(self._grades) as grades:
            grading = JudgeRequests(self._calls(), self._between, self._at_once)
            graders = self.spec.evaluation.graders
            return calibrated(self.job.items, graded.results, graders, labelled, grades, grading)

    def retention(self, predictions: Mapping[str, Sequence[Prediction]], baseline: str) -> Retention | None:
        """What candidates still know, each against `baseline`; None where the spec does not ask."""
        settings = self.spec.evaluation
        if settings.retention is None or not self.job.questions:
            return None
        return measure_retention(
            self.job.questions,
            predictions,
            settings.graders,
            baseline=baseline,
            margin=settings.retention.margin,
            calls=self._calls(),
        )

    def preference(self, base: CandidateFiles, tuned: CandidateFiles) -> Preferences | None:
        """What tuning by preferences changed: log-probabilities, lengths, and wins where the spec has a pairwise grader.

        None for other methods, and where either model was not measured.
        """
        if self.spec.method != "dpo" or not self.job.items or base.preference is None or tuned.preference is None:
            return None
        nats = [read_pairs(self.job.items, path) for path in (base.preference, tuned.preference)]
        if nats[0] is None or nats[1] is None:
            return None
        completions = {name: read_predictions(one.completions) for name, one in (("base", base), ("tuned", tuned))}
        measured = preferences(self.job.items, nats[0], nats[1], completions)
        items, graders = against_base(self.job.items, completions["base"], self.spec.evaluation.graders)
        if measured is None or not graders:
            return measured
        with stored_grades(self._grades) as grades:
            grading = JudgeRequests(self._calls(), self._between)
            wins = judge(items, {"tuned": completions["tuned"]}, graders, grades=grades, grading_with=grading)
        by_grader = {
            name: Estimate(mean=one.mean, ci95=one.ci95, n=one.n) for name, one in wins.candidates["tuned"].items()
        }
        controlled = {
            name: Estimate(mean=one.controlled, ci95=one.ci95, n=one.n)
            for name, one in wins.length_controlled.get("tuned", {}).items()
        }
        return measured.model_copy(update={"wins": by_grader, "wins_length_controlled": controlled})
