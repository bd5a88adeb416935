"""Hours of a whole run, against what a real run took: loading and completing are most of a small one."""

from __future__ import annotations

import json
import shutil

import pytest

from ftbridge.planning.actual import compared
from ftbridge.planning.memory import published_shape
from ftbridge.planning.pace import Pace, pace
from ftbridge.planning.whole import Completions, plan_run_time, taken_by
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec
from support.paths import FIXTURES

REAL = FIXTURES / "runs-0.1.0" / "small-local-20261126-1c97"


@pytest.fixture
def run(tmp_path):
    shutil.copytree(REAL, tmp_path / REAL.name)
    return Run(tmp_path / REAL.name)


def asked_of(run):
    """What the run was asked, as the plan counts it, and as it came."""
    lines = [json.loads(line) for path in (run.path / "predictions").glob("*.jsonl") for line in path.open()]
    written = sum(line["completion_tokens"] for line in lines)
    return Completions(len(lines), sum(line["prompt_tokens"] for line in lines), (written * 0.8, written * 1.2))


def test_a_small_run_is_mostly_loading_and_completing(run):
    took = taken_by(run)
    assert took.total == pytest.approx(30.2, abs=0.1)
    assert took.training < 0.1 * took.total
    assert took.loading + took.completing > 0.8 * took.total


def test_the_next_run_is_foreseen_by_what_this_one_took(run):
    spec = run.spec()
    tokens = 478 * 2
    result = plan_run_time(pace(tokens, spec, None, [run]), asked_of(run), spec, None, "cpu", [run])
    assert result.basis == "own runs"
    assert run.id in result.source
    assert result.hours[0] * 3600 <= taken_by(run).total <= result.hours[1] * 3600
    assert result.hours[1] < 3 * result.hours[0]


def test_a_run_that_was_stopped_is_no_evidence(run):
    journal = run.path / "journal.jsonl"
    lines = journal.read_text().splitlines()
    paused = {**json.loads(lines[4]), "type": "paused", "data": {}}
    journal.write_text("\n".join([*lines[:5], json.dumps(paused), *lines[5:]]) + "\n")
    spec = run.spec()
    assert plan_run_time(Pace(hours=None, tokens_per_second=None, basis="none", source=""), asked_of(run), spec, None, "cpu", [run]) is None  # fmt: skip


def spec_of(model, **evaluation):
    return JobSpec.model_validate(
        {"name": "n", "model": {"local": model}, "data": {"train": "t"}, "evaluation": evaluation}
    )


def test_without_a_run_sizes_tell_a_span():
    hour = Pace(hours=(1.0, 2.0), tokens_per_second=None, basis="published", source="")
    request = Completions(200, 40_000, (2_000, 51_200))
    result = plan_run_time(hour, request, spec_of("m"), published_shape("Qwen/Qwen2.5-7B"), "cuda", [])
    assert result.basis == "reasoned"
    # 15 GB of weights are read three times, and 7 batches of 10 to 256 steps are made.
    assert result.loading[0] * 3600 == pytest.approx(3 * (4 + 7.616), rel=0.01)
    assert result.loading[1] * 3600 == pytest.approx(3 * (30 + 76.16), rel=0.01)
    assert result.completing[0] * 3600 > 7 * 10 / 40
    assert result.completing[1] * 3600 > 7 * 256 / 8
    assert result.hours == (1 + result.loading[0] + result.completing[0], 2 + result.loading[1] + result.completing[1])


def test_several_samples_take_as_many_times_as_long():
    none = Pace(hours=None, tokens_per_second=None, basis="none", source="")
    shape = published_shape("HuggingFaceTB/SmolLM2-135M")
    once, thrice = (
        plan_run_time(none, Completions(n * 20, n * 1000, (n * 100, n * 5000)), spec_of("m"), shape, "cpu", [])
        for n in (1, 3)
    )
    assert thrice.completing[0] == pytest.approx(3 * once.completing[0])
    assert once.hours is None


def test_the_measured_time_of_this_machine_lies_in_what_is_reasoned():
    """SmolLM2-135M completed 6 prompts of 8 tokens in a process of its own in 6 to 30 seconds, loading included (2 cores)."""
    none = Pace(hours=None, tokens_per_second=None, basis="none", source="")
    request = Completions(6, 6 * 40, (6, 6 * 8))
    result = plan_run_time(none, request, spec_of("m"), published_shape("HuggingFaceTB/SmolLM2-135M"), "cpu", [])
    low, high = ((result.loading[end] / 3 + result.completing[end]) * 3600 for end in (0, 1))
    assert low < 6
    assert high > 30


@pytest.mark.parametrize(("factor", "met"), [(1.0, True), (0.1, False)])
def test_the_report_tells_what_the_run_took_beside_its_plan(run, factor, met):
    spec = run.spec()
    result = plan_run_time(pace(956, spec, None, [run]), asked_of(run), spec, None, "cpu", [run])
    log_likelihoods = result.model_copy(update={"hours": tuple(factor * end for end in result.hours)})
    plan = json.loads(run.plan_path.read_text())
    plan["local"]["whole"] = log_likelihoods.model_dump(mode="json")
    run.plan_path.write_text(json.dumps(plan))
    line = next(one for one in compared(run) if one.what == "time of the run")
    assert (line.met, line.actual) == (met, pytest.approx(30.2 / 3600, rel=0.01))
    assert ("Slower than" in line.why) is not met
