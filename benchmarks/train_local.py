"""Local training against TRL's plain QLoRA recipe: the same model, tokens, masks and hyperparameters, side by side.

    python benchmarks/train_local.py --repeat 3                # both data sets, alternating runs; prints a Markdown table
    python benchmarks/train_local.py --data short --repeat 1

Each run is a process of its own. Both sides get the same token ids and the same loss mask (ftbridge renders them; TRL
takes them as a processed dataset with `completion_mask`), NF4 with double quantisation and bf16 compute, LoRA r=16
alpha=32 dropout=0.05 on all linear layers, AdamW, constant rate, 16 examples a step. Tokens per second count real
tokens, not padding, over training alone. The final validation loss of both adapters is computed by one judge: a fresh
process, the model's own forward, logits and attention.

Sides: ftbridge · trl (4 x 4 accumulated, its usual recipe) · trl-16 (16 in one padded batch).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from ftbridge.providers.local.process.child import child_environment

HERE = Path(__file__).resolve().parent
MODEL = "smollm2-135m-instruct"
EPOCHS, BATCH, RATE, SEED = 1, 16, 5e-4, 7
SIZES = {"short": (96, 32), "chat": (48, 16)}


def main() -> None:
    """Alternate the sides, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["short", "chat"], action="append")
    parser.add_argument("--sides", default="ftbridge,trl")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "DATA", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--judge", nargs=2, metavar=("DATA", "ADAPTER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(*options.one)))
    elif options.judge:
        print(json.dumps(judge(*options.judge)))
    else:
        table(options.data or ["short", "chat"], options.sides.split(","), options.repeat)


def table(data_sets: list[str], sides: list[str], repeat: int) -> None:
    """Run everything, alternating, and print medians and ratios."""
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "peft", "bitsandbytes", "trl")}
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, "
          + ", ".join(f"{name} {version}" for name, version in versions.items()) + f"; medians of {repeat}\n")  # fmt: skip
    print("| data | side | tokens/s | peak memory | validation loss | speed against trl |")
    print("|---|---|---|---|---|---|", flush=True)
    for data in data_sets:
        found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(repeat):
            for side in sides:
                found[side].append(_side(side, data))
        medians = {
            side: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for side, runs in found.items()
        }
        for side, one in medians.items():
            ratios = [mine["rate"] / theirs["rate"] for mine, theirs in zip(found[side], found["trl"], strict=True)]
            print(
                f"| {data} | {side} | {one['rate']:.0f} | {one['memory']:.1f} GB | {one['loss']:.3f} "
                f"| {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}) |",
                flush=True,
            )


def _side(side: str, data: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        done = _child("--one", side, data, folder, environment=child_environment() if side == "ftbridge" else None)
        found = {"rate": done["rate"], "memory": done["memory"], **_child("--judge", data, done["adapter"])}
    print(f"{data} {side}: {found}", file=sys.stderr, flush=True)
    return found


def _child(*args: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What a process of its own printed; `environment` is what `ftbridge run` gives its worker."""
    done = subprocess.run(
        [sys.executable, __file__, *args],
        capture_output=True,
        text=True,
        check=False,
        env={**(environment or os.environ), "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def run_one(side: str, data: str, out: str) -> dict[str, Any]:
    """Train one side; returns tokens per second, peak memory in GB, and where the adapter is."""
    folder = Path(out)
    write_data(data, folder / "data")
    ready = rendered(folder / "data")
    took, adapter = (
        train_ftbridge(folder) if side == "ftbridge" else train_trl(folder, ready, 16 if side == "trl-16" else 4)
    )
    from ftbridge.providers.local.models.device import pick

    tokens = ready.train.tokens * EPOCHS
    return {"rate": tokens / took, "memory": pick("auto", "auto").peak_gb(), "adapter": str(adapter)}


def train_ftbridge(folder: Path) -> tuple[float, Path]:
    """The local provider's own worker code, from its loop's first step to its last checkpoint."""
    from ftbridge.providers.base import Submission
    from ftbridge.providers.local.process.job import Job
    from ftbridge.providers.local.process.run_training import run_training
    from ftbridge.providers.local.process.worker import JournalReporter

    job = Job(folder)
    request = local_request().model_dump(mode="json")
    job.write(
        Submission(token="bench", folder=folder, request=request, train=folder / "data/train.jsonl", validation=None)
    )
    assert run_training(job, JournalReporter(job)) == "succeeded"
    times = {event.data["name"]: event.time for event in job.journal.read() if event.type == "stage"}
    return times["saving"] - times["training"], folder / "adapter"


def train_trl(folder: Path, ready: Any, per_device: int) -> tuple[float, Path]:
    """TRL's SFTTrainer with a quantised model and a LoRA config: the recipe of its documentation."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(ready.base.path, dtype=torch.bfloat16, quantization_config=quantised)
    rows = [
        {"input_ids": list(e.input_ids), "completion_mask": [int(t) for t in e.loss_mask]} for e in ready.train.examples
    ]
    trainer = SFTTrainer(
        model=model,
        processing_class=ready.tokenizer,
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=BATCH // per_device,
            num_train_epochs=EPOCHS,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_length=1024,
            completion_only_loss=True,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            optim="adamw_torch_fused",
            seed=SEED,
            report_to=[],
            save_strategy="no",
            logging_steps=1000,
            disable_tqdm=True,
        ),
    )
    began = time.monotonic()
    trainer.train()
    took = time.monotonic() - began
    trainer.save_model(str(folder / "adapter"))
    return took, folder / "adapter"


def judge(data: str, adapter: str) -> dict[str, float]:
    """Validation loss of an adapter by the model's own forward, in nats a trained token."""
    import torch
    from peft import PeftModel

    from ftbridge.providers.local.models import load
    from ftbridge.providers.local.models.device import pick
    from ftbridge.providers.local.training.forward import Forward
    from ftbridge.providers.local.training.objective import SUPERVISED, measure

    with tempfile.TemporaryDirectory() as folder:
        write_data(data, Path(folder))
        ready = rendered(Path(folder))
    device = pick("auto", "auto")
    model = PeftModel.from_pretrained(load.load_base(ready.base.path, local_request(), device), adapter)
    forward = Forward(model, device, "plain", autocast=device.compute != torch.float32)
    return {"loss": measure(SUPERVISED, forward, ready.validation.examples, 512)["loss"]}


def rendered(folder: Path) -> Any:
    """Tokens and masks, which both sides train on."""
    from ftbridge.providers.local.process.run_training import make_ready

    return make_ready(local_request(), folder / "train.jsonl", folder / "validation.jsonl", None)


def local_request() -> Any:
    """The job in the local provider's terms."""
    from ftbridge.providers import resolve
    from ftbridge.providers.local.lower import lower
    from ftbridge.providers.local.request import LocalRequest
    from ftbridge.spec import JobSpec

    spec = JobSpec.from_dict(
        {
            "name": "bench",
            "data": {"train": "train.jsonl"},
            "model": {"local": MODEL},
            "hyperparameters": {"n_epochs": EPOCHS, "batch_size": BATCH, "learning_rate_multiplier": 1},
            "seed": SEED,
            "local": {
                "base_learning_rate": RATE,
                "quantization": "nf4",
                "max_length": 1024,
                "evals_per_epoch": 1,
                "lr_schedule": "constant",
                "warmup_ratio": 0.0,
            },
        }
    )
    return LocalRequest.model_validate(lower(resolve(spec, SIZES["short"][0], "local")).request)


def write_data(data: str, folder: Path) -> None:
    """`short`: the support-triage messages. `chat`: dialogues of three to five turns with whole-sentence answers."""
    from ftbridge.data.prepare import prepare
    from ftbridge.spec import JobSpec

    source = HERE.parent / "examples" / "support-triage" / "train.jsonl"
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    train, validation = SIZES[data]
    rows = lines[: train + validation] if data == "short" else dialogues(lines, train + validation)
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder.with_name(f"{folder.name}-raw")
    raw.mkdir(exist_ok=True)
    for name, part in (("train", rows[:train]), ("validation", rows[train:])):
        (raw / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    spec = {
        "name": "bench",
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        "model": {"local": MODEL},
    }
    prepare(JobSpec.from_dict(spec), base=raw, out=folder)


def dialogues(lines: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Multi-turn chats made from the messages, with answers of two to four sentences; fixed by the seed."""
    drawn = random.Random(SEED)
    openings = [
        "Thank you for writing to us.",
        "I am sorry about the trouble.",
        "Good to hear from you.",
        "I understand.",
    ]
    middles = {
        "billing": "I have looked at the payment and will ask the bank to release the second charge within three days.",
        "refund": "Your money goes back to the card you paid with, and you should see it within five working days.",
        "delivery": "The parcel is with the courier, and I have asked them to tell you the new delivery window by noon.",
        "damaged": "We will send a replacement today at no cost, and the courier takes the broken one back with him.",
        "account": "I have sent a fresh link to your address; it works for one hour, so please use it soon.",
        "cancel": "The order has not left the warehouse, so I have cancelled it and nothing will be charged.",
        "product": "The measurements and the care instructions are on the product page, below the pictures.",
        "praise": "I will pass your kind words on to the team, who will be very pleased to read them.",
    }
    closings = [
        "Is there anything else I can do for you?",
        "Please write again if it is not solved by then.",
        "All the best.",
    ]
    made = []
    for _ in range(count):
        messages: list[dict[str, str]] = [
            {"role": "system", "content": "You answer for Larkfield, kindly and to the point."}
        ]
        for line in drawn.sample(lines, drawn.randint(3, 5)):
            queue = json.loads(line["messages"][2]["content"])["queue"]
            answer = " ".join([drawn.choice(openings), middles[queue], drawn.choice(closings)])
            messages += [line["messages"][1], {"role": "assistant", "content": answer}]
        made.append({"messages": messages})
    return made


if __name__ == "__main__":
    main()
