"""A day on a GPU in one command of at most eight minutes, without network: checks first, then figures, then a table.

    python benchmarks/gpu.py --out gpu.json                # on the card
    python benchmarks/gpu.py --out gpu.json --rehearse     # the same steps on a CPU with a tiny model, in two minutes

The model has the shape of an 8B Llama and random weights, written once to a local folder; nothing is downloaded. Each step is a
process of its own with a time limit, so that one that fails costs itself alone; what no time is left for is listed as skipped.

    losses     nf4, int8, bf16 and fp16 on the card against fp32 on the CPU, the same tiny model and tokens
    engine     completions on the card against whole forward passes, alone and in a batch, with and without stored beginnings
    tests      pytest -m gpu
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

HERE = Path(__file__).resolve().parent
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
LARGE = {"vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 16_384}  # fmt: skip
TINY = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}  # fmt: skip
TOLERANCE = {"nf4": 0.15, "int8": 0.05, "bf16": 0.02, "fp16": 0.02}
"""Largest difference from the CPU's fp32 loss, as a share of it: quantization of random weights included."""


def steps(rehearse: bool) -> list[list[str]]:
    """What is run, in order; the most important first."""
    lengths = [64, 128, 256] if rehearse else [512, 2_048, 8_192]
    order = [["losses"], ["engine"], ["tests"]]
    order += [["train", quantization, str(length)] for length in lengths for quantization in ("nf4", "none")]
    order += [["trl", "nf4", str(lengths[1])], ["unsloth", "nf4", str(lengths[1])], ["generate"]]
    order += [["trl", "nf4", str(lengths[0])]]
    return order


def write_model(folder: Path, shape: dict[str, int], dtype: str) -> Path:
    """A random Llama of this shape as it would be published, with a tokenizer of bytes and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(where):
        model = LlamaForCausalLM(LlamaConfig(**shape, eos_token_id=256, pad_token_id=256)).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    return folder


def losses(folder: Path, device: str) -> dict[str, Any]:
    """The loss of drawn tokens by quantization and type, beside the CPU's in fp32. Raises where one is too far."""
    import torch

    from ftbridge.providers.local.models import load
    from ftbridge.providers.local.models.device import pick

    small = write_model(folder / "losses", TINY, "float32")
    ids = torch.randint(0, 256, (2, 64), generator=torch.Generator().manual_seed(0))

    def loss(quantization: str, precision: Any, where: str) -> float:
        request = request_of(small, quantization, 128, where)
        model = load.load_base(small, request, pick(where, precision))
        with torch.no_grad():
            ours = ids.to(next(model.parameters()).device)
            return float(model(input_ids=ours, labels=ours).loss)

    wanted = loss("none", "fp32", "cpu")
    values = {
        "nf4": loss("nf4", "bf16", device),
        "int8": loss("int8", "bf16", device),
        "bf16": loss("none", "bf16", device),
        "fp16": loss("none", "fp16", device) if device == "cuda" else wanted,
    }
    for name, value in values.items():
        if not abs(value - wanted) <= TOLERANCE[name] * wanted:
            raise AssertionError(f"{name} gives a loss of {value:.4f}, the CPU {wanted:.4f}")
    return {"cpu fp32": round(wanted, 4), **{name: round(value, 4) for name, value in values.items()}}


def engine(folder: Path, device: str) -> dict[str, Any]:
    """Completions in fp32 against whole passes. Raises where one differs."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ftbridge.providers.local.inference.engine import Engine, Request

    small = write_model(folder / "engine", TINY, "float32")
    model = AutoModelForCausalLM.from_pretrained(small).to(device).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(small)
    draw = random.Random(1)
    shared = [draw.randrange(256) for _ in range(40)]
    requests = [
        Request([*shared, *(draw.randrange(256) for _ in range(draw.randint(1, 30)))], 16, end_tokens=frozenset())
        for _ in range(48)
    ]
    ours = Engine(model, tokenizer)
    together = [one.token_ids for one in ours.generate(requests)]
    if ours.batch.why_alone:
        raise AssertionError(f"rows cannot be computed together: {ours.batch.why_alone}")
    reads = Engine(model, tokenizer, share_prefixes=False)
    alone = [reads.generate([one])[0].token_ids for one in requests]
    whole = 0
    for request, tokens in zip(requests[:8], together, strict=False):
        ids = list(request.prompt_ids)
        for token in tokens:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, -1]
            whole += int(logits[token] >= logits.max() - 1e-3)
            ids.append(token)
    same = sum(one == other for one, other in zip(together, alone, strict=True))
    if same < len(requests) or whole < 8 * 16:
        raise AssertionError(f"{same} of {len(requests)} the same alone, {whole} of {8 * 16} tokens as in whole passes")
    return {"same alone": f"{same} of {len(requests)}", "as whole passes": f"{whole} of {8 * 16}"}


def tests(folder: Path, device: str) -> dict[str, Any]:
    """Every test that is marked gpu; on a CPU they are collected alone."""
    marked = [
        path for path in (HERE.parent / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, marked)]
    command += ["--collect-only"] if device == "cpu" else ["-x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
    if done.returncode:
        raise AssertionError(done.stdout[-600:])
    return {"pytest": done.stdout.strip().splitlines()[-1]}


def request_of(model: Path, quantization: str, length: int, device: str) -> Any:
    """A job on the model in the local provider's terms."""
    from ftbridge.providers import resolve
    from ftbridge.providers.local.lower import lower
    from ftbridge.providers.local.request import LocalRequest
    from ftbridge.spec import JobSpec

    spec = JobSpec.from_dict(
        {
            "name": "gpu",
            "data": {"train": "train.jsonl"},
            "model": {"local": str(model)},
            "hyperparameters": {"n_epochs": 1, "batch_size": 4},
            "local": local_section(quantization, length, device),
        }
    )
    return LocalRequest.model_validate(lower(resolve(spec, 16, "local")).request)


def local_section(quantization: str, length: int, device: str) -> dict[str, Any]:
    """The spec's section, with what `plan` has to know: passes of at least 2,048 tokens, activations recomputed."""
    return {
        "quantization": quantization,
        "max_length": length,
        "device": device,
        "evals_per_epoch": 1,
        "max_tokens_per_microbatch": max(length, 2_048),
        "gradient_checkpointing": True,
    }


def write_data(folder: Path, length: int, count: int) -> None:
    """Chats of `length` tokens less a few, half of them trained, as a run prepares them."""
    from ftbridge.data.prepare import prepare
    from ftbridge.spec import JobSpec

    raw = folder.with_name(f"{folder.name}-raw")
    raw.mkdir(parents=True)
    draw, half = random.Random(7), (length - 8) // 2
    letters = "abcdefghijklmnopqrstuvwxyz "
    rows = [
        {
            "messages": [
                {"role": role, "content": "x" + "".join(draw.choice(letters) for _ in range(half - 3)) + "x"}
                for role in ("user", "assistant")
            ]
        }
        for _ in range(count)
    ]
    (raw / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = {"name": "gpu", "data": {"train": "train.jsonl"}, "model": {"local": "any"}}
    prepare(JobSpec.from_dict(spec), base=raw, out=folder)


def count_of(length: int) -> int:
    """Examples of a measurement: 65,536 tokens, at least eight examples; 32 on a rehearsal's short lengths at most."""
    return max(8, min(32, 65_536 // length))


def train(model: Path, folder: Path, quantization: str, length: int, device: str) -> dict[str, Any]:
    """A job by the worker's own code: tokens a second, peak and planned memory."""
    from ftbridge.planning import memory as planned
    from ftbridge.providers.base import Submission
    from ftbridge.providers.local.models.device import pick
    from ftbridge.providers.local.process.job import Job
    from ftbridge.providers.local.process.run_training import run_training
    from ftbridge.providers.local.process.worker import JournalReporter
    from ftbridge.spec.sections import LocalSpec

    write_data(folder / "data", length, count_of(length))
    job = Job(folder)
    request = request_of(model, quantization, length, device)
    train_file = folder / "data" / "train.jsonl"
    job.write(
        Submission(
            token="gpu", folder=folder, request=request.model_dump(mode="json"), train=train_file, validation=None
        )
    )
    ending = run_training(job, JournalReporter(job))
    metrics = [event.data for event in job.journal.read() if event.type == "metrics"]
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
        if name in ("losses", "engine", "tests"):
            return {"losses": losses, "engine": engine, "tests": tests}[name](folder, device)
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
