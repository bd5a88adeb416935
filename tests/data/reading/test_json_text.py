"""Arrays read through a window are told as if they were in memory: the same elements, lines and columns, wherever it ends."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbridge.data.reading import json_text
from ftbridge.data.reading.json_text import Unreadable, read_array, read_lines


@pytest.fixture(params=[1, 2, 7, 1 << 20])
def block(request, monkeypatch):
    """How much is read at once; the smallest put the window's end into every token."""
    monkeypatch.setattr(json_text, "_BLOCK", request.param)


def outcome(content, read=read_array):
    listing = list(read(io.BytesIO(content)))
    return [(line, str(document) if isinstance(document, Unreadable) else document) for line, document in listing]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    elements=st.lists(values, max_size=6),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    size=st.integers(1, 9),
)
def test_any_array_gives_its_elements_with_the_lines_they_begin_on(elements, indent, ascii_only, size):
    text = json.dumps(elements, indent=indent, ensure_ascii=ascii_only)
    content = text.encode("utf-8", "surrogatepass")
    if b"\xed" in content:
        return  # a lone surrogate is not UTF-8
    stored, json_text._BLOCK = json_text._BLOCK, size
    try:
        result = outcome(content)
    finally:
        json_text._BLOCK = stored
    assert [document for _, document in result] == elements
    if indent:
        starts = [
            line for line, shown in enumerate(text.split("\n"), 1) if shown.startswith(" ") and shown[1] not in " ]}"
        ]
        assert [line for line, _ in result] == starts


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b'[{"a": 1},\n {"b" 2}]',
            (2, "is not valid JSON at column 7: expecting ':' delimiter. The rest of the file was not read."),
        ),
        (
            b'[{"a": 1}\n, {"b": tru}]',
            (2, "is not valid JSON at column 9: expecting value. The rest of the file was not read."),
        ),
        (
            b'[{"a": 1},\n\n {"b": "cd',
            (3, "is not valid JSON at column 8: unterminated string starting at. The text ends"),
        ),
        (b'[{"a": 1},\n', (2, "is not valid JSON at column 1: expecting value. The text ends there")),
        (b'[{"a": 1},\n]', (1, "is not valid JSON: a comma before the end of the array.")),
        (b'[{"a": 1}]\n x', (2, "continues after the end of the JSON array.")),
        (b'[{"a": 1},\n {"b": "\xe9"}]', (2, "is not UTF-8 at byte 9 (0xe9).")),
        (b'[{"a": 1},\n {"b": {"c": 1, "c": 2}}]', (2, 'has the key "c" twice in one object')),
        (b'[{"a": 1},\n -Infinity]', (2, "holds -Infinity")),
    ],
)
def test_what_is_wrong_is_told_at_its_place_after_what_is_right(content, problem):
    result = outcome(content)
    assert result[0] == (1, {"a": 1})
    assert len(result) == 2
    assert result[1][0] == problem[0]
    assert result[1][1].startswith(problem[1])


@pytest.mark.usefixtures("block")
def test_an_element_that_no_example_may_hold_does_not_spoil_the_next():
    assert [line for line, _ in outcome(b'[{"a": 1, "a": 2},\n{"b": NaN},\n{"c": 3}]')] == [1, 2, 3]


def test_a_line_that_is_too_long_is_passed_over(monkeypatch):
    monkeypatch.setattr(json_text, "LONGEST", 1 << 20)
    content = b'{"a": "' + b"x" * (3 << 20) + b'"}\n{"b": 1}\n'
    assert outcome(content, read_lines) == [(1, "is longer than 1 MB."), (2, {"b": 1})]
    (problem,) = outcome(b"[" + content.split(b"\n")[0] + b"]")
    assert problem == (1, "begins an element that is longer than 1 MB.")


def test_broken_json_at_the_start_of_a_large_array_is_told_without_reading_it_all():
    stream = io.BytesIO(b'[{"a" 1},' + b'{"b": 1},' * 1_000_000)
    assert len(list(read_array(stream))) == 1
    assert stream.tell() <= 2 << 20
