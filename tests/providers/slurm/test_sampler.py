"""Completions on a node of a real Slurm cluster: by srun, with the client's input and output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import WorkerDied
from ftbridge.providers import load
from ftbridge.providers.base import Completion, Prompt, Sampler
from ftbridge.spec.lowering import Lowering
from support.cluster_jobs import submission_of
from support.slurm_cluster import SlurmCluster
from support.waiting import wait_for

pytestmark = pytest.mark.slow

PROMPTS = [
    Prompt.model_validate({"key": f"item-{number}", "messages": [{"role": "user", "content": f"Lamp {number}?"}]})
    for number in range(4)
]


@contextmanager
def sampling(folder: Path, provider: str, model: Path, **slurm: Any) -> Iterator[tuple[Sampler, Path]]:
    """A sampler of a run's base model, and the run's folder."""
    changes = {"local.precision": "fp32", "slurm": {"gpus": 0, "time": "10", **slurm}}
    submission = submission_of(folder, provider, model=model, **changes)
    lowering = Lowering.model_validate_json((submission.folder / "lowering.json").read_text())
    sampler = load(provider).sampler(lowering, None, submission.folder)
    try:
        yield sampler, submission.folder
    finally:
        sampler.close()


def completed(sampler: Sampler) -> list[Completion]:
    return sorted(sampler.generate(PROMPTS, max_tokens=6, batch_size=4), key=lambda one: one.key)


def jobs(cluster: SlurmCluster, folder: Path) -> list[str]:
    """States of the jobs that complete for a run."""
    name = f"--name={folder.name}-completions"
    return cluster.slurm("squeue", "--noheader", "--states=all", name, "-o", "%T").split()


def test_a_node_completes_what_this_machine_would(tmp_path: Path, cluster: SlurmCluster, tiny_model_dir: Path) -> None:
    setup = ["echo a module is loaded", "export FTBRIDGE_HERE=node"]
    with sampling(tmp_path / "slurm", "slurm", tiny_model_dir, setup=setup) as (sampler, folder):
        first = completed(sampler)
        assert jobs(cluster, folder) == ["RUNNING"]
        assert completed(sampler) == first or [one.text for one in completed(sampler)] == [one.text for one in first]
        assert jobs(cluster, folder) == ["RUNNING"], "one process for all questions"
    wait_for(lambda: jobs(cluster, folder) in (["COMPLETED"], []), 30)
    assert "a module is loaded" in (folder / "worker.log").read_text()
    with sampling(tmp_path / "local", "local", tiny_model_dir) as (sampler, _):
        assert [one.text for one in completed(sampler)] == [one.text for one in first]


def test_one_that_is_cancelled_is_an_error_that_names_the_log(
    tmp_path: Path, cluster: SlurmCluster, tiny_model_dir: Path
) -> None:
    with sampling(tmp_path, "slurm", tiny_model_dir) as (sampler, folder):
        completed(sampler)
        cluster.slurm("scancel", f"--name={folder.name}-completions")
        wait_for(lambda: "RUNNING" not in jobs(cluster, folder), 30)
        with pytest.raises(WorkerDied, match="the process that ran the model") as caught:
            completed(sampler)
        assert str(folder / "worker.log") in str(caught.value.hint)


def test_a_spec_may_keep_them_here(tmp_path: Path, cluster: SlurmCluster, tiny_model_dir: Path) -> None:
    with sampling(tmp_path, "slurm", tiny_model_dir, evaluation="here") as (sampler, folder):
        assert len(completed(sampler)) == len(PROMPTS)
        assert jobs(cluster, folder) == []
        assert json.loads((folder / "lowering.json").read_text())["request"]["launch"]["evaluation"] == "here"
