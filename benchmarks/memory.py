"""Planned memory against measured peaks: the real model, trained for a few steps in processes of its own.

    python benchmarks/memory.py [--settings 6]

Peaks are the worker's largest resident size. The alternative beside ours is the rule of thumb that calculators on the web use:
bytes of the weights x 1.2 (EleutherAI's "Transformer Math 101", for inference), with 16 bytes for each trained parameter.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ftbridge.planning.local_tokens import local_tokens, renderer_of
from ftbridge.planning.memory import memory, quantization, read_shape
from ftbridge.planning.plan import find_config
from ftbridge.spec_sections import LocalSpec

MODEL = "smollm2-135m-instruct"
DATA = Path(__file__).resolve().parent.parent / "examples" / "support-triage" / "train.jsonl"
SETTINGS: list[dict[str, Any]] = [
    {"quantization": "nf4", "tokens_per_pass": 2048},
    {"quantization": "nf4", "tokens_per_pass": 512},
    {"quantization": "none", "tokens_per_pass": 2048},
    {"quantization": "nf4", "tokens_per_pass": 2048, "keep_dequantized": False},
    {"quantization": "none", "tokens_per_pass": 2048, "gradient_checkpointing": True},
    {"tuning": "full", "quantization": "none", "tokens_per_pass": 1024},
]


def main() -> None:
    """Train and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--settings", type=int, default=len(SETTINGS))
    asked = parser.parse_args()
    config = find_config(MODEL)
    if config is None:
        raise SystemExit(f"{MODEL} is not on this machine: run the example once.")
    shape, renderer = read_shape(config), renderer_of(config.parent)
    print("| setting | planned | measured | ratio | rule of thumb | its ratio |")
    print("|---|---|---|---|---|---|")
    for setting in SETTINGS[: asked.settings]:
        local = LocalSpec(**{"gradient_checkpointing": False, **setting})
        counted = local_tokens(DATA, renderer, local)
        told = memory(
            shape,
            local,
            pass_tokens=int(setting["tokens_per_pass"]),
            trained_share=counted.trained / counted.tokens,
            checkpointing=local.gradient_checkpointing is True,
            device="cpu",
        )
        trained = shape.parameters if local.tuning == "full" else shape.adapter_parameters(local.lora.r)
        size = {"nf4": 0.5, "int8": 1.0, "none": 2.0}[quantization(local)]
        thumb = 1.2 * size * shape.parameters + 16 * trained
        peak = measured(setting)
        name = ", ".join(f"{key} {value}" for key, value in setting.items())
        print(
            f"| {name} | {told.total / 1e9:.2f} GB | {peak:.2f} GB | {told.total / 1e9 / peak:.2f} | {thumb / 1e9:.2f} GB "
            f"| {thumb / 1e9 / peak:.2f} |",
            flush=True,
        )


def measured(setting: dict[str, Any]) -> float:
    """GB at the peak of a short real run."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lines = DATA.read_text("utf-8").splitlines(keepends=True)[:192]
        (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")
        spec = {
            "name": "memory",
            "data": {"train": "train.jsonl"},
            "model": {"local": MODEL},
            "hyperparameters": {"n_epochs": 1, "batch_size": 48},
            "local": {"max_length": 512, "gradient_checkpointing": False, "evals_per_epoch": 1, **setting},
        }
        (folder / "job.json").write_text(json.dumps(spec), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "ftbridge", "run", str(folder / "job.json"), "--provider", "local", "--json"],
            env={**os.environ, "FTBRIDGE_HOME": str(folder / "home")},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return float(json.loads(done.stdout)["metrics"]["memory_gb"])


if __name__ == "__main__":
    main()
