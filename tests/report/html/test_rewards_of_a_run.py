"""Rewards of reinforcement in the report, from a run's journal and its rollouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.report.html.contents import contents_of
from ftbridge.report.html.page import page
from ftbridge.report.rewards import reward_history
from ftbridge.runs.rollouts import FOLDER
from ftbridge.runs.run import Run

SPEC = """
name: practise
method: reinforcement
data: {train: train.jsonl, validation: validation.jsonl}
model: {local: m}
evaluation:
  graders:
    - {type: string_check, name: exact, operation: eq, input: "{{sample.output_text}}", reference: "{{item.answer}}"}
"""


def rollout(prompt: int, sample: int, text: str, reward: float | None, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "sample": sample, "seed": 1, "prompt_tokens": 4, "tokens": [1, 2], "logprobs": [-1.0, -2.0],
            "finish_reason": "stop", "text": text, "reward": reward, **more}  # fmt: skip


@pytest.fixture
def run(home: Path) -> Run:
    run = Run.create(home, name="practise", provider="local", spec_text=SPEC, spec_suffix=".yaml")
    run.resolved_path.write_text(json.dumps({**run.spec().model_dump(mode="json"), "settled": []}))
    run.data.mkdir()
    rows = [{"messages": [{"role": "user", "content": f"Question <{n}>?"}]} for n in range(7)]
    (run.data / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {
        "valid-000000": [rollout(n, 0, f"base {n}", 0.25) for n in range(7)],
        "valid-000002": [rollout(n, 0, f"tuned {n} & more", n / 10) for n in range(7)],
        "000001": [rollout(0, 0, "a", 1.0), rollout(0, 1, "b", None, errors={"model_grader_server_error": "HTTP 500"})],
        "000002": [rollout(1, 0, "c", 0.0, errors={"sample_parse_error": "no JSON"})],
    }
    (run.path / FOLDER).mkdir()
    for name, lines in files.items():
        (run.path / FOLDER / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step, reward, held_out in ((1, 0.2, None), (2, 0.6, 0.3)):
        more = {"train_mean_reward": reward, "completion_tokens_mean": 10.0 * step, "live_groups": 1.0, "entropy": 2.0,
                "clipped_share": 0.0, **({"full_valid_mean_reward": held_out} if held_out else {})}  # fmt: skip
        run.append("job_event", id=str(step), time=1.0, message="", metrics={"step": step, "more": more})
    return run


def test_the_curve_of_held_out_rewards_begins_with_the_base_model(run: Run) -> None:
    history = reward_history("run", run)
    assert history is not None
    assert history.held_out == ((0, 0.25), (2, 0.3))
    assert history.train == ((1, 0.2), (2, 0.6))
    assert "0.250 with the base model, 0.300 after step 2" in history.sentence


def test_failures_are_counted_by_name_and_completions_without_reward_apart(run: Run) -> None:
    history = reward_history("run", run)
    assert history is not None
    assert dict(history.errors) == {"model_grader_server_error": 1, "sample_parse_error": 1}
    assert (history.completions, history.without) == (3, 1)


def test_the_five_best_rewarded_completions_stand_beside_the_base_models(run: Run) -> None:
    history = reward_history("run", run)
    assert history is not None
    assert [(one.tuned_reward, one.base, one.base_reward) for one in history.best][:2] == [
        (0.6, "base 6", 0.25), (0.5, "base 5", 0.25)
    ]  # fmt: skip
    assert len(history.best) == 5
    html = page(contents_of([run]))
    assert "tuned 6 &amp; more" in html
    assert "Question &lt;6&gt;?" in html
    assert "model_grader_server_error" in html
    assert "10.0 tokens in the first step, 20.0 in the last" in html


def test_a_run_of_another_method_has_no_rewards(home: Path) -> None:
    other = Run.create(home, name="other", provider="local", spec_text=SPEC, spec_suffix=".yaml")
    assert reward_history("other", other) is None
    assert "Rewards" not in page(contents_of([other]))
