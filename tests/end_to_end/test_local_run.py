"""Real runs on the local provider: real processes, the real small model, real signals."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from support.jobs import (
    ftbridge,
    kill_worker,
    losses,
    run_folder,
    start,
    steps_done,
    wait_for,
    worker_events,
    write_job,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> Path:
    """The run folder of a job that nobody disturbed, without a test split."""
    assert base_model_dir.exists()
    folder = tmp_path_factory.mktemp("undisturbed")
    done = ftbridge(
        "run", str(write_job(folder)), "--provider", "local", cwd=folder, FTBRIDGE_HOME=str(folder / "home")
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


def test_a_run_trains_judges_and_says_so_in_json(tmp_path: Path, home: Path) -> None:
    job = write_job(
        tmp_path, train=48, test=12, **{"evaluation.baselines": ["zero_shot"], "hyperparameters.n_epochs": 3}
    )
    done = ftbridge("run", str(job), "--provider", "local", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["state"] == "succeeded"
    assert told["provider"] == "local"
    assert told["data"]["train"]["examples"] + told["data"]["validation"]["examples"] == 48
    scores = told["evaluation"]["candidates"]
    assert scores["tuned"]["exact"]["mean"] > scores["base"]["exact"]["mean"] + 0.5
    assert scores["zero_shot"] == scores["base"]
    folder = Path(told["path"])
    contract = ["journal.jsonl", "spec.yaml", "resolved.json", "lowering.json", "evaluation.json", "worker.log"]
    contract += ["data/train.jsonl", "data/manifest.json", "adapter/adapter_model.safetensors", "adapter/README.md"]
    contract += ["predictions/base.jsonl", "predictions/tuned.jsonl"]
    assert [name for name in contract if not (folder / name).exists()] == []

    shown = ftbridge("show", "latest", cwd=tmp_path)
    assert "succeeded" in shown.stdout
    assert "tuned" in shown.stdout
    tokens = ftbridge("show", told["run_id"], "--tokens", "1", cwd=tmp_path)
    assert "<|im_end|>⟧" in tokens.stdout
    assert "⟦" in tokens.stdout.split("Which colour?")[1]
    assert told["run_id"] in ftbridge("list", cwd=tmp_path, COLUMNS="200").stdout


def test_the_adapter_loads_with_plain_peft_and_answers_as_the_run_said(undisturbed: Path, base_model_dir: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(base_model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(undisturbed / "adapter")
    asked = [{"role": "user", "content": "Item 3: the black lamp arrived today. Which colour?"}]
    inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    target = torch.tensor([[*tokenizer("black")["input_ids"], 2]])
    whole = torch.cat([inputs["input_ids"], target], dim=1)

    def loss(model: torch.nn.Module) -> float:
        with torch.no_grad():
            logits = model(whole).logits[0, inputs["input_ids"].shape[1] - 1 : -1]
        return float(torch.nn.functional.cross_entropy(logits, target[0]))

    before = loss(base)
    tuned = PeftModel.from_pretrained(base, undisturbed / "adapter")
    assert loss(tuned) < before / 4


def test_a_killed_worker_resumes_to_the_same_loss(tmp_path: Path, home: Path, undisturbed: Path) -> None:
    run = start("run", str(write_job(tmp_path)), "--provider", "local", cwd=tmp_path)
    wait_for(lambda: steps_done(home) >= 4)
    kill_worker(run_folder(home))
    _, stderr = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "vanished" in stderr
    assert "ftbridge resume" in stderr
    assert json.loads(ftbridge("show", "latest", "--json", cwd=tmp_path).stdout)["error"]["kind"] == "worker_died"

    done = ftbridge("resume", "latest", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumed from step" in done.stderr
    same_end(run_folder(home), undisturbed)


def test_ctrl_c_saves_a_checkpoint_and_resume_ends_the_same(tmp_path: Path, home: Path, undisturbed: Path) -> None:
    run = start("run", str(write_job(tmp_path)), "--provider", "local", cwd=tmp_path)
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
    tmp_path: Path, home: Path, undisturbed: Path
) -> None:
    run = start("run", str(write_job(tmp_path)), "--provider", "local", cwd=tmp_path)
    wait_for(lambda: steps_done(home) >= 1)
    run.kill()
    run.communicate(timeout=30)
    folder = run_folder(home)
    watched = ftbridge("watch", folder.name, cwd=tmp_path)
    assert watched.returncode == 0, watched.stderr
    assert len(worker_events(folder, "started")) == 1
    same_end(folder, undisturbed)


def test_two_runs_resumed_at_once_train_once(tmp_path: Path, home: Path) -> None:
    run = start("run", str(write_job(tmp_path)), "--provider", "local", cwd=tmp_path)
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


def test_a_detached_run_is_paused_and_resumed_from_other_shells(tmp_path: Path, home: Path, undisturbed: Path) -> None:
    started = ftbridge("run", str(write_job(tmp_path)), "--provider", "local", "--detach", "--json", cwd=tmp_path)
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
    tmp_path: Path, home: Path, undisturbed: Path
) -> None:
    job = write_job(tmp_path, **{"budget.max_hours": 1e-3})
    done = ftbridge("run", str(job), "--provider", "local", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "budget.max_hours = 0.001 is used up" in done.stderr
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


def test_training_stops_early_and_keeps_the_best_weights(tmp_path: Path, home: Path) -> None:
    job = write_job(
        tmp_path,
        **{
            "local.early_stopping": {"patience": 1},
            "hyperparameters.learning_rate_multiplier": 400,
            "hyperparameters.n_epochs": 8,
            "local.lr_schedule": "constant",
        },
    )
    done = ftbridge("run", str(job), "--provider", "local", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stopped early at step" in done.stderr
    folder = run_folder(home)
    valid = {
        e["data"]["step"]: e["data"]["valid_loss"]
        for e in worker_events(folder, "metrics")
        if "valid_loss" in e["data"]
    }
    best = min(valid, key=valid.__getitem__)
    from safetensors.torch import load_file

    kept = load_file(folder / "adapter" / "adapter_model.safetensors")
    at_best = load_file(folder / "checkpoints" / f"step-{best:06d}" / "adapter_model.safetensors")
    assert best < max(valid)
    assert all((kept[name] == at_best[name]).all() for name in kept)


def test_full_tuning_trains_every_weight(tmp_path: Path, home: Path) -> None:
    job = write_job(
        tmp_path, train=12, **{"local.tuning": "full", "hyperparameters.n_epochs": 1, "local.keep_checkpoints": 1}
    )
    done = ftbridge("run", str(job), "--provider", "local", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = run_folder(home)
    assert (folder / "model" / "model.safetensors").exists()
    assert losses(folder)[3] < losses(folder)[1]


def test_a_probe_measures_a_few_steps_and_later_plans_use_it(tmp_path: Path, home: Path) -> None:
    job = write_job(tmp_path)
    first = json.loads(ftbridge("plan", str(job), "--json", cwd=tmp_path).stdout)
    assert first["local"]["pace"]["basis"] == "none"
    probed = ftbridge("plan", str(job), "--probe", "--json", cwd=tmp_path)
    assert probed.returncode == 0, probed.stderr
    assert json.loads(probed.stdout)["local"]["pace"]["basis"] == "probe"
    assert list((home / "runs").glob("*")) == [] if (home / "runs").exists() else True
    later = json.loads(ftbridge("plan", str(job), "--json", cwd=tmp_path).stdout)
    low, high = later["local"]["pace"]["hours"]
    assert 0 < low < high
