"""Jobs trained by several real processes over gloo, started by torchrun: one start for many jobs, since imports take longest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftbridge.providers.local.process.job import Job
from support.tiny_training import Steps

ROOT = Path(__file__).parents[2]


class Written(Steps):
    """A reporter that keeps figures and sentences, and writes both for the test to read."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def message(self, text: str, level: str = "info") -> None:
        self.messages.append(text)


def train_together(
    jobs: list[Job], workers: int, faults: dict[Path, str] | None = None, timeout: float = 400
) -> dict[Path, dict[str, Any]]:
    """Train each job with `workers` processes; endings, figures and messages of the main one, by run folder.

    `faults` by run folder. leave-whole: sharding does nothing, without a word, as others found it to. short-of-memory: on
    worker 1 alone, micro-batches of more than 60 tokens find no memory.
    """
    arguments = [f"{job.folder}::{(faults or {}).get(job.folder, '')}" for job in jobs]
    done = torchrun(workers, "support.ranks", *arguments, timeout=timeout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return {job.folder: json.loads((job.folder / f"outcome-{workers}.json").read_text()) for job in jobs}


def torchrun(workers: int, module: str, *args: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """Run a module of tests/ in so many processes to their end."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={workers}",
        "-m",
        module,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *args], capture_output=True, text=True, timeout=timeout, env=environment, cwd=ROOT, check=False
    )


def losses(figures: list[dict[str, Any]]) -> list[tuple[float, ...]]:
    """What each step reported that must not depend on the number of workers."""
    names = ("train_loss", "valid_loss", "gradient_norm", "train_mean_reward", "full_valid_mean_reward")
    return [tuple(float(step[name]) for name in names if name in step) for step in figures]


def main(arguments: list[str]) -> None:
    """One worker: train each job after the other."""
    import torch

    from ftbridge.providers.local.process.run_training import run_training
    from ftbridge.providers.local.training.parallel import joined

    torch.set_num_threads(1)
    with joined() as parallel:
        for argument in arguments:
            folder, _, fault = argument.partition("::")
            reporter = Written()
            with faulty(fault, parallel.rank):
                ending = run_training(Job(Path(folder)), reporter, parallel)
            if parallel.is_main:
                outcome = {"ending": ending, "figures": reporter.figures, "messages": reporter.messages}
                (Path(folder) / f"outcome-{parallel.world}.json").write_text(json.dumps(outcome))


@contextmanager
def faulty(fault: str, rank: int) -> Iterator[None]:
    """A machine with a fault, in this process."""
    from ftbridge.providers.local.models import sharding
    from ftbridge.providers.local.training.forward import Forward

    shard, loss_sum = sharding.shard, Forward.loss_sum

    def short_of_memory(self: Forward, examples: Any, *, seed: int = 0) -> Any:
        if self.model.training and sum(len(example) for example in examples) > 60:
            raise MemoryError("out of memory")
        return loss_sum(self, examples, seed=seed)

    if fault == "leave-whole":
        sharding.shard = lambda model, world, device: None
    if fault == "short-of-memory" and rank == 1:
        Forward.loss_sum = short_of_memory  # type: ignore[method-assign]
    try:
        yield
    finally:
        sharding.shard, Forward.loss_sum = shard, loss_sum  # type: ignore[method-assign]


if __name__ == "__main__":
    main(sys.argv[1:])
