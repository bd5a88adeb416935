"""Memory that really runs out: the address space of a child process is limited after the model is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ftbridge.providers.local.models.device import is_out_of_memory
from support.paths import TESTS

CHILD = """
import resource, sys
from pathlib import Path
import torch
from support.training_requests import device, examples, request
from transformers import LlamaConfig, LlamaForCausalLM
from ftbridge.errors import OutOfMemory
from ftbridge.providers.local.training import loop as training
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.optim import optimizer_for

class Told:
    def message(self, text, level="info"): print(text, flush=True)
    def metrics(self, **figures): print("step", figures["step"], figures["train_loss"], flush=True)
    def checkpoint(self, path, step): pass

asked, where, data = request(batch_size=16, tuning="full"), device(), examples((100,) * 16)
shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=50_000, **shape))  # logits of 1,600 tokens take 320 MB, several times
forward = Forward(model, where, "plain", autocast=False)
forward.loss_sum(examples((10,)))[0].backward()  # what libraries set up once
optimizer = optimizer_for(model.parameters(), asked, where)
scaler = torch.amp.GradScaler("cpu", enabled=False)
trainer = training.Trainer(forward, optimizer, scaler, asked, where, data, (), Path(sys.argv[2]), 1600, Told(), lambda: None)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = used + int(float(sys.argv[1]) * 1e9)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    training.train(trainer, TrainingState())
except OutOfMemory as error:
    print("OutOfMemory:", error)
"""


def train_within(gigabytes: float, folder: Path) -> str:
    command = [
        sys.executable,
        "-c",
        CHILD,
        str(gigabytes),
        str(folder),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "MALLOC_ARENA_MAX": "2"}, cwd=TESTS
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space through /proc and RLIMIT_AS")
def test_when_memory_runs_out_passes_shrink_and_the_step_is_done(tmp_path: Path) -> None:
    result = train_within(0.2, tmp_path)
    assert "memory ran out; micro-batches are reduced to 800 tokens" in result
    assert "step 1 " in result


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space through /proc and RLIMIT_AS")
def test_when_even_one_example_does_not_fit_the_error_says_what_to_do(tmp_path: Path) -> None:
    result = train_within(0.005, tmp_path)
    assert "activations are recomputed" in result
    assert "OutOfMemory: memory ran out on an example of 100 tokens" in result
    assert "local.max_length" in result


def test_real_allocation_failures_are_known_as_such() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
