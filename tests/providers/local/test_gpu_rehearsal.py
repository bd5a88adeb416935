"""The GPU day is rehearsed whole on the CPU, so that it works the first time that there is a card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_every_step_of_the_gpu_day_runs_on_the_cpu(tmp_path: Path):
    out = tmp_path / "gpu.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--rehearse", "--minutes", "15", "--out", str(out)],
        capture_output=True, text=True, env=environment, timeout=1_000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    steps = {one["step"]: one for one in json.loads(out.read_text())["steps"]}
    assert steps["engine"]["same alone"] == "48 of 48"
    training_steps = [one for name, one in steps.items() if name.startswith("train ")]
    assert len(training_steps) == 6
    assert all(one["ended"] == "succeeded" and one["adapter"] for one in training_steps)
    skipped = [name for name, one in steps.items() if one.get("skipped")]
    assert all(name.startswith(("trl", "unsloth")) for name in skipped), "only what is not installed is left out"
    assert len(done.stdout.splitlines()) < 100
