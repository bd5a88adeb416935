"""What a page shows, gathered from run folders. Reading never changes a run, and grades nothing that is graded already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ftbridge.errors import UsageError
from ftbridge.evaluation.document import Answered, Evaluation, Score
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.grade_cache import Grades
from ftbridge.evaluation.items import Item, slice_values
from ftbridge.evaluation.matching import shared_items
from ftbridge.evaluation.missing import MaybeScores, known_score
from ftbridge.evaluation.results import read_evaluation, recorded, recorded_results
from ftbridge.evaluation.score import answered_of, score_of
from ftbridge.evaluation.spending import spent
from ftbridge.evaluation.verdict import PairedComparison, compare_family
from ftbridge.evaluation.wording import rivals
from ftbridge.graders import GraderResult
from ftbridge.planning.actual import Compared, compared
from ftbridge.report.html.sources import Curve, ReportSource, curve_of, source_of
from ftbridge.report.rewards import RewardHistory, reward_history
from ftbridge.runs.run import Run
from ftbridge.spec.graders import Grader


@dataclass(frozen=True)
class ShownCompletion:
    """One candidate's completion of one item; `scores` by grader, `errors` what graders could not grade.

    A score is None where a grader, judge or endpoint failed. `calls` are requests to judges: grader, prompt, reply.
    """

    text: str
    cut_off: bool
    scores: Mapping[str, float | None]
    errors: tuple[str, ...]
    calls: tuple[tuple[str, str, str], ...] = ()
    more: tuple[ShownCompletion, ...] = ()
    """The item's other completions, where it has several: `scores` are then the means, and `own` those of this one."""
    grader_scores: Mapping[str, float | None] = field(default_factory=dict)

    def changes(self, other: ShownCompletion) -> dict[str, float]:
        """By grader, how much higher the other scores; graders that lack a score of either are left out."""
        pairs = {name: (score, other.scores[name]) for name, score in self.scores.items()}
        return {name: b - a for name, (a, b) in pairs.items() if a is not None and b is not None}


@dataclass(frozen=True)
class ItemRow:
    """One item and every candidate's completion, in the order of the columns; `slices`: its values of fields with few."""

    line: int
    prompt: tuple[tuple[str, str], ...]
    reference: str
    completions: tuple[ShownCompletion, ...]
    slices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """One candidate. `usage` is what its completions took, `usd` what they cost where that is known."""

    label: str
    run: str
    candidate: str
    model: str
    scores: Mapping[str, Score]
    usage: Answered
    usd: float | None


@dataclass(frozen=True)
class RunMeasures:
    """What the evaluation measured beside the graders, planned and actual figures, and what was spent.

    `label` is the run's; it is empty where there is one.
    """

    label: str
    evaluation: Evaluation | None
    compared: tuple[Compared, ...]
    spent: str = ""


@dataclass(frozen=True)
class CandidatePair:
    """A candidate against a baseline: labels of columns, and a verdict by grader."""

    candidate: str
    baseline: str
    verdicts: Mapping[str, PairedComparison]


@dataclass(frozen=True)
class Contents:
    """A page. `pairs` begins with the one that the page is about; `rows` are the items that every column has completions of."""

    title: str
    graders: tuple[str, ...]
    columns: tuple[Column, ...]
    pairs: tuple[CandidatePair, ...]
    rows: tuple[ItemRow, ...]
    curves: tuple[Curve, ...]
    sources: tuple[ReportSource, ...]
    measured: tuple[RunMeasures, ...]
    notes: tuple[str, ...]
    rewards: tuple[RewardHistory, ...] = ()


def contents_of(runs: Sequence[Run]) -> Contents:
    """Gather a page about one run (tuned against its base) or several (each tuned against the first's).

    Scores are by the graders of the first run, over the items that all of them were tested on. A run that has no completions
    yet is shown without. Raises `UsageError` for no run, or the same one twice.
    """
    if not runs:
        raise UsageError("a report needs at least one run; none was named.")
    if twice := {run.id for run in runs if sum(run.id == other.id for other in runs) > 1}:
        raise UsageError(f"a report shows each run once; named twice: {', '.join(sorted(twice))}.")
    sources = [source_of(run) for run in runs]
    labels = _labels(sources)
    notes = [f"{name}: {note}" for name, run in zip(labels, runs, strict=True) for note in _kept_notes(run)]
    items, predictions = _shared(runs, labels, notes)
    graders = sources[0].spec.evaluation.graders
    grades = recorded(runs)
    graded = _graded(items, predictions, graders, grades)
    clusters = [item.cluster or item.key for item in items]
    scored = {
        label: {name: [completion.scores[name] for completion in completions] for name in _names(graders)}
        for label, completions in graded.items()
    }
    return Contents(
        title=" and ".join(dict.fromkeys(source.spec.name for source in sources)),
        graders=tuple(_names(graders)),
        columns=tuple(_columns(runs, sources, labels, predictions, scored, clusters)),
        pairs=tuple(_pairs(runs, sources, labels, scored, clusters)),
        rows=_rows(items, graded),
        curves=tuple(curve for name, run in zip(labels, runs, strict=True) if (curve := curve_of(name, run)).train),
        sources=tuple(sources),
        measured=tuple(
            RunMeasures(name if len(runs) > 1 else "", read_evaluation(run), tuple(compared(run)), spent(run).summary())
            for name, run in zip(labels, runs, strict=True)
        ),
        notes=tuple(dict.fromkeys(notes)),
        rewards=tuple(
            history
            for name, run in zip(labels, runs, strict=True)
            if (history := reward_history(name, run)) is not None
        ),
    )


def contents_of_completions(
    title: str,
    items: Sequence[Item],
    predictions: Mapping[str, Sequence[Prediction]],
    graders: Sequence[Grader],
    evaluation: Evaluation,
    grades: Grades,
) -> Contents:
    """Gather a page about an evaluation outside a run: candidates as columns, the first the baseline, no curves or sources."""
    graded = _graded(items, predictions, graders, grades)
    columns = [
        Column(
            label=name,
            run="",
            candidate=name,
            model=evaluation.answered[name].model or "",
            scores=evaluation.candidates[name],
            usage=evaluation.answered[name],
            usd=evaluation.answered[name].usd,
        )
        for name in predictions
    ]
    return Contents(
        title=title,
        graders=tuple(_names(graders)),
        columns=tuple(columns),
        pairs=tuple(CandidatePair(*pair) for pair in rivals(list(predictions), evaluation.verdicts)),
        rows=_rows(items, graded),
        curves=(),
        sources=(),
        measured=(RunMeasures("", evaluation, ()),),
        notes=tuple(dict.fromkeys(evaluation.notes)),
    )


def _labels(sources: Sequence[ReportSource]) -> list[str]:
    """A short name for each run: its provider where that says which, else the end of its id too."""
    providers = [source.state.provider for source in sources]
    if len(set(providers)) == len(providers):
        return providers
    return [f"{source.state.provider} {source.run.rpartition('-')[2]}" for source in sources]


def _column_label(candidate: str, run_label: str, several: bool) -> str:
    return f"{candidate} · {run_label}" if several else candidate


def _names(graders: Sequence[Grader]) -> list[str]:
    return [grader.name for grader in graders]


def _shared(
    runs: Sequence[Run], labels: Sequence[str], notes: list[str]
) -> tuple[list[Item], dict[str, list[Prediction]]]:
    """The items that all runs were tested on, as the first has them, and each column's completions in their order."""
    shared = shared_items(runs)
    if any(shared.others):
        counts = ", ".join(f"{name} {tested}" for name, tested in zip(labels, shared.tested, strict=True))
        notes.append(
            f"The runs were tested on different items ({counts}); the page shows the {len(shared.items)} that they "
            "share."
        )
    predictions: dict[str, list[Prediction]] = {}
    for run, name in zip(runs, labels, strict=True):
        for candidate in _candidates(run):
            label, matched = _column_label(candidate, name, len(runs) > 1), shared.completions(run, candidate)
            completions = [prediction for prediction in matched if prediction is not None]
            if len(completions) < len(matched):
                notes.append(
                    f"{label} has completions of {len(completions)} of {len(matched)} items, so it is not shown."
                )
            elif matched:
                predictions[label] = completions
    return shared.items, predictions


def _candidates(run: Run) -> list[str]:
    """Whose completions there are, base first and tuned last."""
    named = ["base", *run.spec().evaluation.baselines, "tuned"]
    return [name for name in named if run.predictions(name).exists()]


def _graded(
    items: Sequence[Item], predictions: Mapping[str, Sequence[Prediction]], graders: Sequence[Grader], grades: Grades
) -> dict[str, list[ShownCompletion]]:
    if not items or not predictions:
        return {}
    results_by_grader = recorded_results(items, predictions, graders, grades)
    return {
        label: [
            _shown_completion(
                prediction, [(grader, results_by_grader[label][grader.name][index]) for grader in graders]
            )
            for index, prediction in enumerate(completions)
        ]
        for label, completions in predictions.items()
    }


def _shown_completion(prediction: Prediction, results: Sequence[tuple[Grader, GraderResult]]) -> ShownCompletion:
    """A completion with its scores; the first of several holds the others, and has the mean scores of all."""
    if prediction.others:
        each = [
            _shown_completion(
                one.model_copy(update={"others": ()}),
                [(grader, result.samples[index]) for grader, result in results],
            )
            for index, one in enumerate(prediction.samples)
        ]
        scores = {grader.name: known_score(grader, result) for grader, result in results}
        return replace(each[0], scores=scores, grader_scores=each[0].scores, more=tuple(each[1:]))
    return ShownCompletion(
        text=prediction.output_text,
        cut_off=prediction.finish_reason == "length",
        scores={grader.name: known_score(grader, result) for grader, result in results},
        errors=tuple(f"{grader.name}: {text}" for grader, result in results for text in result.errors.values()),
        calls=tuple(
            (grader.name, _prompt_text(call.messages), call.reply or "")
            for grader, result in results
            for call in result.metadata.calls
        ),
    )


def _columns(
    runs: Sequence[Run],
    sources: Sequence[ReportSource],
    labels: Sequence[str],
    predictions: Mapping[str, Sequence[Prediction]],
    scored: Mapping[str, Mapping[str, MaybeScores]],
    clusters: Sequence[str],
) -> list[Column]:
    columns = []
    evaluations = {run.id: read_evaluation(run) for run in runs}
    for run, source, name in zip(runs, sources, labels, strict=True):
        tuned = source.state.tuned.id if source.state.tuned else ""
        for candidate in _candidates(run):
            label = _column_label(candidate, name, len(runs) > 1)
            if label in predictions:
                columns.append(
                    Column(
                        label=label,
                        run=run.id,
                        candidate=candidate,
                        model=tuned if candidate == "tuned" else source.base,
                        scores={grader: score_of(values, clusters) for grader, values in scored[label].items()},
                        usage=answered_of(predictions[label]),
                        usd=_usd(evaluations[run.id], candidate),
                    )
                )
    return columns


def _usd(evaluation: Evaluation | None, candidate: str) -> float | None:
    """Dollars of all a candidate's completions, as the evaluation recorded them."""
    usage = evaluation.answered.get(candidate) if evaluation else None
    return usage.usd if usage is not None else None


def _pairs(
    runs: Sequence[Run],
    sources: Sequence[ReportSource],
    labels: Sequence[str],
    scored: Mapping[str, Mapping[str, MaybeScores]],
    clusters: Sequence[str],
) -> list[CandidatePair]:
    """Each later run's tuned against the first's; then in each run tuned against every other candidate."""
    several = len(runs) > 1
    tuned = [_column_label("tuned", name, several) for name in labels]
    pairs = [(later, tuned[0], source) for later, source in zip(tuned[1:], sources[1:], strict=True)]
    for run, name, source in zip(runs, labels, sources, strict=True):
        pairs += [
            (_column_label("tuned", name, several), _column_label(other, name, several), source)
            for other in _candidates(run)
            if other != "tuned"
        ]
    there = [(first, second, source) for first, second, source in pairs if first in scored and second in scored]
    evaluation = read_evaluation(runs[0])
    if not several and evaluation is not None and evaluation.verdicts and evaluation.items == len(clusters):
        written = evaluation.verdicts
        return [
            CandidatePair(first, second, written[f"{first}-{second}"])
            for first, second, _ in there
            if f"{first}-{second}" in written
        ]
    paired: dict[tuple[str, str], Mapping[str, PairedComparison]] = {}
    for margin in dict.fromkeys(source.spec.evaluation.margin for _, _, source in there):
        family = {f"{first}\n{second}": (scored[second], scored[first]) for first, second, _ in there}
        by_pair = compare_family(family, margin, clusters)
        paired |= {
            (first, second): by_pair[f"{first}\n{second}"]
            for first, second, source in there
            if source.spec.evaluation.margin == margin
        }
    return [CandidatePair(first, second, paired[first, second]) for first, second, _ in there]


def _prompt_text(messages: Sequence[Mapping[str, str]]) -> str:
    return "\n\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in messages)


def _rows(items: Sequence[Item], graded: Mapping[str, Sequence[ShownCompletion]]) -> tuple[ItemRow, ...]:
    slices = slice_values(items)
    return tuple(
        _row(
            item,
            [completions[index] for completions in graded.values()],
            {name: values[index] for name, values in slices.items()},
        )
        for index, item in enumerate(items if graded else [])
    )


def _row(item: Item, completions: Sequence[ShownCompletion], slices: Mapping[str, str]) -> ItemRow:
    return ItemRow(
        slices=slices,
        line=item.line,
        prompt=tuple((message.role, message.text) for message in item.prompt),
        reference=str(item.fields.get("reference", "")),
        completions=tuple(completions),
    )


def _kept_notes(run: Run) -> list[str]:
    """The evaluation's notes, and the state of a run that is not done."""
    state = run.state()
    notes = [] if state.state == "succeeded" else [f"the run is {state.state} ({state.stage})."]
    evaluation = read_evaluation(run)
    return notes + (evaluation.notes if evaluation else [])
