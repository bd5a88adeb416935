"""One line of bytes becomes a value or the trouble that stands in the way; nothing raises."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbridge.strict_json import DEEPEST, Parsed, Trouble, parse
from support.lint_inputs import damaged, json_values

TROUBLES = {
    b'{"a": 1,}': ("json", 9),
    b'{"a": 1} {}': ("extra", 10),
    b'{"a": "\xe9"}': ("utf8", 8),
    b'{"a": NaN}': ("constant", 7),
    b'{"a": -Infinity}': ("constant", 7),
    b'{"a": 1e999}': ("constant", 7),
    b"9" * 5_000: ("number", 1),
    b"[" * 100_000: ("deep", 1),
    b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1): ("deep", 1),
    b'\xef\xbb\xbf{"a": 1}': ("json", 1),
    b'{"a": "\t"}': ("json", 8),
}


@pytest.mark.parametrize(("raw", "expected"), TROUBLES.items(), ids=range(len(TROUBLES)))
def test_trouble_has_its_kind_and_its_column(raw, expected):
    trouble = parse(raw)
    assert isinstance(trouble, Trouble)
    assert (trouble.kind, trouble.column) == expected


def test_only_a_line_without_a_line_feed_is_cut():
    assert parse(b'{"a": [1', ends_with_newline=False).kind == "cut"
    assert parse(b'{"a": [1', ends_with_newline=True).kind == "json"
    assert parse(b'{"a": 1,}', ends_with_newline=False).kind == "json"


def test_keys_that_stand_twice_are_told_with_whether_their_values_agree():
    assert parse(b'{"a": [1], "b": {"c": 1, "c": 2}, "a": [1]}').doubled == (("c", False), ("a", True))


def test_as_many_brackets_as_wanted_are_fine_side_by_side():
    assert isinstance(parse(b"[" + b"[], " * 1_000 + b'"[[[["]'), Parsed)
    assert isinstance(parse(b"[" * DEEPEST + b"]" * DEEPEST), Parsed)


@settings(max_examples=200, deadline=None)
@given(json_values.filter(lambda value: "Infinity" not in json.dumps(value)))
def test_what_python_writes_is_read_back(value):
    parsed = parse(json.dumps(value).encode())
    assert isinstance(parsed, Parsed)
    assert json.dumps(parsed.document) == json.dumps(value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | damaged())
def test_nothing_raises_and_columns_are_in_the_line(raw):
    parsed = parse(raw, ends_with_newline=False)
    assert isinstance(parsed, Parsed) or 1 <= parsed.column <= len(raw) + 1
