"""Sharded workers (fsdp2): the losses of one worker, checkpoints that any number goes on from, and a trial before training."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftbridge.errors import DiskFull, OutOfMemory, TrainingFailed
from ftbridge.files import disk_full_is_an_error
from ftbridge.providers.local.models import sharding
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.memory import require_free
from ftbridge.providers.local.models.parts import use_own_attention
from ftbridge.providers.local.models.sizes import shape_of
from ftbridge.providers.local.process.job import Job
from ftbridge.providers.local.process.run_training import run_training
from ftbridge.providers.local.training import checkpoint, shards
from ftbridge.providers.local.training.optim import optimizer_for
from ftbridge.providers.local.training.parallel import ALONE
from support import architectures, ranks, training_requests
from support.jobs import submitted_job
from support.small_model import write_small_model

FSDP2 = {"local.workers": 2, "local.sharding": "fsdp2", "local.lora.dropout": 0.0}
LR = "hyperparameters.learning_rate_multiplier"


def alone(job: Job) -> list[dict[str, Any]]:
    reporter = ranks.Written()
    assert run_training(job, reporter) == "succeeded"
    return reporter.figures


def step_folders(job: Job) -> list[Path]:
    return sorted((job.folder / "checkpoints").glob("step-*"))


def back_to_the_first_checkpoint(job: Job) -> int:
    """Remove what came after the oldest checkpoint that is left; returns its step."""
    first, *later = step_folders(job)
    for path in [*later, job.folder / "adapter", job.folder / "model"]:
        shutil.rmtree(path, ignore_errors=True)
    return int(first.name.removeprefix("step-"))


@pytest.mark.slow
def test_sharded_workers_train_to_the_losses_of_one_and_any_number_goes_on(
    tmp_path: Path, tiny_model_dir: Path, base_model_dir: Path
) -> None:
    tied = write_small_model(tmp_path / "tied", base_model_dir, tie_word_embeddings=True)
    cases: dict[str, tuple[Path, dict[str, Any]]] = {
        "lora": (tiny_model_dir, {LR: 20}),
        "nf4": (tiny_model_dir, {"local.quantization": "nf4", "local.cache_dequantized_weights": False, LR: 20}),
        "full": (tied, {"local.tuning": "full", LR: 10}),
    }
    wanted, jobs = {}, {}
    for name, (model, changes) in cases.items():
        wanted[name] = submitted_job(tmp_path / f"{name}-1", model, **{**FSDP2, **changes})
        jobs[name] = submitted_job(tmp_path / f"{name}-2", model, **{**FSDP2, **changes})
    figures = {name: alone(job) for name, job in wanted.items()}
    outcomes = ranks.train_together(list(jobs.values()), 2)
    for name, job in jobs.items():
        outcome = outcomes[job.folder]
        assert "each with 1/2 of the model (fsdp2)" in outcome["messages"][0], outcome["messages"]
        for one, other in zip(ranks.losses(figures[name]), ranks.losses(outcome["figures"]), strict=True):
            assert other == pytest.approx(one, rel=1e-5, abs=1e-5), name
        folder, file = ("model", "model") if name == "full" else ("adapter", "adapter_model")
        one, other = (load_file(run.folder / folder / f"{file}.safetensors") for run in (wanted[name], job))
        assert one.keys() == other.keys()
        assert max(float((one[key] - other[key]).abs().max()) for key in one) < 1e-4, name
        assert all(checkpoint.has_shards(path) for path in step_folders(job))

    # A run of sharded workers goes on alone, and one that was alone goes on in three parts.
    for name, job in jobs.items():
        step = back_to_the_first_checkpoint(job)
        again = alone(job)
        assert [one["step"] for one in again] == list(range(step + 1, len(figures[name]) + 1))
        for one, other in zip(ranks.losses(figures[name][step:]), ranks.losses(again), strict=True):
            assert other == pytest.approx(one, rel=1e-5, abs=1e-5), name
    steps = {name: back_to_the_first_checkpoint(job) for name, job in wanted.items()}
    assert not any(checkpoint.has_shards(path) for job in wanted.values() for path in step_folders(job))
    for name, outcome in zip(wanted, ranks.train_together(list(wanted.values()), 3).values(), strict=True):
        seen = ranks.losses(outcome["figures"])
        for one, other in zip(ranks.losses(figures[name][steps[name] :]), seen, strict=True):
            assert other == pytest.approx(one, rel=1e-5, abs=1e-5), name


@pytest.mark.slow
def test_weights_left_whole_are_noticed_and_one_short_worker_makes_all_cut_smaller(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    changes = {**FSDP2, LR: 20, "hyperparameters.n_epochs": 1}
    left = submitted_job(tmp_path / "left", tiny_model_dir, **changes)
    short, enough = (
        submitted_job(tmp_path / name, tiny_model_dir, **{**changes, "local.sharding": "ddp"}) for name in "ab"
    )
    figures = alone(enough)
    faults = {left.folder: "leave-whole", short.folder: "short-of-memory"}
    outcomes = ranks.train_together([left, short], 2, faults)
    outcome = outcomes[left.folder]
    assert outcome["ending"] == "succeeded"
    assert "a worker holds 100% of the weights, not about 50%" in outcome["messages"][0]
    assert "each with the whole model (ddp)" in outcome["messages"][1]
    outcome = outcomes[short.folder]
    assert any(text.startswith("memory ran out; micro-batches are reduced") for text in outcome["messages"]), outcome[
        "messages"
    ]
    for one, other in zip(ranks.losses(figures), ranks.losses(outcome["figures"]), strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_families_of_every_kind_shard_and_compute_the_same(tmp_path: Path) -> None:
    """A tied head and Conv1D, a head that caps its logits, fused experts, latent attention, and state from token to token."""
    families = ["gpt2", "gemma2", "mixtral", "deepseek_v3", "mamba", "qwen3_next"]
    done = ranks.torchrun(2, "support.sharded_families", str(tmp_path), *families)
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = json.loads((tmp_path / "families.json").read_text())
    assert list(outcomes) == families
    for name, outcome in outcomes.items():
        assert outcome["sharded"], (name, outcome["notes"])
        assert outcome["loss"] == pytest.approx(outcome["wanted"], rel=1e-6), name


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False, capture_output=True
    ).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        settings = architectures.request()
        model = model_of(tmp_path / "model")
        optimizer = optimizer_for(model.parameters(), settings, architectures.CPU)
        with pytest.raises(DiskFull), disk_full_is_an_error(small):
            shards.save(small / "sharded", model, optimizer)
    finally:
        subprocess.run(["umount", small], check=True)


# The trial, on a model that is not sharded


def model_of(folder: Path) -> Any:
    architectures.model_of("llama", folder)
    model = architectures.ready(folder, architectures.request(), []).model
    use_own_attention(model)
    return model


def test_a_model_that_computes_other_numbers_is_not_trained(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    before = sharding.probe(model)
    sharding.require_sharded(model, before, 1, torch.float32)
    with torch.no_grad():
        model.get_base_model().model.layers[0].mlp.down_proj.base_layer.weight.mul_(1.5)
    with pytest.raises(sharding.NotSharded, match="computes other numbers"):
        sharding.require_sharded(model, before, 1, torch.float32)


def test_a_model_without_gradients_is_not_trained(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    before = sharding.probe(model)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
        elif "lora_B" in name:
            parameter.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(sharding.NotSharded, match="the norm nan"):
        sharding.require_sharded(model, before, 1, torch.float32)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_adapter_that_holds_a_part_is_not_called_saved(tmp_path: Path) -> None:
    model = model_of(tmp_path / "model")
    norms = shards.norms(model, ALONE)
    model.save_pretrained(tmp_path / "adapter")
    shards.require_saved(tmp_path / "adapter", model, norms)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "lora_A" in name)
    for damage in (tensors[name][:1].clone(), tensors[name] * 0.5, torch.zeros(0)):
        save_file({**tensors, name: damage}, file)
        with pytest.raises(TrainingFailed, match="not the one that was trained"):
            shards.require_saved(tmp_path / "adapter", model, norms)


def test_auto_shards_where_a_whole_model_does_not_fit_a_gpu() -> None:
    shape = shape_of({"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
                      "intermediate_size": 14336, "vocab_size": 128256})  # fmt: skip
    gpu = Device(torch.device("cuda", 0), torch.bfloat16)
    settings = training_requests.request(quantization="none", sharding="auto")
    assert sharding.choose(settings, shape, gpu, 80 << 30, 2) == "ddp"
    assert sharding.choose(settings, shape, gpu, 12 << 30, 2) == "fsdp2"
    assert sharding.choose(settings, shape, gpu, 12 << 30, 1) == "ddp"
    assert sharding.choose(settings, None, gpu, 12 << 30, 2) == "ddp"
    assert sharding.choose(settings, shape, architectures.CPU, 12 << 30, 2) == "ddp"
    assert sharding.choose(settings.model_copy(update={"quantization": "int8"}), shape, gpu, 1 << 30, 2) == "ddp"
    assert (
        sharding.choose(settings.model_copy(update={"sharding": "fsdp2"}), shape, architectures.CPU, 1 << 40, 2)
        == "fsdp2"
    )


def test_a_gpu_that_others_hold_is_refused_with_what_they_hold() -> None:
    require_free("cuda", 20 * 10**9, 24 * 10**9, 16 * 10**9)
    with pytest.raises(
        OutOfMemory, match="GB free: 20.9 GB of 24.0 GB are in use, and the weights .* take 16.0 GB"
    ) as error:
        require_free("cuda (RTX 4090), bfloat16", 3_100_000_000, 24 * 10**9, 16 * 10**9)
    assert "nvidia-smi" in (error.value.hint or "")
