"""The fast path and the screens may cost time, never a finding: every line is judged as if every rule had looked at it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbridge.data.lint.plain import PlainShapes, plain
from ftbridge.strict_json import Parsed, parse
from support.lint_inputs import by_every_rule, checker_of, comparable, damaged, plain_chats, written

_CHECKERS = {method: checker_of(method) for method in ("supervised", "dpo", "reinforcement")}


@settings(max_examples=400, deadline=None)
@given(st.lists(damaged() | written(), max_size=6), st.sampled_from(sorted(_CHECKERS)), st.booleans())
def test_a_piece_is_judged_as_if_every_rule_had_looked_at_every_line(lines, method, ends_open):
    checker = _CHECKERS[method]
    lines = [line for line in lines if line or not ends_open]
    raw = b"\n".join(lines) + (b"" if ends_open else b"\n")

    block = checker.check(raw, first=False, last=True)

    assert comparable(block.findings) == by_every_rule(lines, checker, ends_open=ends_open)


@settings(max_examples=150, deadline=None)
@given(st.lists(written(plain_chats), min_size=1, max_size=5))
def test_a_plain_line_has_the_same_row_by_the_fast_and_the_slow_path(lines):
    raw = b"\n".join(lines)
    fast, slow = checker_of(rows=True), checker_of(rows=True)
    slow.shapes = PlainShapes(lambda sample: True)

    one, other = fast.check(raw, first=True, last=True), slow.check(raw, first=True, last=True)

    for name, column in vars(one.columns).items():
        np.testing.assert_array_equal(column, getattr(other.columns, name), name)
    assert one.tally == other.tally


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_what_the_fast_path_takes_is_json_with_every_key_once(line):
    if b"\\u00" not in line and plain(line, PlainShapes(lambda sample: False)):
        parsed = parse(line)
        assert isinstance(parsed, Parsed)
        assert not parsed.doubled


_HELLO = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": 'He said "role", \\ and "x".'}]
}


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\t", "  :")])
def test_plain_lines_take_the_fast_path_however_they_are_spaced(ensure_ascii, separators):
    line = json.dumps(_HELLO, ensure_ascii=ensure_ascii, separators=separators).encode()

    contents, shape = plain(line, _CHECKERS["supervised"].shapes)

    assert contents == ["Hi", 'He said "role", \\ and "x".']
    assert shape.roles == ("user", "assistant")
    assert shape.loss_mask == (False, True)


NOT_PLAIN = {
    "a role twice": '{"messages": [{"role": "user", "role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
    "a weight twice": '{"messages": [{"role": "assistant", "content": "b", "weight": 0, "weight": 1}]}',
    "messages twice": '{"messages": [], "messages": [{"role": "assistant", "content": "b"}]}',
    "a blank text": '{"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "b"}]}',
    "an unknown key": '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "x": 1}',
    "a weight that is true": '{"messages": [{"role": "assistant", "content": "b", "weight": true}]}',
    "two values": '{"messages": [{"role": "assistant", "content": "b"}]} {}',
    "parts": '{"messages": [{"role": "user", "content": []}, {"role": "assistant", "content": "b"}]}',
    "no answer": '{"messages": [{"role": "user", "content": "a"}]}',
}


@pytest.mark.parametrize("line", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_other_lines_are_left_to_every_rule(line):
    assert plain(line.encode(), _CHECKERS["supervised"].shapes) is None


def test_shapes_are_forgotten_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr("ftbridge.data.lint.plain._ROOM", 100)
    items = []
    shapes = PlainShapes(lambda sample: bool(items.append(sample)))
    for length in range(1, 60):
        messages = [{"role": "user", "content": "a"}] * length
        assert plain(json.dumps({"messages": messages}).encode(), shapes)
    assert len(items) == 59
    assert sum(map(len, shapes._known)) <= 100
