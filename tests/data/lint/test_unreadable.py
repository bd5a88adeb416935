"""Nothing is concluded from lines that could not be read, and what a whole file shares is said once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.data.lint.engine import Linting, Options, lint

GOOD = [
    {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]} for n in range(12)
]


def _gemini(n: int) -> dict[str, Any]:
    return {
        "contents": [{"role": "user", "parts": [{"text": f"{n}?"}]}, {"role": "model", "parts": [{"text": f"{n}!"}]}]
    }


@pytest.mark.parametrize(
    ("record", "named", "options"),
    [
        (lambda n: {"question": f"{n}?", "answer": f"{n}!"}, "questions and answers", "--map prompt=question --map completion=answer"),
        (lambda n: {"Query": f"{n}?", "Response": f"{n}!"}, "questions and answers", "--map prompt=Query --map completion=Response"),
        (lambda n: {"question": f"{n}?", "context": "c", "answer": "a"}, "questions with material", "--map instruction=question --map input=context --map output=answer"),
        (_gemini, "Gemini", ""),
        (lambda n: {"conversations": [{"from": "human", "value": f"{n}?"}]}, "ShareGPT", ""),
        (lambda n: {"instruction": "Add", "input": f"{n}", "output": f"{n}!"}, "Alpaca", ""),
        (lambda n: {"prompt": f"{n}?", "completion": f"{n}!"}, "prompt and completion", ""),
    ],
)  # fmt: skip
def test_lines_in_another_format_have_one_finding_each_with_the_command(
    record: Any, named: str, options: str, tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record(n)) + "\n" for n in range(12)))
    [report] = lint(path, Options(ignore=("FTB211",))).files

    assert set(report.rules) == {"FTB023"}
    assert {finding.message for finding in report.findings} == {report.findings[0].message}
    assert named in report.findings[0].message
    assert f"`ftbridge convert {path} out.jsonl {options}".strip() in report.findings[0].message
    assert report.tokens is None


@pytest.mark.parametrize(
    "line", ['{"messages": [', '{"messages": []}', '{"messages": 4}', "{'messages': []}", "[]", '{"a": 1}']
)
def test_lines_without_messages_are_no_examples_to_compare_or_count(line: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(talk) + "\n" for talk in GOOD[:8]) + f"{line}\n" * 4)
    [report] = lint(path, Options(ignore=("FTB211",))).files

    assert {finding.line for finding in report.findings} == {9, 10, 11, 12}
    assert not {"FTB210", "FTB300", "FTB202", "FTB212"} & report.rules.keys()


def test_a_reinforcement_file_alone_is_advised_and_a_job_without_validation_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    items = [{"messages": [{"role": "user", "content": f"{n} + 1?"}], "reference": str(n + 1)} for n in range(12)]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))

    assert lint(path, Options()).ok
    assert not lint(path, Options(), roles=["train"]).ok
    with Linting([str(path)], Options(), roles=["train"], whole_job=False) as linting:
        assert {finding.severity for _, finding in linting if finding.code == "FTB097"} == {"info"}


@pytest.mark.parametrize(
    ("fields", "variables", "message"),
    [
        (lambda n: {"reference_answer": str(n), "reference_policy": "v3"}, (), False),
        (lambda n: {"expected": "yes", "level": n % 3}, (), False),
        (lambda n: {"reference_answer": "4"}, (), True),
        (lambda n: {"reference_answer": "4", "id": n}, (), True),
        (lambda n: {"reference_answer": "4", "level": n}, ("item.reference_answer",), True),
        (lambda n: {"reference_answer": "4", "rubric": {"a": n}}, ("item.rubric.a", "item.reference_answer"), False),
    ],
)
def test_a_constant_field_is_told_only_where_no_other_tells_the_items_apart(
    fields: Any, variables: tuple[str, ...], message: bool, tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    items = [{"messages": [{"role": "user", "content": f"{n} + 1?"}], **fields(n)} for n in range(12)]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))

    assert ("FTB098" in lint(path, Options(variables=variables)).files[0].rules) is message
