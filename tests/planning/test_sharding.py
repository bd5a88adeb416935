"""Several GPUs in a plan: published cases, what is held in parts, what is sent, and what would be refused."""

from __future__ import annotations

from typing import Any

import pytest

from ftbridge.planning import sharding
from ftbridge.planning.memory import CARDS, GIB, ModelShape, published_shape
from ftbridge.planning.sharding import (
    LEAST,
    USABLE,
    ClusterPlan,
    GpuSet,
    PerGpu,
    on_clusters,
    per_gpu,
    shown,
    smallest_sets,
    ways,
)
from ftbridge.spec import JobSpec

MODELS = {"8B": "meta-llama/Llama-3.1-8B-Instruct", "70B": "meta-llama/Llama-3.1-70B-Instruct"}


def shape_of(size: str) -> ModelShape:
    shape = published_shape(MODELS[size])
    assert shape is not None
    return shape


def spec_of(method: str = "supervised", **local: Any) -> JobSpec:
    document = {"name": "x", "method": method, "data": {"train": "t.jsonl"}, "model": {"local": "m"}, "local": local}
    return JobSpec.model_validate(document)


def sets_of(size: str, **local: Any) -> dict[int, GpuSet]:
    return {one.gpus: one for one in smallest_sets(shape_of(size), spec_of(**local), share=0.5)}


def on(gpus: int, way: Any, **local: Any) -> PerGpu:
    return per_gpu(shape_of("70B"), spec_of(**local), gpus, way, pass_tokens=2048, share=0.5)


def test_a_70b_in_nf4_fits_two_48_gb_gpus_and_not_two_24_gb_ones_without_the_cpu() -> None:
    """PEFT's guide to FSDP: 35.6 GB on each of two 48 GB cards; two 24 GB cards only with weights on the CPU."""
    planned = on(2, "fsdp2", quantization="nf4").memory
    assert 0.7 < planned.total / 35.6e9 < 1.0
    assert planned.weights / 2**30 < 19.6
    assert planned.total < CARDS["RTX A6000 48 GB"] * GIB * USABLE
    smallest = sets_of("70B", quantization="nf4")[2]
    assert smallest.sharding == "fsdp2"
    assert CARDS["RTX 3090, 4090 24 GB"] < smallest.gib <= CARDS["RTX A6000 48 GB"]
    assert smallest.pass_tokens >= LEAST


def test_weights_and_moments_are_held_in_parts_and_a_block_whole() -> None:
    alone, four = on(1, "ddp", quantization="none").memory, on(4, "fsdp2", quantization="none").memory
    assert four.weights == alone.weights // 4
    assert four.trained == alone.trained // 4
    assert alone.gathered == 0 < four.gathered < alone.weights // 8
    assert on(4, "ddp", quantization="none").memory == alone


def test_quantized_moments_are_complete_ones_when_sharded() -> None:
    """nf4 on a GPU takes 8-bit moments: 10 bytes a parameter, and 16 where they must be cut."""
    assert (
        on(2, "fsdp2", quantization="nf4").memory.trained == on(1, "ddp", quantization="nf4").memory.trained * 16 // 20
    )


def test_traffic_is_that_of_rings() -> None:
    parameters = shape_of("70B").adapter_parameters(16)
    assert [on(gpus, "ddp").traffic for gpus in (1, 2, 4)] == [0, 4 * parameters, 6 * parameters]
    weights = on(1, "ddp", quantization="none").memory.weights
    assert on(2, "fsdp2", quantization="none").traffic == weights + (4 + 2) * parameters


def test_a_model_that_fits_one_gpu_is_not_sharded_and_one_that_does_not_is() -> None:
    assert {row.sharding for row in shown(shape_of("8B"), spec_of(), pass_tokens=2048, share=0.5)} == {"ddp"}
    rows = shown(shape_of("70B"), spec_of(quantization="none"), pass_tokens=2048, share=0.5)
    assert [(row.gpus, row.sharding) for row in rows] == [(1, "ddp"), (2, "fsdp2"), (4, "fsdp2"), (8, "fsdp2")]
    assert rows[1].memory.total > rows[2].memory.total > rows[3].memory.total


def clusters_of(size: str, workers: Any = "auto", quantization: str = "nf4", **sections: Any) -> dict[str, ClusterPlan]:
    spec = spec_of(workers=workers, quantization=quantization)
    spec = JobSpec.model_validate({**spec.model_dump(exclude_unset=True), **sections})
    return {one.provider: one for one in on_clusters(shape_of(size), spec, pass_tokens=2048, share=0.5)}


def test_a_cluster_is_planned_with_the_nodes_and_gpus_that_the_spec_requests() -> None:
    plans = clusters_of("70B", "auto", "none", slurm={"nodes": 2, "gpus": 4}, ray={"gpus": 0.5})
    slurm, ray = plans["slurm"], plans["ray"]
    assert (slurm.nodes, slurm.gpus_per_node, slurm.per_gpu.gpus) == (2, 4, 8)
    assert slurm.per_gpu == on(8, "fsdp2", quantization="none")
    assert slurm.smallest is not None
    assert slurm.per_gpu.memory.total < slurm.smallest.gib * GIB * USABLE
    assert (ray.nodes, ray.gpus_per_node, ray.per_gpu.sharding) == (1, 1, "ddp")
    assert ray.smallest is None or ray.smallest.gib > 140, "a 70B in 16 bits on one GPU"


def test_workers_that_the_spec_counts_are_the_gpus_that_train() -> None:
    plans = clusters_of("8B", 2, slurm={"nodes": 3, "gpus": 8})
    assert (plans["slurm"].gpus_per_node, plans["slurm"].per_gpu.gpus) == (2, 6)
    assert plans["slurm"].per_gpu.sharding == "ddp"
    assert clusters_of("8B", 8, slurm={"gpus": 2})["slurm"].per_gpu.gpus == 2


def test_a_spec_without_a_cluster_or_gpus_has_no_cluster_in_its_plan() -> None:
    assert clusters_of("8B") == {}
    assert clusters_of("8B", slurm={"gpus": 0}, ray={"gpus": 0, "address": "http://head:8265"}) == {}


def test_sets_grow_in_number_only_where_a_smaller_gpu_does() -> None:
    sets = smallest_sets(shape_of("70B"), spec_of(quantization="none"), share=0.5)
    assert [one.gpus for one in sets] == sorted(one.gpus for one in sets)
    assert [one.gib for one in sets] == sorted((one.gib for one in sets), reverse=True)
    assert [one.gpus for one in smallest_sets(shape_of("8B"), spec_of(sharding="ddp"), share=0.5)] == [1]


@pytest.mark.parametrize(
    ("method", "local"),
    [
        ("supervised", {"optimizer": "paged_adamw_8bit"}),
        ("supervised", {"quantization": "int8"}),
        ("supervised", {"lora": {"use_dora": True}}),
        ("supervised", {"sharding": "ddp"}),
        ("reinforcement", {}),
    ],
)
def test_a_job_that_cannot_be_sharded_is_planned_with_the_complete_model_on_each_gpu(
    method: str, local: dict[str, Any]
) -> None:
    assert ways(spec_of(method, **local), 4) == ["ddp"]
    assert sharding.ways(spec_of(), 4) == ["ddp", "fsdp2"]
