"""OpenAI's preference guide against `ftbridge serve` over a two-layer model: tune on examples, then on preferences, unmodified."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from support.served_model import client_of
from support.small_model import write_small_model
from support.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def openai(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> Iterator[OpenAI]:
    folder = tmp_path_factory.mktemp("served")
    plain = write_small_model(folder / "plain", base_model_dir)
    settings = {"quantization": "none", "precision": "fp32", "max_length": 64, "base_learning_rate": 1e-3}
    with client_of({"gpt-4.1-mini": str(plain)}, folder, settings) as client:
        yield client


def upload(client: OpenAI, name: str, lines: list[dict[str, object]]) -> str:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return client.files.create(file=(name, content), purpose="fine-tune").id


def chat(n: int) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": f"Lamp {n}?"}, {"role": "assistant", "content": f"Lamp {n} is red."}]
    }


def preference(n: int) -> dict[str, object]:
    return {
        "input": {"messages": [{"role": "user", "content": f"Lamp {n}?"}], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": f"Red, lamp {n}."}],
        "non_preferred_output": [{"role": "assistant", "content": f"One might say that lamp {n} is rather red."}],
    }


def test_a_tuned_model_is_tuned_further_by_preferences_with_openais_names_for_everything(openai: OpenAI) -> None:
    first = openai.fine_tuning.jobs.create(
        model="gpt-4.1-mini", training_file=upload(openai, "sft.jsonl", [chat(n) for n in range(12)]),
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}}},
    )  # fmt: skip
    tuned = until(openai, first.id, seconds=300)
    assert tuned.status == "succeeded", tuned.error
    job = openai.fine_tuning.jobs.create(
        model=tuned.fine_tuned_model,
        training_file=upload(openai, "dpo.jsonl", [preference(n) for n in range(12)]),
        validation_file=upload(openai, "dpo-valid.jsonl", [preference(n) for n in range(50, 54)]),
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": "auto", "n_epochs": 2, "batch_size": 4}}},
    )  # fmt: skip
    assert job.method.type == "dpo"
    done = until(openai, job.id, seconds=300)
    assert done.status == "succeeded", done.error
    assert done.method.dpo.hyperparameters.beta == 0.1
    assert done.fine_tuned_model.startswith("ft:gpt-4.1-mini:")

    events = openai.fine_tuning.jobs.list_events(job.id, limit=100).data
    figures = [event.data for event in events if event.type == "metrics"][::-1]
    assert [row["step"] for row in figures] == list(range(1, 7))
    assert figures[0]["train_loss"] == pytest.approx(0.693147, abs=1e-5), "the tuned model is the reference"
    assert {"train_reward_accuracy", "train_reward_margin"} <= figures[0].keys()
    assert {"valid_loss", "valid_reward_accuracy", "valid_reward_margin"} <= figures[-1].keys()
    assert figures[-1]["train_reward_margin"] > 0

    (result,) = done.result_files
    rows = list(csv.DictReader(io.StringIO(openai.files.content(result).text)))
    assert float(rows[-1]["train_reward_accuracy"]) > 0.5
    points = openai.fine_tuning.jobs.checkpoints.list(job.id).data
    assert points
    assert points[0].metrics.valid_loss is not None
    reply = openai.chat.completions.create(
        model=done.fine_tuned_model, messages=[{"role": "user", "content": "Lamp 3?"}], max_tokens=4
    )
    assert reply.choices[0].message.content is not None


def test_examples_of_another_method_fail_the_job_with_what_they_are(openai: OpenAI) -> None:
    job = openai.fine_tuning.jobs.create(
        model="gpt-4.1-mini", training_file=upload(openai, "sft.jsonl", [chat(n) for n in range(12)]), method={"type": "dpo"}
    )  # fmt: skip
    failed = until(openai, job.id, seconds=120)
    assert failed.status == "failed"
    assert "holds chats, which are not data for method dpo" in failed.error.message
