"""The checks of gpu.py: each raises where what a GPU computes is not what it has to be.

losses     nf4, int8, bf16 and fp16 against fp32 on the CPU, the same model and tokens
engine     completions against whole forward passes, alone and in a batch, with and without stored beginnings
packed     losses of a job whose micro-batches are packed, against one that is padded
resume     a worker killed with SIGKILL in the middle of a job, against one that was not: the same loss at every step
ladder     memory that runs out: smaller micro-batches, and the step is done
adapter    a tuned adapter opened in plain peft, against ours: the same log-probabilities
tests      every test that is marked gpu
"""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from gpu_model import TINY, metrics_of, request_of, submitted, write_model

HERE = Path(__file__).resolve().parent
TOLERANCE = {"nf4": 0.15, "int8": 0.05, "bf16": 0.02, "fp16": 0.02}
"""Largest difference from the CPU's fp32 loss, as a share of it: quantization of random weights included."""
SAME = 1e-4
"""Largest difference of two losses in fp32 that are computed in another order, as a share of them."""
ROOM = 200 << 20
"""Bytes that the ladder leaves: less than a fifth of what its first micro-batch wants."""


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


def packed(folder: Path, device: str) -> dict[str, Any]:
    """The losses of eight steps, packed and padded, in fp32 and without dropout."""
    from ftbridge.providers.local.process.run_training import run_training
    from ftbridge.providers.local.process.worker import JournalReporter

    small = write_model(folder / "model", TINY, "float32")
    losses = {}
    for way in ("packed", "padded"):
        request = plain_request(small, device).model_copy(update={"packing": way == "packed"})
        job = submitted(small, folder / way, request, 96, 32, uneven=True)
        run_training(job, JournalReporter(job))
        if not any(f" {way} micro-batches" in str(event.data.get("text")) for event in job.journal.read()):
            raise AssertionError(f"the job was not {way}: {[event.data for event in job.journal.read()]}")
        losses[way] = [one["train_loss"] for one in metrics_of(job)]
    return {"largest difference": compared(losses["packed"], losses["padded"])}


def resume(folder: Path, device: str) -> dict[str, Any]:
    """A real worker, killed after its first checkpoint and started again, beside one that was left alone."""
    from ftbridge.providers.base import JobHandle
    from ftbridge.providers.local.process.provider import LocalProvider

    small, provider = write_model(folder / "model", TINY, "float32"), LocalProvider()
    request = plain_request(small, device).model_copy(update={"n_epochs": 6, "lora_dropout": 0.1})

    def handle_of(job: Any) -> JobHandle:
        return JobHandle(provider="local", id="gpu", folder=job.folder)

    alone, cut = (submitted(small, folder / name, request, 96, 32) for name in ("alone", "cut"))
    provider.resume(handle_of(alone))
    wait(lambda: provider.poll(handle_of(alone)).state == "succeeded")
    provider.resume(handle_of(cut))
    wait(lambda: any((cut.folder / "checkpoints").glob("step-*/COMPLETE.json")))
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # another that has ended
            if str(cut.folder) in process.cmdline():
                process.send_signal(signal.SIGKILL)
    wait(lambda: provider.poll(handle_of(cut)).state in ("failed", "succeeded"))
    if provider.poll(handle_of(cut)).state == "succeeded":
        raise AssertionError("the job had ended before it could be killed")
    killed_at = metrics_of(cut)[-1]["step"]
    provider.resume(handle_of(cut))
    wait(lambda: provider.poll(handle_of(cut)).state in ("succeeded", "failed"))
    by_step = {one["step"]: one["train_loss"] for one in metrics_of(cut)}
    difference = compared([by_step[step] for step in sorted(by_step)], [one["train_loss"] for one in metrics_of(alone)])
    return {"killed after step": killed_at, "largest difference": difference}


def ladder(folder: Path, device: str) -> dict[str, Any]:
    """A step whose micro-batch wants more memory than there is; afterwards it was done in smaller ones."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ftbridge.providers.local.data.batches import Encoded
    from ftbridge.providers.local.models.device import pick
    from ftbridge.providers.local.training.checkpoint import TrainingState
    from ftbridge.providers.local.training.forward import Forward
    from ftbridge.providers.local.training.loop import Trainer, train
    from ftbridge.providers.local.training.optim import optimizer_for

    said: list[str] = []

    class Heard:
        def message(self, text: str, level: str = "info") -> None:
            said.append(text)

        def metrics(self, **figures: float | int | str | None) -> None:
            said.append(f"step {figures['step']}")

        def checkpoint(self, path: Path, step: int) -> None: ...

    where = pick(device, "fp32")
    changes = {"tuning": "full", "quantization": "none", "batch_size": 16, "optimizer": "adamw"}
    request = plain_request(folder, device).model_copy(update=changes)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50_000, **shape)).to(where.torch)
    draw = random.Random(5)
    data = [Encoded(tuple(draw.randrange(50_000) for _ in range(100)), (True,) * 100, number) for number in range(16)]
    forward = Forward(model, where, "plain", autocast=False)
    forward.loss_sum([Encoded(data[0].input_ids[:10], (True,) * 10, 0)])[0].backward()  # what libraries set up once
    optimizer = optimizer_for(model.parameters(), request, where)
    scaler = torch.amp.GradScaler(where.kind, enabled=False)
    trainer = Trainer(forward, optimizer, scaler, request, where, data, (), folder, 1600, Heard(), lambda: None)
    limit_memory(device)
    train(trainer, TrainingState())
    reduced = [text for text in said if "micro-batches are reduced" in text]
    if not reduced or "step 1" not in said:
        raise AssertionError(f"memory did not run out, or the step was not done: {said}")
    return {"reduced to tokens": trainer.max_tokens_per_microbatch}


def limit_memory(device: str) -> None:
    """Leave this process `ROOM` more bytes than it has now."""
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + ROOM) / total)
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))


def adapter(folder: Path, device: str) -> dict[str, Any]:
    """What a tuned model says of a text, by ours and by plain transformers and peft; and that it is not what its base says."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from ftbridge.providers.local.inference.loaded import Loaded
    from ftbridge.providers.local.process.run_training import run_training
    from ftbridge.providers.local.process.worker import JournalReporter
    from ftbridge.providers.local.request import SampleRequest

    small = write_model(folder / "model", TINY, "float32")
    request = plain_request(small, device)
    job = submitted(small, folder / "job", request, 96, 32)
    run_training(job, JournalReporter(job))
    tuned = folder / "job" / "adapter"
    ids = [random.Random(9).randrange(256) for _ in range(64)]
    loaded = Loaded(SampleRequest(request=request, tuned=str(tuned)))
    ours = [float(one.logprob or 0.0) for one in loaded.engine.score(ids, loaded.adapter, 0)]
    base = [float(one.logprob or 0.0) for one in loaded.engine.score(ids, None, 0)]
    model: Any = AutoModelForCausalLM.from_pretrained(small, dtype=torch.float32).to(device)
    model = PeftModel.from_pretrained(model, str(tuned)).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, :-1].float()
    picked = torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    difference = max(abs(one - other) for one, other in zip(ours, picked.tolist(), strict=True))
    moved = max(abs(one - other) for one, other in zip(ours, base, strict=True))
    if difference > 1e-3 or moved < 10 * difference:
        raise AssertionError(f"plain peft differs by {difference:.2g} nats, and the base by {moved:.2g}")
    return {"peft differs by": float(f"{difference:.2g}"), "base differs by": float(f"{moved:.2g}")}


def plain_request(model: Path, device: str) -> Any:
    """LoRA in fp32 without dropout at a rate that moves a random model; the smallest micro-batches that steps are cut into."""
    changes = {
        "precision": "fp32",
        "lora_dropout": 0.0,
        "learning_rate": 1e-2,
        "rate_by_width": False,
        "max_tokens_per_microbatch": 256,
        "gradient_checkpointing": False,
    }
    return request_of(model, "none", 128, device).model_copy(update=changes)


def compared(losses: list[float], others: list[float]) -> float:
    """The largest difference of two jobs' losses, as a share of one. Raises where it is large, or nothing was learnt."""
    if len(losses) != len(others) or not losses:
        raise AssertionError(f"{len(losses)} steps and {len(others)}")
    difference = max(abs(one - other) / abs(other) for one, other in zip(losses, others, strict=True))
    if difference > SAME or others[-1] >= others[0]:
        raise AssertionError(f"losses {losses} and {others}")
    return float(f"{difference:.2g}")


def wait(until: Callable[[], Any], seconds: float = 90) -> None:
    """Wait for `until`. Raises `AssertionError` after so long."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s in vain")
        time.sleep(0.05)


CHECKS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "losses": losses,
    "engine": engine,
    "packed": packed,
    "resume": resume,
    "ladder": ladder,
    "adapter": adapter,
    "tests": tests,
}
"""In the order in which they are run."""
