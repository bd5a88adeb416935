"""Which parts of a model an adapter changes, and which stay frozen, in words. Works on a model without memory (meta) too.

    part                                   all-linear                            by name
    linear layers                          adapted                               adapted
    fused experts (parameters)             adapted; dropout does not reach them  adapted
    routers                                frozen: they decide, and stay stable  adapted, where they are plain layers
    state-space out_proj, x_proj, dt_proj  frozen: fused kernels read the weight as peft decides
    output head                            frozen                                adapted, through the model's own head

peft adapts a parameter that is not a layer (`target_parameters`) by adding B A to it before each forward. Dropout on the
adapter's input cannot be written that way, nor can DoRA, and peft refuses both. Here the adapter's config says no dropout,
and the linear layers get theirs directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local.request import LocalRequest

ALL_LINEAR = "all-linear"
_ROUTERS = {"router", "gate", "shared_expert_gate", "gate_network", "wg", "gating"}
_STATE_SPACE = {"out_proj", "x_proj", "dt_proj"}
"""Layers of Mamba blocks whose weights the fused training kernels read past any adapter (mamba_ssm: mamba_inner_fn,
mamba_split_conv1d_scan_combined)."""
_FUSED_NAMES = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "w1": "gate_up_proj", "w3": "gate_up_proj"}
"""Projections of one expert, by the fused parameter that holds them; "w2" is its down_proj."""
_FUSED_NAMES["w2"] = "down_proj"


@dataclass(frozen=True)
class Targets:
    """What an adapter changes: `modules` and `parameters` as peft takes them, and notes for people on what stays frozen."""

    modules: str | list[str]
    parameters: tuple[str, ...]
    notes: tuple[str, ...]


def resolve(model: Any, request: LocalRequest) -> Targets:
    """What `request.target_modules` means for this model. Raises `ModelUnavailable` for a name that matches nothing."""
    wanted = request.target_modules
    experts = fused_experts(model)
    if isinstance(wanted, str) and wanted.lower() != ALL_LINEAR:
        return Targets(wanted, (), ())  # a pattern, which peft matches against the whole name
    layers = {name: module for name, module in model.named_modules() if _is_linear(module)}
    if isinstance(wanted, str):
        chosen, frozen = _all_linear(model, layers)
        parameters, notes = list(experts), [f"stay frozen: {', '.join(frozen)}"] if frozen else []
        if experts and request.use_dora:
            parameters, notes = [], [*notes, "the experts stay frozen: peft has no DoRA for fused experts"]
        if not chosen and not parameters:
            raise ModelUnavailable("all-linear finds no layer of this model that an adapter can change.", hint=_HINT)
        unchanged = not frozen and not parameters and not experts
    else:
        chosen, parameters, notes = *_by_name(model, layers, experts, wanted), []
        unchanged = not experts
        if parameters and request.use_dora:
            raise ModelUnavailable(
                f"peft has no DoRA for fused experts ({', '.join(_short(parameters))}).",
                hint="Set local.lora.use_dora: false, or leave the experts out of local.lora.target_modules.",
            )
    if unchanged:
        return Targets(wanted, (), tuple(notes))
    chosen, more, lost = _past_conversion(model, chosen, quantized=request.quantization != "none")
    if lost:
        notes.append(f"stay frozen: {', '.join(_short(lost))} (peft takes these names for the experts')")
    if parameters and request.lora_dropout:
        notes.append("dropout reaches the adapted linear layers, not the fused experts")
    return Targets(chosen, tuple(_short([*parameters, *more])), tuple(notes))


def fused_experts(model: nn.Module) -> dict[str, Tensor]:
    """The weights of experts that are parameters of one module rather than layers of their own, by name."""
    fused: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if _is_linear(module) or isinstance(module, nn.modules.conv._ConvNd) or not _says(name, module, "expert"):
            continue
        if _says(name.rpartition(".")[2], module, "router") or _leaf(name) in _ROUTERS:
            continue
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 3 and "bias" not in leaf:
                fused[f"{name}.{leaf}"] = parameter
    return fused


def layer_names(model: nn.Module) -> list[str]:
    """The last names of layers and fused experts that an adapter can change."""
    layers = [name for name, module in model.named_modules() if _is_linear(module)]
    return sorted({_leaf(name) for name in layers} | set(_short(fused_experts(model))))


_HINT = "Name its layers in local.lora.target_modules, set local.tuning: full, or use another base model."


def _all_linear(model: Any, layers: dict[str, nn.Module]) -> tuple[list[str], list[str]]:
    """The layers that all-linear adapts, and what it leaves frozen, for people."""
    head = model.get_output_embeddings()
    mixture = any("expert" in name for name, _ in model.named_modules())
    modules = dict(model.named_modules())
    routers = {_leaf(name) for name, module in modules.items() if mixture and _is_router(name, module)}
    chosen, mamba = [], set()
    for name, module in layers.items():
        if module is head or (mixture and _is_router(name, module)):
            continue
        if not _returns_a_tensor(module):
            routers.add(_leaf(name))
        elif _leaf(name) in _STATE_SPACE and _is_mamba(modules[name.rpartition(".")[0]]):
            mamba.add(_leaf(name))
        else:
            chosen.append(name)
    frozen = [f"the routers ({', '.join(sorted(routers))})"] if routers else []
    if mamba:
        frozen.append(
            f"{', '.join(sorted(mamba))} of the state-space blocks, whose kernels read the weights past an adapter"
        )
    return chosen, frozen


def _by_name(
    model: nn.Module, layers: dict[str, nn.Module], experts: dict[str, Tensor], wanted: Iterable[str]
) -> tuple[list[str], list[str]]:
    """The layers and fused experts with these names, or ending in them. Raises `ModelUnavailable` for the first without."""
    others = {name for name, module in model.named_modules() if isinstance(module, (nn.Embedding, nn.Conv1d))}
    chosen: list[str] = []
    parameters: list[str] = []
    for target in wanted:
        matches = _matching(target)
        modules = [name for name in (*layers, *others) if matches(name)]
        fused = [name for name in experts if matches(name)]
        path, _, leaf = target.rpartition(".")
        if experts and leaf in _FUSED_NAMES:
            fused = [name for name in experts if _matching(f"{path}.{_FUSED_NAMES[leaf]}".lstrip("."))(name)]
        if not modules and not fused:
            raise ModelUnavailable(
                f"local.lora.target_modules names {target!r}, and no layer of this model has that name.",
                hint=f"Its layers are: {', '.join(layer_names(model))}. Or use all-linear.",
            )
        chosen += modules
        parameters += fused
    return list(dict.fromkeys(chosen)), list(dict.fromkeys(parameters))


def _past_conversion(model: Any, chosen: list[str], *, quantized: bool) -> tuple[list[str], list[str], list[str]]:
    """Layers that peft would take for parts of fused experts, and drop: adapted as parameters, or frozen if quantized.

    For mixtures whose experts were layers in transformers 4, peft reads any target that ends in gate_proj, up_proj,
    down_proj or gate as an expert's, shared experts and dense blocks included
    (peft/utils/transformers_weight_conversion.py, `_convert_peft_config_moe`), on training and on loading alike.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    parts_left: list[str] = []
    dropped: list[str] = []
    outcomes: dict[str, bool] = {}
    for name in chosen:
        if _leaf(name) not in outcomes:
            config = LoraConfig(target_modules=[name])
            try:
                convert_peft_config_for_transformers(config, model, None)
                outcomes[_leaf(name)] = name in (config.target_modules or ())
            except ValueError:  # one half of a fused pair without the other
                outcomes[_leaf(name)] = False
        (parts_left if outcomes[_leaf(name)] else dropped).append(name)
    if quantized:
        return parts_left, [], dropped
    return parts_left, [f"{name}.weight" for name in dropped], []


def _matching(target: str) -> Callable[[str], bool]:
    return lambda name: name == target or name.endswith(f".{target}")


def _short(names: Iterable[str]) -> list[str]:
    """Names without the layer's number and what is before it: `mlp.experts.gate_up_proj`."""
    short: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        last_number = max((index for index, part in enumerate(parts) if part.isdigit()), default=-1)
        short[".".join(parts[last_number + 1 :])] = None
    return list(short)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Conv1D)) and not hasattr(module, "lora_A")


def _is_router(name: str, module: nn.Module) -> bool:
    return bool(_ROUTERS & set(name.split("."))) and any(True for _ in module.parameters(recurse=False))


def _returns_a_tensor(module: nn.Module) -> bool:
    """Whether a layer returns what a linear layer does; routers derived from nn.Linear return tuples."""
    if isinstance(module, Conv1D) or type(module).forward is nn.Linear.forward:
        return True
    if not isinstance(module, nn.Linear) or type(module).__module__.startswith("bitsandbytes"):
        return True
    row = torch.zeros(1, module.in_features, device=module.weight.device, dtype=module.weight.dtype)
    with torch.no_grad():
        output = module(row)
    return isinstance(output, Tensor) and output.shape == (1, module.out_features)


def _is_mamba(parent: nn.Module) -> bool:
    """Whether a layer's parent is a state-space block: it has the decay and the skip (A and D of Gu and Dao 2023)."""
    return hasattr(parent, "A_log") and hasattr(parent, "D")


def _says(name: str, module: nn.Module, word: str) -> bool:
    return word in name.lower() or word in type(module).__name__.lower()
