"""Planned against actual speed of local training on this CPU: `planning.processor` beside the real worker.

    python benchmarks/hours.py                           # every case, each in a process of its own; prints a Markdown table
    python benchmarks/hours.py --steps 5 --only example

SmolLM2-135M-Instruct, nf4 with LoRA of rank 16. `example` is the support-triage messages, 16 a step; `500` and `1000` are
drawn words, examples of about so many tokens. Actual is the median of all steps but the first. Where other programs use the
processors, `clock` tells their load too; `computed` is by the processor time of all threads, divided by the number that were
planned with: what the clock would show on a quiet machine. The goal is a ratio of planned to actual between 1/1.5 and 1.5.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
MODEL = "smollm2-135m-instruct"
CASES = {"example": (0, 16), "500": (500, 4), "1000": (1000, 1)}
"""Tokens of an example, 0 for the example's own, and examples a step."""
ANSWERED = 0.4
"""Share of a drawn example that is its answer."""


def main() -> None:
    """Train each case in a child, and print planned, actual and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--one", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train(options.one[0], Path(options.one[1]), options.steps)))
        return
    from ftbridge.planning.machine import this_machine
    from ftbridge.planning.memory import read_shape
    from ftbridge.planning.processor import products, tokens_per_second
    from ftbridge.providers.local.models.find import find_model
    from ftbridge.providers.local.models.footprint import Job

    speed = products(this_machine(cards=False))
    if isinstance(speed, str):
        raise SystemExit(speed)
    shape = read_shape(find_model(MODEL).path)
    job = Job(kind="cpu", compute=4 if speed.compute == "float32" else 2, tuning="lora", quantization="nf4")
    print(f"{speed.sentence}; {speed.elements / 1e9:.1f} billion elementwise operations a second\n")
    print("| case | tokens an example | with a loss | planned | actual, computed | ratio | actual, clock |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for case in options.only.split(","):
        result = measured(case, options.steps)
        length, share = result["length"], result["share"]
        planned = tokens_per_second(speed, shape, job, length=length, loss_share=share)
        computed = speed.threads * result["computed"]
        figures = f"{planned:.0f} | {computed:.0f} | {planned / computed:.2f} | {result['clock']:.0f} |"
        print(f"| {case} | {length:.0f} | {100 * share:.0f} % | {figures}", flush=True)


def measured(case: str, steps: int) -> dict[str, float]:
    """A few steps of the worker in a child process, which sleeps while its threads wait for each other as a run's does."""
    from ftbridge.providers.local.process.child import child_environment

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", case, folder, "--steps", str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def train(case: str, folder: Path, steps: int) -> dict[str, float]:
    """The local provider's own worker, in this process: tokens a second by the clock and by the time of its threads."""
    from ftbridge.data.prepare import prepare
    from ftbridge.providers import resolve
    from ftbridge.providers.base import Submission
    from ftbridge.providers.local.lower import lower
    from ftbridge.providers.local.process.job import Job
    from ftbridge.providers.local.process.run_training import make_ready, run_training
    from ftbridge.providers.local.process.worker import JournalReporter
    from ftbridge.spec import JobSpec

    length, batch = CASES[case]
    data = folder / "train.jsonl"
    if length:
        data.write_text(drawn(length, steps * batch), encoding="utf-8")
    else:
        lines = (HERE / "examples" / "support-triage" / "train.jsonl").read_text(encoding="utf-8").splitlines(True)
        data.write_text("".join(lines[: steps * batch]), encoding="utf-8")
    document = {
        "name": "hours",
        "data": {"train": str(data)},
        "model": {"local": MODEL},
        "hyperparameters": {"n_epochs": 1, "batch_size": batch, "learning_rate_multiplier": 1.0},
        "local": {"max_length": 4096, "device": "cpu", "evals_per_epoch": 1},
    }
    spec = JobSpec.from_dict(document)
    prepare(spec, base=folder, out=folder / "data")
    path = folder / "data" / "train.jsonl"
    job = Job(folder)
    request = lower(resolve(spec, steps * batch, "local")).request
    job.write(Submission(token="hours", folder=folder, request=request, train=path, validation=None))
    clocks: list[tuple[float, float, float]] = []

    class Reporter(JournalReporter):
        """Reads both clocks after each step."""

        def metrics(self, **figures: Any) -> None:
            super().metrics(**figures)
            clocks.append((time.monotonic(), time.process_time(), figures["tokens_per_second"]))

    run_training(job, Reporter(job))
    ready = make_ready(job.request(), path, None, lambda *_: None).train
    rates = [
        (rate, rate * (clock - clock_before) / (used - used_before))
        for (clock_before, used_before, _), (clock, used, rate) in itertools.pairwise(clocks)
    ]
    return {
        "clock": statistics.median(rate for rate, _ in rates),
        "computed": statistics.median(rate for _, rate in rates),
        "length": ready.tokens / len(ready.examples),
        "share": ready.num_loss_tokens / ready.tokens,
    }


def drawn(length: int, count: int) -> str:
    """Lines of examples of 0.6 to 1.4 times so many tokens, about 1.35 a word."""
    dice = random.Random(1)
    words = (HERE / "ftbridge" / "data" / "replay_prompts.txt").read_text(encoding="utf-8").split()

    def text(tokens: float) -> str:
        return " ".join(dice.choice(words) for _ in range(max(1, int(tokens / 1.35))))

    sizes = [length * dice.uniform(0.6, 1.4) for _ in range(count)]
    chats = [
        [
            {"role": "user", "content": text(size * (1 - ANSWERED))},
            {"role": "assistant", "content": text(size * ANSWERED)},
        ]
        for size in sizes
    ]
    return "".join(json.dumps({"messages": chat}) + "\n" for chat in chats)


if __name__ == "__main__":
    main()
