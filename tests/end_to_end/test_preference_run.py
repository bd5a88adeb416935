"""Preference tuning from the command line on a two-layer model: killed, resumed, shown, evaluated."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from support.jobs import ftbridge, kill_worker, lines, losses, run_folder, start, steps_done
from support.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(base_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers with the tokenizer of the real one."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base_model_dir)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pair(n: int) -> dict[str, object]:
    colour = ["red", "blue", "green", "amber"][n % 4]
    return {
        "input": {"messages": [{"role": "user", "content": f"Lamp {n}: which colour is it?"}]},
        "preferred_output": [{"role": "assistant", "content": f"It is {colour}."}],
        "non_preferred_output": [
            {"role": "assistant", "content": f"Well, there is much to say, but perhaps {colour}."}
        ],
    }


def write_job(folder: Path, model: Path, **changes: object) -> Path:
    for name, first, count in (("train", 0, 24), ("validation", 100, 8), ("test", 200, 8)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(pair(first + n)) + "\n" for n in range(count)))
    spec = {
        "name": "prefer",
        "method": "dpo",
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"},
        "model": {"local": str(model)},
        "hyperparameters": {"n_epochs": 4, "batch_size": 4, "beta": 0.1, "learning_rate_multiplier": 200},
        "seed": 3,
        "local": {"quantization": "none", "precision": "fp32", "checkpoint_minutes": 0.0001, "keep_checkpoints": 3},
        "evaluation": {"max_completion_tokens": 4},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec | changes))
    return path


def test_a_killed_run_goes_on_to_the_same_losses_and_its_evaluation_says_what_changed(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    for name in ("undisturbed", "killed"):
        home = tmp_path / name
        home.mkdir()
        monkeypatch.setenv("FTBRIDGE_HOME", str(home))
        job = write_job(home, small)
        if name == "undisturbed":
            done = ftbridge("run", str(job), "--provider", "local", "--no-lint", cwd=home)
            assert done.returncode == 0, done.stderr
        else:
            driver = start("run", str(job), "--provider", "local", "--no-lint", cwd=home)
            wait_for(lambda where=home: steps_done(where) >= 5)
            kill_worker(run_folder(home))
            driver.wait(60)
            reference = (run_folder(home) / "reference.jsonl").read_bytes()
            resumed = ftbridge("resume", run_folder(home).name, cwd=home)
            assert resumed.returncode == 0, resumed.stderr
            assert (run_folder(home) / "reference.jsonl").read_bytes() == reference, "the reference is untouched"
        folders.append(run_folder(home))
    complete, killed = folders
    assert len(losses(complete)) == 24
    assert losses(killed) == losses(complete)
    assert losses(complete)[1] == pytest.approx(0.693147, abs=2e-6)

    evaluation = json.loads((killed / "evaluation.json").read_text())
    result = evaluation["preference"]
    assert (result["pairs"], result["accuracy"]["n"]) == (8, 8)
    assert result["accuracy"]["ci95"][0] > 0.5, "the held-out pairs moved"
    assert result["margin"]["ci95"][0] > 0
    assert evaluation["summary"][-1].startswith("Preferences: tuning moved")
    figures = [event["data"] for event in lines(killed / "worker.jsonl") if event["type"] == "metrics"][-1]
    assert figures["valid_reward_accuracy"] > 0.5
    assert figures["valid_chosen_logp"] == pytest.approx(figures["valid_chosen_logp_per_token"] * 6, rel=0.2)

    monkeypatch.setenv("FTBRIDGE_HOME", str(tmp_path / "killed"))
    shown = ftbridge("show", killed.name, "--tokens", "1", cwd=tmp_path).stdout
    assert "example 1, preferred" in shown
    assert "example 1, non-preferred" in shown
    assert "⟦It is red.<|im_end|>⟧" in shown
    summary = ftbridge("show", killed.name, cwd=tmp_path).stdout
    assert "margin: preferred over the other" in summary
    page = tmp_path / "page.html"
    assert ftbridge("report", killed.name, "--out", str(page), cwd=tmp_path).returncode == 0
    assert "tuning moved" in page.read_text()


def test_an_adapter_is_tuned_further_by_preferences_and_is_the_reference_of_them(
    tmp_path: Path, home: Path, small: Path
) -> None:
    adapters = []
    for name, lora in (("first", {}), ("second", {"continue_from": "../first-adapter"})):
        folder = tmp_path / name
        folder.mkdir()
        local = {"quantization": "none", "precision": "fp32", "lora": lora}
        job = write_job(folder, small, name=name, local=local, data={"train": "train.jsonl"})
        done = ftbridge(
            "run", str(job), "--provider", "local", "--no-lint", "--set", "hyperparameters.n_epochs=1", cwd=folder
        )
        assert done.returncode == 0, done.stderr
        (run,) = (home / "runs").glob(f"{name}-*")
        assert losses(run)[1] == pytest.approx(0.693147, abs=2e-6), "nothing differs from the reference yet"
        assert losses(run)[6] < 0.69
        adapters.append((run / "adapter" / "adapter_model.safetensors").read_bytes())
        if name == "first":
            (tmp_path / "first-adapter").symlink_to(run / "adapter")
    key = lines(run / "reference.jsonl")[0]["key"]
    assert key["adapter"] == hashlib.sha256(adapters[0]).hexdigest()
    assert adapters[0] != adapters[1]
