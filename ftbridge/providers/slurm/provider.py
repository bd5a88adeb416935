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

    def notes(self, spec: JobSpec) -> dict[str, tuple[Outcome, Any, str]]:
        """How fields of `slurm` become options of sbatch."""
        slurm = spec.slurm
        notes: dict[str, tuple[Outcome, Any, str]] = {
            "slurm.gpus": ("exact", slurm.gpus, f"--gpus-per-node={slurm.gpus}" if slurm.gpus else "no GPU is requested"),
            "slurm.nodes": ("exact", slurm.nodes, f"--nodes={slurm.nodes}"),
        }
        if slurm.time is not None:
            how = f"--time={slurm.time}; a job that reaches it saves a checkpoint and is queued again"
            notes["slurm.time"] = ("exact", slurm.time, how)
        return notes
