"""OpenAI's reinforcement guide against `ftbridge serve` over a two-layer model, by the unmodified client."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import BadRequestError, OpenAI

from support.served_model import client_of
from support.small_model import write_small_model
from support.waiting import until

pytestmark = pytest.mark.slow
GRADER = {"type": "string_check", "name": "has_letter", "operation": "ilike", "input": "{{sample.output_text}}",
          "reference": "{{item.letter}}"}  # fmt: skip


@pytest.fixture(scope="module")
def openai(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> Iterator[OpenAI]:
    folder = tmp_path_factory.mktemp("served")
    plain = write_small_model(folder / "plain", base_model_dir)
    settings = {"quantization": "none", "precision": "fp32", "max_length": 64, "base_learning_rate": 1e-2,
                "reinforcement": {"max_completion_tokens": 6}, "keep_checkpoints": 1}  # fmt: skip
    with client_of({"o4-mini": str(plain)}, folder, settings) as client:
        yield client


def upload(client: OpenAI, name: str, first: int, count: int) -> str:
    rows = [
        {"messages": [{"role": "user", "content": f"Say something of lamp {first + n}."}], "letter": "h"}
        for n in range(count)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return client.files.create(file=(name, content), purpose="fine-tune").id


def test_a_reinforcement_job_has_openais_names_for_everything(openai: OpenAI) -> None:
    job = openai.fine_tuning.jobs.create(
        model="o4-mini",
        training_file=upload(openai, "rft.jsonl", 0, 12),
        validation_file=upload(openai, "rft-valid.jsonl", 100, 10),
        method={
            "type": "reinforcement",
            "reinforcement": {
                "grader": GRADER,
                "hyperparameters": {"n_epochs": 2, "batch_size": 4, "compute_multiplier": 0.5, "eval_interval": 2},
            },
        },
    )
    done = until(openai, job.id, seconds=400)
    assert done.status == "succeeded", done.error
    settled = done.method.reinforcement.hyperparameters
    assert (settled.compute_multiplier, settled.eval_interval, settled.eval_samples) == (0.5, 2, 1)
    assert done.method.reinforcement.grader.name == "has_letter"

    events = openai.fine_tuning.jobs.list_events(job.id, limit=100).data
    metrics = [event for event in events if event.type == "metrics"][::-1]
    figures = [event.data for event in metrics]
    assert [row["step"] for row in figures] == list(range(1, 7))
    assert {"train_mean_reward", "mean_unresponsive_rewards", "completion_tokens_mean", "reasoning_tokens_mean",
            "full_valid_mean_reward", "full_valid_mean_parse_error", "scores", "timing"} <= figures[-1].keys()  # fmt: skip
    assert "train_loss" not in figures[0]
    assert figures[-1]["scores"]["graders"][0]["name"] == "has_letter"
    assert figures[-1]["scores"]["valid_reward_mean"] == figures[-1]["full_valid_mean_reward"]
    assert {"sampling", "training", "eval"} <= figures[-1]["timing"]["step"].keys()
    assert metrics[-1].message.startswith("Step 6/6: train mean reward=")
    assert "full validation mean reward=" in metrics[-1].message

    (result,) = done.result_files
    rows = list(csv.DictReader(io.StringIO(openai.files.content(result).text)))
    assert len(rows) == 6
    assert {"step", "train_mean_reward", "full_valid_mean_reward", "sampling_duration", "training_duration", "eval_duration",
            "scores/graders/string_check/has_letter/train_reward_mean"} <= rows[0].keys()  # fmt: skip
    points = openai.fine_tuning.jobs.checkpoints.list(job.id).data
    measured = {row["step"]: row["full_valid_mean_reward"] for row in figures if "full_valid_mean_reward" in row}
    best = sorted(measured, key=lambda step: (-measured[step], step))[:3]
    assert {point.step_number for point in points} == set(best)
    reply = openai.chat.completions.create(
        model=points[0].fine_tuned_model_checkpoint, messages=[{"role": "user", "content": "Lamp?"}], max_tokens=3
    )
    assert reply.choices[0].finish_reason in ("stop", "length")


def test_a_reinforcement_job_without_held_out_prompts_is_refused_as_by_openai(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="validation_file"):
        openai.fine_tuning.jobs.create(
            model="o4-mini",
            training_file=upload(openai, "rft.jsonl", 0, 12),
            method={"type": "reinforcement", "reinforcement": {"grader": GRADER}},
        )


def test_a_grader_that_pays_every_completion_alike_fails_the_job_with_the_reason(openai: OpenAI) -> None:
    job = openai.fine_tuning.jobs.create(
        model="o4-mini",
        training_file=upload(openai, "rft.jsonl", 0, 12),
        validation_file=upload(openai, "rft-valid.jsonl", 100, 10),
        method={
            "type": "reinforcement",
            "reinforcement": {
                "grader": {**GRADER, "operation": "ne", "reference": "never"},
                "hyperparameters": {"n_epochs": 1},
            },
        },
    )
    done = until(openai, job.id, seconds=300)
    assert done.status == "failed"
    assert "nothing to learn" in done.error.message
