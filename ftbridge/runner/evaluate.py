"""The evaluation of a run: who is asked what, their answers in the run folder, and the verdict in evaluation.json.

    test.jsonl ──────▶ base, baselines ─▶ predictions/NAME.jsonl ──────────▶ graders ─▶ scores, differences, verdicts
    retention.jsonl ─▶ base, tuned     ─▶ predictions/NAME.retention.jsonl ─▶ checks ─▶ kept or not

What is answered is never asked again: each candidate is journalled before and after, and its file is taken up where it ends.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Mapping, Sequence

from ftbridge import files, providers
from ftbridge.data.manifest import load_manifest
from ftbridge.errors import GateNotMet
from ftbridge.evaluation.baselines import candidates_of
from ftbridge.evaluation.candidates import Candidate
from ftbridge.evaluation.document import Answered, Evaluation
from ftbridge.evaluation.engine import CandidateFiles, EvaluationEngine
from ftbridge.evaluation.families import family_notes
from ftbridge.evaluation.generate import read_predictions
from ftbridge.evaluation.job_data import JobData
from ftbridge.evaluation.preference import sentence, warnings
from ftbridge.evaluation.retention.measure import SUFFIX, retention_candidate
from ftbridge.evaluation.spending import budget_of, spent
from ftbridge.graders import Calls
from ftbridge.graders.budget import JudgeBudget
from ftbridge.graders.calls import FILE as CALLS
from ftbridge.prices import load_prices
from ftbridge.providers.base import Sampler
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
    """The evaluation of one run. `between` is called after each completion and score, and may raise to stop."""

    def __init__(self, run: Run, spec: JobSpec, watcher: Observer, between: Callable[[], None]) -> None:
        self.run, self.spec, self.watcher, self.between = run, spec, watcher, between
        self.provider = providers.load(run.state().provider)
        capabilities = self.provider.capabilities(spec)
        self.can_score = capabilities.score
        self.engine = EvaluationEngine(
            JobData(spec, run.data, load_manifest(run.data)),
            grades=run.grades_path,
            calls=self._calls,
            scores=run.scores_path,
            between=between,
            at_once=spec.evaluation.batch_size if capabilities.hosted else None,
        )

    def candidates(self, *, tuned: bool) -> list[Candidate]:
        """Who completes with the tuned model, or with the base: the test items, and what retention asks."""
        return [one for one in self._all_candidates if (one.name.removesuffix(SUFFIX) == "tuned") == tuned]

    @functools.cached_property
    def _all_candidates(self) -> list[Candidate]:
        job = self.engine.job
        candidates = candidates_of(self.spec, job.train) if job.items else []
        return candidates + [retention_candidate(name) for name in ("base", "tuned") if job.questions]

    def complete(self, sampler_of: Callable[[], Sampler], *, tuned: bool) -> None:
        """Let the candidates on one model complete what they have not completed; without such, no sampler is made."""
        waiting = [candidate for candidate in self.candidates(tuned=tuned) if not self._is_complete(candidate)]
        if not waiting:
            return
        sampler = sampler_of()
        try:
            for candidate in waiting:
                self._complete(candidate, sampler)
        finally:
            sampler.close()

    def before(self) -> Evaluation | None:
        """What base and its baselines achieve, once they have completed and before anything is trained."""
        names = [candidate.name for candidate in self.candidates(tuned=False) if not candidate.name.endswith(SUFFIX)]
        return self._graded(names) if self.engine.job.items else None

    def judge(self) -> Evaluation | None:
        """Score every candidate's completions and write evaluation.json; None for a run that has nothing to complete."""
        job, engine = self.engine.job, self.engine
        if not job.items and not job.questions:
            return None
        graders = [grader.name for grader in self.spec.evaluation.graders]
        evaluation = Evaluation(items=0, graders=graders, candidates={})
        if job.items:
            evaluation = self._graded([one.name for one in self._all_candidates if not one.name.endswith(SUFFIX)])
        base, tuned = self._files("base"), self._files("tuned")
        preference = engine.preference(base, tuned)
        perplexities = {name: engine.perplexity_of(of) for name, of in (("base", base), ("tuned", tuned)) if job.items}
        completed = {name: read_predictions(self.run.predictions(name + SUFFIX)) for name in ("base", "tuned")}
        more = {
            "perplexity": {name: value for name, value in perplexities.items() if value is not None},
            "retention": engine.retention(completed, "base") if job.questions else None,
            "preference": preference,
            "notes": [*self._notes(evaluation), *(warnings(preference) if preference else ())],
            "summary": [*evaluation.summary, *([sentence(preference)] if preference else ())],
        }
        evaluation = evaluation.model_copy(update=more)
        files.write_text(self.run.evaluation_path, evaluation.model_dump_json(indent=2) + "\n")
        return evaluation

    def _graded(self, names: Sequence[str]) -> Evaluation:
        """Scores of these candidates, with what their completions cost."""
        evaluation = self.engine.grade(
            {name: read_predictions(self.run.predictions(name)) for name in names}
        ).evaluation
        return evaluation.model_copy(update={"answered": self._priced(evaluation.answered)})

    def _priced(self, usage: Mapping[str, Answered]) -> dict[str, Answered]:
        """With what each candidate's completions cost, where a service was paid for them and its price is known."""
        basis = self.provider.price_basis(self.spec)
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

    def _calls(self) -> Calls:
        """The questions to judges of this run: those with a reply, and room for as many as the budget bears."""
        limit = budget_of(self.run).max_usd
        meter = None if limit is None else JudgeBudget(limit, spent(self.run).usd.total, on_used_up=self._stop)
        return Calls(self.run.path / CALLS, meter)

    def _stop(self, used: str) -> GateNotMet:
        """The error of a budget that judges used up; the run is paused."""
        self.run.append("paused")
        hint = (
            f"The judges' replies are saved. With a larger budget: ftbridge resume {self.run.id} --set budget.KEY=VALUE"
        )
        return GateNotMet(f"{used}; {self.run.id} is paused.", hint=hint)

    def _notes(self, evaluation: Evaluation) -> list[str]:
        """What a reader should know, above all whose results these are."""
        state, notes = self.run.state(), list(evaluation.notes)
        if (origin := state.continues) is not None:
            note = f"These results come from {state.provider}: {origin.provider} ({origin.run}) refused or failed."
            notes.insert(0, note)
        if self.spec.evaluation.perplexity and not self.can_score:
            notes.append(
                f"perplexity is not known: {state.provider} reports no log probabilities of given completions."
            )
        notes += family_notes(self.spec.evaluation.graders, [self.provider.base_model(self.spec) or ""])
        is_hosted = self.provider.capabilities(self.spec).hosted
        if self.spec.local.lora.continue_from is not None and not is_hosted:
            notes.append("base is the model without the adapter that training continued from.")
        if (clock := shutdown_clock(self.run, self.spec)) is not None:
            notes.append(clock)
        return notes

    def _complete(self, candidate: Candidate, sampler: Sampler) -> None:
        """Journal a candidate before and after its completions, and report each of them."""
        self.run.append("evaluating", candidate=candidate.name)
        self.watcher.stage(self.run, f"generating completions with {candidate.name}")
        self.watcher.answered(candidate.name, 0, self.engine.number_of_completions(candidate))

        def progress(done: int, total: int) -> None:
            self.watcher.answered(candidate.name, done, total)
            self.between()

        paths = self._files(candidate.name)
        self.engine.complete(candidate, sampler, paths, can_score=self.can_score, on_progress=progress)
        self.run.append("evaluated", candidate=candidate.name)

    def _is_complete(self, candidate: Candidate) -> bool:
        """Whether a candidate's completions are all there: journalled, and not removed since."""
        is_journalled = candidate.name in self.run.state().evaluated
        return is_journalled and self.engine.is_complete(
            candidate, self._files(candidate.name), can_score=self.can_score
        )

    def _files(self, candidate: str) -> CandidateFiles:
        path = self.run.predictions(candidate)
        return CandidateFiles(path, path.with_suffix(".perplexity.json"), path.with_suffix(".preference.json"))
