"""What people get wrong, told at the command line: a clear message, the right exit code, nothing half-made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.jobs import examples, ftbridge, run_folder, write_job

Break = Callable[[Path], None]


def spec(old: str, new: str) -> Break:
    def apply(folder: Path) -> None:
        text = (folder / "job.yaml").read_text()
        assert old in text
        (folder / "job.yaml").write_text(text.replace(old, new))

    return apply


def train(*lines: object) -> Break:
    def apply(folder: Path) -> None:
        messages = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (folder / "train.jsonl").write_text("".join(f"{line}\n" for line in messages))

    return apply


def overlap(folder: Path) -> None:
    (folder / "test.jsonl").write_text(json.dumps(examples(3, 1)[0]) + "\n")


GOOD = examples(0, 12)
NULL = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]}


@pytest.mark.parametrize(
    ("broken", "code", "expected"),
    [
        (spec("n_epochs:", "n_epoch:"), 2, ["hyperparameters.n_epoch: unknown key; did you mean n_epochs?"]),
        (spec("n_epochs: 2", "n_epochs: many"), 2, ["hyperparameters.n_epochs", '"many"']),
        (spec("n_epochs: 2", "n_epochs: 51"), 2, ["less than or equal to 50"]),
        (spec("name: small", "name: small\nname: twice"), 2, ["job.yaml:", "the key 'name' comes twice"]),
        (spec("name: small", "name: [small"), 2, ["job.yaml:", "not valid YAML"]),
        (spec("train: train.jsonl", "train: trian.jsonl"), 2, ["trian.jsonl", "train.jsonl"]),
        (spec("seed: 7", "seed: 7\nmethod: dpo"), 2, ["method", "supervised"]),
        (spec("item.reference", "item.label"), 2, ["label"]),
        (lambda folder: (folder / "job.yaml").unlink(), 2, ["no such job spec"]),
        (train(), 3, ["train.jsonl", "empty"]),
        (train(GOOD[0]), 3, ["1 example"]),
        (train(*GOOD, NULL), 3, ["train.jsonl:13 messages[1].content is null but the message has no tool_calls"]),
        (train(*GOOD, '{"messages": [{"role"'), 3, ["train.jsonl:13"]),
        (overlap, 3, ["test.jsonl:1", "train.jsonl:4"]),
    ],
)
def test_bad_input_is_told_before_a_run_exists(
    tmp_path: Path, home: Path, broken: Break, code: int, expected: list[str]
) -> None:
    graders = [
        {"type": "string_check", "name": "exact", "operation": "eq", "input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
    ]  # fmt: skip
    write_job(tmp_path, test=4, **{"evaluation.graders": graders})
    broken(tmp_path)
    done = ftbridge("run", "job.yaml", "--provider", "local", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    for text in expected:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list((home / "runs").glob("*")) if (home / "runs").exists() else True


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["run", "job.yaml"], "--provider"),
        (["run", "job.yaml", "--provider", "vertex"], "provider 'vertex' is not installed"),
        (["run", "job.yaml", "--provider", "local", "--set", "seed"], "key.path=value"),
        (["run", "job.yaml", "--provider", "local", "--set", "seed=-1"], "seed"),
        (["run", "job.yaml", "--provider", "local", "--fallback", "openai"], "model.openai = None: name the service"),
        (["shwo"], "Did you mean show?"),
        (["show", "nothing"], "no run 'nothing'"),
        (["schema", "jobs"], "'job'"),
    ],
)
def test_misuse_exits_with_2_and_says_what_is_meant(tmp_path: Path, args: list[str], expected: str) -> None:
    write_job(tmp_path)
    done = ftbridge(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "code", "expected"),
    [
        (
            {"local.max_length": 30},
            3,
            ["longer than local.max_length = 30", "train.jsonl:1 is", "overlength: truncate or drop"],
        ),
        ({"model.local": "./missing"}, 1, ["there is no model './missing'", "smollm2-135m-instruct"]),
        ({"local.device": "cuda"}, 2, ["local.device is cuda, but torch"]),
    ],
)
def test_what_only_the_model_can_tell_is_told_before_training(
    tmp_path: Path, home: Path, changes: dict[str, object], code: int, expected: list[str]
) -> None:
    import torch

    if changes.get("local.device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has the device that the test wants missing")
    write_job(tmp_path, **changes)
    done = ftbridge("run", "job.yaml", "--provider", "local", "--json", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    for text in expected:
        assert text in done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "failed"
    assert not (run_folder(home) / "worker.jsonl").exists()


@pytest.mark.slow
def test_a_length_policy_says_which_lines_it_touched(tmp_path: Path, home: Path) -> None:
    long = {"messages": [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "long"}]}
    write_job(tmp_path, **{"local.overlength": "drop", "hyperparameters.n_epochs": 1, "data.validation": None})
    train(*examples(0, 8), long)(tmp_path)
    done = ftbridge("run", "job.yaml", "--provider", "local", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 train examples were dropped: train.jsonl:9 is" in done.stderr


def test_a_dry_run_settles_and_lowers_and_makes_nothing(tmp_path: Path, home: Path) -> None:
    write_job(tmp_path, **{"hyperparameters": {}})
    done = ftbridge("run", "job.yaml", "--provider", "local", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    settled = {entry["field"]: entry for entry in document["resolved"]["settled"]}
    assert settled["hyperparameters.n_epochs"]["value"] == 10
    assert settled["hyperparameters.batch_size"]["value"] == 8
    assert all(entry["reason"] for entry in settled.values())
    assert document["lowering"]["request"]["learning_rate"] == 2e-4
    assert list((home / "runs").glob("*")) == []
    people = ftbridge("run", "job.yaml", "--provider", "local", "--dry-run", cwd=tmp_path, COLUMNS="160")
    assert "hyperparameters.n_epochs" in people.stdout
    assert "Nothing was trained." in people.stdout
