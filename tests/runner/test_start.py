"""A run lints the bytes it trains on before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.data.lint.counting import thinking_of
from ftbridge.data.manifest import load_manifest
from ftbridge.errors import DataError
from ftbridge.evaluation.job_data import JobData
from ftbridge.evaluation.standalone import _base
from ftbridge.runner.start import create_run, dry_run
from ftbridge.spec import SpecFile


def job(folder: Path, bad: dict[str, Any] | None = None, count: int = 12) -> Path:
    examples: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"Answer {i}."}]}
        for i in range(count)
    ]
    lines = [json.dumps(example) for example in [*examples[:3], *([bad] if bad else []), *examples[3:]]]
    (folder / "train.jsonl").write_text("\n".join(lines))
    spec = {"name": "t", "data": {"train": "train.jsonl"}, "model": {"local": "smollm2-135m-instruct"}}
    (folder / "job.json").write_text(json.dumps(spec))
    return folder / "job.json"


BAD = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
    "tools": [{"type": "function", "function": {"name": 7, "parameters": {"type": "object"}}}],
}


def test_an_error_stops_the_run_with_the_line_it_came_from_and_leaves_no_folder(tmp_path: Path, home: Path):
    with pytest.raises(DataError, match=r"train.jsonl:4 tools\[0\].function.name is a number.*\(FTB051\)") as error:
        create_run(SpecFile.of(job(tmp_path, BAD)), "local")
    assert "--no-lint" in str(error.value)
    assert not list(home.glob("runs/*"))
    with pytest.raises(DataError):
        dry_run(SpecFile.of(job(tmp_path, BAD)), "local")


def test_only_by_name_does_a_run_go_on_with_errors(tmp_path: Path):
    run = create_run(SpecFile.of(job(tmp_path, BAD)), "local", lint=False)
    assert load_manifest(run.data).splits["train"].examples == 13
    assert not (run.data / "lint.json").exists()


def test_warnings_are_noted_and_the_report_is_kept_with_the_data(tmp_path: Path):
    twice = {"messages": [{"role": "user", "content": "Question 1?"}, {"role": "assistant", "content": "Other."}]}
    run = create_run(SpecFile.of(job(tmp_path, twice)), "local")
    assert any("same-prompt-different-answers" in note for note in load_manifest(run.data).notes)
    report = json.loads((run.data / "lint.json").read_text())
    assert report["ok"] is True
    assert report["target"] == "local"


REASONS = {
    "messages": [
        {"role": "user", "content": "Which queue?"},
        {"role": "assistant", "content": "billing", "reasoning_content": "It is about an invoice."},
    ]
}


@pytest.mark.parametrize(("line", "thinking"), [(REASONS, "on"), (None, "off")], ids=["reasoning", "none"])
def test_a_run_a_dry_run_a_plan_and_an_evaluation_settle_thinking_alike(
    tmp_path: Path, line: dict[str, Any] | None, thinking: str
) -> None:
    path = job(tmp_path, line)
    run = create_run(SpecFile.of(path), "local")
    assert json.loads(run.resolved_path.read_text())["local"]["thinking"] == thinking
    assert json.loads(run.lowering_path.read_text())["request"]["thinking"] == thinking
    _, resolved, lowering = dry_run(SpecFile.of(path), "local")
    assert (resolved.spec.local.thinking, lowering.request.thinking) == (thinking, thinking)
    job_data = JobData.prepare(SpecFile.of(path), tmp_path / "data")
    assert _base("local", job_data).identity["thinking"] == thinking
    assert thinking_of(map(json.loads, (run.data / "train.jsonl").read_text().splitlines())) == thinking


def test_either_answer_of_a_preference_settles_thinking() -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "a"}]},
        "preferred_output": [{"role": "assistant", "content": "b"}],
        "non_preferred_output": [{"role": "assistant", "content": "<think>\nhm\n</think>\n\nc"}],
    }
    assert thinking_of([pair]) == "on"
    pair["non_preferred_output"][0]["content"] = "c"
    assert thinking_of([pair, {"input": 3}, None]) == "off"
