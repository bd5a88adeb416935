"""What a proof compares: recorded items as questions, and both models' completions of them. Asks the replacement alone.

recording ─▶ items the run was not trained on, and can read ─▶ questions ─▶ the run's completions, kept as they come
└─▶ the recorded ones as predictions beside them
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ftbridge.data.examples import Message
from ftbridge.data.tokens import count_texts
from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.evaluation.candidates import Candidate, plain
from ftbridge.evaluation.generate import Prediction, generate
from ftbridge.evaluation.items import Item as Question
from ftbridge.evaluation.items import reference
from ftbridge.evaluation.score import check
from ftbridge.migrate.items import RecordedItem, trained_prompts
from ftbridge.migrate.recording import GREEDY, Recording, Sample
from ftbridge.providers.base import Provider, TunedModel
from ftbridge.runs.run import Run
from ftbridge.spec.graders import Grader
from ftbridge.spec.lowering import Lowering
from ftbridge.spec.problems import first_problem

REPLACEMENT, RECORDED, DRAWN = "replacement", "recorded", "recorded again"
"""Candidates of a proof; each further completion of the recorded model is one, `recorded again N`."""
_LEAST_TOKENS, _ROOM = 64, 1.5
"""The replacement may write so much more than the longest recorded completion."""


def chosen_items(
    recording: Recording, run: Run, limit: int | None
) -> tuple[list[RecordedItem], list[RecordedItem], dict[str, int]]:
    """The items to compare on, those that the recorded model refused, and how many are left out and why."""
    training_prompts = trained_prompts([run.data / "train.jsonl"])
    items: list[RecordedItem] = []
    refusals: list[RecordedItem] = []
    left_out = {"not recorded": 0, "the service declined the request": 0, "the run was trained on them": 0}
    for item in recording.items:
        greedy = recording.samples.get((item.key, GREEDY))
        if greedy is None:
            left_out["not recorded"] += 1
        elif greedy.outcome == "declined":
            left_out["the service declined the request"] += 1
        elif item.prompt in training_prompts:
            left_out["the run was trained on them"] += 1
        elif greedy.outcome == "completion":
            items.append(item)
        else:
            refusals.append(item)
    if not items:
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise UsageError(
            f"no recorded item is left for the proof ({counts or f'{len(refusals)} refusals'}).",
            hint="Record items that were not trained on: ftbridge migrate record MODEL --items FILE",
        )
    if limit is not None and len(items) > limit:
        left_out["beyond --limit"] = len(items) - limit
        items = items[:limit]
    return items, refusals, {reason: count for reason, count in left_out.items() if count}


def readable(
    items: list[RecordedItem], refusals: list[RecordedItem], left_out: dict[str, int]
) -> tuple[list[RecordedItem], list[RecordedItem], dict[str, int]]:
    """The items without those that hold images or sound, which models of this machine do not read."""
    readable_items = [item for item in items if _is_text(item)]
    lost = (
        {"contain input that local models cannot read": len(items) - len(readable_items)}
        if len(readable_items) < len(items)
        else {}
    )
    if not readable_items:
        raise UsageError("every recorded item contains images or audio, which local models cannot read.")
    return readable_items, [item for item in refusals if _is_text(item)], {**left_out, **lost}


def _is_text(item: RecordedItem) -> bool:
    contents = [message.get("content") for message in item.request["messages"]]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return all(isinstance(part, Mapping) and part.get("type") in ("text", "refusal") for part in parts)


def question_of(index: int, item: RecordedItem, recording: Recording) -> Question:
    """An item as evaluations have it; `fields` hold `recorded`, and `reference`: what was expected, else what was recorded."""
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
    return Question(key=item.key, index=index, prompt=messages, tools=tuple(tools), fields=fields, cluster=item.prompt)


def _message(document: Mapping[str, Any], item: RecordedItem) -> Message:
    try:
        return Message.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"{item.origin}: a message cannot be read: {first_problem(error)}.") from None


def text_of(sample: Sample) -> str:
    """A sample as text that measures compare: its text, or the JSON of its calls; what a refusal says."""
    if sample.tool_calls:
        return reference(Message.model_validate({"role": "assistant", "tool_calls": sample.tool_calls}))
    return sample.text or sample.refusal or ""


def gradable(questions: list[Question], graders: Sequence[Grader]) -> tuple[list[Question], list[str]]:
    """The questions whose fields the graders can read: stored prompts have no fields of their own."""
    usable = []
    for question in questions:
        try:
            check([question], graders)
        except FtbridgeError:
            continue
        usable.append(question)
    if not usable:
        check(questions, graders)  # raises what is wrong with the first
    lost = len(questions) - len(usable)
    return usable, [f"{lost} items have no field that the spec's graders read, and are left out."] if lost else []


def completed(
    backend: Provider,
    run: Run,
    tuned: TunedModel,
    questions: Sequence[Question],
    recording: Recording,
    folder: Path,
    *,
    max_completion_tokens: int | None,
    batch_size: int,
    progress: Callable[[int, int], None],
) -> list[Prediction]:
    """The replacement's completions, of which only those that are not kept yet are asked for."""
    longest = max((text_of(sample) for sample in recording.samples.values()), key=len, default="")
    most = max_completion_tokens or max(_LEAST_TOKENS, math.ceil(sum(count_texts([longest])) * _ROOM))
    lowering = Lowering.model_validate_json(run.lowering_path.read_text(encoding="utf-8"))
    sampler = backend.sampler(lowering, tuned, run.path)
    try:
        return generate(
            Candidate(REPLACEMENT, plain),
            questions,
            sampler,
            folder / f"{REPLACEMENT}.jsonl",
            max_tokens=most,
            batch_size=batch_size,
            on_progress=progress,
        )
    finally:
        sampler.close()


def recorded_predictions(questions: Sequence[Question], recording: Recording) -> dict[str, list[Prediction]]:
    """The recorded completions as predictions: the greedy ones, and each further one; where one is missing, the greedy one."""
    complete = [
        number
        for number in range(1, recording.drawn + 1)
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
