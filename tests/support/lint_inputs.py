"""Lines and files of every kind that the linter's tests need: plain, nearly plain, and damaged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from ftbridge.data.lint.block import Checker, LintPlan
from ftbridge.data.lint.dataset import Found
from ftbridge.data.lint.rule import Context, Method, Problem, Rule, look
from ftbridge.data.lint.rules import RULES
from ftbridge.strict_json import Trouble, parse

OF_LINES = tuple(sorted(code for code, rule in RULES.items() if rule.kind in ("json", "line", "text")))
"""The rules that look at lines."""

WORDS = ["Hi", "", " ", "\t\n", 'say "role"', "\\", 'a\\"', "é", "日本", "😀", "\u2028", "\x00", "<|endoftext|>", "I am sorry",
         "sk-" + "a1B2" * 12, "me@mail.org", "4111 1111 1111 1111", "�", "\u200b", "As an AI", "role", '"', "x " * 50]  # fmt: skip
_text = st.one_of(st.sampled_from(WORDS), st.text(max_size=12))
_scalar = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(allow_nan=False), _text)
json_values = st.recursive(
    _scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3)
)

_plain_message = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": _text}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": _text}, optional={"weight": st.sampled_from([0, 1])}
    ),
)
_odd_message = st.fixed_dictionaries(
    {},
    optional={
        "role": st.one_of(st.sampled_from(["user", "assistant", "tool", "developer", "User"]), json_values),
        "content": st.one_of(_text, json_values),
        "weight": st.one_of(st.sampled_from([0, 1, 2, 1.0, True, None, "1"]), json_values),
        "name": _scalar, "tool_calls": json_values, "refusal": _scalar,
    },
)  # fmt: skip
_answer = st.fixed_dictionaries({"role": st.just("assistant"), "content": _text})
plain_chats = st.lists(_plain_message, max_size=3).flatmap(
    lambda before: _answer.map(lambda reply: {"messages": [*before, {"role": "user", "content": "Why?"}, reply]})
)
odd_documents = st.one_of(
    st.fixed_dictionaries(
        {"messages": st.one_of(st.lists(_plain_message | _odd_message, max_size=4), json_values)},
        optional={"tools": json_values, "weight": _scalar, "metadata": json_values},
    ),
    st.fixed_dictionaries(
        {
            "input": st.fixed_dictionaries({"messages": st.lists(_plain_message | _odd_message, max_size=2)})
            | json_values
        },
        optional={"preferred_output": st.lists(_odd_message, max_size=2), "non_preferred_output": json_values},
    ),
    json_values,
)


@st.composite
def written(draw: st.DrawFn, documents: st.SearchStrategy[Any] = plain_chats | odd_documents) -> bytes:
    """A document as some program writes it."""
    separators = draw(st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")]))
    text = json.dumps(draw(documents), ensure_ascii=draw(st.booleans()), separators=separators)
    return text.encode("utf-8", "replace")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A line that something happened to. There is no line feed in it."""
    line = draw(written())
    change = draw(st.integers(0, 11))
    at = draw(st.integers(0, len(line)))
    if change == 0:
        return line[:at]
    if change == 1:
        line = line[:at] + draw(st.binary(min_size=1, max_size=3)) + line[at:]
    elif change == 2:
        line = line[:at] + line[at + 1 :]
    elif change == 3:
        key = draw(
            st.sampled_from([b'"role": "user", ', b'"content": "again", ', b'"messages": [], ', b'"weight": 1, '])
        )
        line = line.replace(b"{", b"{" + key, draw(st.integers(1, 3)))
    elif change == 4:
        line = line.replace(b"e", b"\\u0065", 1 + at % 3)
    elif change == 5:
        line = line.replace(b'"', b"\\u0022", 1)
    elif change == 6:
        line += draw(written())
    elif change == 7:
        line = (
            draw(st.sampled_from([b"\xef\xbb\xbf", b" ", b"\t"])) + line + draw(st.sampled_from([b"\r", b" ", b"\x0c"]))
        )
    elif change == 8:
        line = line.replace(b": ", b" :\t").replace(b"}", b" }")
    elif change == 9:
        line = line.replace(b'"content": "', b'"content": "\\ud83d', 1)
    elif change == 10:
        line = draw(st.sampled_from([b"", b" ", b"\r", b"null", b"[" * 2_000, b"1e999", b"-", b"NaN", b"9" * 5_000]))
    return line.replace(b"\n", b"")


def checker_of(method: Method = "supervised", **plan: Any) -> Checker:
    """All rules of lines, for one method."""
    return Checker(LintPlan(Context(method=method), OF_LINES, **{"rows": False, **plan}))


def comparable(findings: Iterable[Found]) -> list[tuple[Any, ...]]:
    """Findings without where their bytes are."""
    return sorted((one.line, one.code, one.field, one.message, one.severity, str(one.span)) for one in findings)


def by_every_rule(lines: Iterable[bytes], checker: Checker, *, ends_open: bool) -> list[tuple[Any, ...]]:
    """What every rule finds in every line, without a fast path or screens."""
    numbered = list(enumerate(lines, 1))
    matches: list[tuple[Any, ...]] = []

    def tell(number: int, problems: Iterable[tuple[Rule, Problem]]) -> None:
        for rule, problem in problems:
            severity = problem.severity or rule.severity_for("openai")
            matches.append((number, rule.code, problem.field, problem.message, severity, str(problem.span)))

    for number, line in numbered:
        if not line.strip(b" \t\r"):
            continue
        parsed = parse(line, ends_with_newline=not (ends_open and number == len(numbered)))
        if isinstance(parsed, Trouble):
            tell(number, checker.judge_trouble(parsed))
        else:
            tell(number, checker.judge(look(parsed.document, checker.plan.context, parsed.text), parsed))
    return sorted(matches)
