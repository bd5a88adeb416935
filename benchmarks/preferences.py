"""Preference tuning against TRL's DPOTrainer, and the controls of the example: what must move, and what must not.

    python benchmarks/preferences.py speed --case short --steps 8 --repeat 3     # alternating sides, a Markdown table
    python benchmarks/preferences.py controls --seeds 3                          # examples/preferences and its controls

`speed`: SmolLM2-135M-Instruct, the same drawn token ids on both sides, 8 pairs a step, LoRA r=16 alpha=32 without dropout on
all linear layers, AdamW at a constant rate, no gradient checkpointing (TRL's default is on: it would be slower still), no
validation, no checkpoints, each run a process of its own. Tokens per second count what both conversations of a pair hold,
without padding, over all steps but the first; measuring the reference is timed apart. Sides:

    ftbridge          reference measured once before training (always), prompts computed once, head on completions alone
    trl               reference computed in every step (its default)
    trl-precomputed   reference measured once before training
    trl-accumulated   as trl, a step in four passes of 2 pairs: for what does not fit otherwise (not among the usual sides)

`controls`: each row is a run of examples/preferences with one thing changed. Only `as written` may move the held-out figures:
`rate 0` trains with a rate of nearly nothing, `shuffled` gives half of the pairs the wrong way round at random, `swapped` all
of them, and must move the other way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from alternating import alternate

HERE = Path(__file__).resolve().parent
MODEL = "smollm2-135m-instruct"
PAIRS, RATE = 8, 1e-4
CASES: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "short": ((64, 64), (64, 64)),
    "long prompts": ((512, 512), (64, 64)),
    "uneven": ((16, 64), (16, 400)),
}
"""Tokens of prompts and of completions, from and to."""


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed")
    speed.add_argument("--case", choices=list(CASES), action="append")
    speed.add_argument("--sides", default="ftbridge,trl,trl-precomputed")
    speed.add_argument("--steps", type=int, default=30)
    speed.add_argument("--repeat", type=int, default=3)
    speed.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    one = commands.add_parser("one")
    for name in ("side", "case", "steps", "precision"):
        one.add_argument(name)
    controls = commands.add_parser("controls")
    controls.add_argument("--seeds", type=int, default=3)
    controls.add_argument("--only", action="append")
    asked = parser.parse_args()
    if asked.command == "one":
        run = ours if asked.side == "ftbridge" else theirs
        print(json.dumps(run(asked.side, asked.case, int(asked.steps), asked.precision)))
    elif asked.command == "speed":
        table(asked.case or list(CASES), asked.sides.split(","), asked.steps, asked.repeat, asked.precision)
    else:
        show_controls(asked.seeds, asked.only)


def table(cases: list[str], sides: list[str], steps: int, repeat: int, precision: str) -> None:
    """Alternate the sides, and print medians and ratios."""
    print(f"{os.cpu_count()} cores, {steps} steps of {PAIRS} pairs, {precision}, medians of {repeat}\n")
    print("| case | side | tokens/s | reference | peak memory | last loss | speed against trl |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for case in cases:
        found = alternate(__file__, sides, [case, str(steps), precision], repeat)
        rates = {side: statistics.median(one["rate"] for one in runs) for side, runs in found.items()}
        for side, runs in found.items():
            reference, memory, loss = (
                statistics.median(one[key] for one in runs) for key in ("reference", "gb", "loss")
            )
            ratio = f"{rates[side] / rates['trl']:.1f}x" if "trl" in rates else ""
            print(f"| {case} | {side} | {rates[side]:.0f} | {reference:.0f} s | {memory:.1f} GB | {loss:.4f} | {ratio} |",
                  flush=True)  # fmt: skip


def drawn(case: str, count: int) -> list[dict[str, list[int]]]:
    """Pairs of drawn token ids, the same for every side."""
    draw = random.Random(f"{case} 1")
    prompts, completions = CASES[case]

    def ids(span: tuple[int, int]) -> list[int]:
        return [draw.randrange(100, 40_000) for _ in range(draw.randint(*span))]

    return [
        {"prompt_ids": ids(prompts), "chosen_ids": ids(completions), "rejected_ids": ids(completions)}
        for _ in range(count)
    ]


def tokens_of(rows: list[dict[str, list[int]]]) -> int:
    """Tokens of both conversations of all pairs."""
    return sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)


def ours(_side: str, case: str, steps: int, precision: str) -> dict[str, float]:
    """The parts of a local job, without a run around them."""
    import torch

    from ftbridge.providers.local.data.batches import Encoded
    from ftbridge.providers.local.models import load
    from ftbridge.providers.local.models.device import Device
    from ftbridge.providers.local.models.find import find_model
    from ftbridge.providers.local.models.fused import DropoutPool, fuse
    from ftbridge.providers.local.request import DpoRequest, LocalRequest
    from ftbridge.providers.local.training.dpo import Preference
    from ftbridge.providers.local.training.forward import Forward, prove
    from ftbridge.providers.local.training.loop import Trainer, _update
    from ftbridge.providers.local.training.optim import optimizer_for
    from ftbridge.providers.local.training.pairs import Pair, shares_prompts
    from ftbridge.providers.local.training.reference import ReferenceKey, with_reference
    from ftbridge.providers.local.training.repeatable import silence_dropout

    rows = drawn(case, steps * PAIRS)
    base = find_model(MODEL)
    request = LocalRequest(
        name="benchmark", model=MODEL, seed=1, n_epochs=1, batch_size=PAIRS, learning_rate=RATE, lr_schedule="constant",
        warmup_ratio=0.0, weight_decay=0.0, max_grad_norm=1.0, optimizer="adamw", tuning="lora", quantization="none",
        lora_r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", use_rslora=False, use_dora=False,
        max_length=2048, overlength="refuse", packing=True, max_tokens_per_microbatch=2048, patience=None, min_delta=0.0,
        gradient_checkpointing=False, precision=precision, device="cpu", cache_dequantized_weights=False, evals_per_epoch=1,
        keep_checkpoints=1, checkpoint_minutes=1e9, trust_remote_code=False, method="dpo", dpo=DpoRequest(),
    )  # fmt: skip
    device = Device(torch.device("cpu"), torch.float32 if precision == "fp32" else torch.bfloat16)
    model = load.add_adapter(load.load_base(base.path, request, device), request)
    pool = DropoutPool(0.0, device.compute, device.torch)
    fuse(model, load.FrozenWeights.of(model, request, device).weight_of, pool)
    silence_dropout(model)
    pairs = []
    for index, row in enumerate(rows):
        prompt = len(row["prompt_ids"])
        sides = [
            Encoded(tuple(row["prompt_ids"] + row[name]), (False,) * prompt + (True,) * len(row[name]), index)
            for name in ("chosen_ids", "rejected_ids")
        ]
        pairs.append(Pair(sides[0], sides[1], prompt, index))
    examples = [side for pair in pairs for side in pair.sides]
    forward = prove(Forward(model, device, "plain", autocast=False, pool=pool), examples, packing=True)
    shared = shares_prompts(forward, pairs)
    key = ReferenceKey(model="m", adapter=None, quantization="none", compute=precision, layout="packed")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        pairs = with_reference(
            forward, pairs, key, Path(folder) / "reference.jsonl", shared=shared, budget=2048, begun=False
        )
        reference = time.perf_counter() - began
        trainer = Trainer(
            forward, optimizer_for(model.parameters(), request, device), torch.amp.GradScaler("cpu", enabled=False),
            request, device, pairs, (), Path(folder), 2048, _Quiet(), lambda: None, Preference(DpoRequest(), shared),
        )  # fmt: skip
        spent, loss = 0.0, 0.0
        for step in range(steps):
            began = time.perf_counter()
            loss = _update(trainer, pairs[step * PAIRS : (step + 1) * PAIRS], step + 1)["train_loss"]
            spent += (time.perf_counter() - began) * (step > 0)
    return _result(tokens_of(rows[PAIRS:]) / spent, reference, loss)


class _Quiet:
    def message(self, text: str, level: str = "info") -> None:
        """Nothing to say."""

    def metrics(self, **figures: Any) -> None:
        """Nothing to say."""

    def checkpoint(self, path: Path, step: int) -> None:
        """Nothing to say."""


def theirs(side: str, case: str, steps: int, precision: str) -> dict[str, float]:
    """TRL's trainer on the same ids, in the same order."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from ftbridge.providers.local.models.find import find_model

    rows = drawn(case, steps * PAIRS)
    parts = 4 if side == "trl-accumulated" else 1
    path = find_model(MODEL).path
    moments: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                losses.append(logs["loss"])

    class Tokenized(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    kind = torch.float32 if precision == "fp32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(path, dtype=kind)
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, report_to=[], use_cpu=True, bf16=precision == "bf16", gradient_checkpointing=False,
            per_device_train_batch_size=PAIRS // parts, gradient_accumulation_steps=parts,
            num_train_epochs=1, learning_rate=RATE, lr_scheduler_type="constant",
            beta=0.1, max_length=None, logging_steps=1, save_strategy="no", eval_strategy="no", seed=1, optim="adamw_torch",
            adam_epsilon=1e-8, weight_decay=0.0, max_grad_norm=1.0, precompute_ref_log_probs=side == "trl-precomputed",
            disable_tqdm=True, dataloader_num_workers=0,
        )  # fmt: skip
        began = time.perf_counter()
        trainer = Tokenized(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(path),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        reference = time.perf_counter() - began if side == "trl-precomputed" else 0.0
        trainer.train()
    spent = moments[-1] - moments[2]  # from the second step's beginning
    return _result(tokens_of(rows[PAIRS:]) / spent, reference, losses[-1])


def _result(rate: float, reference: float, loss: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"rate": rate, "reference": reference, "gb": peak, "loss": loss}


# The example and its controls


def show_controls(seeds: int, only: list[str] | None) -> None:
    """One row a run: the held-out figures with their intervals."""
    print("| run | seed | pairs moved | margin, nats | brief, tuned minus base |")
    print("|---|---|---|---|---|", flush=True)
    for name in only or ["as written", "rate 0", "shuffled", "swapped"]:
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as folder:
                found = _controlled(name, seed, Path(folder))
            preference, brief = found["preference"], found["paired"]["tuned-base"]["brief"]
            moved, margin = preference["accuracy"], preference["margin"]
            cells = [
                f"{factor * mean:{sign}.{digits}f}{unit} ({factor * low:{sign}.{digits}f} to {factor * high:{sign}.{digits}f})"
                for mean, (low, high), factor, digits, sign, unit in (
                    (moved["mean"], moved["ci95"], 100, 1, "", " %"),
                    (margin["mean"], margin["ci95"], 1, 2, "+", ""),
                    (brief["difference"], brief["ci95"], 100, 1, "+", " points"),
                )
            ]
            print(f"| {name} | {seed} | {' | '.join(cells)} |", flush=True)


def _controlled(name: str, seed: int, folder: Path) -> dict[str, Any]:
    example = HERE.parent / "examples" / "preferences"
    spec = yaml.safe_load((example / "job.yaml").read_text(encoding="utf-8"))
    spec["seed"] = seed
    if name == "rate 0":
        spec["hyperparameters"]["learning_rate_multiplier"] = 1e-9
    draw = random.Random(seed)
    for split in ("train", "validation", "test"):
        lines = [json.loads(line) for line in (example / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        if split != "test":
            lines = [
                _turned(line) if name == "swapped" or (name == "shuffled" and draw.random() < 0.5) else line
                for line in lines
            ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "job.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    home = {**os.environ, "FTBRIDGE_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "ftbridge", "run", str(folder / "job.yaml"), "--provider", "local", "--no-lint"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=home)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    (path,) = (folder / "home" / "runs").glob("*/evaluation.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _turned(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "preferred_output": line["non_preferred_output"], "non_preferred_output": line["preferred_output"]}


if __name__ == "__main__":
    main()
