"""The multi grader: rewards, formula, and errors of its parts."""

import pytest

from ftbridge.graders import GraderError, check, grade, variables
from ftbridge.spec.graders import MultiGrader

EXACT = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
}
CLOSE = {
    "type": "text_similarity",
    "name": "close",
    "evaluation_metric": "fuzzy_match",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
}
ITEM, SAMPLE = {"reference": "abcd"}, {"output_text": "abcx"}


def _grader(formula, **graders):
    document = {"type": "multi", "name": "both", "graders": graders or {"exact": EXACT, "close": CLOSE}}
    return MultiGrader.model_validate({**document, "calculate_output": formula})


def test_the_formula_combines_the_rewards_of_its_graders():
    result = grade(_grader("0.2 * exact + 0.8 * close"), ITEM, SAMPLE)
    assert result.reward == pytest.approx(0.6)
    assert result.sub_rewards == {"exact": 0.0, "close": 0.75}
    assert (result.passed, result.errors) == (None, {})


def test_a_grader_in_error_counts_as_0_and_is_told_under_its_name():
    lost = {**EXACT, "reference": "{{item.label}}"}
    result = grade(_grader("close + lost", lost=lost, close=CLOSE), ITEM, SAMPLE)
    assert result.reward == 0.75
    assert result.errors["invalid_variable_error"].startswith("lost: grader exact: {{ item.label }} is not there")


def test_errors_of_the_same_kind_are_all_told():
    parts = {key: {**EXACT, "reference": f"{{{{item.{key}}}}}"} for key in ("one", "two")}
    result = grade(_grader("one + two", **parts), ITEM, SAMPLE).errors["invalid_variable_error"]
    assert "one: " in result
    assert "; two: " in result


@pytest.mark.parametrize(("formula", "says"), [("1 / exact", "division by zero"), ("log(exact)", "no result for 0")])
def test_a_formula_without_a_result_is_an_error_with_reward_0(formula, says):
    result = grade(_grader(formula), ITEM, SAMPLE)
    assert result.reward == 0
    assert says in result.errors["other_error"]


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("exact +", "calculate_output cannot be read: the formula ends"),
        ("exact * (close", "is never closed"),
        ("exact + clse", "names clse, which is not one of its graders"),
    ],
)
def test_a_formula_that_cannot_be_read_is_refused_before_anything_is_spent(formula, says):
    for attempt in (lambda grader: check(grader, ITEM), lambda grader: grade(grader, ITEM, SAMPLE)):
        with pytest.raises(GraderError) as caught:
            attempt(_grader(formula))
        assert says in str(caught.value)


def test_a_grader_may_not_be_called_as_a_function_is():
    with pytest.raises(GraderError, match="min is a function"):
        check(_grader("1", min=EXACT), ITEM)


@pytest.mark.parametrize("key", ["a b", "1st", "a-b", ""])
def test_names_that_a_formula_cannot_write_are_refused(key):
    with pytest.raises(ValueError, match="String should match pattern"):
        _grader("1", **{key: EXACT})


def test_multi_graders_do_not_nest():
    inner = {"type": "multi", "name": "inner", "graders": {"exact": EXACT}, "calculate_output": "exact"}
    with pytest.raises(ValueError, match="'multi' found"):
        _grader("inner", inner=inner)


def test_it_passes_at_its_threshold():
    document = {
        "type": "multi",
        "name": "m",
        "graders": {"close": CLOSE},
        "calculate_output": "close",
        "pass_threshold": 0.75,
    }
    assert grade(MultiGrader.model_validate(document), ITEM, SAMPLE).passed is True


def test_its_variables_are_those_of_its_graders():
    parts = {"exact": {**EXACT, "reference": "{{item.a[0].b}}"}, "close": CLOSE}
    assert variables(_grader("exact", **parts)) == {"item.a[0].b", "item.reference", "sample.output_text"}
