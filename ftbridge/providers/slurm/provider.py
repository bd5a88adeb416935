"""The Slurm provider: the cluster provider with Slurm's scheduler."""

from __future__ import annotations

from typing import Any

from ftbridge.providers.cluster.provider import ClusterProvider
from ftbridge.providers.slurm.scheduler import Slurm
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import Outcome
from ftbridge.spec.sections import SlurmSpec


class SlurmProvider(ClusterProvider):
    """Trains on nodes of a Slurm cluster."""

    name = "slurm"

    def scheduler(self, launch: dict[str, Any]) -> Slurm:
        """Slurm, with what the spec requests of it."""
        return Slurm(SlurmSpec.model_validate(launch))

    def machines(self, spec: JobSpec) -> tuple[int, int]:
        """`slurm.nodes` and `slurm.gpus`."""
        return spec.slurm.nodes, spec.slurm.gpus

    def notes(self, spec: JobSpec) -> dict[str, tuple[Outcome, Any, str]]:
        """How fields of `slurm` become options of sbatch."""
        slurm = spec.slurm
        notes: dict[str, tuple[Outcome, Any, str]] = {}
        if slurm.gpus == 0:
            notes["slurm.gpus"] = ("exact", 0, "no GPU is requested")
        if slurm.nodes > 1:
            notes["slurm.nodes"] = (
                "exact",
                slurm.nodes,
                "srun starts the workers of each node; they meet at the first",
            )
            how = "workers on each node, " + ("one for each GPU" if spec.local.workers == "auto" else "as given")
            notes["local.workers"] = ("exact", spec.local.workers, how)
        if slurm.time is not None:
            how = f"--time={slurm.time}; a job that reaches it saves a checkpoint and is queued again"
            notes["slurm.time"] = ("exact", slurm.time, how)
        return notes
