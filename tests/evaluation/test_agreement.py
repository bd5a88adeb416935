"""Agreement of raters, against published tables; panels of judges over real HTTP."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from ftbridge.evaluation.agreement import agreement_notes, alpha, panel_agreement
from ftbridge.evaluation.families import family_notes
from ftbridge.graders import GraderResult, grade, judges_of, score
from ftbridge.server.api.graders import with_judge
from ftbridge.server.http.errors import ApiError
from ftbridge.spec.graders import Grader
from support.judge_server import judge_server

ADAPTER = TypeAdapter(Grader)
ITEM, SAMPLE = {"reference": "r"}, {"output_text": "x"}
OBSERVERS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
"""Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C: four observers, twelve units, gaps."""
KRIPPENDORFF = [[float(row[column]) for row in OBSERVERS if row[column] != "."] for column in range(12)]


@pytest.mark.parametrize(("scale", "published"), [("nominal", 0.743), ("interval", 0.849)])
def test_alpha_is_that_of_krippendorffs_example(scale, published):
    assert alpha(KRIPPENDORFF, scale) == pytest.approx(published, abs=0.0005)


def test_alpha_of_two_raters_without_gaps_is_that_of_krippendorffs_first_example():
    # Section A: two observers, ten units, 0 and 1: alpha = 0.095.
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert alpha(list(zip(first, second, strict=True)), "nominal") == pytest.approx(0.095, abs=0.0005)


@pytest.mark.parametrize("values", [[], [[1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[1.0], [0.0]]])
def test_alpha_is_undefined_where_nothing_differs_or_is_shared(values):
    assert alpha(values, "nominal") is None


def panel(address, **more):
    judges = [
        {"type": "score_model", "name": name, "model": name, "base_url": address, "range": [1, 5],
         "input": [{"role": "user", "content": "{{sample.output_text}}"}]}
        for name in more.pop("names", ("a", "b", "c"))
    ]  # fmt: skip
    return ADAPTER.validate_python({"type": "panel", "name": "panel", "judges": judges, **more})


@pytest.mark.parametrize(
    ("combine", "replies", "reward"),
    [
        ("mean", {"a": 5, "b": 3, "c": 1}, 0.5),
        ("median", {"a": 5, "b": 5, "c": 1}, 1.0),
        ("majority", {"a": 5, "b": 4, "c": 1}, 1.0),
        ("majority", {"a": 5, "b": 3, "c": 1}, 0.5),
        ("mean", {"a": 5, "b": None, "c": 3}, 0.75),
    ],
)
def test_a_panel_combines_what_its_judges_say(combine, replies, reward):
    with judge_server(lambda body: replies[body["model"]]) as address:
        result = grade(panel(address, combine=combine), ITEM, SAMPLE)
    assert (result.errors, result.reward) == ({}, pytest.approx(reward))
    assert result.metadata.details.get("silent", []) == [name for name, message in replies.items() if message is None]


def test_a_panel_most_of_whose_judges_failed_has_no_score():
    with judge_server(lambda body: 5 if body["model"] == "a" else None) as address:
        result = grade(panel(address), ITEM, SAMPLE)
    assert result.is_missing
    assert "b: " in str(result.errors)
    assert "c: " in str(result.errors)


def test_a_judge_that_is_asked_again_gets_another_seed_and_is_counted_in_what_it_costs():
    seeds = []
    with judge_server(lambda body: seeds.append(body.get("seed")) or 3) as address:
        request = panel(address, names=("a",), repeats=3)
        assert grade(request, ITEM, SAMPLE).reward == pytest.approx(0.5)
    assert sorted(seeds, key=str) == [1, 2, None]
    assert len(judges_of([request])) == 3


def test_a_panel_of_one_judge_asked_once_is_refused():
    with pytest.raises(ValidationError, match="several judges, or one with repeats"):
        panel("http://127.0.0.1:9/v1", names=("a",))
    with pytest.raises(ValidationError, match="names of judges must differ"):
        panel("http://127.0.0.1:9/v1", names=("a", "a"))


def test_agreement_of_a_panel_is_told_with_how_lenient_each_judge_is():
    grader = panel("http://127.0.0.1:9/v1", names=("a", "b"))

    def result(one, other):
        return GraderResult(
            name="panel", type="panel", reward=(one + other) / 2, passed=None, sub_rewards={"a": one, "b": other}
        )

    results = [result(1.0, 0.25), result(0.0, 0.5), result(1.0, 0.5), result(0.5, 0.5)]
    outcome = panel_agreement([grader], {"base": {"panel": results}})["panel"]
    assert (outcome.scale, outcome.completions, outcome.same) == ("interval", 4, 0.25)
    assert (outcome.raters["a"].mean, outcome.raters["b"].mean) == (0.625, 0.4375)
    assert outcome.alpha == pytest.approx(alpha([[1, 0.25], [0, 0.5], [1, 0.5], [0.5, 0.5]], "interval"))
    assert "hardly agree" in agreement_notes({"panel": outcome})[0]
    assert score(grader, results[0]) == 0.625


def test_a_server_asks_no_judge_of_a_panel_that_its_operator_did_not_name():
    with pytest.raises(ApiError, match="is not a judge of this server"):
        with_judge(panel("http://127.0.0.1:9/v1"), ["http://127.0.0.1:8/v1"])
    allowed = with_judge(panel("http://127.0.0.1:8/v1"), ["http://127.0.0.1:8/v1"])
    assert {judge.base_url for judge in judges_of([allowed])} == {"http://127.0.0.1:8/v1"}


def test_a_judge_that_is_asked_again_has_a_name_of_its_own_and_one_note_of_its_family():
    one = judges_of([panel("http://127.0.0.1:9/v1", names=("a", "b"), repeats=2)])
    assert [judge.name for judge in one] == ["a", "a (2)", "b", "b (2)"]
    notes = family_notes([panel("http://127.0.0.1:9/v1", names=("qwen3-8b", "gpt-4o"), repeats=3)], ["Qwen/Qwen3-4B"])
    assert len(notes) == 1
    assert "qwen3-8b" in notes[0]
