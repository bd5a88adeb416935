"""Decoding and training beside busy processes, one for each core: torch's own threads against threads chosen by the load.

    python benchmarks/threads.py [--repeat 3] [--seconds 6]

The built-in model in bf16: 8 rows decode, or one micro-batch of 512 tokens trains a LoRA adapter, again and again. Each
measurement is a process of its own, sides alternate, and each is measured alone and beside processes that count.
`torch` is two of torch's defaults: a thread for each core, which spin while they wait. Medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

KINDS = ["decode", "train"]
SIDES = ("torch", "ftbridge")
SPIN = "while True: pass"


def work(kind: str, side: str, seconds: float) -> float:
    """Tokens a second of this process."""
    import torch
    from transformers import AutoModelForCausalLM

    from ftbridge.providers.local.inference.engine import Engine, Request
    from ftbridge.providers.local.models.device import Device
    from ftbridge.providers.local.models.find import find_model
    from ftbridge.providers.local.models.threads import Threads

    path = find_model("smollm2-135m-instruct").path
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).requires_grad_(False)
    threads = Threads()
    if side == "torch":
        threads.use = lambda work=0.0: torch.get_num_threads()  # type: ignore[method-assign]
    drawn = torch.randint(0, 40_000, (8, 64), generator=torch.Generator().manual_seed(0))
    if kind == "decode":
        from transformers import AutoTokenizer

        engine = Engine(model, AutoTokenizer.from_pretrained(path), device=Device(torch.device("cpu"), torch.bfloat16))
        engine._threads = threads
        for row in drawn:
            engine.add(Request(row.tolist(), 4000, end_tokens=frozenset()))
        with engine.generating():
            engine.advance()
            began, tokens = time.monotonic(), 0
            while time.monotonic() - began < seconds or tokens == 0:
                tokens += len(engine.advance())
            return tokens / (time.monotonic() - began)
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    began, tokens = 0.0, -1
    while tokens <= 0 or time.monotonic() - began < seconds:
        threads.use()
        tuned(input_ids=drawn, labels=drawn).loss.backward()
        if tokens < 0:  # the first builds kernels
            began, tokens = time.monotonic(), 0
        else:
            tokens += drawn.numel()
    return tokens / (time.monotonic() - began)


def measured(kind: str, side: str, seconds: float, busy: bool) -> float:
    """Tokens a second of a fresh process, beside a busy process for each core or alone."""
    from ftbridge.providers.local.process.child import child_environment

    environment = dict(os.environ) if side == "torch" else child_environment()
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(os.cpu_count() or 1)] if busy else []
    try:
        command = [sys.executable, __file__, "--work", kind, "--side", side, "--seconds", str(seconds)]
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=600)
        return float(out.stdout.strip().splitlines()[-1])
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--work", choices=["decode", "train"], help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(work(options.work, options.side, options.seconds))
        return
    speeds: dict[tuple[Any, ...], list[float]] = {}
    for _ in range(options.repeat):
        for kind in options.kinds:
            for busy in (False, True):
                for side in SIDES:
                    speed = measured(kind, side, options.seconds, busy)
                    speeds.setdefault((kind, side, busy), []).append(speed)
                    print(f"{kind} {side} {'busy' if busy else 'alone'}: {speed:.1f} tokens/s", file=sys.stderr)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end\n")
    print("| work | side | alone | one busy process a core | slower |\n|---|---|---|---|---|")
    for kind in options.kinds:
        for side in SIDES:
            alone, beside = (statistics.median(speeds[kind, side, busy]) for busy in (False, True))
            print(f"| {kind} | {side} | {alone:.0f} tokens/s | {beside:.1f} tokens/s | {alone / beside:.1f}x |")


if __name__ == "__main__":
    main()
