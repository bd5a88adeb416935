"""The string_check grader, and dispatch and early checks over graders."""

import pytest

from ftbridge.graders import GraderError, check, reads_answer, score
from ftbridge.spec import StringCheckGrader


def _grader(operation="eq", input="{{sample.output_text}}", reference="{{item.reference}}"):
    return StringCheckGrader(type="string_check", name="exact", operation=operation, input=input, reference=reference)


@pytest.mark.parametrize(
    ("operation", "output", "reference", "expected"),
    [
        ("eq", "Paris", "Paris", 1),
        ("eq", "paris", "Paris", 0),
        ("eq", "Paris ", "Paris", 0),
        ("eq", "\nParis", "Paris", 0),
        ("eq", "", "", 1),
        ("eq", "caf\u00e9", "cafe\u0301", 0),
        ("ne", "Paris", "Paris", 0),
        ("ne", "paris", "Paris", 1),
        ("like", "It is Paris.", "Paris", 1),
        ("like", "It is paris.", "Paris", 0),
        ("like", "Par", "Paris", 0),
        ("like", "50% of _", "%", 1),
        ("like", "anything", "", 1),
        ("ilike", "It is PARIS.", "Paris", 1),
        ("ilike", "STRASSE", "straße", 1),
        ("ilike", "Par", "Paris", 0),
    ],
)
def test_operations_compare_letter_by_letter(operation, output, reference, expected):
    assert score(_grader(operation), {"reference": reference}, {"output_text": output}) == expected


def test_values_that_are_not_text_are_compared_as_json():
    grader = _grader(reference="{{item.order}}")
    assert score(grader, {"order": {"id": 7, "open": True}}, {"output_text": '{"id": 7, "open": true}'}) == 1
    assert score(grader, {"order": 7}, {"output_text": "7"}) == 1
    assert score(grader, {"order": 7}, {"output_text": "7.0"}) == 0


def test_a_check_before_answers_finds_what_scoring_would_find():
    check(_grader(), {"reference": "Paris"})
    for grader in (_grader(reference="{{item.label}}"), _grader(input="{{sample.output_json.a}}")):
        with pytest.raises(GraderError) as early:
            check(grader, {"reference": "Paris"})
        with pytest.raises(GraderError) as late:
            score(grader, {"reference": "Paris"}, {"output_text": "Paris"})
        assert str(early.value) == str(late.value)


def test_a_grader_that_never_looks_at_the_answer_is_known():
    assert reads_answer(_grader())
    assert reads_answer(_grader(input="{{item.reference}}", reference="{{ sample.output_text }}"))
    assert not reads_answer(_grader(input="{{item.reference}}"))
