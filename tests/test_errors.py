"""Every error crosses a process as the error that it is."""

from __future__ import annotations

import json

import pytest

from ftbridge import errors
from ftbridge.errors import DataError, FtbridgeError, TrainingFailed, document, from_document
from ftbridge.graders.template import VariableMissing


def tree(kind: type[FtbridgeError]) -> list[type[FtbridgeError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


PUBLIC = sorted({kind.__name__ for kind in tree(FtbridgeError) if kind.__module__ == errors.__name__})


@pytest.mark.parametrize("name", PUBLIC)
def test_an_error_comes_back_as_the_same_class_with_the_same_words(name: str):
    error = getattr(errors, name)("It broke.", hint="Mend it.")
    back = from_document(json.loads(json.dumps(document(error))))
    assert (type(back), back.message, back.hint, back.exit_code) == (
        type(error),
        "It broke.",
        "Mend it.",
        error.exit_code,
    )


def test_the_problems_of_bad_data_come_back_too():
    back = from_document(json.loads(json.dumps(document(DataError("Two lines.", problems=["a:1 x", "a:2 y"])))))
    assert isinstance(back, DataError)
    assert back.problems == ("a:1 x", "a:2 y")


def test_a_class_that_stands_elsewhere_comes_back_as_the_one_above_it():
    back = from_document(document(VariableMissing("item.x is not there.", variable="item.x")))
    assert type(back) is errors.GraderError


def test_an_unknown_kind_is_a_failed_training():
    assert type(from_document({"kind": "of_tomorrow", "message": "m", "hint": None})) is TrainingFailed


def test_the_drawn_tree_is_the_real_one():
    drawn = (errors.__doc__ or "").splitlines()
    named = {word for line in drawn for word in line.split() if word in PUBLIC}
    assert named == set(PUBLIC)


def test_which_split_has_too_few_examples_crosses_processes():
    error = DataError("1 example is too few.", problems=["train.jsonl:1 is alone."], split="train", too_few=True)
    again = from_document(document(error))
    assert isinstance(again, DataError)
    assert (again.split, again.too_few, again.problems) == ("train", True, ("train.jsonl:1 is alone.",))
