"""Memory that really runs out: the address space of a child process is limited after the model is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ftbridge.providers.local.device import is_out_of_memory

CHILD = """
import resource, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from test_forward import adapted, device, examples, request
from ftbridge.errors import OutOfMemory
from ftbridge.providers.local import training
from ftbridge.providers.local.checkpoint import TrainingState
from ftbridge.providers.local.forward import Forward, prove
from ftbridge.providers.local.optim import optimizer_for

class Told:
    def message(self, text, level="info"): print(text, flush=True)
    def metrics(self, **figures): print("step", figures["step"], figures["train_loss"], flush=True)
    def checkpoint(self, path, step): pass

asked, where, data = request(batch_size=8), device(torch.bfloat16), examples((100,) * 8)
model = adapted(Path(sys.argv[2]), asked, where)
forward = prove(Forward(model, where, "plain", autocast=True), data, packing=True)
optimizer = optimizer_for(model.parameters(), asked, where)
scaler = torch.amp.GradScaler("cpu", enabled=False)
trainer = training.Trainer(forward, optimizer, scaler, asked, where, data, (), Path(sys.argv[4]), 800, Told(), lambda: None)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = used + int(float(sys.argv[3]) * 1e9)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    training.train(trainer, TrainingState())
except OutOfMemory as error:
    print("OutOfMemory:", error)
"""


def train_within(gigabytes: float, base_model_dir: Path, folder: Path) -> str:
    command = [
        sys.executable,
        "-c",
        CHILD,
        str(Path(__file__).parent),
        str(base_model_dir),
        str(gigabytes),
        str(folder),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "MALLOC_ARENA_MAX": "2"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space through /proc and RLIMIT_AS")
def test_when_memory_runs_out_passes_shrink_and_the_step_is_done(base_model_dir: Path, tmp_path: Path) -> None:
    told = train_within(0.9, base_model_dir, tmp_path)
    assert "memory ran out; passes shrink to 400 tokens" in told
    assert "step 1 " in told


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space through /proc and RLIMIT_AS")
def test_when_even_one_example_does_not_fit_the_error_says_what_to_do(base_model_dir: Path, tmp_path: Path) -> None:
    told = train_within(0.02, base_model_dir, tmp_path)
    assert "activations are recomputed" in told
    assert "OutOfMemory: memory ran out on an example of 100 tokens" in told
    assert "local.max_length" in told


def test_real_allocation_failures_are_known_as_such() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
