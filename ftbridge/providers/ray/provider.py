"""The Ray provider: the cluster provider with Ray's Jobs API."""

from __future__ import annotations

import math
from typing import Any

from ftbridge.providers.cluster.provider import ClusterProvider
from ftbridge.providers.ray.scheduler import ADDRESS_VARIABLE, RayJobs
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import Outcome
from ftbridge.spec.sections import RaySpec


class RayProvider(ClusterProvider):
    """Trains on a node of a Ray cluster."""

    name = "ray"

    def scheduler(self, launch: dict[str, Any]) -> RayJobs:
        """Ray's Jobs API, with what the spec requests of it."""
        return RayJobs(RaySpec.model_validate(launch))

    def machines(self, spec: JobSpec) -> tuple[int, int]:
        """One node, with `ray.gpus`: a share of a GPU counts as one."""
        return 1, math.ceil(spec.ray.gpus)

    def notes(self, spec: JobSpec) -> dict[str, tuple[Outcome, Any, str]]:
        """How fields of `ray` become a request of the Jobs API."""
        ray = spec.ray
        notes: dict[str, tuple[Outcome, Any, str]] = {
            "ray.gpus": ("exact", ray.gpus, "entrypoint_num_gpus" if ray.gpus else "no GPU is requested"),
            "ray.token_variable": ("exact", ray.token_variable, "read when a request is made; never written down"),
        }
        if ray.address is None:
            notes["ray.address"] = ("exact", None, f"${ADDRESS_VARIABLE}")
        return notes
