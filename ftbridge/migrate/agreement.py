"""How a replacement is measured against a recorded model: which measures, and which of them decides. Pure.

    graders in the spec ─▶ both models' scores                            first: the recorded model's greedy completions
    else, against the recorded greedy completion:                         first: its further completions, averaged
      structured   share of equal JSON fields, or of equal tool calls
      exact        the same text
      similarity   RapidFuzz's ratio of the texts
      judge        pairwise, in both orders (where a judge is named)

The further completions against the greedy one are how well the model agrees with itself: no replacement can be asked to agree
with it better than that. Which measure decides is settled by the recording alone, before the replacement is looked at: a judge
where one is named, else structure where most greedy completions have it, else the same text where the model itself mostly
repeats it (labels, short texts), else similarity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ftbridge.evaluation.items import Item as Question
from ftbridge.spec.graders import (
    Grader,
    JsonFieldsGrader,
    PairwiseGrader,
    StringCheckGrader,
    TextSimilarityGrader,
    ToolCallsGrader,
)

RECORDED = "{{item.recorded}}"
EXACT, FIELDS, CALLS, SIMILARITY, JUDGE = "exact", "structured", "tool_calls", "similarity", "judge"
MOSTLY = 0.5
QUESTION = (
    "Two models completed the same request, the last message of which is: {{item.prompt}}\n"
    "A good completion does what the request asks, correctly and in the form that it asks for."
)


def measures(questions: Sequence[Question], judge: PairwiseGrader | None) -> list[Grader]:
    """The measures that say something of these questions, whose fields hold `recorded`, the recorded greedy completion."""
    chosen: list[Grader] = []
    shapes = [shape_of(str(question.fields["recorded"])) for question in questions]
    if shapes.count("fields") > MOSTLY * len(shapes):
        chosen.append(JsonFieldsGrader(type="json_fields", name=FIELDS, reference=RECORDED))
    if shapes.count("calls") > MOSTLY * len(shapes):
        chosen.append(ToolCallsGrader(type="tool_calls", name=CALLS, reference=RECORDED))
    template = "{{sample.output_text}}"
    chosen.append(
        StringCheckGrader(type="string_check", name=EXACT, operation="eq", input=template, reference=RECORDED)
    )
    chosen.append(
        TextSimilarityGrader(
            type="text_similarity", name=SIMILARITY, input=template, reference=RECORDED, evaluation_metric="fuzzy_match"
        )
    )
    return [*chosen, judge] if judge is not None else chosen


def judge_of(model: str, base_url: str | None, question: str = QUESTION) -> PairwiseGrader:
    """A pairwise judge that asks which of two completions is better."""
    address = {"base_url": base_url} if base_url is not None else {}
    return PairwiseGrader(type="pairwise", name=JUDGE, model=model, question=question, against=RECORDED, **address)  # type: ignore[arg-type]


def deciding(names: Sequence[str], self_agreement: Mapping[str, float | None]) -> str:
    """The name of the measure that decides, by how well the model agrees with itself on each."""
    for name in (JUDGE, CALLS, FIELDS):
        if name in names:
            return name
    repeats = self_agreement.get(EXACT)
    return EXACT if repeats is not None and repeats >= MOSTLY else SIMILARITY


def applies(measure: str, recorded: str) -> bool:
    """Whether a measure says something of this recorded completion."""
    return {FIELDS: "fields", CALLS: "calls"}.get(measure) in (None, shape_of(recorded))


def shape_of(text: str) -> str:
    """`calls` for the JSON of tool calls, `fields` for a JSON object, `text` for anything else."""
    if not text.lstrip().startswith(("{", "[")):
        return "text"
    try:
        document = json.loads(text)
    except ValueError:
        return "text"
    if isinstance(document, dict):
        return "fields"
    return "calls" if _are_calls(document) else "text"


def _are_calls(document: Any) -> bool:
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(call, dict) and isinstance(call.get("function"), dict) for call in document)
    )
