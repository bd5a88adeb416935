"""A finding's field is found in the raw line, character by character."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbridge.data.lint.locate import locate

LINE = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null, "weight": 0.5}]}'


@pytest.mark.parametrize(
    ("field", "piece", "exact"),
    [
        ("messages[1].content", "null", True),
        ("messages[1].weight", "0.5", True),
        ("messages[0].role", '"user"', True),
        ("messages[0]", '{"role": "user", "content": "Hi"}', True),
        ("messages[1].tool_calls", '{"role": "assistant", "content": null, "weight": 0.5}', False),
        ("messages[7].content", LINE[len('{"messages": ') : -1], False),
        ("tools", LINE, False),
    ],
)
def test_a_field_is_found_and_a_missing_one_is_what_it_is_missing_from(field: str, piece: str, exact: bool):
    where = locate(LINE, field)
    assert LINE[where.start : where.end] == piece
    assert where.exact is exact


@pytest.mark.parametrize(
    ("raw", "span", "piece"),
    [
        (r"ab\ncd", (3, 5), "cd"),
        (r"\u00e9t\u00e9", (0, 1), r"\u00e9"),
        (r"\ud83d\ude00 x", (2, 3), "x"),
        (r"a\"b\\c", (1, 4), r"\"b\\"),
        ("日本語", (1, 2), "本"),
        (r"end", (3, 3), ""),
    ],
)
def test_a_span_counts_decoded_characters(raw: str, span: tuple[int, int], piece: str):
    line = f'{{"a": "{raw}"}}'
    where = locate(line, "a", span)
    assert line[where.start : where.end] == piece


@given(text=st.text(max_size=40), ascii_only=st.booleans(), data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_span_of_any_text_is_found_however_it_is_escaped(text: str, ascii_only: bool, data: st.DataObject):
    text = text.encode("utf-8", "replace").decode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    line = json.dumps({"x": [0, {"y": text}]}, ensure_ascii=ascii_only)
    where = locate(line, "x[1].y", (start, end))
    assert json.loads(f'"{line[where.start : where.end]}"') == text[start:end]


@given(line=st.text(max_size=60), field=st.sampled_from(["messages[0].content", "a", "a.b[3]", ""]))
@settings(max_examples=300, deadline=None)
def test_no_line_makes_it_raise(line: str, field: str):
    where = locate(line, field, (2, 5))
    assert 0 <= where.start <= where.end <= max(len(line), where.end)


@pytest.mark.parametrize("deep", ["[" * 50_000, '{"a":' * 50_000])
def test_deep_nesting_is_the_whole_line(deep: Any):
    assert locate(deep, "a[0]").start == 0
