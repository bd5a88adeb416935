"""The proof that a replacement is not worse: `ftbridge migrate prove MODEL RUN`.

    recording ─▶ items that the run was not trained on ─▶ its completions ─▶ measures ─▶ paired verdict, noise floor ─▶ page
                                                          │ only what is missing │ what a judge replied is kept

It works from the recording alone: no request goes to the old service, so it works after the shutdown. The verdict is that of
`evaluation/verdict.py`, with the recorded model first and the replacement second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import files, providers
from ftbridge.errors import UsageError
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item as Question
from ftbridge.evaluation.score import check
from ftbridge.graders.judge_keys import check_judges
from ftbridge.migrate.agreement import measures
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.loading import load_inventory
from ftbridge.migrate.measuring import Measured, Scored, measured_of, scores_of
from ftbridge.migrate.questions import (
    DRAWN,
    RECORDED,
    REPLACEMENT,
    chosen_items,
    completed,
    gradable,
    question_of,
    readable,
    recorded_predictions,
)
from ftbridge.migrate.record import find_model
from ftbridge.migrate.recording import GREEDY, Recording, require_recording
from ftbridge.runs.run import Run
from ftbridge.spec.graders import Grader, PairwiseGrader

MARGIN = 0.05
_MOST_SHOWN = 30
FEW = 50
"""Below this many items a proof says how little they can tell."""


class ProofWish(BaseModel):
    """What to prove. `margin` is how much worse still counts as not worse; `judge` is a model that says which is better."""

    model_config = ConfigDict(frozen=True)

    model: str
    margin: float = MARGIN
    judge: PairwiseGrader | None = None
    limit: int | None = None
    max_completion_tokens: int | None = None
    batch_size: int = 16


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


def prove(migration: Migration, wish: ProofWish, run: Run, *, progress: Progress = lambda done, total: None) -> Proof:
    """Compare a run's model with a recorded one, and write `proof.json` beside what it was made from.

    Called again, only completions that are missing are asked for. Raises `UsageError` for a run without a model, for an empty
    recording, and when the run was trained on every recorded item; what the provider's sampler and judges raise.
    """
    name = _name(migration, wish.model)
    recording = require_recording(migration, name)
    state = run.state()
    if state.tuned is None:
        raise UsageError(f"{run.id} has no tuned model: it is {state.state}.", hint=f"ftbridge resume {run.id}")
    backend = providers.load(state.provider)
    with migration.working(f"proving {run.id}"):
        folder = migration.folder("proofs", name, run.id)
        test = _test_of(recording, run, wish, is_hosted=backend.capabilities(run.spec()).hosted)
        completions = completed(
            backend,
            run,
            state.tuned,
            [*test.questions, *test.refused],
            recording,
            folder,
            max_completion_tokens=wish.max_completion_tokens,
            batch_size=wish.batch_size,
            progress=progress,
        )
        proof = _proof(name, run, wish, recording, test, completions, folder)
        files.write_json(folder / "proof.json", proof.model_dump(mode="json"))
        migration.append("proved", model=name, run=run.id, ok=proof.ok, path=str(folder))
    return proof


def _proof(
    name: str,
    run: Run,
    wish: ProofWish,
    recording: Recording,
    test: _Test,
    completions: Sequence[Prediction],
    folder: Path,
) -> Proof:
    """The replacement's completions scored beside the recorded ones, and what decides between the two models."""
    state = run.state()
    assert state.tuned is not None
    by_key = {prediction.key: prediction for prediction in completions}
    predictions = recorded_predictions(test.questions, recording)
    predictions[REPLACEMENT] = [by_key[question.key] for question in test.questions]
    scored = scores_of(test.questions, predictions, test.graders, folder)
    measured = measured_of(test.questions, scored, test.graders, wish.margin, test.by_graders)
    decisive = [one for one in measured if one.decides]
    moments = [sample.created for sample in recording.samples.values() if sample.created is not None]
    return Proof(
        model=name,
        run=run.id,
        replacement=state.tuned.id,
        provider=state.provider,
        ok=bool(decisive) and all(_is_met(one) for one in decisive),
        verdict=decisive[0].words if decisive else "nothing decides",
        margin=wish.margin,
        items=len(test.questions),
        left_out=test.left_out,
        samples=recording.drawn,
        temperature=recording.settings.temperature if recording.settings else 0.0,
        by_graders=test.by_graders,
        measures=measured,
        worst=_shown(test.questions, predictions, scored, test.graders),
        refusals=[_refused(question, recording, by_key) for question in test.refused][:_MOST_SHOWN],
        notes=[*test.notes, *_notes(test.questions, recording, measured)],
        recorded_from=min(moments, default=None),
        recorded_to=max(moments, default=None),
        recording_sha256=files.sha256_file(recording.journal.path),
        train_sha256=state.train_sha256,
        made=time.time(),
    )


def _is_met(measured: Measured) -> bool:
    comparison = measured.judged
    return comparison is not None and comparison.margin_met is True and comparison.verdict != "undetermined"


class _Test(NamedTuple):
    """What is completed and scored: the questions, those whose recorded completion is a refusal, and what scores them."""

    questions: list[Question]
    refused: list[Question]
    left_out: dict[str, int]
    graders: list[Grader]
    by_graders: bool
    notes: list[str]


def _test_of(recording: Recording, run: Run, wish: ProofWish, *, is_hosted: bool) -> _Test:
    """The recorded items that the run was not trained on, with the spec's graders, or measures of agreement without them."""
    items, refusals, left_out = chosen_items(recording, run, wish.limit)
    if not is_hosted:
        items, refusals, left_out = readable(items, refusals, left_out)
    numbered = [question_of(index, item, recording) for index, item in enumerate((*items, *refusals))]
    questions, refused = numbered[: len(items)], numbered[len(items) :]
    by_graders = "graders" in run.spec().evaluation.model_fields_set
    notes: list[str] = []
    if by_graders:
        graders = list(run.spec().evaluation.graders)
        questions, notes = gradable(questions, graders)
        check_judges(run.spec())
        if wish.judge is not None:
            notes.append("The spec has graders, so no request was made to the judge.")
    else:
        graders = measures(questions, wish.judge)
    check(questions, graders)
    return _Test(questions, refused, left_out, graders, by_graders, notes)


def folder_of(migration: Migration, proof: Proof) -> Path:
    """Where a proof's files are."""
    return migration.folder("proofs", proof.model, proof.run)


def _name(migration: Migration, model: str) -> str:
    """The recorded model that is meant; its recording alone is enough where the inventory is gone."""
    if Recording.of(migration, model).begun:
        return model
    return find_model(load_inventory(migration), model)[0]


def _shown(
    questions: Sequence[Question],
    predictions: Mapping[str, list[Prediction]],
    scored: Scored,
    graders: Sequence[Grader],
) -> list[Shown]:
    """The items on which the replacement falls most behind the recorded model."""
    drawn = [name for name in scored if name.startswith(DRAWN)]
    ranked = []
    for index, question in enumerate(questions):
        pairs: dict[str, tuple[float | None, float | None]] = {}
        fall = 0.0
        for grader in graders:
            first = scored[RECORDED][grader.name][index]
            second = scored[REPLACEMENT][grader.name][index]
            pairs[grader.name] = (first, second)
            fall += (first or 0.0) - (second or 0.0)
        text = Shown(
            origin=question.key,
            prompt=str(question.fields["prompt"]),
            recorded=predictions[RECORDED][index].output_text,
            again=list(dict.fromkeys(predictions[name][index].output_text for name in drawn)),
            replacement=predictions[REPLACEMENT][index].output_text,
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
        notes.append(
            f"{len(questions)} items are few: they detect a difference of {100 * seen:.0f} points 4 times in 5."
        )
    if not any(key[1] != GREEDY for key in recording.samples):
        notes.append(
            "Only greedy completions are recorded, so the model's agreement with itself is not known: record it again with "
            "--samples 3 while it answers."
        )
    formatted = sum("response_format" in item.request for item in recording.items)
    if formatted:
        notes.append(
            f"{formatted} requests ask for a response format. The replacement completed them without one; `ftbridge serve` "
            "makes it keep to the format, so it may do better there."
        )
    if not recording.so_far().finished:
        so_far = recording.so_far()
        notes.append(f"The recording is incomplete: {so_far.complete} of {so_far.items} items.")
    return notes
