"""Real runs on the local provider: real processes and signals. One run trains the built-in model, the others a random model of two layers."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.jobs import (
    ftbridge,
    kill_worker,
    losses,
    run_folder,
    start,
    steps_done,
    worker_events,
    write_job,
)
from support.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums of several threads round differently from one run to the next."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        yield


EPOCHS = 24
"""Of five steps each, with a checkpoint after every step: done in seconds, and long enough to be killed on the way by a command
that takes half a second to start. A fast machine does 40 steps a second."""


def tiny_job(folder: Path, model: Path, **changes: Any) -> Path:
    """A job of 120 steps for the two-layer model."""
    spread = {
        "hyperparameters.n_epochs": EPOCHS,
        "local.quantization": "none",
        "local.precision": "fp32",
        "local.evals_per_epoch": 1,
        "local.checkpoint_minutes": 0.0001,
    }
    return write_job(folder, model=model, **{**spread, **changes})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, one_thread: None) -> Path:
    """The run folder of a job that nobody disturbed, without a test split."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = ftbridge(
        "run",
        str(tiny_job(folder, tiny_model_dir)),
        "--provider",
        "local",
        cwd=folder,
        FTBRIDGE_HOME=str(folder / "home"),
    )
    assert done.returncode == 0, done.stderr
    return run_folder(folder / "home")


def same_end(folder: Path, undisturbed: Path) -> None:
    """The same losses at every step, and the same weights, within 1e-5."""
    from safetensors.torch import load_file

    mine, theirs = losses(folder), losses(undisturbed)
    assert mine.keys() == theirs.keys()
    assert mine == pytest.approx(theirs, abs=1e-5)
    weights, expected = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (folder, undisturbed))
    assert max(float((weights[name] - expected[name]).abs().max()) for name in expected) < 1e-5


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> tuple[Path, dict[str, Any]]:
    """A finished run of the built-in model, as (home folder, what `run --json` printed)."""
    assert base_model_dir.exists()
    folder = tmp_path_factory.mktemp("trained")
    changes = {"evaluation.baselines": ["zero_shot"], "hyperparameters.n_epochs": 3}
    job = write_job(folder, train=48, test=12, **changes)
    home = str(folder / "home")
    done = ftbridge("run", str(job), "--provider", "local", "--json", cwd=folder, FTBRIDGE_HOME=home)
    assert done.returncode == 0, done.stderr
    return folder / "home", json.loads(done.stdout)


def test_a_run_trains_and_its_evaluation_finds_what_it_learnt(finished: tuple[Path, dict[str, Any]]) -> None:
    _, summary = finished
    assert (summary["state"], summary["provider"]) == ("succeeded", "local")
    assert summary["data"]["train"]["examples"] + summary["data"]["validation"]["examples"] == 48
    scores = summary["evaluation"]["candidates"]
    assert scores["tuned"]["exact"]["mean"] > scores["base"]["exact"]["mean"] + 0.5
    assert scores["zero_shot"] == scores["base"]


def test_the_run_folder_holds_what_its_documentation_promises(finished: tuple[Path, dict[str, Any]]) -> None:
    folder = Path(finished[1]["path"])
    contract = ["journal.jsonl", "spec.yaml", "resolved.json", "lowering.json", "evaluation.json", "worker.log"]
    contract += ["data/train.jsonl", "data/manifest.json", "adapter/adapter_model.safetensors", "adapter/README.md"]
    contract += ["predictions/base.jsonl", "predictions/tuned.jsonl"]
    assert [name for name in contract if not (folder / name).exists()] == []


def test_a_finished_run_is_shown_listed_and_its_tokens_are_marked(finished: tuple[Path, dict[str, Any]]) -> None:
    home, summary = finished
    folder, environment = home.parent, {"FTBRIDGE_HOME": str(home), "COLUMNS": "200"}
    shown = ftbridge("show", "latest", cwd=folder, **environment)
    assert "succeeded" in shown.stdout
    assert "tuned" in shown.stdout
    tokens = ftbridge("show", summary["run_id"], "--tokens", "1", cwd=folder, **environment)
    assert "<|im_end|>⟧" in tokens.stdout
    assert "⟦" in tokens.stdout.split("Which colour?")[1]
    assert summary["run_id"] in ftbridge("list", cwd=folder, **environment).stdout


def test_the_adapter_loads_with_plain_peft_and_answers_as_the_run_said(
    finished: tuple[Path, dict[str, Any]], base_model_dir: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = Path(finished[1]["path"]) / "adapter"
    base = AutoModelForCausalLM.from_pretrained(base_model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    chat = [{"role": "user", "content": "Item 3: the black lamp arrived today. Which colour?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    target = torch.tensor([[*tokenizer("black")["input_ids"], 2]])
    complete = torch.cat([inputs["input_ids"], target], dim=1)

    def loss(model: torch.nn.Module) -> float:
        with torch.no_grad():
            logits = model(complete).logits[0, inputs["input_ids"].shape[1] - 1 : -1]
        return float(torch.nn.functional.cross_entropy(logits, target[0]))

    before = loss(base)
    tuned = PeftModel.from_pretrained(base, adapter)
    assert loss(tuned) < before / 4


def test_a_killed_worker_resumes_to_the_same_loss(
    tmp_path: Path, home: Path, undisturbed: Path, tiny_model_dir: Path
) -> None:
    run = start("run", str(tiny_job(tmp_path, tiny_model_dir)), "--provider", "local", cwd=tmp_path)
    wait_for(lambda: steps_done(home) >= 4)
    kill_worker(run_folder(home))
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "ended without a message" in stderr
    assert "ftbridge resume" in stderr
    assert json.loads(ftbridge("show", "latest", "--json", cwd=tmp_path).stdout)["error"]["kind"] == "worker_died"

    done = ftbridge("resume", "latest", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumed from step" in done.stderr
    same_end(run_folder(home), undisturbed)


def test_ctrl_c_saves_a_checkpoint_and_resume_ends_the_same(
    tmp_path: Path, home: Path, undisturbed: Path, tiny_model_dir: Path
) -> None:
    run = start("run", str(tiny_job(tmp_path, tiny_model_dir)), "--provider", "local", cwd=tmp_path)
    wait_for(lambda: steps_done(home) >= 2)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 130
    folder = run_folder(home)
    assert f"ftbridge resume {folder.name}" in stderr
    assert worker_events(folder, "checkpoint")[-1]["data"]["step"] == steps_done(home)
    assert json.loads(ftbridge("show", folder.name, "--json", cwd=tmp_path).stdout)["state"] == "paused"

    done = ftbridge("resume", folder.name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same_end(folder, undisturbed)


def test_a_killed_driver_leaves_the_worker_at_work_and_watch_takes_over(
    tmp_path: Path, home: Path, undisturbed: Path, tiny_model_dir: Path
) -> None:
    run = start("run", str(tiny_job(tmp_path, tiny_model_dir)), "--provider", "local", cwd=tmp_path)
    wait_for(lambda: steps_done(home) >= 1)
    run.kill()
    run.communicate(timeout=30)
    folder = run_folder(home)
    watched = ftbridge("watch", folder.name, cwd=tmp_path)
    assert watched.returncode == 0, watched.stderr
    assert len(worker_events(folder, "started")) == 1
    same_end(folder, undisturbed)


def test_two_runs_resumed_at_once_train_once(tmp_path: Path, home: Path, tiny_model_dir: Path) -> None:
    job = tiny_job(tmp_path, tiny_model_dir, **{"hyperparameters.n_epochs": 2 * EPOCHS})
    run = start("run", str(job), "--provider", "local", cwd=tmp_path)
    wait_for(lambda: steps_done(home) >= 1)
    second = ftbridge("resume", "latest", cwd=tmp_path)
    assert second.returncode == 1
    assert "driven by another process" in second.stderr
    assert "ftbridge watch" in second.stderr
    cancelled = ftbridge("cancel", "latest", cwd=tmp_path)
    assert cancelled.returncode == 0, cancelled.stderr
    assert "is cancelled" in cancelled.stdout
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "was cancelled" in stderr
    assert len(worker_events(run_folder(home), "started")) == 1
    again = ftbridge("cancel", "latest", cwd=tmp_path)
    assert again.returncode == 2
    assert "cancelled already" in again.stderr


def test_a_detached_run_is_paused_and_resumed_from_other_shells(
    tmp_path: Path, home: Path, undisturbed: Path, tiny_model_dir: Path
) -> None:
    started = ftbridge(
        "run", str(tiny_job(tmp_path, tiny_model_dir)), "--provider", "local", "--detach", "--json", cwd=tmp_path
    )
    assert started.returncode == 0, started.stderr
    run_id = json.loads(started.stdout)["run_id"]
    wait_for(lambda: steps_done(home) >= 1)
    paused = ftbridge("pause", run_id, cwd=tmp_path)
    assert "is paused" in paused.stdout, paused.stderr
    watched = ftbridge("watch", run_id, cwd=tmp_path)
    assert watched.returncode == 130
    assert f"ftbridge resume {run_id}" in watched.stderr
    done = ftbridge("resume", run_id, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "succeeded"
    same_end(run_folder(home), undisturbed)


def test_a_used_up_budget_pauses_at_a_checkpoint_and_a_moved_run_goes_on(
    tmp_path: Path, home: Path, undisturbed: Path, tiny_model_dir: Path
) -> None:
    job = tiny_job(tmp_path, tiny_model_dir, **{"budget.max_hours": 1e-4})
    done = ftbridge("run", str(job), "--provider", "local", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "budget.max_hours = 0.0001 is used up" in done.stderr
    folder = run_folder(home)
    moved = folder.rename(tmp_path / folder.name)
    before = max(losses(moved))
    refused = ftbridge("resume", str(moved), cwd=tmp_path)
    assert refused.returncode == 4, refused.stderr
    resumed = ftbridge("resume", str(moved), "--set", "budget.max_hours=1", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert max(losses(moved)) > before
    expected = losses(undisturbed)
    assert losses(moved) == pytest.approx({step: expected[step] for step in losses(moved)}, abs=1e-5)


def test_a_probe_measures_a_few_steps_and_later_plans_use_it(tmp_path: Path, home: Path) -> None:
    job = write_job(tmp_path)
    first = json.loads(ftbridge("plan", str(job), "--json", cwd=tmp_path).stdout)
    assert first["local"]["pace"]["basis"] == "measured"
    probed = ftbridge("plan", str(job), "--probe", "--json", cwd=tmp_path)
    assert probed.returncode == 0, probed.stderr
    assert json.loads(probed.stdout)["local"]["pace"]["basis"] == "probe"
    assert list((home / "runs").glob("*")) == [] if (home / "runs").exists() else True
    later = json.loads(ftbridge("plan", str(job), "--json", cwd=tmp_path).stdout)
    low, high = later["local"]["pace"]["hours"]
    assert 0 < low < high
