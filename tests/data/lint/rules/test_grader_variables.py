"""What graders read and items have."""

import json

import pytest

from support.rule_findings import chat, in_file, in_line

ITEM = {"messages": [{"role": "user", "content": "2+2?"}], "answer": {"value": 4, "steps": ["2+2", None]}, "tags": []}


def _in_item(item, *variables, method="reinforcement", role="train"):
    return in_line(json.dumps(item).encode(), "FTB095", method=method, role=role, variables=variables)


@pytest.mark.parametrize("variable", ["item.answer", "item.answer.value", "item.answer.steps[0]", "item.answer.steps[1]", "item.tags",
                                      "sample.output_text", "item"])  # fmt: skip
def test_a_variable_that_is_there_is_left_alone(variable):
    assert _in_item(ITEM, variable) == []


@pytest.mark.parametrize(
    ("variable", "field", "instead"),
    [
        ("item.reference", "reference", "the item has the keys answer, tags"),
        ("item.answer.unit", "answer.unit", "answer has the keys value, steps"),
        ("item.answer.value.x", "answer.value.x", "answer.value is a number and has no keys"),
        ("item.answer.steps[2]", "answer.steps[2]", "answer.steps has 2 elements, counted from 0"),
        ("item.answer[0]", "answer[0]", "answer is an object, not a list"),
        ("item.messages", "messages", "the item has the keys answer, tags"),
    ],
)
def test_a_variable_that_is_missing_is_told_with_what_is_there(variable, field, instead):
    [result] = _in_item(ITEM, variable, "item.answer")
    assert (result.field, result.severity) == (field, "error")
    assert result.message == f"is missing, but a grader reads {{{{ {variable} }}}}: {instead}."


def test_an_item_without_fields_says_so():
    [result] = _in_item({"messages": []}, "item.answer")
    assert "the item has no fields" in result.message


def test_without_graders_or_an_object_nothing_is_asked():
    assert _in_item(ITEM) == []
    assert _in_item([1], "item.x") == []


def test_supervised_data_is_asked_only_where_it_is_judged_and_has_its_answer_as_reference(tmp_path):
    assert _in_item(chat(), "item.topic", method="supervised", role="train") == []
    assert _in_item(chat(), "item.reference", method="supervised", role="test") == []
    [result] = _in_item(chat(), "item.topic", "item.reference", method="supervised", role="test")
    assert result.field == "topic"
    assert _in_item(chat(topic="x"), "item.topic", method="supervised", role="test") == []


def test_the_linter_hands_the_variables_of_a_job_to_every_line(tmp_path):
    documents = [ITEM, {**ITEM, "answer": {}}, ITEM]
    result = in_file(tmp_path, documents, "FTB095", method="reinforcement", variables=("item.answer.value",))
    assert [one.line for one in result] == [2]
