"""Scores are written once; reading them asks no judge, runs no Python, and needs no permission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ftbridge import graders as grading
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.grade_cache import name_in_version_0_1, name_of
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.results import item_scores, read_scores, recorded_results, write_scores
from ftbridge.evaluation.score import results
from ftbridge.spec.graders import Grader

ITEMS = [Item(key=f"k{n}", index=n, prompt=(), tools=(), fields={"reference": f"r{n}"}) for n in range(3)]
SOURCE = "def grade(sample, item):\n    return 1.0 if sample['output_text'] == item['reference'] else 0.0\n"


def grader(**fields: Any) -> Grader:
    result: Grader = TypeAdapter(Grader).validate_python(fields)
    return result


PYTHON = grader(type="python", name="code", source=SOURCE)
EXACT = grader(
    type="string_check", name="exact", operation="eq", input="{{sample.output_text}}", reference="{{item.reference}}"
)
TWO = grader(
    type="multi",
    name="both",
    graders={"code": {"type": "python", "name": "code", "source": SOURCE}},
    calculate_output="code",
)


def predictions(*texts: str) -> list[Prediction]:
    return [
        Prediction(
            key=item.key, index=item.index, output_text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=1,
            prompt_sha256=item.key, seconds=None,
        )
        for item, text in zip(ITEMS, texts, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("python_grader", [PYTHON, TWO])
def test_a_python_grader_s_scores_are_read_where_it_is_not_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_grader: Grader
):
    outputs = {"tuned": predictions("r0", "no", "r2")}
    monkeypatch.setenv("FTBRIDGE_ALLOW_PYTHON_GRADERS", "code")
    graded = results(ITEMS, outputs, [python_grader, EXACT])
    write_scores(tmp_path / "scores.jsonl", item_scores(ITEMS, outputs, [python_grader, EXACT], graded))
    monkeypatch.delenv("FTBRIDGE_ALLOW_PYTHON_GRADERS")
    scores = read_scores(tmp_path / "scores.jsonl")
    assert [(score.grader, score.line, score.score) for score in scores] == [
        (python_grader.name, 1, 1.0), (python_grader.name, 2, 0.0), (python_grader.name, 3, 1.0),
        ("exact", 1, 1.0), ("exact", 2, 0.0), ("exact", 3, 1.0),
    ]  # fmt: skip
    read = recorded_results(ITEMS, outputs, [python_grader], {score.name: score.result for score in scores})
    assert read == {"tuned": {python_grader.name: graded["tuned"][python_grader.name]}}


@pytest.mark.parametrize("python_grader", [PYTHON, TWO])
def test_what_is_not_recorded_is_an_error_of_that_item_and_is_not_executed(python_grader: Grader):
    outputs = {"tuned": predictions("r0", "r1", "r2")}
    read = recorded_results(ITEMS, outputs, [python_grader, EXACT], {})["tuned"]
    assert [list(result.errors) for result in read[python_grader.name]] == [["other_error"]] * 3
    assert [result.reward for result in read["exact"]] == [1.0] * 3


def test_a_score_holds_for_its_own_completion_alone():
    before, after = {"tuned": predictions("r0", "r1", "r2")}, {"tuned": predictions("r0", "changed", "r2")}
    names = grading.GraderResult(name="code", type="python", reward=1.0, passed=True)
    grades = {name_of(PYTHON, item.fields, {"output_text": f"r{n}", "finish_reason": "stop"}): names
              for n, item in enumerate(ITEMS)}  # fmt: skip
    assert not any(result.errors for result in recorded_results(ITEMS, before, [PYTHON], grades)["tuned"]["code"])
    changed = recorded_results(ITEMS, after, [PYTHON], grades)["tuned"]["code"]
    assert [bool(result.errors) for result in changed] == [False, True, False]


def test_results_under_the_names_of_version_0_1_are_read():
    outputs = {"tuned": predictions("r0", "r1", "r2")}
    names = grading.GraderResult(name="code", type="python", reward=0.5, passed=None)
    sample = {"output_text": "r0", "finish_reason": "stop"}
    grades = {name_in_version_0_1(PYTHON, ITEMS[0].fields, sample): names}
    assert recorded_results(ITEMS, outputs, [PYTHON], grades)["tuned"]["code"][0] == names
