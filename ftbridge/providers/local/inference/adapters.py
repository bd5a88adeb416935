"""Many LoRA adapters on one base model in memory, each row of a batch with its own, in one step for all of them.

    x ── [A1 A2 A3]ᵀ ──▶ low ── · mask, scaled ──▶ ── [B1 B2 B3]ᵀ ──▶ added to the layer's own product
                               row of adapter 2:  0 0 s s 0 0

The adapters of a pass stand side by side as one larger adapter, and each row keeps the columns that are its own: two
products a layer, however many adapters there are. Adapters are read from peft's own format. Which rows are whose is set before
each pass.
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
from ftbridge.providers.local.inference.packed import Product

_Part = tuple[str, int, float]
"""An adapter's folder, rank and scale."""


@dataclass(frozen=True)
class LowRank:
    """One layer's adapter: A (r, in), B (out, r), and the scale of their product."""

    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True)
class _Joined:
    """The adapters of a layer side by side: A transposed (in, sum of r), B transposed (sum of r, out).

    `parts` are the columns and the scale of each adapter, in order.
    """

    a: Tensor
    b: Tensor
    parts: tuple[_Part, ...]


@dataclass
class Adapters:
    """The adapters that are loaded on a model, and which rows of the pass under way each applies to."""

    model: nn.Module
    device: torch.device
    dtype: torch.dtype
    products: dict[str, Product] = field(default_factory=dict)
    """Faster products of layers by name, while there are any."""
    _loaded: dict[str, dict[str, LowRank]] = field(default_factory=dict)
    _rows: tuple[str | None, ...] = ()
    _folders: tuple[str, ...] = ()
    _joined: dict[str, _Joined | None] = field(default_factory=dict)
    _masks: dict[tuple[_Part, ...], Tensor] = field(default_factory=dict)
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

    def use(self, rows: Sequence[str | None]) -> None:
        """Set each row's adapter (None for the base model) for the passes that follow."""
        folders = tuple(sorted({folder for folder in rows if folder is not None}))
        if folders != self._folders:
            self._folders, self._joined = folders, {}
        if tuple(rows) != self._rows:
            self._rows, self._masks = tuple(rows), {}

    def _wrap(self, name: str, module: nn.Module) -> None:
        if name in self._wrapped:
            return
        self._wrapped.add(name)
        module.forward = MethodType(self._forward(name, module.forward), module)

    def _forward(self, name: str, plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(_module: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            y = self.products.get(name, plain)(x, *args, **kwargs)
            if not self._folders:
                return y
            joined = self._joined_of(name)
            if joined is None:
                return y
            low = (x.to(self.dtype) @ joined.a) * self._mask_of(joined.parts, x)
            return y + (low @ joined.b).to(y.dtype)

        return forward

    def _joined_of(self, name: str) -> _Joined | None:
        """A layer's adapters side by side."""
        if name not in self._joined:
            layers = {
                folder: layer for folder in self._folders if (layer := self._loaded[folder].get(name)) is not None
            }
            joined: _Joined | None = None
            if layers:
                a = torch.cat([layer.a for layer in layers.values()]).t()
                b = torch.cat([layer.b for layer in layers.values()], 1).t().contiguous()
                parts = tuple((folder, layer.a.shape[0], layer.scale) for folder, layer in layers.items())
                joined = _Joined(a, b, parts)
            self._joined[name] = joined
        return self._joined[name]

    def _mask_of(self, parts: tuple[_Part, ...], x: Tensor) -> Tensor:
        """The scale where a column of the low product is of the row's adapter, else 0. Raises `ModelUnavailable`.

        Shape (rows, …, columns), or the number where all rows have the same adapter.
        """
        if parts not in self._masks:
            lines = [[scale * (row == folder) for folder, r, scale in parts for _ in range(r)] for row in self._rows]
            mask = torch.tensor(lines, device=self.device, dtype=self.dtype)
            same = len(parts) == 1 and None not in self._rows and len(self._folders) == 1
            self._masks[parts] = mask[0, :1] if same else mask
        mask = self._masks[parts]
        if mask.dim() == 1:
            return mask
        if x.shape[0] != len(self._rows):
            raise ModelUnavailable("this model mixes the tokens of its rows, so each row cannot have its own adapter.")
        return mask.view(mask.shape[0], *[1] * (x.dim() - 2), mask.shape[1])


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
            hint="Merge it into a separate model and serve that.",
        )
    r, alpha = config["r"], config["lora_alpha"]
    scale = alpha / (math.sqrt(r) if config.get("use_rslora") else r)
    layers: dict[str, LowRank] = {}
    for key, a in weights.items():
        if key.endswith(".lora_A.weight"):
            name = key.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
            layers[name] = LowRank(a, weights[key.replace("lora_A", "lora_B")], scale)
    return layers
