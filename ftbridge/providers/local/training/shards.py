"""What is trained, tensor by tensor: saved and loaded in parts, gathered for files that others read, compared with these.

    checkpoints/step-000120/sharded/     torch.distributed.checkpoint: a file for each worker, and .metadata, written last

Parts are loaded by name into whatever holds the tensors now: as many workers, fewer, more, or one with the whole model. Frozen
weights are not among them. AdamW's moments are; other optimizers keep theirs in blocks that cannot be cut (`fsdp2_refusals`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from ftbridge.errors import TrainingFailed
from ftbridge.providers.local.models.sharding import let_go
from ftbridge.providers.local.training.parallel import Parallel

FOLDER = "sharded"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""AdamW's state of a parameter, as torch names it."""
NORM_TOLERANCE = 1e-4
"""Largest difference of a saved tensor's norm from that of the trained one, as a share: sums in another order."""


def trained_parameters(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The parameters that train, by name, in the order that the optimizer has them."""
    let_go(model)
    return ((name, one) for name, one in model.named_parameters() if one.requires_grad)


def save(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Write every worker's part of weights and moments. All workers call this together. Raises `OSError` for a full disk."""
    try:
        dcp.save(_tensors(model, optimizer), checkpoint_id=folder, no_dist=not dist.is_initialized())
    except dcp.CheckpointException as error:
        for cause, _ in error.failures.values():
            if isinstance(cause, OSError):
                raise cause from error
            if "No space left" in str(cause) or "file write failed" in str(cause):
                raise OSError(28, "No space left on device") from error
        raise


def load(folder: Path, model: Any, optimizer: torch.optim.Optimizer | None) -> None:
    """Load parts into a model, sharded or whole, and its optimizer (None: weights alone)."""
    tensors = _tensors(model, optimizer)
    is_complete = not any(isinstance(one, DTensor) for one in tensors.values())
    dcp.load(tensors, checkpoint_id=folder, no_dist=is_complete or not dist.is_initialized())


def gathered(model: Any, *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors of what is trained, by name, on the CPU of a worker that keeps them. All workers call this together."""
    tensors = {}
    for name, parameter in trained_parameters(model):
        tensor = parameter.detach()
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        if keep:
            tensors[name] = tensor.cpu()
    return tensors


def scatter(
    model: Any, optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Put whole weights, and an optimizer's whole state by the number of each parameter, into a sharded model.

    Raises `TrainingFailed` where the state is not AdamW's.
    """
    _begin(model, optimizer)
    for number, (name, parameter) in enumerate(trained_parameters(model)):
        _fill(parameter, weights[name])
        moments = state["state"].get(number, {})
        if set(moments) != set(MOMENTS):
            raise TrainingFailed(
                "the checkpoint's optimizer keeps its moments in 8 bits, which cannot be sharded.",
                hint="Resume with --set local.sharding=ddp, or start a new run with local.optimizer: adamw.",
            )
        for key in MOMENTS:
            _fill(optimizer.state[parameter][key], moments[key])


def fill(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Put whole weights into a sharded model."""
    for name, parameter in trained_parameters(model):
        _fill(parameter, weights[name])


def names_in_file(model: Any) -> dict[str, str]:
    """What each trained tensor of a peft model is called in its adapter's file, by its name in the model."""
    from peft import get_peft_model_state_dict

    names = [name for name, _ in trained_parameters(model)]
    numbers = get_peft_model_state_dict(model, state_dict={name: torch.tensor(i) for i, name in enumerate(names)})
    return {names[int(number)]: key for key, number in numbers.items()}


def norms(model: Any, parallel: Parallel) -> dict[str, tuple[tuple[int, ...], float]]:
    """Shape and L2 norm of every trained tensor, by name: summed over parts where it is sharded. All workers call this."""
    squares = {
        name: float((one.to_local() if isinstance(one, DTensor) else one).detach().double().square().sum())
        for name, one in trained_parameters(model)
    }
    total = parallel.add(squares) if parallel.sharded else squares
    return {name: (tuple(one.shape), math.sqrt(total[name])) for name, one in trained_parameters(model)}


def require_saved(folder: Path, model: Any, wanted: Mapping[str, tuple[tuple[int, ...], float]]) -> None:
    """Raise `TrainingFailed` unless the adapter in a folder has every trained tensor, with its shape and norm.

    Adapters that hold one worker's part, or nothing, were written without a word by others: accelerate#4206, axolotl#3772,
    peft#1443.
    """
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        there = set(file.keys())
        for name, key in names_in_file(model).items():
            shape, norm = wanted[name]
            tensor = file.get_tensor(key) if key in there else torch.zeros(0)
            written = float(tensor.double().norm())
            if tuple(tensor.shape) != shape or abs(written - norm) > NORM_TOLERANCE * max(norm, 1e-6):
                raise TrainingFailed(
                    f"the adapter that was written is not the one that was trained: {key} has the shape "
                    f"{tuple(tensor.shape)} and the norm {written:.6g}, not {shape} and {norm:.6g}.",
                    hint="The last checkpoint is kept. Report this, with the model and local.sharding.",
                )


def _tensors(model: Any, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    tensors = {f"weight/{name}": one.detach() for name, one in trained_parameters(model)}
    if optimizer is not None:
        _begin(model, optimizer)
        for name, one in trained_parameters(model):
            tensors |= {f"{key}/{name}": optimizer.state[one][key] for key in MOMENTS}
    return tensors


def _begin(model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Give an AdamW that has not stepped yet the moments of its first step, zeros."""
    fused = bool(optimizer.defaults.get("fused"))
    for _, one in trained_parameters(model):
        if not optimizer.state[one]:
            step = torch.zeros((), dtype=torch.float32, device=one.device if fused else "cpu")
            zeros = [torch.zeros_like(one, memory_format=torch.preserve_format) for _ in range(2)]
            optimizer.state[one] = {"step": step, "exp_avg": zeros[0], "exp_avg_sq": zeros[1]}


def _fill(target: Tensor, source: Tensor) -> None:
    with torch.no_grad():
        if isinstance(target, DTensor):
            source = source.to(device=target.device, dtype=target.dtype)
            target.copy_(distribute_tensor(source, target.device_mesh, target.placements, src_data_rank=None))
        else:
            target.copy_(source)
