"""The sections `slurm` and `ray`: what to request of a cluster for the local provider's training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ftbridge.spec.sections.base import SpecModel, checked_address

_SLURM_TIME = r"^(UNLIMITED|[0-9]+(:[0-5]?[0-9]){0,2}|[0-9]+-[0-9]+(:[0-5]?[0-9]){0,2})$"
"""Slurm's formats of a time limit (man sbatch, --time)."""
_SLURM_RESERVED = frozenset(
    f"--{name}"
    for name in (
        "account", "array", "begin", "comment", "cpus-per-task", "error", "gpus-per-node", "job-name", "mem", "no-requeue",
        "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "partition", "qos", "requeue", "signal",
        "test-only", "time", "wait", "wrap",
    )
)  # fmt: skip
"""Options of sbatch that a field of the spec sets, or that following the job relies on."""


class SlurmSpec(SpecModel):
    """What to request of a Slurm cluster (provider slurm). The run folder must be on storage that the nodes share."""

    partition: str | None = Field(default=None, min_length=1, description="Partition; the cluster's default if absent.")
    gpus: int = Field(default=1, ge=0, le=64, description="GPUs of each node; 0 trains on CPUs.")
    nodes: int = Field(default=1, ge=1, le=1024, description="Nodes; each trains on all of its requested GPUs.")
    cpus: int | None = Field(default=None, ge=1, description="CPU cores of each node; the cluster's default if absent.")
    memory: str | None = Field(
        default=None, pattern=r"^[1-9][0-9]*[KMGT]?$", description="Memory of each node, such as 64G (Slurm's --mem)."
    )
    time: str | None = Field(
        default=None,
        pattern=_SLURM_TIME,
        description="Time limit as Slurm writes it, such as 90 (minutes), 12:00:00 or 2-00:00:00. A job that reaches it saves "
        "a checkpoint and is queued again.",
    )
    account: str | None = Field(default=None, min_length=1, description="Account that the job is charged to.")
    qos: str | None = Field(default=None, min_length=1, description="Quality of service.")
    evaluation: Literal["cluster", "here"] = Field(
        default="cluster",
        description="Where completions are computed: cluster, on one GPU of a node, by srun; here, on the machine that runs "
        "ftbridge.",
    )
    options: list[Annotated[str, Field(pattern=r"^--[a-z][a-z-]*(=.*)?$")]] = Field(
        default=[], description="More options of sbatch, such as --constraint=a100 or --reservation=team."
    )
    setup: list[str] = Field(
        default=[], description="Shell commands for the node to run before training, such as module load cuda."
    )
    python: str | None = Field(
        default=None, min_length=1, description="Python interpreter on the nodes; the path of this one if absent."
    )

    @field_validator("options")
    @classmethod
    def _are_not_set_elsewhere(cls, options: list[str]) -> list[str]:
        taken = {option.partition("=")[0] for option in options} & _SLURM_RESERVED
        if taken:
            raise ValueError(f"{', '.join(sorted(taken))}: ftbridge sets these itself, or slurm has a field for them")
        return options


class RaySpec(SpecModel):
    """Which Ray cluster, and what to request of it (provider ray). The run folder must be on storage that the nodes share."""

    address: str | None = Field(
        default=None,
        description="Address of the cluster's dashboard, such as http://head:8265; $RAY_API_SERVER_ADDRESS if absent.",
    )
    token_variable: str = Field(
        default="RAY_AUTH_TOKEN",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable with the bearer token, if the cluster requires one.",
    )
    gpus: float = Field(default=1, ge=0, le=64, description="GPUs of the job; 0 trains on CPUs.")
    cpus: float | None = Field(default=None, gt=0, description="CPU cores of the job; Ray's default if absent.")
    memory_gb: float | None = Field(default=None, gt=0, description="Memory that Ray reserves for the job, in GB.")
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="Custom resources, such as {a100: 1}: which nodes may run the job."
    )
    runtime_env: dict[str, Any] = Field(
        default={},
        description="Ray's runtime environment, such as {pip: [...]} or {env_vars: {...}}; never put keys here.",
    )
    python: str | None = Field(
        default=None, min_length=1, description="Python interpreter on the nodes; the path of this one if absent."
    )

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        return checked_address(address)
