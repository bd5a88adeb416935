"""FSDP2: every worker holds a part of each weight, and a block's weights are gathered when its turn comes.

    whole model          block 1        block 2       …         one worker of four
    W  (out x in)  ──▶   ¼ of each of its weights          ─┐
                                                            ├─▶ forward: gather block, compute, let go; backward: the same,
    adapter, moments ─▶  ¼ of each                         ─┘     and gradients are added and scattered

torch's `fully_shard` on each block, on the head, and on what is left of the decoder. Gradients are added, not averaged
(`parallel.py` says why). 4-bit weights are frozen bytes, so they shard as they are; bitsandbytes' constants of them stay whole.

What could go wrong in silence did so elsewhere: 4-bit weights left whole with a warning (accelerate#3981), gradients that are
NaN (accelerate#3983), a forward pass that is wrong on CUDA alone (bitsandbytes#1945). So a sharded model is tried before it
trains: `require_sharded`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from ftbridge.providers.local.models import footprint
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.memory import job_of
from ftbridge.providers.local.models.parts import causal, decoder
from ftbridge.providers.local.request import LocalRequest

PROBE = tuple(range(5, 21))
"""Token ids of the trial; every vocabulary has them."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.02}
"""Largest difference of the first block's output from the unsharded one's, as a share of the largest number in it."""
LEFT_WHOLE = 0.1
"""Share of the weights that may be held beside a worker's part: rows that do not divide, parameters that are not in a block."""
FIT_SHARE = 0.85
"""Share of a GPU's free memory that a whole model may take before it is sharded; passes need the rest."""


class NotSharded(Exception):
    """Sharding does not do what it should here; the text says what."""


@dataclass(frozen=True)
class ShardingProbe:
    """What the whole model computed: its first block's output (tokens, width) for a few tokens; and the size of its weights."""

    states: Tensor
    weight_bytes: int


def choose(
    request: LocalRequest, shape: footprint.ModelShape | None, device: Device, free: int, world: int
) -> Literal["ddp", "fsdp2"]:
    """How workers hold the model: as the request says; auto is ddp where a whole model fits in `free` bytes, and on a CPU."""
    if world == 1 or request.sharding == "ddp":
        return "ddp"
    if request.sharding == "fsdp2":
        return "fsdp2"
    refused = request.quantization == "int8" or request.use_dora or request.method == "reinforcement"
    if device.kind != "cuda" or shape is None or refused or "8bit" in request.optimizer:
        return "ddp"
    job = job_of(request, device)
    needed = footprint.weight_bytes(shape, job) + footprint.trained_bytes(shape, job)
    return "ddp" if needed <= FIT_SHARE * free else "fsdp2"


def shard(model: Any, world: int, device: torch.device) -> None:
    """Shard every weight of a model over `world` workers, moving it to the device a block at a time."""
    mesh = init_device_mesh(device.type, (world,))
    for module in model.modules():
        if (state := getattr(getattr(module, "weight", None), "quant_state", None)) is not None:
            module.quant_state = state
            state.to(device)
    core, head, embeddings = decoder(model), causal(model).get_output_embeddings(), causal(model).get_input_embeddings()
    _, _, blocks = _blocks(core)
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    if head is not None and getattr(head, "weight", None) is getattr(embeddings, "weight", None):
        fully_shard([embeddings, head], mesh=mesh, reshard_after_forward=True)
    elif head is not None and not any(head is module for module in core.modules()):
        fully_shard(head, mesh=mesh, reshard_after_forward=True)
    fully_shard(core, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    model.to(device)  # buffers, and what stands outside decoder and head


def let_go(model: Any) -> None:
    """Let go of every gathered weight, so that a module's parameters are this worker's parts again, as its optimizer has them.

    A pass through the decoder alone, or one without a backward pass, leaves some gathered.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def probe(model: Any) -> ShardingProbe:
    """What `require_sharded` compares with, from the whole model. Runs its first block alone."""
    core = decoder(model)
    parent, name, blocks = _blocks(core)
    weight_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    setattr(parent, name, nn.ModuleList([blocks[0]]))
    try:
        with torch.no_grad(), _first_states(model, blocks[0]) as run:
            return ShardingProbe(run().float().cpu(), weight_bytes)
    finally:
        setattr(parent, name, blocks)


def require_sharded(model: Any, before: ShardingProbe, world: int, compute: torch.dtype) -> None:
    """Raise `NotSharded` unless a worker holds about its part, computes what the whole model does, and its adapters learn.

    All workers call this together: the passes gather weights. Leaves no gradient behind, and the model in train mode.
    """
    held = sum(_local(one).numel() * one.element_size() for one in model.parameters())
    if held > before.weight_bytes * (1 / world + LEFT_WHOLE):
        raise NotSharded(f"a worker holds {held / before.weight_bytes:.0%} of the weights, not about {1 / world:.0%}")
    with _first_states(model, _blocks(decoder(model))[2][0]) as run:
        states, hidden = run(), run.hidden
        off = float((states.detach().float().cpu() - before.states).abs().max() / before.states.abs().max())
        if not off <= TOLERANCE[compute]:
            raise NotSharded(f"its first block computes other numbers than the whole model's (off by {off:.2g})")
        hidden[0].float().square().mean().backward()
    squares = sum(float(_local(one.grad).float().square().sum()) for one in model.parameters() if one.grad is not None)
    for one in model.parameters():
        one.grad = None
    model.train()
    if not (math.isfinite(squares) and squares > 0):
        raise NotSharded(
            f"the gradient of what it trains has the norm {math.sqrt(squares) if squares > 0 else squares}"
        )


def inside(module: Any, function: Callable[..., Any], *inputs: Any) -> Any:
    """What `function` returns, run as the module's own forward where it is sharded, so that its weights are whole meanwhile."""
    if not isinstance(module, FSDPModule):
        return function(*inputs)
    before = module.__dict__.get("forward")
    module.forward = function
    try:
        return module(*inputs)
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.forward = before


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


class _Run:
    """Runs the decoder over the probe; returns the first block's output, and keeps what the decoder returned."""

    hidden: Any = None

    def __init__(self, model: Any) -> None:
        self._model, self.states = model, list[Tensor]()

    def __call__(self) -> Tensor:
        where = next(iter(causal(self._model).get_input_embeddings().parameters())).device
        self.hidden = decoder(self._model)(input_ids=torch.tensor([PROBE], device=where), use_cache=False)
        return self.states[0]


@contextmanager
def _first_states(model: Any, block: nn.Module) -> Iterator[_Run]:
    """A run of the decoder in eval mode that keeps the output of a block."""
    run = _Run(model)
    hook = block.register_forward_hook(
        lambda _module, _inputs, output: run.states.append(output[0] if isinstance(output, tuple) else output)
    )
    model.eval()
    try:
        yield run
    finally:
        hook.remove()
        model.train()


def _blocks(core: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of a decoder's blocks, with the module that holds it and its name there. Raises `NotSharded` without one."""
    lists = [
        (parent, name, child)
        for parent in core.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList)
    ]
    if not lists:
        raise NotSharded("the model has no list of blocks")
    return max(lists, key=lambda one: sum(parameter.numel() for parameter in one[2].parameters()))
