"""What holds the memory of a long training run on this CPU: the worker's resident memory after each step, by allocator setting.

    python benchmarks/memory_by_step.py                                    # every setting, each in a process of its own
    python benchmarks/memory_by_step.py --layers 8 --steps 57 --only usual,mmap-1M

The support-triage example, 16 examples a step, with the first layers of its model alone so that a run takes minutes: what is
kept depends on the sizes of tensors, not on the number of layers. A setting is environment variables of the worker, which glibc
and oneDNN read when it starts. `held` is what malloc has from the system in its heaps, `free` the part of that which nothing
uses, and `mapped` blocks that are mapped one by one.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "support-triage"
MODEL = "smollm2-135m-instruct"
SETTINGS: dict[str, dict[str, str]] = {
    "usual": {},
    "arenas-1": {"MALLOC_ARENA_MAX": "1"},
    "onednn-default": {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "LRU_CACHE_CAPACITY": "1024"},
    "trim-128K": {"MALLOC_TRIM_THRESHOLD_": "131072"},
    "mmap-256K": {"MALLOC_MMAP_THRESHOLD_": "262144"},
    "mmap-4M": {"MALLOC_MMAP_THRESHOLD_": "4194304"},
    "mmap-4M-huge": {"MALLOC_MMAP_THRESHOLD_": "4194304", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "huge": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
}
"""Environment of the worker by name."""


def main() -> None:
    """Train once for each setting, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8, help="Layers of the model that are trained on.")
    parser.add_argument("--steps", type=int, default=57)
    parser.add_argument("--trim", type=int, default=None, help="Steps between two returns of freed memory.")
    parser.add_argument("--only", default=",".join(SETTINGS), help="Settings, separated by commas.")
    parser.add_argument("--out", type=Path, default=None, help="A folder for every step's figures as JSON.")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train(Path(options.one), options.layers, options.steps, options.trim)))
        return
    print("| setting | step 5 | step 20 | last step | growth from 20 | peak | held, free, mapped at the end | s/step |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.only.split(","):
        rows = measured(SETTINGS[name], options)
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"{name}.json").write_text(json.dumps(rows))
        print(row(name, rows), flush=True)


def row(name: str, rows: list[dict[str, float]]) -> str:
    """One line of the table; sizes in GB."""
    early, twenty, last = rows[min(4, len(rows) - 1)], rows[min(19, len(rows) - 1)], rows[-1]
    seconds = statistics.median(one["computed"] for one in rows[2:] or rows)
    parts = ", ".join(f"{last[part]:.2f}" for part in ("held", "free", "mapped"))
    sizes = f"{early['rss']:.2f} | {twenty['rss']:.2f} | {last['rss']:.2f} | {last['peak']:.2f}"
    return f"| {name} | {sizes} | {parts} | {seconds:.2f} |"


def measured(setting: dict[str, str], options: argparse.Namespace) -> list[dict[str, float]]:
    """Each step's figures, from a worker with this environment."""
    from ftbridge.providers.local.process.child import child_environment

    environment = {**child_environment(), **setting, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            __file__,
            "--one",
            folder,
            "--layers",
            str(options.layers),
            "--steps",
            str(options.steps),
        ]
        if options.trim is not None:
            command += ["--trim", str(options.trim)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    rows: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def train(folder: Path, layers: int, steps: int, trim: int | None) -> list[dict[str, float]]:
    """The local provider's own worker, in this process, on the first layers of the model."""
    from ftbridge.data.prepare import prepare
    from ftbridge.providers import resolve
    from ftbridge.providers.base import Submission
    from ftbridge.providers.local.lower import lower
    from ftbridge.providers.local.process.job import Job
    from ftbridge.providers.local.process.run_training import run_training
    from ftbridge.providers.local.process.worker import JournalReporter
    from ftbridge.providers.local.training import loop
    from ftbridge.spec import JobSpec

    if trim is not None:
        loop.TRIM_EVERY = trim
    document = {
        "name": "memory",
        "data": {"train": str(EXAMPLE / "train.jsonl"), "validation": 0.1},
        "model": {"local": str(first_layers(folder / "model", layers))},
        "hyperparameters": {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": 1.0},
        "seed": 7,
        "local": {"quantization": "nf4", "max_length": 512, "device": "cpu"},
    }
    spec = JobSpec.from_dict(document)
    manifest = prepare(spec, base=folder, out=folder / "data")
    request = lower(resolve(spec, manifest.splits["train"].examples, "local")).request
    job, data = Job(folder), folder / "data"
    job.write(
        Submission(
            token="memory",
            folder=folder,
            request=request,
            train=data / "train.jsonl",
            validation=data / "validation.jsonl",
        )
    )
    rows: list[dict[str, float]] = []

    class Enough(Exception):
        """The last step to be measured."""

    class Reporter(JournalReporter):
        def metrics(self, **figures: Any) -> None:
            super().metrics(**figures)
            rows.append({"tokens_per_second": figures["tokens_per_second"], **memory()})
            if len(rows) >= steps:
                raise Enough

    try:
        run_training(job, Reporter(job))
    except Enough:
        pass
    clocks = [row.pop("clock") for row in rows]
    for row, before, after in zip(rows, [clocks[0], *clocks], clocks, strict=False):
        row["computed"] = after - before
    return rows


def memory() -> dict[str, float]:
    """Resident memory and malloc's own account of it, in GB; seconds that the processors have worked for this process."""
    import resource
    import time

    import psutil

    account = ctypes.CDLL(None).mallinfo2
    account.restype = _Account
    now = account()
    rss = psutil.Process().memory_info().rss
    held, free, mapped = now.arena, now.fordblks, now.hblkhd
    sizes = {"rss": rss, "held": held, "free": free, "mapped": mapped}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**{name: size / 1e9 for name, size in sizes.items()}, "peak": peak / 1e9, "clock": time.process_time()}


class _Account(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def first_layers(folder: Path, layers: int) -> Path:
    """The example's model with its first layers alone."""
    import shutil

    from safetensors.torch import load_file, save_file

    from ftbridge.providers.local.models.find import find_model

    source = find_model(MODEL).path
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors", "ftbridge-model.json"))
    tensors = load_file(source / "model.safetensors")
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith("model.layers.") or int(name.split(".")[2]) < layers
    }
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}), encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
