"""What is known of a grader before any completion exists: items on which it can tell nothing."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.score import check as check_items
from ftbridge.evaluation.score import judge
from ftbridge.graders import GraderError, Uninformative, check, remarks
from ftbridge.spec.graders import Grader

SIMILAR = {"type": "text_similarity", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
CHECK = {"type": "string_check", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
ORDER = {"type": "object", "required": ["order"], "properties": {"order": {"type": "integer"}}}


def grader(**fields: Any) -> Grader:
    parsed: Grader = TypeAdapter(Grader).validate_python({"name": "g", **fields})
    return parsed


def items(*references: str) -> list[Item]:
    return [
        Item(key=f"k{n}", index=n, prompt=(), tools=(), fields={"reference": reference})
        for n, reference in enumerate(references)
    ]


BLIND = [
    ({"type": "json_fields", "fields": ["ordr"]}, '{"order": 1}', "no field ordr"),
    ({"type": "json_fields", "fields": ["order.id"]}, '{"order": 1}', "no field order.id"),
    ({"type": "json_fields"}, "refund", "not JSON"),
    ({"type": "json_fields"}, "[1]", "not a JSON object"),
    ({"type": "json_schema", "json_schema": ORDER}, '{"order": "1"}', "breaks the schema"),
    ({"type": "json_schema", "json_schema": ORDER}, "refund", "breaks the schema"),
    ({"type": "json_schema", "json_schema": ORDER}, "{}", "'order' is a required property"),
    ({**CHECK, "operation": "like"}, "", "every completion contains an empty text"),
    ({**CHECK, "operation": "ilike"}, "", "every completion contains an empty text"),
    ({**CHECK, "operation": "like", "reference": "{{item.none}}"}, "x", "every completion contains an empty text"),
    ({**SIMILAR, "evaluation_metric": "rouge_2"}, "refund", "runs of 2 words, and the reference has 1 word"),
    ({**SIMILAR, "evaluation_metric": "rouge_4"}, "give it back", "runs of 4 words, and the reference has 3 words"),
    ({**SIMILAR, "evaluation_metric": "rouge_l"}, "退款成功", "sees only a-z and 0-9"),
    ({**SIMILAR, "evaluation_metric": "rouge_1"}, "Возврат 5", "which are 1 of 8"),
    ({**SIMILAR, "evaluation_metric": "bleu"}, " ", "its reference is empty"),
    ({**SIMILAR, "evaluation_metric": "rouge_l"}, "👍", "compares words, and the reference has 0 words"),
    ({**SIMILAR, "evaluation_metric": "rouge_3", "tokenizer": "unicode"}, "退款", "runs of 3 words, and the reference has 2"),
    ({**CHECK, "operation": "like"}, " \n", "almost every completion has a space"),
    ({"type": "match", "compare": "contains"}, "  ", "every completion contains an empty text"),
    ({"type": "match", "compare": "number"}, "about 12", "is not a number"),
    ({"type": "match", "reference": "{{item.several}}"}, "x", "has no reference to match"),
    ({"type": "pairwise", "model": "m", "question": "q", "base_url": "http://127.0.0.1:9/v1"}, "", "compared with is empty"),
    (
        {"type": "pairwise", "model": "m", "question": "q", "base_url": "http://127.0.0.1:9/v1", "against": "{{sample.output_text}}"},
        "x",
        "compares the completion with itself",
    ),
    (
        {"type": "label_model", "model": "m", "labels": ["a", "b"], "passing_labels": ["b", "a"],
         "base_url": "http://127.0.0.1:9/v1", "input": [{"role": "user", "content": "{{sample.output_text}}"}]},
        "x",
        "every label passes",
    ),
    ({"type": "multi", "graders": {"a": {**CHECK, "name": "a", "operation": "eq"}}, "calculate_output": "1"}, "x", "names none"),
    (
        {"type": "multi", "graders": {"a": {**CHECK, "name": "a", "operation": "eq"}}, "calculate_output": "log(-1 - a)"},
        "x",
        "has no result for any rewards",
    ),
    ({"type": "tool_calls"}, '[{"name": "f", "arguments": {}}, {"city": "Rome"}]', "not a tool call"),
    (
        {"type": "multi", "graders": {"a": {"type": "json_fields", "name": "a", "fields": ["ordr"]}}, "calculate_output": "a"},
        '{"order": 1}',
        "no field ordr",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "reference", "says"), BLIND)
def test_an_item_that_tells_nothing_is_named_before_anything_is_asked(fields, reference, says):
    with pytest.raises(Uninformative) as refused:
        check(grader(**fields), {"reference": reference, "none": "", "several": []})
    assert says in refused.value.message


SIGHTED = [
    ({"type": "json_fields", "fields": ["order"]}, '{"order": 1, "more": 2}'),
    ({"type": "json_schema", "json_schema": ORDER}, '{"order": 1}'),
    ({**CHECK, "operation": "eq"}, ""),
    ({**CHECK, "operation": "ne"}, "x"),
    ({**CHECK, "operation": "like", "reference": "{{item.must_not}}"}, "refund"),
    ({**SIMILAR, "evaluation_metric": "rouge_2"}, "two words"),
    ({**SIMILAR, "evaluation_metric": "rouge_1"}, "naïve café über"),
    ({**SIMILAR, "evaluation_metric": "fuzzy_match"}, "退款成功"),
    ({**SIMILAR, "evaluation_metric": "rouge_2", "tokenizer": "unicode"}, "退款成功"),
    ({"type": "json_fields", "fields": ["order"], "fenced": True}, '```json\n{"order": 1}\n```'),
    ({"type": "match", "compare": "equal"}, ""),
    ({"type": "multi", "graders": {"a": {**CHECK, "name": "a", "operation": "eq"}}, "calculate_output": "1 / a"}, "x"),
    ({"type": "tool_calls"}, "prose calls nothing"),
    ({"type": "tool_calls"}, '{"answer": 5}'),
    ({"type": "json_fields", "input": "{{sample.output_text}}", "reference": "{{item.labels}}"}, "prose"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "reference"), SIGHTED)
def test_an_item_that_tells_something_passes(fields, reference):
    check(grader(**fields), {"reference": reference, "must_not": "sorry", "labels": {"a": 1}})


def test_a_grader_that_tells_nothing_on_any_item_stops_an_evaluation():
    with pytest.raises(GraderError, match=r"test example 1: .*no field ordr(.|\n)*applies to all 3 test examples"):
        check_items(
            items('{"order": 1}', '{"order": 2}', '{"order": 3}'), [grader(type="json_fields", fields=["ordr"])]
        )


def test_some_items_that_tell_nothing_are_a_note():
    some = items("two words", "refund", "three words here")
    rouge = grader(**SIMILAR, evaluation_metric="rouge_2")
    check_items(some, [rouge])
    completions = [
        Prediction(key=item.key, index=item.index, prompt_sha256="", output_text="two words", finish_reason="stop",
                   prompt_tokens=1, completion_tokens=1)
        for item in some
    ]  # fmt: skip
    notes = judge(some, {"base": completions}, [rouge]).notes
    assert any("1 of 3 items carry no information, the first in line 2" in note for note in notes)


@pytest.mark.parametrize(
    ("metric", "references", "says"),
    [
        ("rouge_1", ("Größe XL über", "weiß"), "letters in the references are others; tokenizer: unicode sees them"),
        ("bleu", ("退款成功", "发货"), "a sentence counts as one word"),
        ("meteor", ("สวัสดีครับ",), "a sentence counts as one word"),
        ("rouge_1", ("plain words", "naive"), None),
        ("bleu", ("Возврат денег",), None),
        ("fuzzy_match", ("退款成功",), None),
    ],
)
def test_a_measure_that_sees_a_script_badly_is_a_note(metric, references, says):
    message = remarks(grader(**SIMILAR, evaluation_metric=metric), [item.fields for item in items(*references)])
    assert ([says in message[0]] == [True]) if says else message == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return item['labels'] == 1", "KeyError"),
        ("return None", "not a number"),
        ("raise ValueError('x')", "ValueError: x"),
    ],
)
def test_python_source_that_cannot_grade_the_reference_stops_an_evaluation(body, says, monkeypatch):
    monkeypatch.setenv("FTBRIDGE_ALLOW_PYTHON_GRADERS", "g")
    source = grader(type="python", source=f"def grade(sample, item):\n    {body}")
    with pytest.raises(GraderError, match=says):
        check_items(items("a", "b"), [source])
