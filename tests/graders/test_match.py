"""The match grader: named normalisation, several references, numbers, extraction."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from ftbridge.graders import GraderError, Uninformative, check, grade
from ftbridge.graders.match import number_in
from ftbridge.spec.graders import Grader

ADAPTER = TypeAdapter(Grader)


def result(text, reference="Paris", item=None, **options):
    grader = ADAPTER.validate_python({"type": "match", "name": "m", **options})
    return grade(grader, {"reference": reference, **(item or {})}, {"output_text": text})


@pytest.mark.parametrize(
    ("text", "reference", "options", "reward"),
    [
        (" Paris\n", "Paris", {}, 1),
        (" Paris\n", "Paris", {"strip": False}, 0),
        ("paris", "Paris", {}, 0),
        ("PARIS", "Paris", {"ignore_case": True}, 1),
        ("STRASSE", "straße", {"ignore_case": True}, 1),
        ("New\n  York", "New York", {}, 0),
        ("New\n  York", "New York", {"collapse_spaces": True}, 1),
        ("ﬁne", "fine", {"unicode": "NFKC"}, 1),
        ("ﬁne", "fine", {"unicode": "NFC"}, 0),
        ("cafe\u0301", "café", {"unicode": "NFC"}, 1),
        ("It is Paris, I think.", "Paris", {"compare": "contains"}, 1),
        ("Label: refund because", "refund", {"extract": r"Label:\s*(\w+)"}, 1),
        ("Label: refund because", "Label: refund", {"extract": r"Label:\s*\w+"}, 1),
        ("refund", "refund", {"extract": r"Label:\s*(\w+)"}, 0),
    ],
)
def test_texts_are_compared_as_the_options_say_and_no_further(text, reference, options, reward):
    outcome = result(text, reference, **options)
    assert not outcome.errors
    assert outcome.reward == reward


@pytest.mark.parametrize(
    ("text", "reference", "options", "reward"),
    [
        ("The total is 1,200.", "1200", {}, 1),
        ("12 * 100 = 1,200.00 dollars", "1200", {}, 1),
        ("It is -7", "7", {}, 0),
        ("\u22127", "-7", {}, 1),
        ("15-8 makes 7", "7", {}, 1),
        ("15-8", "-8", {}, 0),
        ("version v7", "7", {}, 0),
        ("3.14159", "3.14", {}, 0),
        ("3.14159", "3.14", {"tolerance": 0.01}, 1),
        ("101", "100", {"relative_tolerance": 0.01}, 1),
        ("102", "100", {"relative_tolerance": 0.01}, 0),
        ("-101", "-100", {"relative_tolerance": 0.01}, 1),
        ("7 of 9", "7", {}, 0),
        ("7 of 9", "7", {"number": "first"}, 1),
        ("7 of 9", "9", {"number": "only"}, 0),
        (" $7.50 ", "7.5", {"number": "only"}, 1),
        ("42.", "42", {"number": "only"}, 1),
        ("Das macht 1.234,50 €.", "1234,5", {"decimal_comma": True}, 1),
        ("Das macht 1.234,50 €.", "1234.5", {"decimal_comma": True}, 1),
        ("1.200", "1200", {"decimal_comma": True}, 1),
        ("1.200", "1200", {}, 0),
        ("2.5e-3", "0.0025", {}, 1),
        ("no number", "7", {}, 0),
        ("1.2.3", "3", {}, 0),
        ("so <answer>42</answer> not 43", "42", {"extract": "<answer>(.*?)</answer>"}, 1),
    ],
)
def test_numbers_compare_as_numbers(text, reference, options, reward):
    outcome = result(text, reference, compare="number", **options)
    assert not outcome.errors
    assert outcome.reward == reward


def test_one_of_several_references_is_enough():
    many = {"references": ["Paris", "City of Light"], "also": "Lutetia", "years": [1, 2.5]}
    assert result("City of Light", item=many, reference="x").reward == 0
    assert _by("City of Light", many, "{{item.references}}").reward == 1
    assert _by("Lutetia", many, ["{{item.references}}", "{{item.also}}"]).reward == 1
    assert _by("Rome", many, ["{{item.references}}", "{{item.also}}"]).reward == 0
    assert _by("about 2.5", many, "{{item.years}}", compare="number").reward == 1
    listed = {"text": '["a", "b"]'}
    assert _by("a", listed, "{{item.text}}").reward == 0
    assert _by('["a", "b"]', listed, "{{item.text}}").reward == 1


def _by(text, item, reference, **options):
    grader = ADAPTER.validate_python({"type": "match", "name": "m", "reference": reference, **options})
    return grade(grader, {"reference": "unused", **item}, {"output_text": text})


def test_a_reference_that_cannot_be_matched_is_an_error_and_not_a_zero():
    for outcome in (
        result("7", "seven", compare="number"),
        result("7", "", compare="contains"),
        _by("7", {"references": []}, "{{item.references}}"),
    ):
        assert "other_error" in outcome.errors


def test_what_cannot_work_is_refused_before_anything_is_asked():
    def refused(reference="7", **options):
        grader = ADAPTER.validate_python({"type": "match", "name": "m", **options})
        with pytest.raises(GraderError) as outcome:
            check(grader, {"reference": reference})
        return outcome.value

    assert "regular expression" in refused(extract="(").message
    assert "needs compare: number" in refused(tolerance=1.0).message
    assert isinstance(refused(reference="seven", compare="number"), Uninformative)
    with pytest.raises(ValidationError):
        ADAPTER.validate_python({"type": "match", "name": "m", "tolerance": -1.0})


def test_json_is_taken_out_of_the_only_fence_when_that_is_allowed():
    fenced = 'Here:\n```json\n{"a": 1}\n```\nDone.'
    fields = {"type": "json_fields", "name": "f"}
    schema = {"type": "json_schema", "name": "s", "json_schema": {"type": "object", "required": ["a"]}}
    for document in (fields, schema):
        strict, loose = (ADAPTER.validate_python({**document, "fenced": allowed}) for allowed in (False, True))
        item = {"reference": '{"a": 1}'}
        assert grade(strict, item, {"output_text": fenced}).reward == 0
        assert grade(loose, item, {"output_text": fenced}).reward == 1
        assert grade(loose, item, {"output_text": '~~~\n{"a": 1}\n~~~'}).reward == 1
        assert grade(loose, item, {"output_text": '{"a": 1}'}).reward == 1
        assert grade(loose, item, {"output_text": fenced + "\n" + fenced}).reward == 0


@pytest.mark.parametrize(("text", "number"), [("", None), (".5", 0.5), ("1\u202f000", 1000.0), ("a 12,34 b", None)])
def test_what_counts_as_a_number(text, number):
    assert number_in(text, "last") == number
