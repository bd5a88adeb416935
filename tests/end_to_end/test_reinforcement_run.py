"""Reinforcement from the command line on a two-layer model: killed at five points, resumed, paused, shown, evaluated."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftbridge.server import simulating
from support.jobs import ftbridge, kill_worker, lines, run_folder, start, steps_done, worker_events
from support.small_model import write_small_model
from support.waiting import wait_for

pytestmark = pytest.mark.slow
STEPS = 4


class Judge:
    """A judge that scores by length. `down`: it answers 503. `before_answer` is called with each question's number."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host, self.questions = host, list[str]()
        self.down = False
        self.before_answer: Callable[[int], None] = lambda count: None
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                if not judge.down:
                    judge.questions.append(text)
                judge.before_answer(len(judge.questions))
                result = json.dumps({"steps": [], "result": len(text) % 4 / 4})
                reply = {"model": "m", "choices": [{"message": {"content": result}, "finish_reason": "stop"}],
                         "usage": {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000}}  # fmt: skip
                content = json.dumps(reply).encode()
                try:
                    self.send_response(503 if judge.down else 200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the one who asked is gone

        self.server = ThreadingHTTPServer((host, 0), Handler)
        threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.02), daemon=True).start()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    yield from running(Judge(), monkeypatch)


@pytest.fixture
def priced_judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    """On another host, as far as prices go: judges on 127.0.0.1 cost nothing."""
    yield from running(Judge("127.0.0.2"), monkeypatch)


def running(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield judge
    judge.server.shutdown()
    judge.server.server_close()


@pytest.fixture(scope="module")
def small(base_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers with the tokenizer of the real one."""
    return write_small_model(tmp_path_factory.mktemp("small"), base_model_dir, max_position_embeddings=512)


def write_job(
    home: Path, model: Path, grader: dict[str, Any], counts: tuple[int, int] = (8, 3), **changes: Any
) -> Path:
    """Eight prompts in four steps of two, four completions each. `counts` are of train and validation."""
    home.mkdir(parents=True, exist_ok=True)
    for name, first, count in (("train", 0, counts[0]), ("validation", 100, counts[1]), ("test", 200, 3)):
        rows = [
            {"messages": [{"role": "user", "content": f"Say something about lamp {first + n}."}], "letter": "h"}
            for n in range(count)
        ]
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "name": "practise",
        "method": "reinforcement",
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"},
        "model": {"local": str(model)},
        "hyperparameters": {"n_epochs": 1, "batch_size": 2, "compute_multiplier": 0.5, "learning_rate_multiplier": 300,
                            "eval_interval": 2},
        "seed": 3,
        "local": {"quantization": "none", "precision": "fp32", "checkpoint_minutes": 0.0001, "keep_checkpoints": 3},
        "evaluation": {"max_completion_tokens": 6, "graders": [grader]},
    }  # fmt: skip
    path = home / "job.yaml"
    path.write_text(yaml.safe_dump(spec | changes))
    return path


def judged_spec(judge: Judge) -> dict[str, Any]:
    return {"type": "score_model", "name": "quality", "model": "m",
            "base_url": f"http://{judge.host}:{judge.server.server_address[1]}/v1",
            "input": [{"role": "user", "content": "{{sample.output_text}}"}]}  # fmt: skip


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def rewards(folder: Path) -> list[float]:
    by_step = {event["data"]["step"]: event["data"] for event in worker_events(folder, "metrics")}
    return [by_step[step]["train_mean_reward"] for step in sorted(by_step)]


@pytest.fixture(scope="module")
def undisturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], str]:
    """Rewards and weights of a run that nothing happens to."""
    home = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        for judge in running(Judge(), patch):
            patch.setenv("FTBRIDGE_HOME", str(home))
            job = write_job(home, small, judged_spec(judge))
            done = ftbridge("run", str(job), "--provider", "local", "--no-lint", cwd=home)
            assert done.returncode == 0, done.stderr
    folder = run_folder(home)
    assert len(rewards(folder)) == STEPS
    return rewards(folder), weights(folder)


POINTS: dict[str, Callable[[Path, Judge], Any]] = {
    "mid sampling": lambda home, judge: list(home.glob("runs/*/rollouts/.00000[23].drawn.jsonl")),
    "mid grading": lambda home, judge: len(judge.questions) >= 30,
    "before the update": lambda home, judge: list(home.glob("runs/*/rollouts/000003.jsonl")),
    "after the update": lambda home, judge: steps_done(home) >= 2,
    "in a checkpoint": lambda home, judge: list(home.glob("runs/*/checkpoints/.step-*.tmp")) or steps_done(home) >= 3,
}


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_anywhere_ends_with_the_same_weights_and_pays_no_question_twice(
    tmp_path: Path, home: Path, small: Path, judge: Judge, undisturbed: tuple[list[float], str], point: str
) -> None:
    job = write_job(tmp_path, small, judged_spec(judge))
    slow = threading.Event()
    if point == "mid grading":
        judge.before_answer = lambda count: slow.wait(30) if count >= 30 else None
    elif point == "mid sampling":  # or the file is there for a few hundredths of a second
        judge.before_answer = lambda count: slow.wait(0.3)
    driver = start("run", str(job), "--provider", "local", "--no-lint", cwd=tmp_path)
    wait_for(lambda: POINTS[point](home, judge), 240)
    kill_worker(run_folder(home))
    driver.wait(60)
    slow.set()
    time.sleep(0.5)
    resumed = ftbridge("resume", run_folder(home).name, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert (rewards(run_folder(home)), weights(run_folder(home))) == undisturbed
    paid = [line["question"] for line in lines(run_folder(home) / "judge_calls.jsonl") if "reply" in line]
    assert len(paid) == len(set(paid)), "no question that was answered is asked again"
    assert len(judge.questions) - len(set(judge.questions)) <= 8, (
        "what was under way, and was not answered, is at most 8"
    )


def test_a_judge_that_is_away_pauses_the_run_and_resuming_ends_it(
    tmp_path: Path, home: Path, small: Path, judge: Judge
) -> None:
    job = write_job(tmp_path, small, judged_spec(judge))
    judge.before_answer = lambda count: setattr(judge, "down", count >= 30 or judge.down)
    stopped = ftbridge("run", str(job), "--provider", "local", "--no-lint", cwd=tmp_path)
    assert stopped.returncode == 1
    assert "grader quality gave" in stopped.stderr
    assert f"ftbridge resume {run_folder(home).name}" in stopped.stderr
    assert "paused" in ftbridge("show", run_folder(home).name, cwd=tmp_path).stdout
    judge.before_answer = lambda count: None
    judge.down = False
    ended = ftbridge("resume", run_folder(home).name, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(rewards(run_folder(home))) == STEPS


def test_a_budget_pauses_before_the_step_that_would_pass_it_and_more_money_goes_on(
    tmp_path: Path, home: Path, small: Path, priced_judge: Judge
) -> None:
    """The first host whose judges have a price: 0.8 dollars a million tokens read, 3.2 written, for each question 0.004."""
    grader = {**judged_spec(priced_judge), "model": "gpt-4.1-mini-2025-04-14"}
    job = write_job(tmp_path, small, grader, budget={"max_usd": 0.15})
    stopped = ftbridge("run", str(job), "--provider", "local", "--no-lint", cwd=tmp_path)
    assert stopped.returncode == 4, stopped.stderr
    assert "budget.max_usd = 0.15" in stopped.stderr
    request = len(priced_judge.questions)
    assert 8 <= request <= 37
    folder = run_folder(home)
    assert 1 <= len(rewards(folder)) < STEPS
    assert not list((folder / "rollouts").glob(".*.drawn.jsonl")), "nothing of the next step was drawn"
    ended = ftbridge("resume", folder.name, "--set", "budget.max_usd=5", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(rewards(folder)) == STEPS


def test_a_run_says_what_it_learnt_from_and_can_be_shown_reported_and_evaluated(
    tmp_path: Path, home: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grader = {"type": "string_check", "name": "has_letter", "operation": "ilike", "input": "{{sample.output_text}}",
              "reference": "{{item.letter}}"}  # fmt: skip
    hyper = {"n_epochs": 5, "batch_size": 2, "learning_rate_multiplier": 1000, "eval_interval": 5, "eval_samples": 4}
    job = write_job(tmp_path, small, grader, hyperparameters=hyper)
    done = ftbridge("run", str(job), "--provider", "local", "--no-lint", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = run_folder(home)
    figures = [event["data"] for event in worker_events(folder, "metrics")]
    assert len(figures) == 20
    assert "train_loss" not in figures[0]
    assert {"train_mean_reward", "live_groups", "entropy", "clipped_share", "grader_latency", "completion_tokens_mean",
            "mean_unresponsive_rewards", "sampling_duration", "training_duration",
            "scores/graders/string_check/has_letter/train_reward_mean"} <= figures[-2].keys()  # fmt: skip
    validations = {one["step"]: one["full_valid_mean_reward"] for one in figures if "full_valid_mean_reward" in one}
    assert sorted(validations) == [5, 10, 15, 20]
    best = max(validations, key=lambda step: (validations[step], -step))
    steps = {int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*")}
    assert best in steps
    assert set(sorted(validations, key=lambda step: (-validations[step], step))[:3]) <= steps
    card = (folder / "adapter" / "README.md").read_text()
    assert "rewarded by the grader has_letter" in card
    assert "best by validation reward" in card
    assert json.loads((folder / "evaluation.json").read_text())["candidates"]["tuned"]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A simulated service that the environment points at."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-falling-back")
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with simulating({"speed": 20}) as one:
        monkeypatch.setenv("OPENAI_BASE_URL", one.base_url)
        yield one


LETTER = {"type": "string_check", "name": "has_letter", "operation": "ilike", "input": "{{sample.output_text}}",
          "reference": "{{item.letter}}"}  # fmt: skip


@pytest.mark.parametrize(("first", "second"), [("openai", "local"), ("local", "openai")])
def test_what_one_side_will_not_do_is_done_on_the_other_with_the_same_bytes(
    tmp_path: Path, home: Path, small: Path, service: Any, first: str, second: str
) -> None:
    grader = LETTER
    if first == "openai":
        service.play({"faults": [{"on": "POST /fine_tuning/jobs", "fault": "training_not_available"}]})
    else:  # every base completion earns the same: there is nothing to learn here
        grader = {**LETTER, "operation": "ne", "reference": "no completion is this"}
    job = write_job(tmp_path, small, grader, counts=(10, 10), fallback=second)  # OpenAI takes no fewer
    spec = yaml.safe_load(job.read_text())
    spec["model"] = {"openai": "gpt-4.1-mini-2025-04-14", "local": str(small)}
    job.write_text(yaml.safe_dump(spec))
    done = ftbridge("run", str(job), "--provider", first, "--no-lint", "--yes", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["provider"], document["state"]) == (second, "succeeded")
    runs = sorted((home / "runs").iterdir())
    digests = {json.loads((run / "data" / "manifest.json").read_text())["splits"]["train"]["sha256"] for run in runs}
    assert (len(runs), len(digests)) == (2, 1), "both sides saw the same bytes"
