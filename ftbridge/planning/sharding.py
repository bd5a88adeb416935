"""Several GPUs in a plan: what each holds, the smallest sets of common ones that hold a job, and what they send each other.

    ddp      every GPU holds the whole job                   a step sends the gradients of what is trained, once
    fsdp2    weights and moments / n, what is gathered       each micro-batch gathers weights twice, and scatters gradients

The sizes are `ftbridge.providers.local.models.footprint`'s. Traffic is that of rings, (n - 1) / n of the bytes for a gather or
a scatter, and twice that to add up (Patarasuk and Yuan 2009).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import providers
from ftbridge.planning.memory import CARDS, GIB, Memory, job_of, largest_pass, memory
from ftbridge.providers.local.lower import fsdp2_refusals
from ftbridge.providers.local.models import footprint
from ftbridge.providers.local.models.footprint import ModelShape
from ftbridge.spec import JobSpec

COUNTS = (1, 2, 4, 8)
"""Numbers of GPUs that a plan shows."""
LEAST = 512
"""Tokens of the smallest micro-batch that a set of GPUs must hold to be named."""
USABLE = 0.97
"""Share of a GPU's memory that a job can have."""
Sharding = Literal["ddp", "fsdp2"]


class PerGpu(BaseModel):
    """One GPU of several while training with micro-batches of `memory.pass_tokens` tokens. About."""

    model_config = ConfigDict(frozen=True)

    gpus: int
    sharding: Sharding
    memory: Memory
    traffic: int = Field(description="Bytes that each GPU sends in a step of one micro-batch on each.")


class GpuSet(BaseModel):
    """The smallest GPU that holds a job when there are so many of it."""

    model_config = ConfigDict(frozen=True)

    gpus: int
    card: str
    gib: float = Field(description="Memory of one of them.")
    sharding: Sharding
    pass_tokens: int = Field(description="Tokens of the largest micro-batch on each.")


class ClusterPlan(BaseModel):
    """What the GPUs of a cluster hold that the spec requests."""

    model_config = ConfigDict(frozen=True)

    provider: str
    nodes: int
    gpus_per_node: int = Field(description="GPUs of each node that train: those requested, or local.workers of them.")
    per_gpu: PerGpu
    smallest: GpuSet | None = Field(description="The smallest common GPU that holds the job; null if none does.")


def per_gpu(
    shape: ModelShape, spec: JobSpec, gpus: int, sharding: Sharding, *, pass_tokens: int, share: float
) -> PerGpu:
    """What each of `gpus` holds and sends. `share` (0..1) of the tokens have a loss."""
    parts = gpus if sharding == "fsdp2" else 1
    return PerGpu(
        gpus=gpus,
        sharding=sharding,
        memory=memory(shape, spec.local, pass_tokens=pass_tokens, trained_share=share, gpus=parts),
        traffic=footprint.step_traffic(shape, job_of(spec.local, "cuda"), gpus, sharded=parts > 1),
    )


def shown(shape: ModelShape, spec: JobSpec, *, pass_tokens: int, share: float) -> list[PerGpu]:
    """Each number of GPUs, with its sharding."""
    return [one_count(shape, spec, gpus, pass_tokens=pass_tokens, share=share) for gpus in COUNTS]


def one_count(shape: ModelShape, spec: JobSpec, gpus: int, *, pass_tokens: int, share: float) -> PerGpu:
    """One of so many GPUs, with the sharding that the spec requests: for auto the first that an 80 GB GPU holds."""
    largest = CARDS["A100, H100 80 GB"] * GIB * USABLE
    options = [per_gpu(shape, spec, gpus, way, pass_tokens=pass_tokens, share=share) for way in ways(spec, gpus)]
    return next((row for row in options if row.memory.total <= largest), options[-1])


def on_clusters(shape: ModelShape, spec: JobSpec, *, pass_tokens: int, share: float) -> list[ClusterPlan]:
    """What the GPUs hold that the spec requests of clusters: of each provider whose section it sets."""
    plans = []
    for name in providers.names():
        if name not in spec.model_fields_set or (provider := providers.find(name)) is None:
            continue
        capabilities = provider.capabilities(spec)
        gpus = capabilities.gpus_per_node
        if not gpus:
            continue
        if isinstance(spec.local.workers, int):
            gpus = min(gpus, spec.local.workers)
        row = one_count(shape, spec, capabilities.nodes * gpus, pass_tokens=pass_tokens, share=share)
        smallest = _smallest(shape, spec, row.gpus, row.sharding, share)
        plans.append(
            ClusterPlan(provider=name, nodes=capabilities.nodes, gpus_per_node=gpus, per_gpu=row, smallest=smallest)
        )
    return plans


def smallest_sets(shape: ModelShape, spec: JobSpec, *, share: float) -> list[GpuSet]:
    """For each number of GPUs the smallest common one that holds the job, if any; fewest GPUs first.

    More of the same size that bring no smaller one are left out.
    """
    sets: list[GpuSet] = []
    for gpus in COUNTS:
        for way in ways(spec, gpus):
            smallest = _smallest(shape, spec, gpus, way, share)
            if smallest is not None and (not sets or smallest.gib < sets[-1].gib):
                sets.append(smallest)
    return sets


def ways(spec: JobSpec, gpus: int) -> list[Sharding]:
    """How so many GPUs may hold the job's model: as the spec says, and never in a way that would be refused."""
    if gpus == 1 or fsdp2_refusals(spec.local, spec.method) or spec.local.sharding == "ddp":
        return ["ddp"]
    return ["fsdp2"] if spec.local.sharding == "fsdp2" else ["ddp", "fsdp2"]


def _smallest(shape: ModelShape, spec: JobSpec, gpus: int, sharding: Sharding, share: float) -> GpuSet | None:
    parts = gpus if sharding == "fsdp2" else 1
    for name, gib in sorted(CARDS.items(), key=lambda card: card[1]):
        most = largest_pass(shape, spec.local, gib * GIB * USABLE, share, gpus=parts)
        if most >= LEAST:
            return GpuSet(gpus=gpus, card=name, gib=gib, sharding=sharding, pass_tokens=most)
    return None
