"""How fast a CPU trains a model, from a one-second measurement of the machine and the model's config. No torch in here.

    seconds of a token  =  flops / P  +  PASSES x elements / E

    flops     of the linear layers 2 a parameter forward and 2 backward (LoRA's weights are frozen, so only activations
              have a gradient), 6 a parameter of the adapter; the head 2 and 2 a parameter for each token with a loss
              (loss.py); attention 12 x length x width a layer, forward and backward. Checkpointing computes the forward
              pass again. Full tuning: 2 and 4.
    elements  numbers that the linear layers read and write: norms, activations, dropout and LoRA's narrow products pass
              over them
    P, E      products and elementwise operations a second here, as `Products` has them

2 a parameter and token: Kaplan et al. 2020 (arXiv:2001.08361), table 1; attention: Dao et al. 2022 (arXiv:2205.14135).
`PASSES` stands for what is not a matrix product. It is fitted to real runs: benchmarks/README.md ("Hours on a CPU") has
each of them with its ratio. What other programs compute meanwhile, and saving, come on top.

`products()` measures once in a process of its own (`providers.local.process.products`) and keeps the figures, with their
day, in FTBRIDGE_HOME/products.json, or the file that FTBRIDGE_PRODUCTS names, by machine, processors, precision and
version of torch.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge import files
from ftbridge.planning.machine import Machine
from ftbridge.providers.local.models.footprint import Job, ModelShape
from ftbridge.providers.local.process.child import child_environment

PASSES = 35.0
"""Elementwise passes over the inputs and outputs of all linear layers that a trained token takes, forward and backward."""
SECONDS = 120.0
"""How long the measurement may take, torch's start on a busy machine included."""
MODULE = "ftbridge.providers.local.process.products"


class Products(BaseModel):
    """What this machine's processor does in a second, with all threads and nothing else at work."""

    model_config = ConfigDict(frozen=True)

    day: str = Field(description="When it was measured.")
    compute: Literal["bfloat16", "float16", "float32"]
    threads: int = Field(ge=1)
    torch: str
    flops: dict[int, float] = Field(min_length=1, description="Of matrix products, by the width of the matrix.")
    elements: float = Field(gt=0, description="Of an elementwise operation on two tensors.")

    @property
    def sentence(self) -> str:
        """The measurement in a few words."""
        middle = sorted(self.flops.values())[len(self.flops) // 2]
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{middle / 1e9:.0f} GFLOP/s in {self.compute} with {threads}, measured {self.day}"

    def rate(self, width: float) -> float:
        """Flops a second of products with matrices of this width, between those that were measured."""
        measured = sorted(self.flops.items())
        below = [one for one in measured if one[0] <= width] or measured[:1]
        above = [one for one in measured if one[0] >= width] or measured[-1:]
        (low, slow), (high, fast) = below[-1], above[0]
        share = math.log(width / low) / math.log(high / low) if high > low else 0.0
        return slow + share * (fast - slow)


def products(machine: Machine, precision: str = "auto") -> Products | str:
    """This machine's figures, measured now where they are not known yet; or why they cannot be had, as a sentence's end.

    `precision` is the spec's `local.precision`.
    """
    try:
        torch = version("torch")
    except PackageNotFoundError:
        return "torch is not installed (pip install 'ftbridge[local]'), so this machine's speed was not measured"
    path = Path(os.environ.get("FTBRIDGE_PRODUCTS") or files.home() / "products.json")
    name = stored_name(machine, precision, torch)
    try:
        return Products.model_validate(_read(path)[name])
    except (KeyError, ValidationError):
        measured = _measured(precision)
    if isinstance(measured, Products):
        files.write_json(path, {**_read(path), name: measured.model_dump(mode="json")})
    return measured


def stored_name(machine: Machine, precision: str, torch: str) -> str:
    """What a measurement depends on: its key in products.json. `torch` is its version."""
    return json.dumps([platform.node(), machine.processor, machine.cores, torch, precision])


def tokens_per_second(
    machine: Products, shape: ModelShape, job: Job, *, length: float, loss_share: float, checkpointing: bool = False
) -> float:
    """Tokens that training reads in a second. `length`: tokens of an example on average; `loss_share`: 0 to 1 have a loss."""
    seconds = 0.0
    backward = 4 if job.tuning == "full" else 2
    each = 2 * (1 + checkpointing) + backward
    for linear in shape.linears:
        seconds += each * linear.parameters / machine.rate(math.sqrt(linear.inputs * linear.outputs))
    active = shape.expert_parameters * shape.active_experts / shape.experts if shape.expert_layers else 0.0
    around = machine.rate(shape.hidden)
    adapter = 6 * shape.adapter_parameters(job.r, job.modules, dora=job.dora) if job.tuning == "lora" else 0
    head = (2 + backward) * shape.vocabulary * shape.hidden * loss_share
    attention = (12 + 4 * checkpointing) * length * shape.heads * shape.head_dim * shape.layers
    seconds += (each * active + adapter + head + attention) / around
    elements = sum((one.inputs + one.outputs) * one.times for one in shape.linears)
    return 1 / (seconds + PASSES * elements / machine.elements)


def _measured(precision: str) -> Products | str:
    try:
        done = subprocess.run(
            [sys.executable, "-m", MODULE, precision],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            env=child_environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"this machine's speed could not be measured ({type(error).__name__})"
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    try:
        return Products.model_validate({**json.loads(done.stdout), "day": today})
    except (ValueError, ValidationError):
        last = next(
            (line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit status {done.returncode}"
        )
        return f"this machine's speed could not be measured ({last.strip()[:120]})"


def _read(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
