"""The proof that a replacement is not worse: `ftbridge migrate prove MODEL RUN`.

    recording ─▶ items that the run was not trained on ─▶ its completions ─▶ measures ─▶ paired verdict, noise floor ─▶ page
                                                          │ only what is missing │ what a judge replied is kept

It works from the recording alone: no request goes to the old service, so it works after the shutdown. The verdict is that of
`evaluation/verdict.py`, with the recorded model first and the replacement second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge import files, providers
from ftbridge.data.examples import Message
from ftbridge.data.tokens import count_texts
from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.evaluation.answering import Prediction, answer
from ftbridge.evaluation.candidates import Candidate, plain
from ftbridge.evaluation.evaluate import Grading, Score, check, results, score_of
from ftbridge.evaluation.grades import read_grades, write_grades
from ftbridge.evaluation.items import Item as Question
from ftbridge.evaluation.items import reference
from ftbridge.evaluation.missing import MaybeScores, known_score
from ftbridge.evaluation.verdict import Judged, judge_pairs
from ftbridge.evaluation.words import sentence
from ftbridge.grader_schema import Grader, PairwiseGrader
from ftbridge.graders import Calls
from ftbridge.graders.calls import FILE as CALLS_FILE
from ftbridge.graders.judge_keys import check_judges
from ftbridge.lowering import Lowering
from ftbridge.migrate.agreement import applies, deciding, measures
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.items import Item, trained_prompts
from ftbridge.migrate.loading import load_inventory
from ftbridge.migrate.record import find_model
from ftbridge.migrate.recording import GREEDY, Recording, Sample, require_recording
from ftbridge.providers.base import TunedModel
from ftbridge.runs.run import Run

MARGIN = 0.05
REPLACEMENT, RECORDED, DRAWN = "replacement", "recorded", "recorded again"
_MOST_SHOWN = 30
_LEAST_TOKENS, _ROOM = 64, 1.5
"""The replacement may write so much more than the longest recorded completion."""
FEW = 50
"""Below this many items a proof says how little they can tell."""


class Wish(BaseModel):
    """What to prove. `margin` is how much worse still counts as not worse; `judge` is a model that says which is better."""

    model_config = ConfigDict(frozen=True)

    model: str
    margin: float = MARGIN
    judge: PairwiseGrader | None = None
    limit: int | None = None
    max_completion_tokens: int | None = None
    batch_size: int = 16


class Measured(BaseModel):
    """One measure. `floor` is how well the recorded model does by its own greedy completions, None where nothing was drawn."""

    model_config = ConfigDict(frozen=True)

    name: str
    decides: bool
    replacement: Score
    recorded: Score | None = Field(description="The recorded model's own score; what the replacement is compared with.")
    noise: float | None = Field(
        description="Mean change of an item's score from one completion of the model to another."
    )
    judged: Judged | None
    words: str


class Shown(BaseModel):
    """One item with both completions."""

    model_config = ConfigDict(frozen=True)

    origin: str
    prompt: str
    recorded: str
    again: list[str]
    replacement: str
    scores: dict[str, tuple[float | None, float | None]] = Field(description="Recorded and replacement, by measure.")


class Proof(BaseModel):
    """What `ftbridge migrate prove --json` prints, and what its page shows."""

    model_config = ConfigDict(frozen=True)

    model: str
    run: str
    replacement: str
    provider: str
    ok: bool
    verdict: str
    margin: float
    items: int
    left_out: dict[str, int]
    samples: int
    temperature: float
    by_graders: bool = Field(description="Whether the spec's graders decide, and not agreement with the recording.")
    measures: list[Measured]
    worst: list[Shown]
    refusals: list[Shown]
    notes: list[str]
    recorded_from: float | None
    recorded_to: float | None
    recording_sha256: str
    train_sha256: str | None
    made: float


Progress = Callable[[int, int], None]


def prove(migration: Migration, wish: Wish, run: Run, *, progress: Progress = lambda done, total: None) -> Proof:
    """Compare a run's model with a recorded one, and write `proof.json` beside what it was made from.

    Called again, only completions that are missing are asked for. Raises `UsageError` for a run without a model, for an empty
    recording, and when the run was trained on every recorded item; what the provider's sampler and judges raise.
    """
    name = _name(migration, wish.model)
    recording = require_recording(migration, name)
    state = run.state()
    if state.tuned is None:
        raise UsageError(f"{run.id} has no tuned model: it is {state.state}.", hint=f"ftbridge resume {run.id}")
    with migration.working(f"proving {run.id}"):
        folder = migration.folder("proofs", name, run.id)
        items, refusals, left_out = _chosen(recording, run, wish.limit)
        by_graders = "graders" in run.spec().evaluation.model_fields_set
        questions = [_question(place, item, recording) for place, item in enumerate((*items, *refusals))]
        own, shown_only = questions[: len(items)], questions[len(items) :]
        graders: list[Grader] = list(run.spec().evaluation.graders) if by_graders else []
        notes: list[str] = []
        if by_graders:
            own, notes = _gradable(own, graders)
            check_judges(run.spec())
        graders = graders if by_graders else measures(own, wish.judge)
        if wish.judge is not None and by_graders:
            notes.append("The spec has graders, so the judge was not asked.")
        check(own, graders)
        told = _completed(run, state.tuned, questions, recording, folder, wish, progress)
        by_key = {prediction.key: prediction for prediction in told}
        predictions = _recorded(own, recording)
        predictions[REPLACEMENT] = [by_key[question.key] for question in own]
        scored = _scored(own, predictions, graders, folder)
        measured = _measured(own, scored, graders, wish.margin, by_graders)
        decisive = [one for one in measured if one.decides]
        ok = bool(decisive) and all(
            one.judged is not None and one.judged.margin_met and one.judged.verdict != "undetermined"
            for one in decisive
        )
        worst = _shown(own, predictions, scored, graders)
        moments = [sample.created for sample in recording.samples.values() if sample.created is not None]
        proof = Proof(
            model=name,
            run=run.id,
            replacement=state.tuned.id,
            provider=state.provider,
            ok=ok,
            verdict=decisive[0].words if decisive else "nothing decides",
            margin=wish.margin,
            items=len(own),
            left_out=left_out,
            samples=recording.settings.samples if recording.settings else 0,
            temperature=recording.settings.temperature if recording.settings else 0.0,
            by_graders=by_graders,
            measures=measured,
            worst=worst,
            refusals=[_refused(question, recording, by_key) for question in shown_only][:_MOST_SHOWN],
            notes=[*notes, *_notes(own, recording, measured)],
            recorded_from=min(moments, default=None),
            recorded_to=max(moments, default=None),
            recording_sha256=files.sha256_file(recording.journal.path),
            train_sha256=_digest(run),
            made=time.time(),
        )
        files.write_json(folder / "proof.json", proof.model_dump(mode="json"))
        migration.append("proved", model=name, run=run.id, ok=ok, path=str(folder))
    return proof


def folder_of(migration: Migration, proof: Proof) -> Path:
    """Where a proof's files are."""
    return migration.folder("proofs", proof.model, proof.run)


def _name(migration: Migration, model: str) -> str:
    """The recorded model that is meant; its recording alone is enough where the inventory is gone."""
    if Recording.of(migration, model).begun:
        return model
    return find_model(load_inventory(migration), model)[0]


def _chosen(recording: Recording, run: Run, limit: int | None) -> tuple[list[Item], list[Item], dict[str, int]]:
    """The items to compare on, those that the recorded model refused, and how many are left out and why."""
    trained = trained_prompts([run.data / "train.jsonl"])
    items: list[Item] = []
    refusals: list[Item] = []
    left_out = {"not recorded": 0, "the service declined the request": 0, "the run was trained on them": 0}
    for item in recording.items:
        greedy = recording.samples.get((item.key, GREEDY))
        if greedy is None:
            left_out["not recorded"] += 1
        elif greedy.outcome == "declined":
            left_out["the service declined the request"] += 1
        elif item.prompt in trained:
            left_out["the run was trained on them"] += 1
        elif greedy.outcome == "completion":
            items.append(item)
        else:
            refusals.append(item)
    if not items:
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise UsageError(
            f"no recorded item is left to prove anything with ({counts or f'{len(refusals)} refusals'}).",
            hint="Record items that were not trained on: ftbridge migrate record MODEL --items FILE",
        )
    if limit is not None and len(items) > limit:
        left_out["beyond --limit"] = len(items) - limit
        items = items[:limit]
    return items, refusals, {reason: count for reason, count in left_out.items() if count}


def _question(place: int, item: Item, recording: Recording) -> Question:
    messages = tuple(_message(message, item) for message in item.request["messages"])
    recorded = text_of(recording.samples[item.key, GREEDY])
    expected = reference(_message({"role": "assistant", **item.expected}, item)) if item.expected else recorded
    fields = {
        **item.fields,
        "reference": expected,
        "recorded": recorded,
        "prompt": messages[-1].text if messages else "",
    }
    tools = item.request.get("tools") or []
    return Question(key=item.key, index=place, prompt=messages, tools=tuple(tools), fields=fields, cluster=item.prompt)


def _message(document: Mapping[str, Any], item: Item) -> Message:
    try:
        return Message.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"{item.origin}: a message that cannot be read: {field}: {problem['msg']}.") from None


def text_of(sample: Sample) -> str:
    """A sample as text that measures compare: its text, or the JSON of its calls; what a refusal says."""
    if sample.tool_calls:
        return reference(Message.model_validate({"role": "assistant", "tool_calls": sample.tool_calls}))
    return sample.text or sample.refusal or ""


def _gradable(questions: list[Question], graders: Sequence[Grader]) -> tuple[list[Question], list[str]]:
    """The questions whose fields the graders can read: stored prompts have no fields of their own."""
    kept = []
    for question in questions:
        try:
            check([question], graders)
        except FtbridgeError:
            continue
        kept.append(question)
    if not kept:
        check(questions, graders)  # raises what is wrong with the first
    lost = len(questions) - len(kept)
    return kept, [f"{lost} items have no field that the spec's graders read, and are left out."] if lost else []


def _completed(
    run: Run,
    tuned: TunedModel,
    questions: Sequence[Question],
    recording: Recording,
    folder: Path,
    wish: Wish,
    progress: Progress,
) -> list[Prediction]:
    """The replacement's completions, of which only those that are not kept yet are asked for."""
    longest = max((text_of(sample) for sample in recording.samples.values()), key=len, default="")
    most = wish.max_completion_tokens or max(_LEAST_TOKENS, math.ceil(sum(count_texts([longest])) * _ROOM))
    lowering = Lowering.model_validate_json(run.lowering_path.read_text(encoding="utf-8"))
    sampler = providers.load(run.state().provider).sampler(lowering, tuned, run.path)
    try:
        return answer(
            Candidate(REPLACEMENT, plain),
            questions,
            sampler,
            folder / f"{REPLACEMENT}.jsonl",
            max_tokens=most,
            batch_size=wish.batch_size,
            on_progress=progress,
        )
    finally:
        sampler.close()


def _recorded(questions: Sequence[Question], recording: Recording) -> dict[str, list[Prediction]]:
    """The recorded completions as predictions: the greedy ones, and each further one; where one is missing, the greedy one."""
    drawn = recording.settings.samples if recording.settings is not None else 0
    complete = [
        number
        for number in range(1, drawn + 1)
        if all((question.key, number) in recording.samples for question in questions)
    ]
    return {RECORDED: [_prediction(question, recording, GREEDY) for question in questions]} | {
        f"{DRAWN} {number}": [_prediction(question, recording, number) for question in questions] for number in complete
    }


def _prediction(question: Question, recording: Recording, number: int) -> Prediction:
    sample = recording.samples[question.key, number]
    return Prediction(
        key=question.key,
        index=question.index,
        prompt_sha256="",
        output_text=text_of(sample),
        finish_reason=sample.finish_reason or "stop",
        prompt_tokens=0,
        completion_tokens=0,
        seconds=sample.seconds,
        tool_calls=sample.tool_calls,
    )


Scored = dict[str, dict[str, list[float | None]]]
"""Scores by candidate and measure, in the order of the questions."""


def _scored(
    questions: Sequence[Question], predictions: Mapping[str, list[Prediction]], graders: Sequence[Grader], folder: Path
) -> Scored:
    """Every score; what judges replied is kept in the proof's folder, so that none is asked, or paid, again."""
    kept = read_grades([folder / "grades.jsonl"])
    try:
        graded = results(questions, predictions, graders, kept, Grading(Calls(folder / CALLS_FILE)))
    finally:
        write_grades(folder / "grades.jsonl", kept)
    scored: Scored = {}
    for name, by in graded.items():
        scored[name] = {
            grader.name: [
                known_score(grader, result) if applies(grader.name, str(question.fields["recorded"])) else None
                for question, result in zip(questions, by[grader.name], strict=True)
            ]
            for grader in graders
        }
    return scored


def _measured(
    questions: Sequence[Question], scored: Scored, graders: Sequence[Grader], margin: float, by_graders: bool
) -> list[Measured]:
    clusters = [question.cluster for question in questions]
    drawn = [name for name in scored if name.startswith(DRAWN)]
    own = {
        grader.name: scored[RECORDED][grader.name]
        if by_graders
        else _means([scored[name][grader.name] for name in drawn])
        if drawn
        else None
        for grader in graders
    }
    agreement = {
        name: (sum(known) / len(known) if (known := [value for value in values or () if value is not None]) else None)
        for name, values in own.items()
    }
    names = [grader.name for grader in graders]
    decisive = set(names) if by_graders else {deciding(names, agreement)}
    found = []
    for name in names:
        values, baseline = scored[REPLACEMENT][name], own[name]
        places = [place for place, question in enumerate(questions) if applies(name, str(question.fields["recorded"]))]
        here, names_here = [values[place] for place in places], [clusters[place] for place in places]
        there = [baseline[place] for place in places] if baseline is not None else None
        judged = judge_pairs({name: there}, {name: here}, margin, names_here)[name] if there else None
        noise = _noise([scored[RECORDED][name], *(scored[each][name] for each in drawn)]) if by_graders else None
        if not by_graders and agreement[name] is not None:
            noise = 1 - (agreement[name] or 0.0)
        found.append(
            Measured(
                name=name,
                decides=name in decisive,
                replacement=score_of(here, names_here),
                recorded=score_of(there, names_here) if there is not None else None,
                noise=noise,
                judged=judged,
                words=_words(name, judged, by_graders),
            )
        )
    return sorted(found, key=lambda one: not one.decides)


def _words(name: str, judged: Judged | None, by_graders: bool) -> str:
    if judged is None:
        return f"{name}: how well the recorded model agrees with itself is not known, so nothing can be said."
    baseline = "the recorded model" if by_graders else "the recorded model with itself"
    text = sentence(name, judged, candidate="the replacement", baseline=baseline)
    return text[:1].upper() + text[1:]


def _means(columns: Sequence[MaybeScores]) -> list[float | None]:
    """The mean of several scores of each item; None where any is missing."""
    return [
        None if any(value is None for value in row) else sum(value for value in row if value is not None) / len(row)
        for row in zip(*columns, strict=True)
    ]


def _noise(columns: Sequence[MaybeScores]) -> float | None:
    """Mean absolute change of an item's score from the greedy completion to another of the same model."""
    first, *others = columns
    changes = [
        abs(a - b) for other in others for a, b in zip(first, other, strict=True) if a is not None and b is not None
    ]
    return sum(changes) / len(changes) if changes else None


def _shown(
    questions: Sequence[Question],
    predictions: Mapping[str, list[Prediction]],
    scored: Scored,
    graders: Sequence[Grader],
) -> list[Shown]:
    """The items on which the replacement falls most behind the recorded model."""
    drawn = [name for name in scored if name.startswith(DRAWN)]
    ranked = []
    for place, question in enumerate(questions):
        pairs: dict[str, tuple[float | None, float | None]] = {}
        fall = 0.0
        for grader in graders:
            first = scored[RECORDED][grader.name][place]
            second = scored[REPLACEMENT][grader.name][place]
            pairs[grader.name] = (first, second)
            fall += (first or 0.0) - (second or 0.0)
        text = Shown(
            origin=question.key,
            prompt=str(question.fields["prompt"]),
            recorded=predictions[RECORDED][place].output_text,
            again=list(dict.fromkeys(predictions[name][place].output_text for name in drawn)),
            replacement=predictions[REPLACEMENT][place].output_text,
            scores=pairs,
        )
        if fall > 0:
            ranked.append((fall, text))
    return [text for _, text in sorted(ranked, key=lambda pair: -pair[0])[:_MOST_SHOWN]]


def _refused(question: Question, recording: Recording, by_key: Mapping[str, Prediction]) -> Shown:
    sample = recording.samples[question.key, GREEDY]
    return Shown(
        origin=question.key,
        prompt=str(question.fields["prompt"]),
        recorded=sample.refusal or sample.reason or "",
        again=[],
        replacement=by_key[question.key].output_text,
        scores={},
    )


def _notes(questions: Sequence[Question], recording: Recording, measured: Sequence[Measured]) -> list[str]:
    notes = []
    if len(questions) < FEW:
        seen = next((one.judged.detectable for one in measured if one.decides and one.judged is not None), 1.0)
        notes.append(f"{len(questions)} items are few: they show a difference of {100 * seen:.0f} points 4 times in 5.")
    if not any(key[1] != GREEDY for key in recording.samples):
        notes.append(
            "Only greedy completions are recorded, so the model's agreement with itself is not known: record it again with "
            "--samples 3 while it answers."
        )
    if not recording.so_far().finished:
        so_far = recording.so_far()
        notes.append(f"The recording is incomplete: {so_far.complete} of {so_far.items} items.")
    return notes


def _digest(run: Run) -> str | None:
    train = run.state().split("train")
    return train.sha256 if train is not None else None
