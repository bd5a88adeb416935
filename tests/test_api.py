"""The SDK says the same as the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import ftbridge
from support.jobs import write_job


@pytest.mark.slow
def test_a_run_from_python_trains_and_is_found_again(tmp_path: Path, tiny_model_dir: Path) -> None:
    job = write_job(tmp_path, train=24, test=8, model=tiny_model_dir)
    run = ftbridge.run(job, provider="local")
    assert run.state == "succeeded"
    assert run.evaluation is not None
    assert {name: scores["exact"].n for name, scores in run.evaluation.candidates.items()} == {"base": 8, "tuned": 8}
    assert run.model is not None
    assert Path(run.model, "adapter_model.safetensors").exists()
    assert run.metrics["step"] == run.metrics["total_steps"]
    assert ftbridge.load_run(run.id).summary() == run.summary()
    assert [result.id for result in ftbridge.list_runs()] == [run.id]
    assert run.resume().state == "succeeded"


def test_errors_are_the_same_and_carry_their_exit_code(tmp_path: Path) -> None:
    with pytest.raises(ftbridge.FtbridgeError, match="did you mean n_epochs") as caught:
        ftbridge.run(
            {"name": "a", "data": {"train": "t"}, "model": {"local": "m"}, "hyperparameters": {"n_epoch": 1}},
            provider="local",
        )
    assert caught.value.exit_code == 2
