"""Several workers train as one: the same losses at every step, whatever their number, by real processes over gloo."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.models.footprint import ring_bytes
from ftbridge.providers.local.process.job import Job
from ftbridge.providers.local.process.run_training import run_training
from ftbridge.providers.local.training.parallel import Parallel
from support import practice_cases, ranks
from support.jobs import examples, submitted_job

LR = "hyperparameters.learning_rate_multiplier"
NO_DROPOUT = {"local.lora.dropout": 0.0, LR: 20}


def job_files(folder: Path) -> dict[str, Path]:
    """Pairs and prompts, and prompts held out."""
    folder.mkdir()
    chats = [one["messages"] for one in examples(0, 18)]
    pairs = [
        {
            "input": {"messages": one[:1]},
            "preferred_output": one[1:],
            "non_preferred_output": [{**other[1], "content": f"{other[1]['content']}, I think"}],
        }
        for one, other in pairwise(chats)
    ]
    lines = {"pairs": pairs, "prompts": practice_cases.rows(6), "held_out": practice_cases.rows(3, 100)}
    for name, rows in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: folder / f"{name}.jsonl" for name in lines}


def settings(files: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Every method and tuning; a last batch of one example or pair, which leaves workers without any."""
    grader = {**practice_cases.HAS_LETTER}
    return {
        "lora": {**NO_DROPOUT, "train": 21},
        "replay": {**NO_DROPOUT, "data.replay": {"share": 0.3}},
        "nf4": {**NO_DROPOUT, "local.quantization": "nf4", "local.cache_dequantized_weights": False},
        "padded": {**NO_DROPOUT, "local.packing": False, "hyperparameters.batch_size": 3},
        "full": {"local.tuning": "full", LR: 10},
        "dpo": {**NO_DROPOUT, "method": "dpo", "data.train": str(files["pairs"])},
        "reinforcement": {
            "method": "reinforcement", "data.train": str(files["prompts"]), "data.validation": str(files["held_out"]),
            "hyperparameters.batch_size": 3, "hyperparameters.eval_interval": 2, LR: 300, "local.thinking": "off",
            "evaluation.graders": [grader], "evaluation.max_completion_tokens": 6,
            "hyperparameters.compute_multiplier": 0.5, "hyperparameters.n_epochs": 2,
        },
    }  # fmt: skip


def figures_of(job: Job) -> list[dict[str, Any]]:
    reporter = ranks.Written()
    assert run_training(job, reporter) == "succeeded"
    return reporter.figures


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, one_thread: None
) -> tuple[dict[str, dict[str, Any]], dict[str, Job], dict[str, list[dict[str, Any]]]]:
    """The spec changes of each job, the job, and what it reported with one worker."""
    folder = tmp_path_factory.mktemp("alone")
    changes = settings(job_files(folder / "data"))
    jobs = {name: submitted_job(folder / name, tiny_model_dir, **one) for name, one in changes.items()}
    return changes, jobs, {name: figures_of(job) for name, job in jobs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_losses_are_the_same_with_any_number_of_workers(
    alone: Any, tmp_path: Path, tiny_model_dir: Path, workers: int
) -> None:
    changes, single, wanted_figures = alone
    jobs = {name: submitted_job(tmp_path / name, tiny_model_dir, **one) for name, one in changes.items()}
    outcomes = ranks.train_together(list(jobs.values()), workers)
    for name, job in jobs.items():
        outcome = outcomes[job.folder]
        assert outcome["ending"] == "succeeded"
        wanted, seen = ranks.losses(wanted_figures[name]), ranks.losses(outcome["figures"])
        assert len(wanted) == len(seen) > 3
        for step, (one, other) in enumerate(zip(wanted, seen, strict=True), start=1):
            assert other == pytest.approx(one, rel=1e-5, abs=1e-5), (name, step)
        folder, file = ("model", "model") if name == "full" else ("adapter", "adapter_model")
        weights, others = (load_file(one.folder / folder / f"{file}.safetensors") for one in (single[name], job))
        assert weights.keys() == others.keys()
        assert max(float((weights[key] - others[key]).abs().max()) for key in weights) < 1e-4, name


def unit(length: int) -> Encoded:
    return Encoded((1,) * length, (True,) * length, 0)


def test_micro_batches_are_dealt_whole_and_evenly() -> None:
    parts = [[unit(length)] for length in (9, 2, 7, 3, 5, 4)]
    hands = [Parallel(rank, 3).deal(parts) for rank in range(3)]
    assert sorted(turn.number for hand in hands for turn in hand) == list(range(6))
    assert sorted(sum(len(turn.part[0]) for turn in hand) for hand in hands) == [9, 10, 11]
    assert all(turn.part is parts[turn.number] for hand in hands for turn in hand)


def test_workers_whose_weights_are_sharded_run_as_many_micro_batches_each() -> None:
    parts = [[unit(length)] for length in (9, 2, 7)]
    hands = [Parallel(rank, 2, sharded=True).deal(parts) for rank in range(2)]
    assert {len(hand) for hand in hands} == {2}
    assert sorted((turn.number, turn.idle) for hand in hands for turn in hand) == [
        (0, False),
        (1, False),
        (1, True),
        (2, False),
    ]


def test_a_worker_alone_cuts_and_counts_as_before() -> None:
    alone = Parallel()
    assert alone.budget([unit(3)], 100) == 100
    assert Parallel(0, 4).budget([unit(30)], 100) == 8
    assert alone.from_main(lambda: 5) == 5
    assert alone.add({"loss": 1.5}) == {"loss": 1.5}
    assert ring_bytes(100, 1) == 0
    assert ring_bytes(100, 4) == 150
