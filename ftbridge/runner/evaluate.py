"""The evaluation of a run: who is asked what, their answers in the run folder, and the verdict in evaluation.json.

    test.jsonl ──────▶ base, baselines ─▶ predictions/NAME.jsonl ──────────▶ graders ─▶ scores, differences, verdicts
    retention.jsonl ─▶ base, tuned     ─▶ predictions/NAME.retention.jsonl ─▶ checks ─▶ kept or not

What is answered is never asked again: each candidate is journalled before and after, and its file is taken up where it ends.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from ftbridge import files, providers
from ftbridge.errors import GateNotMet
from ftbridge.evaluation.baselines import candidates_of
from ftbridge.evaluation.candidates import Candidate
from ftbridge.evaluation.families import family_notes
from ftbridge.evaluation.generate import Sampling, generate, read_predictions
from ftbridge.evaluation.grade_cache import read_grades, write_grades
from ftbridge.evaluation.items import Item, load_items
from ftbridge.evaluation.perplexity import perplexity, read_perplexity
from ftbridge.evaluation.preference import (
    Estimate,
    Preferences,
    against_base,
    measurable,
    measure,
    preferences,
    sentence,
    warnings,
)
from ftbridge.evaluation.preference import read as read_pairs
from ftbridge.evaluation.results import item_scores, write_scores
from ftbridge.evaluation.retention.measure import SUFFIX, Retention, measure_retention, retention_candidate
from ftbridge.evaluation.score import Answered, Evaluation, Grading, judge
from ftbridge.evaluation.spending import budget_of, spent
from ftbridge.graders import Calls
from ftbridge.graders.budget import JudgeBudget
from ftbridge.graders.calls import FILE as CALLS
from ftbridge.graders.judge_keys import check_judges
from ftbridge.prices import load_prices
from ftbridge.providers.base import Sampler, Scorer
from ftbridge.runner.observer import Observer
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec


def shutdown_clock(run: Run, spec: JobSpec, today: datetime.date | None = None) -> str | None:
    """When a run's model stops at the service, with the days left; None on this machine, and where no date is known."""
    provider = providers.find(run.state().provider)
    model = provider.base_model(spec) if provider is not None else None
    if provider is None or model is None or (day := provider.last_day(spec, model)) is None:
        return None
    left = (day - (today or datetime.datetime.now(datetime.timezone.utc).date())).days
    when = f"in {left} days" if left >= 0 else f"{-left} days ago"
    return f"{model} and models tuned from it stop on {day}, {when}."


class RunEvaluation:
    """What the judge asks in one run. `between` is called after each answer, and may raise to stop."""

    def __init__(self, run: Run, spec: JobSpec, watcher: Observer, between: Callable[[], None]) -> None:
        self.run, self.spec, self.watcher, self.between = run, spec, watcher, between
        test = run.data / "test.jsonl"
        self.items: list[Item] = load_items(test) if test.exists() else []
        self.questions: list[Item] = load_items(run.questions) if run.questions.exists() else []

    def candidates(self, *, tuned: bool) -> list[Candidate]:
        """Who answers on the tuned model, or on the base: the test items, and what retention asks."""
        return [candidate for candidate in self._everybody if (candidate.name.removesuffix(SUFFIX) == "tuned") == tuned]

    @functools.cached_property
    def _everybody(self) -> list[Candidate]:
        candidates = candidates_of(self.spec, self.run.data / "train.jsonl") if self.items else []
        return candidates + [retention_candidate(name) for name in ("base", "tuned") if self.questions]

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

    def before(self) -> Evaluation | None:
        """What base and its baselines achieve, once they have answered and before anything is trained."""
        names = [candidate.name for candidate in self.candidates(tuned=False) if not candidate.name.endswith(SUFFIX)]
        return self._judged(names) if self.items else None

    def judge(self) -> Evaluation | None:
        """Score every candidate's answers and write evaluation.json; None for a run that asks nothing."""
        if not self.items and not self.questions:
            return None
        settings = self.spec.evaluation
        evaluation = Evaluation(items=0, graders=[grader.name for grader in settings.graders], candidates={})
        if self.items:
            evaluation = self._judged(
                [perplexities.name for perplexities in self._everybody if not perplexities.name.endswith(SUFFIX)]
            )
        preference = self._preference()
        perplexities = {name: read_perplexity(self.items, self._perplexity_path(name)) for name in ("base", "tuned")}
        more = {
            "perplexity": {name: value for name, value in perplexities.items() if value is not None},
            "retention": self._retention(),
            "preference": preference,
            "notes": [*self._notes(evaluation), *(warnings(preference) if preference else ())],
            "summary": [*evaluation.summary, *([sentence(preference)] if preference else ())],
        }
        evaluation = evaluation.model_copy(update=more)
        files.write_text(self.run.evaluation_path, evaluation.model_dump_json(indent=2) + "\n")
        return evaluation

    def _judged(self, names: Sequence[str]) -> Evaluation:
        """Scores of these candidates; what judge models say is kept, so that nothing is asked, or paid, twice."""
        check_judges(self.spec)  # again: the environment of a run that is resumed may be another
        predictions = {name: read_predictions(self.run.predictions(name)) for name in names}
        grades = read_grades([self.run.grades_path])
        graders = self.spec.evaluation.graders
        hosted = providers.is_hosted(self.run.state().provider, self.spec)
        at_once = self.spec.evaluation.batch_size if hosted else None
        evaluation = judge(
            self.items,
            predictions,
            graders,
            margin=self.spec.evaluation.margin,
            grades=grades,
            grading_with=Grading(self._calls(), self.between, at_once),
            on_results=lambda graded: write_scores(
                self.run.scores_path, item_scores(self.items, predictions, graders, graded)
            ),
        )
        write_grades(self.run.grades_path, grades)
        return evaluation.model_copy(update={"answered": self._priced(evaluation.answered)})

    def _priced(self, usage: Mapping[str, Answered]) -> dict[str, Answered]:
        """With what each candidate's answers cost, where a service was paid for them and its price is known."""
        basis = providers.load(self.run.state().provider).price_basis(self.spec)
        if basis.unit != "tokens":
            return dict(usage)
        prices = load_prices()
        is_priced = prices.holds_at(basis.model, basis.target)
        priced = {}
        for name, used in usage.items():
            usd = prices.completions_usd(
                basis.model, used.prompt_tokens, used.completion_tokens, tuned=name == "tuned", batch=basis.batch
            )
            priced[name] = used.model_copy(update={"usd": usd if is_priced else None})
        return priced

    def _retention(self) -> Retention | None:
        settings = self.spec.evaluation
        if not self.questions or settings.retention is None:
            return None
        predictions = {name: read_predictions(self.run.predictions(name + SUFFIX)) for name in ("base", "tuned")}
        return measure_retention(
            self.questions,
            predictions,
            settings.graders,
            baseline="base",
            margin=settings.retention.margin,
            calls=self._calls(),
        )

    def _calls(self) -> Calls:
        """The questions to judges of this run: those answered before, and room for as many as the budget bears."""
        limit = budget_of(self.run).max_usd
        meter = None if limit is None else JudgeBudget(limit, spent(self.run).usd.total, on_used_up=self._stop)
        return Calls(self.run.path / CALLS, meter)

    def _stop(self, used: str) -> GateNotMet:
        """The error of a budget that judges used up; the run is paused."""
        self.run.append("paused")
        hint = f"What judges said is kept. With a larger budget: ftbridge resume {self.run.id} --set budget.KEY=VALUE"
        return GateNotMet(f"{used}; {self.run.id} is paused.", hint=hint)

    def _notes(self, evaluation: Evaluation) -> list[str]:
        """What a reader should know, above all whose results these are."""
        state, notes = self.run.state(), list(evaluation.notes)
        if (origin := state.continues) is not None:
            note = f"These results come from {state.provider}: {origin.provider} ({origin.run}) did not do it."
            notes.insert(0, note)
        if self.spec.evaluation.perplexity and not self._foresees(self._everybody[0]):
            notes.append(f"perplexity is not known: {state.provider} tells no log probabilities of given answers.")
        model = providers.base_model(state.provider, self.spec)
        notes += family_notes(self.spec.evaluation.graders, [model or ""])
        if self.spec.local.lora.continue_from is not None and not providers.is_hosted(state.provider, self.spec):
            notes.append("base is the model without the adapter that training continued from.")
        if (clock := shutdown_clock(self.run, self.spec)) is not None:
            notes.append(clock)
        return notes

    def _let_answer(self, candidate: Candidate, sampler: Sampler) -> None:
        items = self._items_of(candidate)
        self.run.append("evaluating", candidate=candidate.name)
        self.watcher.stage(self.run, f"answering with {candidate.name}")
        self.watcher.answered(candidate.name, 0, self._wanted(candidate))

        def progress(done: int, total: int) -> None:
            self.watcher.answered(candidate.name, done, total)
            self.between()

        generate(
            candidate,
            items,
            sampler,
            self.run.predictions(candidate.name),
            max_tokens=self.spec.evaluation.max_completion_tokens,
            batch_size=self.spec.evaluation.batch_size,
            sampling=None if candidate.name.endswith(SUFFIX) else Sampling.of(self.spec),
            on_progress=progress,
        )
        if self._foresees(candidate):
            batch, path = self.spec.evaluation.batch_size, self._perplexity_path(candidate.name)
            perplexity(items, cast(Scorer, sampler), path, batch_size=batch)
        if self._prefers(candidate):
            batch, path = self.spec.evaluation.batch_size, self._preference_path(candidate.name)
            measure(items, cast(Scorer, sampler), path, batch_size=batch)
        self.run.append("evaluated", candidate=candidate.name)

    def _prefers(self, candidate: Candidate) -> bool:
        """Whether the log-probabilities of test pairs are measured with this candidate: the spec's method asks for it."""
        able = providers.load(self.run.state().provider).capabilities(self.spec).score
        is_preference = self.spec.method == "dpo" and bool(measurable(self.items))
        return is_preference and able and candidate.name in ("base", "tuned")

    def _preference_path(self, candidate: str) -> Path:
        return self.run.predictions(candidate).with_suffix(".preference.json")

    def _preference(self) -> Preferences | None:
        """What tuning by preferences changed: log-probabilities, lengths, and wins where the spec has a pairwise grader."""
        if self.spec.method != "dpo" or not self.items:
            return None
        nats = {name: read_pairs(self.items, self._preference_path(name)) for name in ("base", "tuned")}
        if nats["base"] is None or nats["tuned"] is None:
            return None
        predictions = {name: read_predictions(self.run.predictions(name)) for name in nats}
        measured = preferences(self.items, nats["base"], nats["tuned"], predictions)
        items, graders = against_base(self.items, predictions["base"], self.spec.evaluation.graders)
        if measured is None or not graders:
            return measured
        grades = read_grades([self.run.grades_path])
        wins = judge(
            items,
            {"tuned": predictions["tuned"]},
            graders,
            grades=grades,
            grading_with=Grading(self._calls(), self.between),
        )
        write_grades(self.run.grades_path, grades)
        scores = wins.candidates["tuned"].items()
        by_grader = {name: Estimate(mean=one.mean, ci95=one.ci95, n=one.n) for name, one in scores}
        controlled = {
            name: Estimate(mean=one.controlled, ci95=one.ci95, n=one.n)
            for name, one in wins.length_controlled.get("tuned", {}).items()
        }
        return measured.model_copy(update={"wins": by_grader, "wins_length_controlled": controlled})

    def _foresees(self, candidate: Candidate) -> bool:
        """Whether perplexity is asked of this candidate, and its provider can tell it."""
        able = providers.load(self.run.state().provider).capabilities(self.spec).score
        return self.spec.evaluation.perplexity and able and candidate.name in ("base", "tuned")

    def _perplexity_path(self, candidate: str) -> Path:
        return self.run.predictions(candidate).with_suffix(".perplexity.json")

    def _items_of(self, candidate: Candidate) -> list[Item]:
        return self.questions if candidate.name.endswith(SUFFIX) else self.items

    def _is_answered(self, candidate: Candidate) -> bool:
        """Whether a candidate's answers are complete: journalled, and still all there."""
        if candidate.name not in self.run.state().evaluated:
            return False
        if self._foresees(candidate) and read_perplexity(self.items, self._perplexity_path(candidate.name)) is None:
            return False
        if self._prefers(candidate) and read_pairs(self.items, self._preference_path(candidate.name)) is None:
            return False
        predictions = read_predictions(self.run.predictions(candidate.name))
        return sum(len(one.samples) for one in predictions) >= self._wanted(candidate)

    def _wanted(self, candidate: Candidate) -> int:
        """How many completions a candidate is asked for; what retention asks is asked once."""
        samples = 1 if candidate.name.endswith(SUFFIX) else self.spec.evaluation.samples
        return samples * len(self._items_of(candidate))
