"""What stands beside the scores of real runs: plan against actual, old skills, labels, perplexity, cost, the day it stops."""

from __future__ import annotations

import datetime
import json
import re

import pytest
from finished import finished_run

from ftbridge.draft import Draft
from ftbridge.planning.actual import compared
from ftbridge.planning.plan import plan
from ftbridge.report.html.contents import contents_of
from ftbridge.report.html.page import page
from ftbridge.report.measured import read_checks

SCORE = {"mean": 0.8, "ci95": [0.7, 0.9], "n": 40}
CHECKS = {
    "retention": {
        "items": 40,
        "margin": 0.05,
        "kinds": ["facts", "sums"],
        "candidates": {"base": {"all": SCORE, "facts": SCORE}, "tuned": {"all": {**SCORE, "mean": 0.5}, "sums": SCORE}},
        "verdict": {"verdict": "worse", "difference": -0.3, "ci95": [-0.4, -0.2]},
        "lost": [{"kind": "sums", "prompt": "2 + <b>2</b>?", "expected": "4", "before": "4", "after": "delivery"}],
        "notes": ["40 questions are few."],
    },
    "classification": {
        "tuned": {
            "labels": ["refund", "<delivery>"],
            "confusion": [[18, 2], [0, 40]],
            "accuracy": 58 / 60,
            "macro_f1": 0.962,
            "per_label": {"refund": {"precision": 1.0, "recall": 0.9, "f1": 0.947, "support": 20}},
        }
    },
    "perplexity": {"base": 9.87, "tuned": 1.52},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with finished_run(tmp_path_factory.mktemp("measured"), r"\d*[0-8]") as made:
        document = json.loads(made.evaluation_path.read_text())
        for at, told in enumerate(document["answered"].values()):
            told.update(usd=0.0123 * (at + 1), p50_seconds=0.4, p95_seconds=1.25)
        made.evaluation_path.write_text(json.dumps({**document, **CHECKS}))
        yield made


@pytest.fixture
def planned(run):
    """The same run with the plan it would have been given."""
    told = plan(Draft.of(run.spec().model_dump(exclude_unset=True)))
    path = run.path / "plan.json"
    path.write_text(told.model_dump_json())
    yield told
    path.unlink()


def _text(run):
    markup = page(contents_of([run]))
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


def test_without_a_plan_there_is_no_comparison_with_it(run):
    assert compared(run) == []
    assert "Plan against actual" not in _text(run)


def test_a_plan_stands_beside_what_came(run, planned):
    told = {one.what: one for one in compared(run)}
    assert told["steps"].planned == (planned.steps, planned.steps)
    assert told["steps"].actual == run.state().step
    assert told["training cost"].planned == (planned.openai.money.training,) * 2
    low, high = told["evaluation tokens"].planned
    assert 0 < low < high
    assert told["trained tokens"].met is None, "nobody told how many, so nothing is claimed"
    text = _text(run)
    assert "Plan against actual" in text
    assert "evaluation tokens" in text


def test_tokens_and_dollars_are_held_against_the_plan_once_the_service_tells_them(run, planned):
    tokens = planned.splits["train"].tokens * planned.epochs
    run.append("status", state="succeeded", trained_tokens=2 * tokens)
    told = {one.what: one for one in compared(run)}
    assert told["trained tokens"].actual == 2 * tokens
    assert told["trained tokens"].met is False
    assert told["trained tokens"].why
    assert told["training cost"].met is False
    assert told["training cost"].actual == pytest.approx(2 * planned.openai.money.training)


def test_a_plan_of_another_version_is_no_plan(run):
    (run.path / "plan.json").write_text('{"name": "numbers", "splits": 3}')
    assert compared(run) == []
    (run.path / "plan.json").unlink()


def test_old_skills_labels_and_perplexity_have_their_sections(run):
    text = _text(run)
    assert "Old skills are lost (-30.0 points, 95 % interval -40.0 to -20.0, 40 questions, margin 5 points)." in text
    assert "2 + &lt;b&gt;2&lt;/b&gt;?" in text
    assert "accuracy 96.7 %" in text
    assert "macro F1 96.2 %" in text
    assert "&lt;delivery&gt;" in text
    assert "1.52" in text
    markup = page(contents_of([run]))
    assert 'class="number heat5 right">18<' in markup
    assert 'class="number heat1 wrong">2<' in markup


def test_an_evaluation_without_these_fields_has_none_of_their_sections(run):
    whole = run.evaluation_path.read_text()
    old = {name: value for name, value in json.loads(whole).items() if name not in CHECKS and name != "answered"}
    run.evaluation_path.write_text(json.dumps(old))
    try:
        assert read_checks(run).retention is None
        text = _text(run)
        assert "Scores" in text
        assert not any(heading in text for heading in ("Old skills", "Perplexity", "Rows: the expected label"))
    finally:
        run.evaluation_path.write_text(whole)


@pytest.mark.parametrize(
    ("today", "said"),
    [
        ((2026, 11, 25), "stops in 50 days, on 2027-01-14"),
        ((2027, 1, 13), "stops tomorrow"),
        ((2027, 1, 14), "stops today"),
        ((2027, 1, 20), "stopped 6 days ago"),
    ],
)
def test_the_day_the_tuned_model_stops_is_counted_down(run, today, said):
    now = datetime.datetime(*today, 12, tzinfo=datetime.timezone.utc).timestamp()
    assert said in page(contents_of([run]), now=now)
