"""Slips in JSON are named for what they are, and mended only where one thing alone can be meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbridge.data.json_slips import repaired_text
from ftbridge.data.lint.engine import Options, lint
from ftbridge.data.lint.fix import fix
from support.lint_inputs import json_values

GOOD = {"messages": [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": 'Yes: "lots", it\'s wet.'}]}
TEXT = json.dumps(GOOD)


@pytest.mark.parametrize(
    ("text", "value", "named"),
    [
        # Word processors
        ("{“a”: “He said “hi” to me”, “b”: [1, 2]}", {"a": "He said “hi” to me", "b": [1, 2]}, "typographic quotes"),
        ("{„a“: „b“}", {"a": "b"}, "typographic quotes"),
        ("{‘a’: ‘it’s’}", {"a": "it’s"}, "typographic quotes"),
        ("{“a”: “the \\”end\\””}", None, "typographic quotes"),
        ("{“a”: “5\" wide”}", {"a": '5" wide'}, "typographic quotes"),
        ('{"a":\u00a01}', {"a": 1}, "no-break space"),
        # Commas
        ('{"a": 1},', {"a": 1}, "comma after the object"),
        ('{"a": 1,}', {"a": 1}, "comma after the last element"),
        ('{"a": [1, 2, ], "b": {"c": 3,},},', {"a": [1, 2], "b": {"c": 3}}, "comma after the last element"),
        # Python
        ("{'a': True, 'b': None, 'c': [False]}", {"a": True, "b": None, "c": [False]}, "Python"),
        ("{'a': \"it's\", 'b': 'say \"x\"'}", {"a": "it's", "b": 'say "x"'}, "Python"),
        ("{'a': 'it\\'s', 'b': '\\xe9\\U0001F600'}", {"a": "it's", "b": "é😀"}, "Python"),
        ('{"a": True}', {"a": True}, "Python"),
        # JavaScript and configuration files
        ("{a: 1, $b: 2, c_d: null}", {"a": 1, "$b": 2, "c_d": None}, "keys without quotes"),
        ('{"a": 1} // one', {"a": 1}, "comment"),
        ('{"a": /* one */ 1, # two', None, "comment"),
        ('{"a": "http://x # y", /* z */ "b": "/* no */"}', {"a": "http://x # y", "b": "/* no */"}, "comment"),
        ('{"a": "x\ty"}', {"a": "x\ty"}, "control character"),
        # What a person has to decide
        ("{'a': nan}", None, "nan"),
        ('{"a": undefined}', None, "undefined"),
        ("{'a': 'It's'}", None, "Python"),
        ("{'a': ('b', 'c')}", None, "Python"),
        ("# a note", None, "comment"),
    ],
)  # fmt: skip
def test_a_slip_has_its_name_and_the_json_that_was_meant(text: str, value: object, named: str) -> None:
    fixed = repaired_text(text)

    assert fixed is not None
    assert any(named in slip.what for slip in fixed.slips)
    assert all(0 <= slip.start <= len(text) for slip in fixed.slips)
    assert (fixed.text and json.loads(fixed.text)) == value


@pytest.mark.parametrize(
    "text", ["", "hello there", "a,b,c", '{"a": 1} {"b": 2}', '{"a" 1}', '{"a": 01}', "{", '{"a": 1;}', "[[[" * 99]
)
def test_what_is_no_known_slip_is_not_guessed_at(text: str) -> None:
    fixed = repaired_text(text)

    assert fixed is None or fixed.text is None


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_what_python_prints_is_read_as_the_value_it_prints(value: object) -> None:
    text = repr({"value": value})
    fixed = repaired_text(text)

    if "inf" not in text and "nan" not in text:
        assert fixed is not None
        assert fixed.text is not None
        assert json.loads(fixed.text) == {"value": value}


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="{}[]:,\"'“”\\ \nab1#/*-.eTN\t", max_size=40))
def test_whatever_is_mended_is_json(text: str) -> None:
    fixed = repaired_text(text)

    if fixed is not None and fixed.text is not None:
        json.loads(fixed.text)


def test_a_long_line_of_half_a_slip_takes_no_time() -> None:
    for text in (
        "{“a”: “" + "” " * 200_000,
        "{'" * 200_000,
        "/*" * 200_000,
        '{"a": "' + '\\"' * 200_000,
        "{a:" * 100_000,
    ):
        assert repaired_text(text) is None or repaired_text(text).text is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("slipped", "code"),
    [
        (TEXT + ",", "FTB012"),
        (TEXT + "  // checked", "FTB012"),
        (TEXT[:-1] + ",}", "FTB010"),
        (repr(GOOD), "FTB010"),
        (TEXT.replace('"role"', "role"), "FTB010"),
        (TEXT.replace('{"role"', "{ “role”"), "FTB010"),
    ],
)
def test_lint_promises_what_fix_does(slipped: str, code: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(f"{TEXT}\n{slipped}\n", encoding="utf-8")
    [finding] = lint(source, Options(select=("FTB01",))).files[0].findings
    report = fix(str(source), out, Options())

    assert (finding.code, finding.line) == (code, 2)
    assert finding.fix
    assert report.rules == {code: 1}
    assert report.changed == 1
    assert [json.loads(line) for line in out.read_text().splitlines()] == [GOOD, GOOD]


def test_what_a_person_has_to_decide_stays_as_it_is(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [TEXT[:-1] + ', "score": NaN}', TEXT[:-1] + ', "score": undefined}', "# chats of May", f'{TEXT} {{"a"']
    source.write_text("".join(f"{line}\n" for line in lines))
    report = fix(str(source), out, Options())

    assert out.read_text() == source.read_text()
    assert report.rules == {}
    assert report.left.files[0].errors >= len(lines)
    assert not any(finding.fix for finding in report.left.files[0].findings)


def test_examples_with_commas_between_them_on_one_line_become_lines(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(f"{TEXT}, {TEXT},{TEXT},\n")
    fix(str(source), out, Options())

    assert out.read_text() == f"{TEXT}\n" * 3
