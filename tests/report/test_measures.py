"""What stands beside the scores of real runs: plan against actual, old skills, labels, perplexity, cost, the day it stops."""

from __future__ import annotations

import datetime
import json
import re

import pytest
from finished import CHECKS, finished_run, judged_more, lines

from ftbridge.draft import Draft
from ftbridge.planning.actual import compared
from ftbridge.planning.plan import plan
from ftbridge.report.html.contents import contents_of
from ftbridge.report.html.page import page
from ftbridge.report.measured import read_checks
from ftbridge.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with finished_run(tmp_path_factory.mktemp("measured"), r"\d*[0-8]") as made:
        judged_more(made)
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
    run.append("trained", job="job", tokens=2 * tokens)
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


# Here


def _local(tmp_path, *, cuda, steps, seconds=3600.0):
    """The folder of a finished local run, as far as a comparison reads it, with a plan of one to two hours at $2 each."""
    (tmp_path / "train.jsonl").write_text(lines(0, 12))
    spec = {
        "name": "here",
        "data": {"train": str(tmp_path / "train.jsonl")},
        "model": {"local": "smollm2-135m-instruct"},
        "hyperparameters": {"n_epochs": 2, "batch_size": 4},
    }
    told = plan(Draft.of(spec), gpu_usd_per_hour=2)
    assert told.local is not None
    pace = told.local.pace.model_copy(update={"hours": (1.0, 2.0), "basis": "published"})
    told = told.model_copy(update={"local": told.local.model_copy(update={"pace": pace, "usd": (2.0, 4.0)})})
    run = Run.create(tmp_path / "home", name="here", provider="local", spec_text=json.dumps(spec), spec_suffix=".json")
    run.append("job_event", id="1", message=f"smollm2 on {'cuda (a card)' if cuda else 'cpu (2 threads)'}, bfloat16")
    run.append("job_event", id="2", metrics={"step": steps, "memory_gb": told.local.memory.total / 1e9 * 1.1})
    run.append("succeeded")
    state = run.checkpoints / f"step-{steps:06d}" / "state.json"
    state.parent.mkdir(parents=True)
    trained = told.splits["train"].trained * 2 * steps // told.steps
    state.write_text(json.dumps({"step": steps, "trained_tokens": trained, "seconds": seconds}))
    (run.path / "plan.json").write_text(told.model_dump_json())
    return {one.what: one for one in compared(run)}, told


def test_a_local_run_is_held_against_its_plan(tmp_path):
    told, foreseen = _local(tmp_path, cuda=True, steps=6, seconds=5400)
    assert foreseen.steps == 6
    assert {what: one.met for what, one in told.items()} == dict.fromkeys(
        ("trained tokens", "steps", "memory", "training time", "training cost"), True
    )
    assert told["training time"].actual == pytest.approx(1.5)
    assert told["training cost"].actual == pytest.approx(3.0)


def test_slower_and_shorter_than_planned_is_told_with_the_reason(tmp_path):
    told, _ = _local(tmp_path, cuda=True, steps=3, seconds=3 * 3600)
    assert told["training time"].met is False
    assert "published" in told["training time"].why
    assert told["training cost"].actual == pytest.approx(6.0)
    assert told["training cost"].met is False
    assert told["trained tokens"].met is False
    assert "before the last planned step" in told["trained tokens"].why
    assert told["steps"].why


def test_memory_of_a_processor_is_not_held_against_a_plan_for_cards(tmp_path):
    told, _ = _local(tmp_path, cuda=False, steps=6)
    assert told["memory"].met is None
    assert "without a card" in told["memory"].why
