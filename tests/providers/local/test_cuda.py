"""What only a card shows. Skipped, with the reason, where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.jobs import ftbridge, losses, run_folder, worker_events, write_job


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
def test_a_card_trains_every_quantisation(tmp_path: Path, home: Path, quantization: str) -> None:
    job = write_job(tmp_path, test=8, **{"local.device": "cuda", "local.quantization": quantization})
    done = ftbridge("run", str(job), "--provider", "local", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["evaluation"]["candidates"]
    assert told["tuned"]["exact"]["mean"] > told["base"]["exact"]["mean"]
    by_step = losses(run_folder(home))
    assert by_step[max(by_step)] < by_step[1]
    assert worker_events(run_folder(home), "metrics")[-1]["data"]["memory_gb"] > 0
