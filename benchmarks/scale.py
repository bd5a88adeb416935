"""Several workers: the time of a step and the bytes that it sends, measured on this CPU; and what a plan says of large models.

    python benchmarks/scale.py measure [FOLDER]   # 1 and 2 processes over gloo, whole (ddp) and sharded (fsdp2)
    python benchmarks/scale.py save [FOLDER]      # how long a checkpoint takes, by one process and in two parts
    python benchmarks/scale.py table              # 8B, 70B and 405B on 1 to 64 GPUs, from the plan's arithmetic; nothing runs

`measure` trains SmolLM2-135M-Instruct, or the model in FOLDER, with LoRA r=16 on all linear layers: 16 short examples a step,
the same for every row. Bytes are those of the loopback interface while the steps run, divided by the workers, so other programs
that use it add to them. Two processes on two cores share what one process with two threads has: the time shows what exchanges
cost, not what a second GPU brings.

`table` assumes: H100 80 GB; 40 % of 989 TFLOP/s in bf16; LoRA r=16, whose step computes 6 operations a parameter and token
(2 forward, 2 backward, 2 again for activations that are recomputed); 262,144 tokens a step in micro-batches of 4,096; 360 GB/s
from each GPU inside a machine of 8 and 40 GB/s between machines (80 % of NVLink 4 and of a 400 Gb/s link each), the slower of
both where a job spans machines. Computing and sending are shown apart; FSDP2 sends the next block's weights while it computes
one, so a step takes between the longer of the two and their sum.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m-instruct"
STEPS, BATCH = 8, 16
ROWS = [(1, 1, "ddp"), (1, 2, "ddp"), (2, 1, "ddp"), (2, 1, "fsdp2")]
"""Workers, threads of each, sharding."""
MODELS = {"8B": "meta-llama/Llama-3.1-8B", "70B": "meta-llama/Llama-3.1-70B", "405B": "meta-llama/Llama-3.1-405B"}
GPUS = (1, 2, 4, 8, 16, 32, 64)
TOKENS, MICRO = 262_144, 4096
FLOPS = 0.4 * 989e12
INSIDE, BETWEEN, MACHINE = 360e9, 40e9, 8


def main() -> None:
    """Print the table of a mode."""
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    if mode == "worker":
        worker(Path(sys.argv[2]))
    elif mode in ("measure", "save", "table"):
        {"measure": measure, "save": save, "table": table}[mode]()
    else:
        raise SystemExit(__doc__)


def measure() -> None:
    """Step time, tokens a second and bytes by row."""
    print("| workers x threads | sharding | step, median | against one thread | sent a step by each | in theory |")
    print("|---|---|---|---|---|---|", flush=True)
    first = None
    for workers, threads, sharding in ROWS:
        seen = run({"local.workers": workers, "local.sharding": sharding}, workers, threads)
        first = first or seen["step"]
        theory = "" if workers == 1 else f"{seen['theory'] / 1e6:.1f} MB"
        sent = "" if workers == 1 else f"{seen['sent'] / 1e6:.1f} MB"
        name = sharding if workers > 1 else "–"
        print(
            f"| {workers} x {threads} | {name} | {seen['step']:.2f} s | {first / seen['step']:.2f}x | {sent} | {theory} |",
            flush=True,
        )


def save() -> None:
    """Seconds of a checkpoint by row: full tuning, whose checkpoint is weights and both moments in float32."""
    print("| workers | sharding | a checkpoint of | takes |")
    print("|---|---|---|---|", flush=True)
    for workers, sharding in ((1, "ddp"), (2, "fsdp2")):
        changes = {"local.workers": workers, "local.sharding": sharding, "local.tuning": "full"}
        seen = run({**changes, "hyperparameters.batch_size": 4}, workers, 1, steps=2)
        print(
            f"| {workers} | {sharding if workers > 1 else '–'} | {seen['bytes'] / 1e9:.2f} GB | {seen['save']:.1f} s |"
        )


def run(changes: dict[str, Any], workers: int, threads: int, steps: int = STEPS) -> dict[str, float]:
    """Train a job by torchrun; what its main worker saw."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from ftbridge.providers.local.models.find import find_model
    from support.jobs import submitted_job

    model = find_model(sys.argv[2] if len(sys.argv) > 2 else MODEL).path
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "train": math.ceil(steps * BATCH / 0.8), "local.lora.r": 16, "local.lora.alpha": 32, "local.precision": "auto",
            "hyperparameters.n_epochs": 1, "hyperparameters.batch_size": BATCH, "local.evals_per_epoch": 1,
            "hyperparameters.learning_rate_multiplier": 1, "local.device": "cpu",
        }  # fmt: skip
        job = submitted_job(Path(scratch), model, **{**settings, **changes})
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
        command += [__file__, "worker", str(job.folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        result: dict[str, float] = json.loads((job.folder / "seen.json").read_text())
        return result


def worker(folder: Path) -> None:
    """One process of a job: train, and write what its steps took and sent."""
    import psutil

    from ftbridge.providers.local.models.footprint import Job as Footprint
    from ftbridge.providers.local.models.footprint import step_traffic
    from ftbridge.providers.local.models.sizes import shape_of
    from ftbridge.providers.local.process.job import Job
    from ftbridge.providers.local.process.run_training import run_training
    from ftbridge.providers.local.process.worker import NoReporter
    from ftbridge.providers.local.training import checkpoint
    from ftbridge.providers.local.training.parallel import Parallel, joined

    moments: list[tuple[float, int]] = []
    seconds: list[float] = []

    class Clock(NoReporter):
        def metrics(self, **figures: float | int | str | None) -> None:
            moments.append((time.perf_counter(), psutil.net_io_counters(pernic=True)["lo"].bytes_sent))

    plain, deal = checkpoint.save, Parallel.deal
    passes: list[int] = []

    def counted(self: Parallel, parts: Any) -> Any:
        turns = deal(self, parts)
        passes.append(len(turns))
        return turns

    def timed(*args: Any, **more: Any) -> Path:
        began = time.perf_counter()
        path = plain(*args, **more)
        seconds.append(time.perf_counter() - began)
        return path

    checkpoint.save, Parallel.deal = timed, counted
    job = Job(folder)
    with joined() as parallel:
        run_training(job, Clock(), parallel)
        if not parallel.is_main:
            return
        request = job.request()
        shape = shape_of(json.loads((Path(request.model) / "config.json").read_text()))
        compute = 2 if request.tuning == "lora" else 4
        footprint = Footprint(kind="cpu", compute=compute, tuning=request.tuning, quantization="none", r=request.lora_r)
        whole = request.sharding == "ddp"
        last = sorted((folder / "checkpoints").glob("step-*"))[-1]
        gaps = [(later[0] - before[0], later[1] - before[1]) for before, later in pairwise(moments)]
        gaps = gaps[:-1] or gaps  # validation and its checkpoint stand in the last
        (folder / "seen.json").write_text(
            json.dumps(
                {
                    "step": statistics.median(gap for gap, _ in gaps),
                    "sent": statistics.median(sent for _, sent in gaps) / parallel.world,
                    "theory": step_traffic(
                        shape, footprint, parallel.world, sharded=not whole, passes=round(statistics.median(passes))
                    ),
                    "save": min(seconds),
                    "bytes": sum(path.stat().st_size for path in last.rglob("*") if path.is_file()),
                }
            )
        )


def table() -> None:
    """Memory, traffic and time of a step for large models on 1 to 64 GPUs."""
    from ftbridge.planning.memory import CARDS, GIB, published_shape
    from ftbridge.planning.sharding import USABLE, per_gpu, ways
    from ftbridge.providers.local.models.footprint import step_traffic
    from ftbridge.spec import JobSpec

    room = CARDS["A100, H100 80 GB"] * GIB * USABLE
    print("| model | weights | GPUs | held | memory of each | sent a step by each | computing | sending |")
    print("|---|---|---|---|---|---|---|---|")
    for name, model in MODELS.items():
        shape = published_shape(model) or published_shape(f"{model}-Instruct")
        if shape is None:
            raise SystemExit(f"the sizes of {model} are not in ftbridge/planning/models.json")
        for quantization in ("nf4", "none"):
            spec = JobSpec.model_validate(
                {
                    "name": "x",
                    "data": {"train": "t.jsonl"},
                    "model": {"local": model},
                    "local": {"quantization": quantization},
                }
            )
            for gpus in GPUS:
                options = [per_gpu(shape, spec, gpus, way, pass_tokens=MICRO, share=0.5) for way in ways(spec, gpus)]
                fits = [one for one in options if one.memory.total <= room]
                if not fits:
                    least = options[-1].memory.total
                    print(f"| {name} | {quantization} | {gpus} | – | {least / 1e9:.0f} GB: too much | | | |")
                    continue
                chosen = fits[0]
                passes = math.ceil(TOKENS / MICRO / gpus)
                sharded = chosen.sharding == "fsdp2"
                job = _job(spec)
                traffic = step_traffic(shape, job, gpus, sharded=sharded, passes=passes)
                speed = INSIDE if gpus <= MACHINE else BETWEEN
                computing = 6 * shape.parameters * passes * MICRO / FLOPS
                part = f"1/{gpus}" if sharded else "whole"
                print(
                    f"| {name} | {quantization} | {gpus} | {part} | {chosen.memory.total / 1e9:.1f} GB | "
                    f"{traffic / 1e9:.2f} GB | {computing:.1f} s | {traffic / speed:.1f} s |"
                )


def _job(spec: Any) -> Any:
    from ftbridge.planning.memory import job_of

    return job_of(spec.local, "cuda")


if __name__ == "__main__":
    main()
