"""What stands beside the scores of real runs: planned vs actual, old skills, labels, perplexity, cost, the day it stops."""

from __future__ import annotations

import datetime
import json
import re

import pytest

from ftbridge.evaluation.results import read_evaluation
from ftbridge.planning.actual import compared
from ftbridge.planning.plan import Plan
from ftbridge.report.html.contents import contents_of
from ftbridge.report.html.page import page
from support.finished_run import CHECKS, finished_run, judged_more


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with finished_run(tmp_path_factory.mktemp("measured"), r"\d*[0-8]") as created:
        judged_more(created)
        yield created


@pytest.fixture
def planned(run):
    """The plan that the run began with."""
    return Plan.model_validate_json(run.plan_path.read_text())


def _text(run):
    markup = page(contents_of([run]))
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


def test_without_a_plan_there_is_no_comparison_with_it(run):
    text = run.plan_path.read_text()
    run.plan_path.unlink()
    try:
        assert compared(run) == []
        assert "Planned vs actual" not in _text(run)
    finally:
        run.plan_path.write_text(text)


def test_a_plan_stands_beside_what_came(run, planned):
    by_name = {one.what: one for one in compared(run)}
    assert by_name["steps"].planned == (planned.steps, planned.steps)
    assert by_name["steps"].actual == run.state().step
    assert by_name["training cost"].planned == (planned.openai.money.training,) * 2
    low, high = by_name["evaluation tokens"].planned
    assert 0 < low < high
    assert by_name["trained tokens"].met is True
    text = _text(run)
    assert "Planned vs actual" in text
    assert "evaluation tokens" in text


def test_tokens_and_dollars_are_held_against_the_plan_once_the_service_tells_them(run, planned):
    tokens = planned.splits["train"].tokens * planned.epochs
    tuned = run.state().tuned
    run.append("result", model=tuned.model_dump(mode="json"), trained_tokens=2 * tokens)
    by_name = {one.what: one for one in compared(run)}
    assert by_name["trained tokens"].actual == 2 * tokens
    assert by_name["trained tokens"].met is False
    assert by_name["trained tokens"].why
    assert by_name["training cost"].met is False
    assert by_name["training cost"].actual == pytest.approx(2 * planned.openai.money.training)
    run.append("result", model=tuned.model_dump(mode="json"), trained_tokens=tokens)


def test_a_plan_of_another_version_is_no_plan(run):
    text = run.plan_path.read_text()
    run.plan_path.write_text('{"name": "numbers", "splits": 3}')
    assert compared(run) == []
    run.plan_path.write_text(text)


def test_old_skills_labels_and_perplexity_have_their_sections(run):
    text = _text(run)
    assert (
        "tuned has forgotten some of what base knew: -30.0 points (95 % interval -40.0 to -20.0, margin 5; 1 lost, 1 gained)."
        in text
    )
    assert "2 + &lt;b&gt;2&lt;/b&gt;?" in text
    assert "accuracy 96.7 %" in text
    assert "macro F1 96.2 %" in text
    assert "&lt;delivery&gt;" in text
    assert "1.52" in text
    markup = page(contents_of([run]))
    assert 'class="number heat5 right">18<' in markup
    assert 'class="number heat1 wrong">2<' in markup


def test_an_evaluation_without_these_fields_has_none_of_their_sections(run):
    content = run.evaluation_path.read_text()
    old = {name: value for name, value in json.loads(content).items() if name not in CHECKS and name != "answered"}
    run.evaluation_path.write_text(json.dumps(old))
    try:
        assert read_evaluation(run).retention is None
        text = _text(run)
        assert "Scores" in text
        assert not any(heading in text for heading in ("Retention", "Perplexity", "Rows: the expected label"))
    finally:
        run.evaluation_path.write_text(content)


@pytest.mark.parametrize(
    ("today", "message"),
    [
        ((2026, 11, 25), "stops in 50 days, on 2027-01-14"),
        ((2027, 1, 13), "stops tomorrow"),
        ((2027, 1, 14), "stops today"),
        ((2027, 1, 20), "stopped 6 days ago"),
    ],
)
def test_the_day_the_tuned_model_stops_is_counted_down(run, today, message):
    now = datetime.datetime(*today, 12, tzinfo=datetime.timezone.utc).timestamp()
    assert message in page(contents_of([run]), now=now)
