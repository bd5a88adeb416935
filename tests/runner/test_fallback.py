"""Falling back: to the other provider, with the same bytes, never silently and never into paying twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftbridge.data.replay import EXAMPLES, PROMPTS, WITH_TRAIN
from ftbridge.errors import DataError, FtbridgeError, ProviderRefused
from ftbridge.runner import control, drive
from ftbridge.runner.fallback import last_of
from ftbridge.runner.start import create_run
from ftbridge.runs.journal import Journal
from ftbridge.runs.run import Run
from ftbridge.server import simulating
from ftbridge.spec import SpecFile

BASE = "gpt-4.1-mini-2025-04-14"


@pytest.fixture
def spec(tmp_path):
    """A small job with both models."""
    for name, first, count in (("train", 0, 12), ("test", 50, 2)):
        lines = [
            {
                "messages": [
                    {"role": "user", "content": f"Lamp {n}?"},
                    {"role": "assistant", "content": f"Lamp {n} is {'red' if n % 2 else 'blue'}."},
                ]
            }
            for n in range(first, first + count)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {
        "name": "lamps",
        "data": {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")},
        "model": {"openai": BASE, "local": "smollm2-135m-instruct"},
        "hyperparameters": {"n_epochs": 1, "batch_size": 6},
        "evaluation": {"max_completion_tokens": 8},
        "local": {"quantization": "none", "max_length": 128, "evals_per_epoch": 1},
    }


@pytest.fixture
def service(monkeypatch):
    """A simulator that the environment points at."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-falling-back")
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    with simulating({"speed": 20}) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        yield running


def ftbridge(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ftbridge", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        check=False,
        env={**os.environ},
    )


def written(spec, tmp_path) -> str:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(spec))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("refusal", ["refused", "failed"])
def test_what_the_service_will_not_do_is_done_here(refusal, spec, service, tmp_path, base_model_dir):
    if refusal == "refused":
        service.play({"faults": [{"on": "POST /fine_tuning/jobs", "fault": "training_not_available"}]})
    else:
        service.play({"jobs": {"walk": [["running", 0.1], "failed"]}})
    done = ftbridge(
        "run", written(spec, tmp_path), "--provider", "openai", "--fallback", "local", "--json", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["provider"], document["state"], document["continues"]["provider"]) == (
        "local",
        "succeeded",
        "openai",
    )
    assert document["continues"]["reason"]
    assert "come from local" in document["evaluation"]["notes"][0]
    assert "falling back to local" in done.stderr
    first = Run.open(Path(document["path"]).parent / document["continues"]["run"])
    assert (first.state().state, first.state().continued_by) == ("failed", document["run_id"])
    assert first.state().data.splits["train"].sha256 == document["data"]["train"]["sha256"]
    if refusal == "refused":
        assert service.files == []
        assert service.jobs == []
    again = json.loads(ftbridge("resume", first.id, "--json", folder=tmp_path).stdout)
    assert again["run_id"] == document["run_id"]


@pytest.mark.slow
def test_replay_of_the_fallback_is_written_by_its_own_base_model(spec, service, tmp_path, base_model_dir):
    """The same prompts on both sides; each side's base model completes them, or it would learn another's words."""
    service.play({"jobs": {"walk": [["running", 0.1], "failed"]}})
    spec = {**spec, "data": {**spec["data"], "replay": {"share": 0.2, "max_completion_tokens": 8}}}
    command = ("run", written(spec, tmp_path), "--provider", "openai", "--fallback", "local", "--json")
    done = ftbridge(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    second = Run.open(Path(document["path"]))
    first = Run.open(second.path.parent / document["continues"]["run"])
    assert (first.state().provider, second.state().provider) == ("openai", "local")
    assert (first.data / PROMPTS).read_bytes() == (second.data / PROMPTS).read_bytes()
    prompts, texts = zip(*(replayed(run) for run in (first, second)), strict=True)
    assert set(prompts[0]) & set(prompts[1]), "both begin with the first prompts"
    assert texts[0] != texts[1]
    assert (first.data / WITH_TRAIN).exists(), "a service gets them as lines of the training file"
    assert not (second.data / WITH_TRAIN).exists(), "the local trainer mixes them into its steps"
    steps = [event.data for event in Journal(second.path / "worker.jsonl").read() if event.type == "metrics"]
    assert all(step["train_replay_loss"] > 0 for step in steps)


def replayed(run: Run) -> tuple[list[str], list[str]]:
    """The prompts that a run's base model completed, and its completions."""
    lines = [json.loads(line)["messages"] for line in (run.data / EXAMPLES).read_text().splitlines()]
    return [turns[-2]["content"] for turns in lines], [turns[-1]["content"] for turns in lines]


@pytest.mark.slow
def test_what_this_machine_cannot_do_is_done_by_the_service(spec, service, tmp_path):
    spec = {**spec, "model": {"openai": BASE, "local": "nobody/no-such-model"}, "fallback": "openai"}
    done = ftbridge("run", written(spec, tmp_path), "--provider", "local", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["provider"], document["continues"]["provider"]) == ("openai", "local")
    assert len(service.jobs) == 1


@pytest.mark.slow
def test_watching_a_run_that_fell_back_ends_with_the_run_that_continues_it(spec, service):
    document = {**spec, "model": {"openai": BASE, "local": "nobody/no-such-model"}, "fallback": "openai"}
    first = create_run(SpecFile.of(document), "local")
    evaluation = drive.drive(first)
    second = last_of(first)
    assert (second.state().provider, second.state().state) == ("openai", "succeeded")
    assert evaluation is not None
    assert control.watch(first) == evaluation
    assert len(service.jobs) == 1


def prepared(spec, **more) -> Run:
    return create_run(SpecFile.of({**spec, "fallback": "local", **more}), "openai")


def ends(run: Run) -> FtbridgeError:
    with pytest.raises(FtbridgeError) as caught:
        drive.drive(run)
    return caught.value


def test_a_service_that_may_have_made_the_job_is_not_fled_from(spec, service):
    service.play({"faults": [{"on": "POST /fine_tuning/jobs", "fault": "reset", "when": "before"}]})
    run = prepared(spec)
    assert type(ends(run)).__name__ == "ServiceUnavailable"
    assert run.state().continued_by is None
    assert len(list(run.path.parent.iterdir())) == 1


def test_data_that_the_service_finds_bad_are_bad_here_too(spec, service):
    service.play({"jobs": {"walk": [["running", 0.1], "failed"], "error": {"code": "invalid_training_file", "message": "m", "param": "training_file"}}})  # fmt: skip
    run = prepared(spec)
    assert isinstance(ends(run), DataError)
    assert run.state().continued_by is None


def test_without_a_fallback_a_refusal_is_the_end(spec, service):
    service.play({"faults": [{"on": "POST /fine_tuning/jobs", "fault": "training_not_available"}]})
    run = prepared(spec, fallback=None)
    assert isinstance(ends(run), ProviderRefused)
    assert ends(run).exit_code == 5


def test_a_field_that_the_fallback_would_refuse_stops_the_run_at_once(spec, service, tmp_path):
    spec = {**spec, "method": "dpo", "fallback": "local", "local": {"overlength": "truncate"}}
    lines = [
        {
            "input": {"messages": [{"role": "user", "content": f"Lamp {n}?"}]},
            "preferred_output": [{"role": "assistant", "content": f"red {n}"}],
            "non_preferred_output": [{"role": "assistant", "content": f"blue {n}"}],
        }
        for n in range(12)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec["data"] = {"train": str(tmp_path / "train.jsonl")}
    with pytest.raises(FtbridgeError, match="a pair is compared whole"):
        create_run(SpecFile.of(spec), "openai")
    assert service.requests == {}
