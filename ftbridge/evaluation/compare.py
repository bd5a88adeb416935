"""Compare two runs: the same test items, the same graders, a paired verdict for each grader.

The second is judged against the first: `compare OLD NEW --margin 0.02` asks whether NEW is not worse than OLD by more than
2 points.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from ftbridge import providers
from ftbridge.errors import UsageError
from ftbridge.evaluation.document import Score
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.grade_cache import Grades, lookup
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.matching import SharedItems, shared_items
from ftbridge.evaluation.missing import known_score
from ftbridge.evaluation.notes import CompletionSource, differences
from ftbridge.evaluation.results import needs_others, recorded, recorded_results
from ftbridge.evaluation.retention.measure import SUFFIX
from ftbridge.evaluation.score import sample_of, score_of
from ftbridge.evaluation.statistics import require_statistics
from ftbridge.evaluation.verdict import PairedComparison, compare_paired
from ftbridge.evaluation.wording import summary
from ftbridge.providers.base import Frozen
from ftbridge.runs.run import Run
from ftbridge.spec.graders import Grader


class Side(Frozen):
    """One of the two."""

    run: str
    provider: str
    candidate: str = Field(description="The candidate whose completions are compared, such as tuned.")
    model: str | None = Field(
        description="The model that generated the completions; null for candidates on the base model."
    )
    train_sha256: str | None = Field(description="SHA-256 of the training data.")
    scores: dict[str, Score] = Field(description="By grader.")


class Changed(Frozen):
    """An item on which the two do not score the same."""

    line: int = Field(description="Line of the test file, from 1.")
    prompt: str = Field(description="The last message of the prompt.")
    reference: str
    first: str = Field(description="The first candidate's completion.")
    second: str
    scores: dict[str, tuple[float, float]] = Field(
        description="Scores of the first and the second candidate, by grader."
    )


class Comparison(Frozen):
    """What `ftbridge compare --json` prints."""

    items: int
    margin: float | None
    ok: bool = Field(description="False if a margin was requested and some grader does not meet it.")
    first: Side
    second: Side
    verdicts: dict[str, PairedComparison] = Field(description="The second against the first, by grader.")
    changed: list[Changed] = Field(description="Items that differ, those that became worse first.")
    notes: list[str]
    summary: list[str] = Field(default=[], description="The verdicts in words.")


def compare(
    first: Run,
    second: Run,
    *,
    margin: float | None = None,
    candidates: tuple[str, str] = ("tuned", "tuned"),
    common: bool = False,
) -> Comparison:
    """Compare a candidate of one run with one of another, by the first's graders.

    `margin` (0..1) defaults to the second's `evaluation.margin`. Raises `UsageError` when a run has no answers of the
    candidate, or when the test items differ; with `common`, those that both have are compared.
    """
    require_statistics()
    shared, notes = _shared(first, second, common)
    items = shared.items
    matched = [_completions(shared, run, candidate) for run, candidate in zip((first, second), candidates, strict=True)]
    graders = first.spec().evaluation.graders
    if first.resolved_spec().evaluation.graders != second.resolved_spec().evaluation.graders:
        notes.append(f"The runs have different graders; both were scored with the graders of {first.id}.")
    if first.id == second.id and candidates[0] == candidates[1]:
        raise UsageError("both sides are the same run and candidate.", hint="Name another with --candidate.")
    margin = second.spec().evaluation.margin if margin is None else margin
    grades = recorded([first, second])
    scored = [_scored(items, predictions, graders, grades) for predictions in matched]
    clusters = [item.cluster or item.key for item in items]
    verdicts = compare_paired(scored[0], scored[1], margin, clusters)
    for grader, paired in verdicts.items():
        if paired.missing:
            notes.append(
                f"{grader}: {paired.missing} of {len(items)} items lack a score on one side or both, and are left out."
            )
    digests = [run.state().train_sha256 for run in (first, second)]
    if digests[0] != digests[1]:
        notes.append("The runs were not trained on the same bytes.")
    notes += differences([_place_of(run) for run in (first, second)])
    return Comparison(
        items=len(items),
        margin=margin,
        ok=all(paired.margin_met is not False and paired.verdict != "undetermined" for paired in verdicts.values()),
        first=_side(first, candidates[0], scored[0], clusters, digests[0]),
        second=_side(second, candidates[1], scored[1], clusters, digests[1]),
        verdicts=verdicts,
        changed=_changed(items, matched, scored),
        notes=notes,
        summary=summary([("the second", "the first", verdicts)]),
    )


def _completions(shared: SharedItems, run: Run, candidate: str) -> list[Prediction]:
    """The candidate's completions of all shared items. Raises `UsageError` where it has none, or lacks some."""
    if not run.predictions(candidate).exists():
        there = sorted(
            path.stem for path in (run.path / "predictions").glob("*.jsonl") if not path.stem.endswith(SUFFIX)
        )
        names = ", ".join(there) or "none; an evaluation needs data.test and a finished run"
        raise UsageError(f"{run.id} has no completions of {candidate!r}.", hint=f"It has: {names}.")
    matched = shared.completions(run, candidate)
    completions = [prediction for prediction in matched if prediction is not None]
    if len(completions) < len(matched):
        raise UsageError(
            f"{run.id} has {len(completions)} of {len(matched)} completions of {candidate!r}.",
            hint=f"Generate the rest with: ftbridge resume {run.id}",
        )
    return completions


def _shared(first: Run, second: Run, common: bool) -> tuple[SharedItems, list[str]]:
    """The items that both were tested on, with a note where these are not all."""
    for run in (first, second):
        if not (run.data / "test.jsonl").exists():
            hint = "Set data.test in its spec."
            raise UsageError(f"{run.id} has no test split, so there is nothing to compare.", hint=hint)
    shared = shared_items((first, second))
    if (any(shared.others) and not common) or not shared.items:
        raise UsageError(
            f"the runs were tested on different items: {len(shared.items)} are shared, {shared.others[0]} only in "
            f"{first.id}, {shared.others[1]} only in {second.id}.",
            hint="--intersect compares the items that both have."
            if shared.items
            else "Run one of them again with the other's data.test.",
        )
    partly = any(shared.others)
    return shared, [f"Only the {len(shared.items)} items that both runs have are compared."] if partly else []


def _scored(
    items: Sequence[Item], predictions: Sequence[Prediction], graders: Sequence[Grader], grades: Grades
) -> dict[str, list[float | None]]:
    for grader in graders:
        if needs_others(grader) and not any(
            lookup(grades, grader, item.fields, sample_of(prediction))
            for item, prediction in zip(items, predictions, strict=True)
        ):
            raise UsageError(
                f"the scores of grader {grader.name} are not recorded for both runs, and compare does not grade again.",
                hint="`ftbridge eval SPEC -c run:FIRST -c run:SECOND` grades the completions of both.",
            )
    graded = recorded_results(items, {"side": predictions}, graders, grades)["side"]
    return {grader.name: [known_score(grader, result) for result in graded[grader.name]] for grader in graders}


def _side(
    run: Run, candidate: str, scored: dict[str, list[float | None]], clusters: Sequence[str], digest: str | None
) -> Side:
    state = run.state()
    scores = {grader: score_of(values, clusters) for grader, values in scored.items()}
    model = state.tuned.id if state.tuned and candidate == "tuned" else None
    return Side(
        run=run.id, provider=state.provider, candidate=candidate, model=model, train_sha256=digest, scores=scores
    )


def _place_of(run: Run) -> CompletionSource:
    """Where a run's completions come from."""
    provider, spec = run.state().provider, run.spec()
    return CompletionSource(provider, providers.base_model(provider, spec) or "", providers.is_hosted(provider, spec))


def _changed(
    items: Sequence[Item], matched: Sequence[Sequence[Prediction]], scored: Sequence[dict[str, list[float | None]]]
) -> list[Changed]:
    changed: list[tuple[float, Changed]] = []
    for index, item in enumerate(items):
        pairs = {grader: (scored[0][grader][index], scored[1][grader][index]) for grader in scored[0]}
        scores = {grader: (a, b) for grader, (a, b) in pairs.items() if a is not None and b is not None}
        fall = sum(first - second for first, second in scores.values())
        if all(first == second for first, second in scores.values()):
            continue
        prompt = item.prompt[-1].text if item.prompt else ""
        entry = Changed(
            line=item.line,
            prompt=prompt,
            reference=str(item.fields.get("reference", "")),
            first=matched[0][index].output_text,
            second=matched[1][index].output_text,
            scores=scores,
        )
        changed.append((fall, entry))
    return [entry for _, entry in sorted(changed, key=lambda pair: -pair[0])]
