"""Many LoRA adapters on one base model in memory, each row of a batch with its own.

    y[rows of adapter k] += s_k · x[rows of adapter k] A_kᵀ B_kᵀ

Adapters are read from peft's own format. Switching costs nothing: which rows are whose is said before each pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ftbridge.errors import ModelUnavailable


@dataclass(frozen=True)
class LowRank:
    """One layer's adapter: A (r, in), B (out, r), and the scale of their product."""

    a: Tensor
    b: Tensor
    scale: float


@dataclass
class Adapters:
    """The adapters that are loaded on a model, and which rows of the pass under way each applies to."""

    model: nn.Module
    device: torch.device
    dtype: torch.dtype
    _loaded: dict[str, dict[str, LowRank]] = field(default_factory=dict)
    _groups: list[tuple[str, Tensor | None]] = field(default_factory=list)
    _wrapped: set[str] = field(default_factory=set)

    def load(self, folder: str) -> None:
        """Load an adapter folder, once. Raises `ModelUnavailable` for adapters that are more than LoRA products."""
        if folder in self._loaded:
            return
        layers = read_adapter(Path(folder))
        modules = dict(self.model.named_modules())
        missing = sorted(name for name in layers if name not in modules)
        if missing:
            raise ModelUnavailable(
                f"the adapter in {folder} was trained on another model: this one has no layer {missing[0]}."
            )
        for name, layer in layers.items():
            self._wrap(name, modules[name])
            layers[name] = LowRank(
                layer.a.to(self.device, self.dtype), layer.b.to(self.device, self.dtype), layer.scale
            )
        self._loaded[folder] = layers

    def unload(self, folder: str) -> None:
        """Forget an adapter."""
        self._loaded.pop(folder, None)

    def use(self, rows: Sequence[str | None]) -> None:
        """Say each row's adapter (None for the base model) for the passes that follow."""
        groups: dict[str, list[int]] = {}
        for row, folder in enumerate(rows):
            if folder is not None:
                groups.setdefault(folder, []).append(row)
        whole = len(rows)
        self._groups = [
            (folder, None if len(its) == whole else torch.tensor(its, device=self.device))
            for folder, its in groups.items()
        ]

    def _wrap(self, name: str, module: nn.Module) -> None:
        if name in self._wrapped:
            return
        self._wrapped.add(name)
        module.forward = MethodType(self._forward(name, module.forward), module)

    def _forward(self, name: str, plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(_module: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            y = plain(x, *args, **kwargs)
            for folder, rows in self._groups:
                layer = self._loaded[folder].get(name)
                if layer is None:
                    continue
                if rows is None:
                    y = y + (x.to(self.dtype) @ layer.a.t() @ layer.b.t()).mul_(layer.scale).to(y.dtype)
                else:
                    part = (x.index_select(0, rows).to(self.dtype) @ layer.a.t() @ layer.b.t()).mul_(layer.scale)
                    y = y.index_add(0, rows, part.to(y.dtype))
            return y

        return forward


def read_adapter(folder: Path) -> dict[str, LowRank]:
    """An adapter's layers by the name of the base model's module. Raises `ModelUnavailable`."""
    try:
        config = json.loads((folder / "adapter_config.json").read_bytes())
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"the adapter in {folder} cannot be read: {error}") from None
    more = [key for key in ("use_dora", "modules_to_save", "bias", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
            if config.get(key) not in (None, False, "none", {}, [])]  # fmt: skip
    unknown = sorted(key for key in weights if not key.endswith((".lora_A.weight", ".lora_B.weight")))
    if more or unknown:
        raise ModelUnavailable(
            f"the adapter in {folder} has {', '.join(more or unknown[:3])}; only plain LoRA adapters share a base model.",
            hint="Merge it into a model of its own and serve that.",
        )
    r, alpha = config["r"], config["lora_alpha"]
    scale = alpha / (math.sqrt(r) if config.get("use_rslora") else r)
    layers: dict[str, LowRank] = {}
    for key, a in weights.items():
        if key.endswith(".lora_A.weight"):
            name = key.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
            layers[name] = LowRank(a, weights[key.replace("lora_A", "lora_B")], scale)
    return layers
