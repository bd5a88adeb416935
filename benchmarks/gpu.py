"""A day on a GPU in one command of at most eight minutes, without network: checks first, then figures, then a table.

    python benchmarks/gpu.py --out gpu.json                # on the card
    python benchmarks/gpu.py --out gpu.json --rehearse     # the same steps on a CPU with a tiny model, in two minutes

The model has the shape of an 8B Llama and random weights, written once to a local folder; nothing is downloaded. Each step is a
process of its own with a time limit, so that one that fails costs itself alone; what no time is left for is listed as skipped.

    checks     of losses, completions, packing, resuming, memory that runs out, adapters, and `pytest -m gpu`: gpu_checks.py
    train      a job as users run it, QLoRA and LoRA, at 512, 2,048 and 8,192 tokens: tokens/s, peak memory, planned memory
    trl        TRL's recipe on the same examples, where trl is installed; unsloth the same with its loader
    generate   the engine against transformers' `generate`, 32 rows

A machine without network needs these wheels beside torch: ftbridge, transformers, peft, accelerate, bitsandbytes, safetensors,
tokenizers, psutil, gguf, huggingface-hub, jinja2; to compare: trl, datasets, unsloth.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
import traceback
from importlib import metadata, util
from pathlib import Path
from typing import Any

from gpu_checks import CHECKS
from gpu_model import LARGE, TINY, local_section, metrics_of, request_of, submitted, write_data, write_model


def steps(rehearse: bool) -> list[list[str]]:
    """What is run, in order; the most important first."""
    lengths = [64, 128, 256] if rehearse else [512, 2_048, 8_192]
    order = [[name] for name in CHECKS]
    order += [["train", quantization, str(length)] for length in lengths for quantization in ("nf4", "none")]
    order += [["trl", "nf4", str(lengths[1])], ["unsloth", "nf4", str(lengths[1])], ["generate"]]
    order += [["trl", "nf4", str(lengths[0])]]
    return order


def count_of(length: int) -> int:
    """Examples of a measurement: 65,536 tokens, at least eight examples; 32 on a rehearsal's short lengths at most."""
    return max(8, min(32, 65_536 // length))


def train(model: Path, folder: Path, quantization: str, length: int, device: str) -> dict[str, Any]:
    """A job by the worker's own code: tokens a second, peak and planned memory."""
    from ftbridge.planning import memory as planned
    from ftbridge.providers.local.models.device import pick
    from ftbridge.providers.local.process.run_training import run_training
    from ftbridge.providers.local.process.worker import JournalReporter
    from ftbridge.spec.sections import LocalSpec

    job = submitted(model, folder, request_of(model, quantization, length, device), length, count_of(length))
    ending = run_training(job, JournalReporter(job))
    metrics = metrics_of(job)
    local = LocalSpec.model_validate(local_section(quantization, length, device))
    shape = planned.read_shape(model)
    kind: Any = device
    plan = planned.memory(
        shape, local, pass_tokens=local.max_tokens_per_microbatch, trained_share=0.5, kind=kind, longest=length
    )
    adapter = folder / "adapter" / "adapter_model.safetensors"
    return {
        "ended": ending,
        "tokens/s": round(max(one["tokens_per_second"] for one in metrics[1:] or metrics)),
        "peak GB": round(pick(device, "auto").peak_gb(), 2),
        "planned GB": round(plan.total / 1e9, 2),
        "adapter": adapter.is_file(),
    }


def trl(model: Path, folder: Path, quantization: str, length: int, device: str, loader: str = "trl") -> dict[str, Any]:
    """TRL's SFTTrainer with the recipe of its documentation, or the same trainer on a model that Unsloth loaded."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    from ftbridge.providers.local.models.device import pick
    from ftbridge.providers.local.process.run_training import make_ready

    write_data(folder / "data", length, count_of(length))
    ready = make_ready(
        request_of(model, quantization, length, device), folder / "data" / "train.jsonl", None, lambda *_: None
    )
    rows = [
        {"input_ids": list(one.input_ids), "completion_mask": [int(flag) for flag in one.loss_mask]}
        for one in ready.train.examples
    ]
    lora: Any = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    if loader == "unsloth":
        from unsloth import FastLanguageModel

        loaded, _ = FastLanguageModel.from_pretrained(str(model), max_seq_length=length, load_in_4bit=True)
        loaded = FastLanguageModel.get_peft_model(loaded, r=16, lora_alpha=32)
        lora = None
    else:
        from transformers import AutoModelForCausalLM

        options: dict[str, Any] = {"dtype": torch.bfloat16}
        if quantization == "nf4":
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
            )  # fmt: skip
        if device == "cuda":
            options["device_map"] = {"": 0}
        loaded = AutoModelForCausalLM.from_pretrained(model, **options)
    trainer = SFTTrainer(
        model=loaded,
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=Dataset.from_list(rows),
        peft_config=lora,
        args=SFTConfig(
            output_dir=str(folder / "trl"), per_device_train_batch_size=1, gradient_accumulation_steps=4,
            num_train_epochs=1, max_length=length, completion_only_loss=True, bf16=True, use_cpu=device == "cpu",
            gradient_checkpointing=True, report_to=[], save_strategy="no", logging_steps=1000, disable_tqdm=True,
        ),
    )  # fmt: skip
    began = time.monotonic()
    trainer.train()
    took = time.monotonic() - began
    tokens = sum(len(row["input_ids"]) for row in rows)
    return {"tokens/s": round(tokens / took), "peak GB": round(pick(device, "auto").peak_gb(), 2)}


def generate(model: Path, device: str, rehearse: bool) -> dict[str, Any]:
    """Tokens a second of the engine and of transformers' `generate`, 32 rows with a shared beginning."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ftbridge.providers.local.inference.engine import Engine, Request

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    loaded = loaded.to(device).eval().requires_grad_(False)
    draw, count = random.Random(2), 8 if rehearse else 128
    shared = [draw.randrange(256) for _ in range(32 if rehearse else 512)]
    prompts = [[*shared, *(draw.randrange(256) for _ in range(16))] for _ in range(32)]
    ours = Engine(loaded, AutoTokenizer.from_pretrained(model))
    speeds: dict[str, list[float]] = {"engine": [], "generate": []}
    for number in range(3):
        fresh = [[number, *ids] for ids in prompts]
        began = time.monotonic()
        tokens = sum(
            len(one.token_ids) for one in ours.generate([Request(ids, count, end_tokens=frozenset()) for ids in fresh])
        )
        speeds["engine"].append(tokens / (time.monotonic() - began))
        ids = torch.tensor(fresh, device=device)
        began = time.monotonic()
        with torch.inference_mode():
            out = loaded.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
                eos_token_id=None, pad_token_id=256,
            )  # fmt: skip
        speeds["generate"].append((out.shape[1] - ids.shape[1]) * 32 / (time.monotonic() - began))
    best = {side: max(values[1:]) for side, values in speeds.items()}
    return {f"{side} tokens/s": round(speed) for side, speed in best.items()} | {
        "ratio": round(best["engine"] / best["generate"], 2)
    }


def run_step(step: list[str], model: Path, device: str, rehearse: bool) -> dict[str, Any]:
    """One step in this process. A package that is not there is a reason, not a failure."""
    name = step[0]
    for needed in {"trl": ("trl", "datasets"), "unsloth": ("unsloth", "trl", "datasets")}.get(name, ()):
        if util.find_spec(needed) is None:
            return {"skipped": f"{needed} is not installed"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "step"
        folder.mkdir()
        if name in CHECKS:
            return CHECKS[name](folder, device)
        if name == "train":
            return train(model, folder, step[1], int(step[2]), device)
        if name in ("trl", "unsloth"):
            return trl(model, folder, step[1], int(step[2]), device, name)
        return generate(model, device, rehearse)


def child(step: list[str], model: Path, device: str, rehearse: bool, seconds: float) -> dict[str, Any]:
    """One step in a process of its own: its figures, or what went wrong."""
    command = [sys.executable, __file__, "--step", *step, "--model", str(model), "--device", device]
    began = time.monotonic()
    try:
        done = subprocess.run(
            [*command, *["--rehearse"] * rehearse],
            capture_output=True,
            text=True,
            check=False,
            timeout=max(1.0, seconds),
        )
        result = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        result = {"failed": f"took longer than {seconds:.0f} s"}
    except (ValueError, IndexError):
        result = {"failed": done.stderr.strip()[-400:] or f"ended with {done.returncode} and said nothing"}
    return {"step": " ".join(step), "seconds": round(time.monotonic() - began, 1), **result}


def machine(device: str) -> dict[str, Any]:
    """Card, versions and date."""
    import torch

    versions = {}
    for name in ("torch", "transformers", "peft", "bitsandbytes", "trl", "unsloth"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    card = torch.cuda.get_device_name(0) if device == "cuda" else platform.processor() or platform.machine()
    return {"card": card, "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"), **versions}


def main() -> int:
    """Run the steps; print a table and write the JSON file. 1 where a step failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--rehearse", action="store_true", help="Run every step on the CPU with a tiny model.")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--device", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        try:
            result = run_step(options.step, options.model, options.device, options.rehearse)
        except Exception as error:
            traceback.print_exc()
            result = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print("\n" + json.dumps(result))
        return 0
    end = time.monotonic() + 60 * options.minutes
    device = "cpu" if options.rehearse else "cuda"
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        model = write_model(Path(scratch) / "model", TINY if options.rehearse else LARGE, "bfloat16")
        for step in steps(options.rehearse):
            left = end - time.monotonic()
            result = (
                child(step, model, device, options.rehearse, left)
                if left > 15
                else {"step": " ".join(step), "skipped": "no time"}
            )
            print(json.dumps(result), file=sys.stderr, flush=True)
            results.append(result)
    document = {"machine": machine(device), "steps": results}
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(", ".join(f"{key} {value}" for key, value in document["machine"].items()) + "\n")
    print("| step | seconds | what came of it |\n|---|---|---|")
    for one in results:
        rest = ", ".join(f"{key} {value}" for key, value in one.items() if key not in ("step", "seconds"))
        print(f"| {one['step']} | {one.get('seconds', '')} | {rest} |")
    return int(any("failed" in one for one in results))


if __name__ == "__main__":
    sys.exit(main())
