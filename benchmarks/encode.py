"""What it takes a worker to have its data as tokens, and a run to reach its first step, on many examples.

    python benchmarks/encode.py [--repeat 5]         a worker's data: rendered again, or read from the run's folder
    python benchmarks/encode.py --before TREE        a run up to its first step, beside the version in TREE

The first compares two ways to the same tokens in processes of their own, in turn: `render` is what every process did before
tokens were kept, `read` what it does now. The second runs the command with the code of two trees in turn, each run in a home of
its own, which ends once its first step is reported. The model is random and has two layers, so that neither loading nor
computing hides what happens to the data.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alternating import alternate

HERE = Path(__file__).resolve().parent.parent
WORDS = (
    "order",
    "parcel",
    "refund",
    "invoice",
    "account",
    "password",
    "delivery",
    "return",
    "window",
    "warranty",
    "number",
)
READY = ("seconds until a worker has its tokens", "of these, processor time")
PARTS = ("to the first step", "until training is submitted", "data in the worker")


def write_data(folder: Path, examples: int) -> Path:
    """A job over `examples` chats of two turns, about 150 tokens each."""
    draw = random.Random(0)

    def text(index: int, words: int) -> str:
        return f"{index}: " + " ".join(draw.choice(WORDS) for _ in range(words))

    with (folder / "train.jsonl").open("w") as lines:
        for index in range(examples):
            roles = ("user", "assistant", "user", "assistant")
            messages = [{"role": role, "content": text(index, draw.randint(15, 45))} for role in roles]
            lines.write(json.dumps({"messages": messages}) + "\n")
    spec = {
        "name": "encode",
        "data": {"train": "train.jsonl"},
        "model": {"local": str(folder / "model")},
        "hyperparameters": {"n_epochs": 1, "batch_size": 8},
        "local": {"quantization": "none", "device": "cpu", "max_length": 512, "lora": {"r": 4, "alpha": 8}},
    }
    (folder / "job.json").write_text(json.dumps(spec))
    return folder / "job.json"


def write_model(folder: Path) -> None:
    """A random model of two layers with the built-in model's tokenizer."""
    sys.path.insert(0, str(HERE / "tests"))
    from ftbridge.providers.local.models.find import find_model
    from support.small_model import write_small_model

    write_small_model(folder / "model", find_model("smollm2-135m-instruct").path)


def ready(side: str, spec: Path) -> dict[str, float]:
    """Seconds until a worker has the job's tokens, and of the processor: by rendering them, or from the run's folder."""
    from ftbridge.evaluation.job_data import JobData
    from ftbridge.providers.local.process.run_training import make_ready
    from ftbridge.providers.local.request import LocalRequest
    from ftbridge.spec import SpecFile

    job = JobData.prepare(SpecFile.of(spec), spec.parent / "data")
    request = LocalRequest.of(job.map("local").lowering.request)
    folder = spec.parent / "encoded" if side == "read" else None
    began, processor = time.perf_counter(), time.process_time()
    make_ready(request, job.train, None, lambda *_: None, folder)
    return dict(zip(READY, (time.perf_counter() - began, time.process_time() - processor), strict=True))


def one(tree: Path, spec: Path) -> dict[str, float]:
    """Start a run with the code of `tree`, and time it until its first step."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "PYTHONPATH": str(tree), "FTBRIDGE_HOME": home}
        began = time.time()
        command = [sys.executable, "-m", "ftbridge", "run", str(spec), "--provider", "local", "--no-lint", "--yes"]
        process = subprocess.Popen(  # `python -m` looks in the working directory first
            command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            worker = _wait_for_step(process, Path(home))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
        [run] = Path(home, "runs").iterdir()
        journal = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    stages = {event["data"]["name"]: event["time"] for event in worker if event["type"] == "stage"}
    submitted = next(event["time"] for event in journal if event["type"] == "submit_intended")
    step = next(event["time"] for event in worker if event["type"] == "metrics")
    figures = (step - began, submitted - began, stages["loading model"] - stages["preparing data"])
    return dict(zip(PARTS, figures, strict=True))


def _wait_for_step(process: subprocess.Popen[str], home: Path) -> list[dict[str, object]]:
    """The worker's events up to its first step."""
    while process.poll() is None:
        for path in home.glob("runs/*/worker.jsonl"):
            events = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
            if any(event["type"] == "metrics" for event in events):
                return events
        time.sleep(0.05)
    raise SystemExit(process.stderr.read() if process.stderr else "the run ended before its first step")


def main() -> None:
    """Measure the sides in turn and print a Markdown table."""
    if sys.argv[1:2] == ["one"]:
        side, spec = sys.argv[2], Path(sys.argv[3])
        print(json.dumps(ready(side, spec) if side in ("render", "read") else one(Path(side), spec)))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", type=Path, help="checkout of the version to compare with")
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        spec = write_data(Path(folder), options.examples)
        if options.before is None:
            sides, parts = {"render": "render", "read": "read"}, READY
            ready("read", spec)  # as preflight does: what is read afterwards
        else:
            sides, parts = {"before": str(options.before.resolve()), "after": str(HERE)}, PARTS
        figures = alternate(__file__, list(sides.values()), [str(spec)], options.repeat)
    print(f"| {options.examples:,} examples | " + " | ".join(sides) + " |\n|---|" + "---|" * len(sides))
    for part in parts:
        medians = [statistics.median(run[part] for run in figures[side]) for side in sides.values()]
        print(f"| {part} | " + " | ".join(f"{median:.1f}" for median in medians) + " |")


if __name__ == "__main__":
    main()
