"""The string_check grader."""

import pytest

from ftbridge.graders import grade
from ftbridge.spec.graders import StringCheckGrader


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
    result = grade(_grader(operation), {"reference": reference}, {"output_text": output})
    assert (result.reward, result.passed, result.errors) == (expected, expected == 1, {})


@pytest.mark.parametrize(
    ("order", "output", "expected"),
    [({"id": 7, "open": True}, '{"id": 7, "open": true}', 1), (7, "7", 1), (7, "7.0", 0)],
)
def test_values_that_are_not_text_are_compared_as_json(order, output, expected):
    assert grade(_grader(reference="{{item.order}}"), {"order": order}, {"output_text": output}).reward == expected
