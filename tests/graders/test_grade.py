"""What holds for every grader: results, errors by OpenAI's names, early checks, thresholds, variables."""

import pytest
from openai.types.fine_tuning.alpha import GraderRunResponse
from pydantic import TypeAdapter

from ftbridge.graders import (
    GraderError,
    GraderResult,
    check,
    grade,
    grade_all,
    openai_document,
    reads_answer,
    score,
    variables,
)
from ftbridge.graders.result import Metadata
from ftbridge.spec.graders import Grader, ScoreModelGrader

TEMPLATES = {"input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
CHECK = {"type": "string_check", "name": "exact", "operation": "eq", **TEMPLATES}
MULTI = {"type": "multi", "name": "m", "graders": {"exact": CHECK}, "calculate_output": "4 * exact - 2"}


def _grader(**document):
    return TypeAdapter(Grader).validate_python({**CHECK, **document} if "type" not in document else document)


ONE_OF_EACH = {
    "string_check": CHECK,
    "text_similarity": {"type": "text_similarity", "name": "s", "evaluation_metric": "bleu", **TEMPLATES},
    "score_model": {"type": "score_model", "name": "q", "model": "m", "input": [{"role": "system", "content": "Be fair."}, {"role": "user", "content": ["{{item.reference}}", {"type": "input_text", "text": "{{sample.output_text}}"}]}]},
    "label_model": {"type": "label_model", "name": "l", "model": "m", "labels": ["a"], "passing_labels": ["a"], "input": [{"role": "user", "content": {"type": "input_text", "text": "{{item.reference}} {{sample.output_text}}"}}]},
    "json_fields": {"type": "json_fields", "name": "f"},
    "multi": MULTI,
}  # fmt: skip


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_the_variables_of_every_type_are_told(kind):
    assert variables(_grader(**ONE_OF_EACH[kind])) == {"item.reference", "sample.output_text"}


def test_variables_of_other_types():
    assert variables(_grader(type="tool_calls", name="t")) == {"item.reference", "sample.output_tools"}
    assert variables(_grader(type="json_schema", name="j", json_schema={})) == {"sample.output_text"}
    assert variables(_grader(type="python", name="p", source="def grade(sample, item): return item['x']")) == set()


@pytest.mark.parametrize(
    ("templates", "output", "error", "says"),
    [
        (
            {"reference": "{{item.label}}"},
            "x",
            "invalid_variable_error",
            "{{ item.label }} is not there: item has the keys reference",
        ),
        ({"input": "{{sample.output_json.a}}"}, "x", "sample_parse_error", "the completion is not JSON"),
        (
            {"input": "{{sample.output_json.a}}"},
            '{"b": 1}',
            "invalid_variable_error",
            "sample.output_json has the keys b",
        ),
        (
            {"input": "{{sample.output_tools[0].function.name}}"},
            "x",
            "invalid_variable_error",
            "sample.output_tools has 0 elements",
        ),
        ({}, None, "sample_parse_error", "the completion has neither text nor tool calls"),
        ({}, 7, "sample_parse_error", "the completion is int, not text"),
    ],
)
def test_what_an_answer_lacks_is_told_by_openais_name_with_reward_0(templates, output, error, says):
    result = grade(_grader(**templates), {"reference": "x"}, {"output_text": output})
    assert (result.reward, result.passed) == (0, False)
    assert list(result.errors) == [error]
    assert says in result.errors[error]


@pytest.mark.parametrize(
    ("template", "output", "value"),
    [
        ("{{ sample.output_json.tags[1] }}", '{"tags": ["a", "b"]}', "b"),
        ("{{sample.output_json}}", "[1,  2]", "[1, 2]"),
        ("{{ sample.output_tools[0].function.name }}", '{"name": "find", "arguments": {}}', "find"),
        ("{{ sample.choices[0].message.content }}", "x", "x"),
        ("{{ sample.choices[0].finish_reason }}", "x", "stop"),
    ],
)
def test_templates_reach_every_part_of_a_sample(template, output, value):
    result = grade(_grader(input=template), {"reference": value}, {"output_text": output})
    assert (result.reward, result.errors) == (1, {})


def test_an_early_check_finds_what_grading_would_find():
    check(_grader(), {"reference": "Paris"})
    check(_grader(input="{{sample.output_json.a}}"), {"reference": "Paris"})  # the answer may have it
    for templates in (
        {"reference": "{{item.label}}"},
        {"input": "{{sample.output}}"},
        {"input": "{{ sample.output_text"},
    ):
        with pytest.raises(GraderError, match="grader exact: "):
            check(_grader(**templates), {"reference": "Paris"})


def test_a_template_that_cannot_be_read_stops_grading():
    with pytest.raises(GraderError, match="opens a variable and never closes it"):
        grade(_grader(input="{{ sample.output_text"), {"reference": "x"}, {"output_text": "x"})


def test_answers_nested_too_deeply_are_errors_not_crashes():
    deep = "[" * 900 + "]" * 900
    for _ in range(4):
        deep = deep.replace("[]", deep)
    result = grade(_grader(type="json_fields", name="f", fields=["[0]"]), {"reference": deep}, {"output_text": deep})
    assert result.reward in (0, 1)


def test_many_answers_are_graded_in_order():
    pairs = [({"reference": "a"}, {"output_text": text}) for text in "abacab"]
    assert [result.reward for result in grade_all(_grader(), pairs)] == [1, 0, 1, 0, 1, 0]


def test_a_grader_that_never_looks_at_the_answer_is_known():
    assert reads_answer(_grader())
    assert reads_answer(_grader(type="python", name="p", source="def grade(sample, item): return 1"))
    assert reads_answer(_grader(**MULTI))
    assert not reads_answer(_grader(input="{{item.reference}}"))


def _result(reward, **more):
    return GraderResult(name="g", type="t", reward=reward, passed=None, **more)


@pytest.mark.parametrize(("reward", "expected"), [(-2, 0), (0.4, 0.4), (2, 1)])
def test_what_lies_outside_0_to_1_is_clipped_for_statistics(reward, expected):
    assert score(_grader(**MULTI), _result(reward)) == expected


def test_scores_of_a_range_become_0_to_1_and_what_could_not_be_graded_is_0():
    judge = ScoreModelGrader.model_validate({**ONE_OF_EACH["score_model"], "range": [-1.0, 3.0]})
    assert [score(judge, _result(reward)) for reward in (-1.0, 1.0, 3.0)] == [0, 0.5, 1]
    assert score(judge, _result(0.0, errors={"model_grader_parse_error": "?"})) == 0


def test_a_result_has_the_shape_of_openais_graders_run():
    item = {"reference": "x"}
    for grader, output in ((_grader(), "x"), (_grader(**MULTI), "y"), (_grader(reference="{{item.no}}"), "x")):
        result = grade(grader, item, {"output_text": output})
        document = openai_document(result)
        parsed = GraderRunResponse.model_validate(document)
        assert (parsed.reward, parsed.metadata.name, parsed.metadata.type) == (result.reward, grader.name, grader.type)
        assert parsed.metadata.errors.invalid_variable_error is ("invalid_variable_error" in result.errors)
        assert len(document["metadata"]["errors"]) == 14
    assert document["sub_rewards"] == {}
    assert openai_document(grade(_grader(**MULTI), item, {"output_text": "x"}))["sub_rewards"] == {"exact": 1.0}


def test_times_are_told():
    assert 0 <= grade(_grader(), {"reference": "x"}, {"output_text": "x"}).metadata.execution_time < 5
    assert Metadata().calls == []
