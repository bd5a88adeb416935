"""What an item alone shows of a grader, before any completion exists or is paid for.

Three questions: can the expected completion itself be graded, can any completion score, and can any completion fail?

    preflight(grader, item)     raises `Uninformative` for an item on which the grader can tell nothing
    remarks(grader, items)      what it sees badly, though it can tell something
    graded_reference(...)       the result of the expected completion, graded as if a model had written it

Only graders that compare are looked at. A judge would have to be asked, and Python source would have to run; a Python grader
grades the first item's reference in `ftbridge.evaluation.score.check`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftbridge.errors import GraderError
from ftbridge.graders import match, multi, similarity, structured, tool_calls
from ftbridge.graders.result import Outcome
from ftbridge.graders.sample import BadSample, complete
from ftbridge.graders.template import VariableMissing, render, variables
from ftbridge.spec.graders import (
    Grader,
    JsonFieldsGrader,
    JsonSchemaGrader,
    LabelModelGrader,
    MatchGrader,
    MultiGrader,
    PairwiseGrader,
    PanelGrader,
    StringCheckGrader,
    TextSimilarityGrader,
    ToolCallsGrader,
    parts_of,
)


class Uninformative(GraderError):
    """On this item, the grader gives every completion the same score, or cannot grade the expected one."""


def preflight(grader: Grader, item: Mapping[str, Any]) -> None:
    """Raise `Uninformative` when the grader can tell nothing of any completion of this item; docs/graders.md has the list."""
    if why := _same_for_all_items(grader):
        raise Uninformative(f"grader {grader.name}: {why[0]}", hint=why[1])
    if isinstance(grader, (MultiGrader, PanelGrader)):
        for part in parts_of(grader):
            preflight(part, item)
        return
    if isinstance(grader, MatchGrader) and not _reads_sample(grader) and not match.references_of(grader, item, {}):
        raise Uninformative(f"grader {grader.name}: the item has no reference to match.", hint=_GIVE + ".")
    reference = _reference(grader, item)
    if reference is not None and (why := _same_for_all(grader, reference)):
        raise Uninformative(f"grader {grader.name}: {why[0]}", hint=why[1])
    if (outcome := graded_reference(grader, item)) is None:
        return
    if outcome.errors:
        raise Uninformative(
            f"grader {grader.name}: the expected completion itself cannot be graded: {next(iter(outcome.errors.values()))}.",
            hint="Change the grader or the item.",
        )
    if isinstance(grader, JsonSchemaGrader) and not outcome.reward:
        raise Uninformative(
            f"grader {grader.name}: the expected completion itself breaks the schema: {outcome.details.get('violation')}.",
            hint="Change json_schema, or the reference of this item.",
        )


def graded_reference(grader: Grader, item: Mapping[str, Any]) -> Outcome | None:
    """The expected completion graded as if a model had written it; None where the item has none, or the grader reads it not.

    `item["reference"]` is the expected completion. A grader is looked at only where its input is the completion and nothing
    else, and where it expects `item.reference` or parts of it: otherwise a low score of the reference says nothing.
    """
    text = item.get("reference")
    if not isinstance(text, str) or not text or not isinstance(grader, _COMPARING):
        return None
    if grader.input.strip("{} ") not in ("sample.output_text", "sample.output_json", "sample.output_tools"):
        return None
    expected = getattr(grader, "reference", "{{item.reference}}")
    templates = [expected] if isinstance(expected, str) else list(expected)
    if any(not name.startswith("item.reference") for template in templates for name in variables(template)):
        return None
    try:
        sample = complete({"output_text": text, **_tools(item)})
        match grader:
            case TextSimilarityGrader():
                return similarity.grade(grader, item, sample)
            case MatchGrader():
                return match.grade(grader, item, sample)
            case JsonSchemaGrader():
                return structured.grade_schema(grader, item, sample)
            case JsonFieldsGrader():
                return structured.grade_fields(grader, item, sample)
            case ToolCallsGrader():
                return tool_calls.grade(grader, item, sample)
    except (BadSample, VariableMissing, RecursionError):
        return None
    return None


_COMPARING = (TextSimilarityGrader, MatchGrader, JsonSchemaGrader, JsonFieldsGrader, ToolCallsGrader)


def _tools(item: Mapping[str, Any]) -> dict[str, Any]:
    calls = item.get("reference_tools")
    return {"output_tools": calls} if isinstance(calls, list) and calls else {}


def remarks(grader: Grader, items: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of the scores should know of the grader on these items, one sentence each."""
    if isinstance(grader, MultiGrader):
        return [remark for part in parts_of(grader) for remark in remarks(part, items)]
    if not isinstance(grader, TextSimilarityGrader):
        return []
    references = [text for item in items if (text := _reference(grader, item)) is not None]
    remark = similarity.remark(grader, references)
    return [] if remark is None else [remark]


def _reads_sample(grader: MatchGrader) -> bool:
    templates = [grader.reference] if isinstance(grader.reference, str) else grader.reference
    return any(name.startswith("sample") for template in templates for name in variables(template))


def _reference(grader: Grader, item: Mapping[str, Any]) -> str | None:
    """What completions are compared with, where the item alone decides it."""
    template = grader.against if isinstance(grader, PairwiseGrader) else getattr(grader, "reference", None)
    if not isinstance(template, str) or any(name.startswith("sample") for name in variables(template)):
        return None
    return render(template, item, {}, grader=grader.name)


def _same_for_all(grader: Grader, reference: str) -> tuple[str, str] | None:
    """Why every completion gets the same score against this reference, and what to do."""
    blank = not reference.strip()
    if isinstance(grader, StringCheckGrader) and grader.operation in ("like", "ilike") and blank:
        every = "every completion contains an empty text" if not reference else "almost every completion has a space"
        return f"its reference is {'empty' if not reference else 'white space'}, and {every}.", _GIVE + ", or use eq."
    if isinstance(grader, PairwiseGrader) and blank:
        return "the text that completions are compared with is empty.", _GIVE + ", or name another text in against."
    if isinstance(grader, MatchGrader) and grader.compare == "contains" and blank and grader.strip:
        return "its reference is empty, and every completion contains an empty text.", _GIVE + ", or use equal."
    if isinstance(grader, TextSimilarityGrader):
        metric = grader.evaluation_metric
        if blank:
            return f"its reference is empty, so {metric} is 0 for every completion.", _GIVE + "."
        if similarity.is_partly_blind(grader) and (blind := similarity.blind_to(reference)):
            return f"{metric} {blind}.", "Set tokenizer: unicode, which sees every script, or use fuzzy_match."
        words = len(similarity.rouge_words(reference, grader.tokenizer))
        if (needed := similarity.words_needed(metric)) > words:
            there = "1 word" if words == 1 else f"{words} words"
            runs = f"runs of {needed} words" if needed > 1 else "words"
            return f"{metric} compares {runs}, and the reference has {there}: it is 0 for every completion.", _fewer(
                words
            )
    return None


_GIVE = "Give the item a reference"


def _fewer(words: int) -> str:
    return "Use rouge_1, rouge_l or fuzzy_match." if words else "Use fuzzy_match, which compares characters."


def _same_for_all_items(grader: Grader) -> tuple[str, str] | None:
    """Why every completion of every item gets the same score, or none can be computed, and what to do."""
    if isinstance(grader, LabelModelGrader) and set(grader.labels) <= set(grader.passing_labels):
        return (
            "every label passes, so every completion scores 1.",
            "Leave those that should not pass out of passing_labels.",
        )
    if isinstance(grader, PairwiseGrader) and grader.answer == grader.against:
        return "it compares the completion with itself.", "Name another text in against, such as {{item.reference}}."
    if isinstance(grader, MultiGrader):
        return multi.same_for_all(grader)
    return None
