"""A model made ready to train: loaded, adapted, fused, sharded where it must be, and proved.

whole      every worker loads it on its device
sharded    every worker loads it on the CPU, one after the other on a machine; blocks move to the device in parts. It is tried
before it trains, and where sharding does not do what it should, every worker holds it whole, with a note
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from ftbridge.errors import UsageError
from ftbridge.providers.local.data.batches import Encoded
from ftbridge.providers.local.models import footprint, load, sharding
from ftbridge.providers.local.models.device import Device, is_out_of_memory
from ftbridge.providers.local.models.fused import DropoutPool, fuse
from ftbridge.providers.local.models.memory import PassPlan, agreed, job_of, plan_pass, require_free
from ftbridge.providers.local.models.parts import recompute_activations
from ftbridge.providers.local.models.sizes import shape_of
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training.forward import Forward, prove
from ftbridge.providers.local.training.parallel import Parallel

FAILURES = (sharding.NotSharded, RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError)
"""How sharding fails on a model that it does not take."""
Say = Callable[[str, str], None]
"""Hears a sentence for people, and its level."""


@dataclass(frozen=True)
class BuildInputs:
    """What a model is made ready with: the model in `path`, the job, its workers, and examples to prove it on.

    Args:
        longest: Tokens of the longest unit.
        rows: Tokens that attention reads for one of a pass (`footprint.block_bytes`).
        say: Hears what people should know.
        quiet: Prepares a loaded model for the method.
    """

    path: Path
    request: LocalRequest
    device: Device
    parallel: Parallel
    examples: Sequence[Encoded]
    longest: int
    say: Say
    quiet: Callable[[Any], None]
    rows: float = 1.0


@dataclass(frozen=True)
class Built:
    """A model as one way to run it, the passes that there is room for, and the workers, who hold it whole or in parts.

    `copied`: nf4 weights are also held in 16 bits.
    """

    forward: Forward
    passes: PassPlan
    parallel: Parallel
    copied: bool = False


@dataclass(frozen=True)
class _Adapted:
    model: Any
    pool: DropoutPool | None
    autocast: bool
    copied: bool


def build(inputs: BuildInputs) -> Built:
    """The model, ready to train; all workers call this together. Raises `ModelUnavailable`."""
    path, request, device, parallel = inputs.path, inputs.request, inputs.device, inputs.parallel
    free, shape = min(parallel.everyone(device.free_bytes())), _shape(path, request)
    chosen = sharding.choose(request, shape, device, free, parallel.world)
    if device.kind == "cuda" and shape is not None:
        weights = footprint.weight_bytes(shape, job_of(request, device)) // (parallel.world if chosen == "fsdp2" else 1)
        require_free(device.describe(), device.free_bytes(), torch.cuda.mem_get_info(device.torch)[1], weights)
    if chosen == "fsdp2":
        if device.compute == torch.float16:
            raise UsageError("local.precision fp16 cannot be sharded.", hint="Set local.precision: bf16 or fp32.")
        try:
            return _sharded(inputs)
        except sharding.NotSharded as why:
            device.empty_cache()
            inputs.say(f"sharding (fsdp2) was tried and left: {why}. Every worker holds the whole model (ddp)", "warn")
    base = parallel.in_turn(partial(load.load_base, path, request, device))
    passes = agreed(
        parallel.everyone(
            plan_pass(base.config, request, device, inputs.longest, parallel.on_this_machine, rows=inputs.rows)
        )
    )
    return _proved(_adapted(base, request, device), passes, inputs)


def _sharded(inputs: BuildInputs) -> Built:
    """The same in parts. Raises `NotSharded` on every worker where it is not so on one."""
    device, parallel = inputs.device, inputs.parallel
    request = inputs.request.model_copy(update={"cache_dequantized_weights": False})
    loaded = parallel.in_turn(partial(_loaded_in_parts, inputs.path, request, device, parallel.world))
    _require_all(parallel, loaded if isinstance(loaded, str) else None)
    assert not isinstance(loaded, str)
    adapted, before = loaded
    parallel = replace(parallel, sharded=True)
    _require_all(parallel, _trial(adapted.model, before, parallel, device))
    workers_here = parallel.on_this_machine
    plans = plan_pass(
        adapted.model.config, request, device, inputs.longest, workers_here, parts=parallel.world, rows=inputs.rows
    )
    return _proved(adapted, agreed(parallel.everyone(plans)), replace(inputs, request=request, parallel=parallel))


def _require_all(parallel: Parallel, reason: str | None) -> None:
    """Raise `NotSharded` on every worker where one of them has a reason."""
    if (failed := next(filter(None, parallel.everyone(reason)), None)) is not None:
        raise sharding.NotSharded(failed)


def _trial(model: Any, before: sharding.ShardingProbe, parallel: Parallel, device: Device) -> str | None:
    """Why a model is not sharded as it should be, or None where it is."""
    try:
        sharding.require_sharded(model, before, parallel.world, device.compute)
    except FAILURES as why:
        return _described(why)
    return None


def _loaded_in_parts(
    path: Path, request: LocalRequest, device: Device, world: int
) -> tuple[_Adapted, sharding.ShardingProbe] | str:
    """Load the whole model on the CPU, adapt it, and keep this worker's part of it on the device; or why that cannot be."""
    cpu = Device(torch.device("cpu"), device.compute)
    adapted = _adapted(load.load_base(path, request, cpu), request, device)
    try:
        before = sharding.probe(adapted.model)
        sharding.shard(adapted.model, world, device.torch)
    except FAILURES as why:
        return _described(why)
    return adapted, before


def _described(why: Exception) -> str:
    """What went wrong, in a line. Memory that ran out is no reason to hold more of it: that is raised."""
    if is_out_of_memory(why):
        raise why
    return str(why) if isinstance(why, sharding.NotSharded) else f"{type(why).__name__}: {str(why).splitlines()[0]}"


def _adapted(base: Any, request: LocalRequest, device: Device) -> _Adapted:
    """The model with its adapter, fused; as it is for full tuning."""
    if request.tuning == "full":
        return _Adapted(base, None, autocast=True, copied=False)
    model = load.add_adapter(base, request)
    weights = load.FrozenWeights.of(model, request, device)
    pool = DropoutPool(request.lora_dropout, device.compute, device.torch)
    fused = fuse(model, weights.weight_of, pool)
    adapted = sum(1 for module in model.modules() if hasattr(module, "lora_A"))
    copied = weights.keep_copy and request.quantization == "nf4" and fused > 0
    return _Adapted(model, pool, autocast=fused < adapted or not adapted, copied=copied)


def _proved(adapted: _Adapted, passes: PassPlan, inputs: BuildInputs) -> Built:
    """With the way to run it that is proved on examples."""
    model = adapted.model
    if passes.gradient_checkpointing:
        recompute_activations(model)
    model.train()
    inputs.quiet(model)
    forward = prove(
        Forward(model, inputs.device, "plain", autocast=adapted.autocast, pool=adapted.pool),
        inputs.examples,
        packing=inputs.request.packing,
        note=lambda text: inputs.say(text, "warn"),
    )
    sharding.let_go(model)
    return Built(forward, passes, inputs.parallel, adapted.copied)


def _shape(path: Path, request: LocalRequest) -> Any:
    """The model's sizes; None where its config does not tell them in the usual words."""
    config = AutoConfig.from_pretrained(path, trust_remote_code=request.trust_remote_code)
    try:
        return shape_of(config.to_dict())
    except UsageError:
        return None
