"""Planned against measured peak memory of local training on this CPU: `ftbridge plan`'s formula beside the real worker.

    python benchmarks/memory.py            # the whole grid, each row in a process of its own; prints a Markdown table

SmolLM2-135M-Instruct, nf4 and none x lora and full x two pass sizes x checkpointing on and off; two steps over examples of
about 440 tokens. Measured: the worker's own `memory_gb`, the most its process ever held (RSS, shared libraries and mapped
weight files included). The goal is a ratio within 15 % of 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ftbridge.providers.local.process.child import child_environment

MODEL = "smollm2-135m-instruct"
STEPS, BATCH, WORDS = 2, 5, 200
KINDS = [("lora", "nf4", False), ("lora", "nf4", True), ("lora", "none", "auto"), ("full", "none", "auto")]


def main() -> None:
    """Train each row in a child, and print planned, measured and ratio."""
    from ftbridge.planning.machine import this_machine
    from ftbridge.planning.memory import memory, read_shape
    from ftbridge.providers.local.models.find import find_model
    from ftbridge.spec.sections import LocalSpec

    shape, compute = read_shape(find_model(MODEL).path), this_machine(cards=False).compute
    print("| tuning | weights | 16-bit copy | tokens a pass | checkpointing | planned | measured | ratio |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for tuning, quantization, copied in KINDS:
        for tokens in (512, 2048):
            for checkpointing in (True, False):
                local: dict[str, Any] = {
                    "tuning": tuning,
                    "quantization": quantization,
                    "cache_dequantized_weights": copied,
                    "max_tokens_per_microbatch": tokens,
                    "gradient_checkpointing": checkpointing,
                    "device": "cpu",
                }
                found = measured(local)
                planned = (
                    memory(
                        shape,
                        LocalSpec(**local),
                        pass_tokens=min(tokens, found["most"]),
                        trained_share=found["share"],
                        checkpointing=checkpointing,
                        kind="cpu",
                        compute=compute,
                        longest=found["longest"],
                    ).total
                    / 1e9
                )
                copy = "kept" if copied is True else "none"
                cells = (tuning, quantization, copy, f"{tokens:,}", "on" if checkpointing else "off")
                numbers = (f"{planned:.2f} GB", f"{found['peak']:.2f} GB", f"{planned / found['peak']:.2f}")
                print("| " + " | ".join((*cells, *numbers)) + " |", flush=True)


def measured(local: dict[str, Any]) -> dict[str, Any]:
    """A few steps of the worker in a child process."""
    with tempfile.TemporaryDirectory() as folder:
        spec = {
            "name": "memory",
            "data": {"train": "train.jsonl"},
            "model": {"local": MODEL},
            "hyperparameters": {"n_epochs": 1, "batch_size": BATCH},
            "local": local,
        }
        lines = [json.dumps(example(number)) for number in range(STEPS * BATCH)]
        (Path(folder) / "train.jsonl").write_text("\n".join(lines) + "\n")
        (Path(folder) / "job.json").write_text(json.dumps(spec))
        done = subprocess.run(
            [sys.executable, __file__, folder], capture_output=True, text=True, check=False, env=child_environment()
        )
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


def example(number: int) -> dict[str, Any]:
    """About 440 tokens, two in five of them trained, no two alike."""
    asked, said = (
        " ".join(f"word{(number * 31 + place * seed) % 977}" for place in range(WORDS // 4)) for seed in (7, 5)
    )
    return {"messages": [{"role": "user", "content": f"{number} {asked}"}, {"role": "assistant", "content": said}]}


def train(folder: Path) -> None:
    """The local provider's own worker, in this process."""
    from ftbridge.data.prepare import prepare
    from ftbridge.providers import resolve
    from ftbridge.providers.base import Submission
    from ftbridge.providers.local.lower import lower
    from ftbridge.providers.local.process.job import Job
    from ftbridge.providers.local.process.run_training import make_ready, run_training
    from ftbridge.providers.local.process.worker import JournalReporter
    from ftbridge.spec import SpecFile

    draft = SpecFile.of(folder / "job.json")
    prepare(draft.spec, base=draft.base, out=folder / "data")
    request = lower(resolve(draft.spec, STEPS * BATCH, "local")).request
    job, path = Job(folder), folder / "data" / "train.jsonl"
    job.write(Submission(token="memory", folder=folder, request=request, train=path, validation=None))
    run_training(job, JournalReporter(job))
    figures = [event.data["memory_gb"] for event in job.journal.read() if event.type == "metrics"]
    ready = make_ready(job.request(), path, None, lambda *_: None).train
    longest = max(len(one) for one in ready.examples)
    share = ready.num_loss_tokens / ready.tokens
    print(json.dumps({"peak": figures[-1], "longest": longest, "share": share, "most": BATCH * longest}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(Path(sys.argv[1]))
    else:
        main()
