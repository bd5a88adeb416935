"""Replay in a run at a service: the base model completes prompts once, and its completions are lines of the file that is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import LoweringRefused
from ftbridge.evaluation.spending import spent
from ftbridge.planning.plan import plan
from ftbridge.runner.drive import drive
from ftbridge.runner.start import create_run, dry_run
from ftbridge.runs.run import Run
from ftbridge.spec import SpecFile
from support.jobs import examples, lines
from support.simulated_service import Service


@pytest.fixture(autouse=True)
def _quick(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses, and completions that are short enough to be whole."""
    monkeypatch.setattr("ftbridge.runner.drive.POLL_SECONDS", 0.01)
    service.change(answers=[{"match": r"^((?:\S+\s*){1,6})", "reply": r"you said \1"}])


def write_spec(folder: Path, **changes: Any) -> SpecFile:
    (folder / "train.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples(0, 18)))
    spec: dict[str, Any] = {
        "name": "small",
        "data": {"train": "train.jsonl", "replay": {"share": 0.25, "max_completion_tokens": 20, "temperature": 1.0}},
        "model": {"openai": "gpt-test", "local": "smollm2-135m-instruct"},
        "hyperparameters": {"n_epochs": 2, "batch_size": 4},
    }
    (folder / "job.json").write_text(json.dumps({**spec, **changes}))
    return SpecFile.of(folder / "job.json")


def completions_of(run: Run) -> list[dict[str, Any]]:
    return lines(run.path / "predictions" / "base.replay.jsonl")


def test_a_service_is_sent_one_file_that_holds_the_share(service: Service, tmp_path: Path, home: Path) -> None:
    run = create_run(write_spec(tmp_path), "openai", home=home)
    drive(run)
    [body] = service.bodies("POST /fine_tuning/jobs")
    sent = [json.loads(line) for line in service.content(body["training_file"]).decode().splitlines()]
    train = lines(run.data / "train.jsonl")
    replayed = [line for line in sent if line not in train]
    prompts = [line["messages"] for line in lines(run.data / "replay.jsonl")][:6]
    assert len(sent) == 18 + 6
    assert [line for line in sent if line in train] == train
    assert [line["messages"][:-1] for line in replayed] == prompts
    completions = {one["output_text"] for one in completions_of(run)}
    assert {line["messages"][-1]["content"] for line in replayed} == completions
    written = run.state().replay
    assert written is not None
    assert (written.examples, written.left_out) == (6, 0)
    assert spent(run).known is False  # this model has no price; what was completed is counted where it has


def test_a_run_that_was_stopped_asks_for_the_missing_completions_alone(
    service: Service, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(write_spec(tmp_path, evaluation={"batch_size": 1}), "openai", home=home)

    class Killed(BaseException):
        pass

    def die(self: Any) -> None:
        if len(completions_of(run)) >= 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("ftbridge.runner.stopping.Stops.check_requests", die)
        with pytest.raises(Killed):
            drive(run)
    first = completions_of(run)
    before = service.requests["POST /chat/completions"]
    drive(Run.open(run.path))
    assert 2 <= len(first) < 6
    assert completions_of(run)[: len(first)] == first
    assert service.requests["POST /chat/completions"] == before + 6 - len(first)
    assert len(service.jobs) == 1


@pytest.mark.parametrize("method", ["dpo", "reinforcement"])
def test_a_file_of_another_method_has_no_place_for_them(method: str, tmp_path: Path, home: Path) -> None:
    del home
    chats = [example["messages"] for example in examples(0, 18)]
    documents = [
        {"input": {"messages": chat[:1]}, "preferred_output": chat[1:], "non_preferred_output": [{**chat[1], "content": "no"}]}
        if method == "dpo"
        else {"messages": chat[:1], "reference": chat[1]["content"]}
        for chat in chats
    ]  # fmt: skip
    spec = write_spec(tmp_path, method=method)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    with pytest.raises(
        LoweringRefused, match=rf"data.replay.share = 0.25: OpenAI accepts no chats in a file for {method}"
    ):
        dry_run(spec, "openai", lint=False)


def test_the_plan_counts_replay_on_both_sides_and_prices_it(tmp_path: Path, home: Path) -> None:
    del home
    spec_of = {"model": {"openai": "gpt-4.1-mini-2025-04-14", "local": "smollm2-135m-instruct"}}
    with_it = plan(write_spec(tmp_path, **spec_of))
    data = json.loads((tmp_path / "job.json").read_text())["data"]
    without = plan(write_spec(tmp_path, **spec_of, data={**data, "replay": None}))
    assert with_it.openai is not None
    assert with_it.local is not None
    assert without.openai is not None
    assert without.local is not None
    hosted, local = with_it.openai.replay, with_it.local.replay
    assert hosted is not None
    assert local is not None
    assert (hosted.completions, hosted.examples) == (6, 12)  # a file is read again in each epoch
    assert (local.completions, local.examples) == (12, 12)  # steps take prompts that are new
    assert hosted.written == (24, 120)
    assert hosted.training_tokens[1] == round(2 * (hosted.read + 120))
    price = (with_it.openai.money.training or 0) / (without.openai.money.training or 1)
    tokens = without.splits["train"].tokens * 2
    assert price == pytest.approx((tokens + hosted.training_tokens[1]) / tokens)
    assert (with_it.openai.money.total or (0, 0))[0] > (without.openai.money.total or (0, 0))[0]
    assert without.openai.replay is None
    assert without.local.replay is None
    assert "replay" not in with_it.splits
