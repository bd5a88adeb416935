"""A completion that was cut off or filtered is left out by name, whoever wrote it, and never trained silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ftbridge.cli.convert import command
from ftbridge.data.convert.convert import Converted, convert
from ftbridge.data.convert.recipe import Recipe
from ftbridge.data.convert.unfinished import unfinished
from ftbridge.data.prepare import prepare
from ftbridge.errors import DataError
from ftbridge.spec import JobSpec

QUESTION, REPLY = {"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Until six."}


def choice(reason: str | None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": REPLY, "finish_reason": reason}]}


def stored(reason: str | None) -> dict[str, Any]:
    return {"object": "chat.completion", "messages": [QUESTION], **choice(reason)}


def logged(response: dict[str, Any]) -> dict[str, Any]:
    return {"request": {"messages": [QUESTION]}, "response": response}


def items(**more: Any) -> dict[str, Any]:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Until"}]}
    return {"input": "Open?", "output": [message], **more}


def candidate(reason: str) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": "Until"}]}
    request = {"contents": [{"role": "user", "parts": [{"text": "Open?"}]}]}
    return {"request": request, "response": {"candidates": [{"content": content, "finishReason": reason}]}}


BATCH = {"custom_id": "1", "body": {"messages": [QUESTION]}}
CUT = {
    "stored, length": stored("length"),
    "stored, content_filter": stored("content_filter"),
    "a log": logged(choice("length")),
    "a log with a body": logged({"status_code": 200, "body": choice("length")}),
    "a batch joined": {**BATCH, "response": {"status_code": 200, "body": choice("length")}},
    "a log with the reason beside": {**logged(choice(None)), "finish_reason": "length"},
    "Responses": items(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
    "Responses without details": items(status="incomplete"),
    "a log of Responses": {"request": {"input": "Open?"}, "response": items(incomplete_details={"reason": "content_filter"})},
    "Gemini": candidate("MAX_TOKENS"),
    "Gemini, filtered": candidate("SAFETY"),
    "Anthropic": logged({"role": "assistant", "content": [{"type": "text", "text": "Until"}], "stop_reason": "max_tokens"}),
    "Anthropic, refused": logged({"role": "assistant", "content": "I", "stop_reason": "refusal"}),
    "columns": {"prompt": "Open?", "completion": "Until", "finish_reason": "length"},
    "a message": {"messages": [QUESTION, {**REPLY, "finish_reason": "length"}]},
}  # fmt: skip
WHOLE = {
    "stored": stored("stop"),
    "stored, calls": stored("tool_calls"),
    "stored, no reason": stored(None),
    "a log": logged({"status_code": 200, "body": choice("stop")}),
    "Responses": items(status="completed", incomplete_details=None),
    "Gemini": candidate("STOP"),
    "Anthropic": logged({"role": "assistant", "content": "Until six.", "stop_reason": "end_turn"}),
}


def converted(tmp_path: Path, *records: Any, **recipe: Any) -> Converted:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return convert(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), Recipe(**recipe), force=True)


@pytest.mark.parametrize("record", CUT.values(), ids=CUT.keys())
def test_a_completion_that_is_not_whole_is_left_out_with_its_line(tmp_path, record):
    done = converted(tmp_path, WHOLE["stored"], record)
    assert (done.examples, done.unfinished_count, done.skipped_count) == (1, 1, 0)
    assert list(done.left_out.values()) == [1]
    assert list(done.left_out_lines.values()) == [[f"{tmp_path / 'in.jsonl'}:2"]]


@pytest.mark.parametrize("record", WHOLE.values(), ids=WHOLE.keys())
def test_a_completion_that_ended_by_itself_is_an_example(tmp_path, record):
    assert unfinished(record) is None
    assert converted(tmp_path, record).left_out == {}


def test_it_is_included_where_that_is_said(tmp_path):
    done = converted(tmp_path, stored("stop"), stored("length"), include_unfinished=True)
    assert (done.examples, done.unfinished_count) == (2, 0)


def test_dropping_the_field_does_not_hide_the_reason(tmp_path):
    done = converted(
        tmp_path, {"prompt": "a", "completion": "b", "finish_reason": "stop"}, CUT["columns"], drop=("finish_reason",)
    )
    assert (done.examples, done.unfinished_count) == (1, 1)


def test_a_batch_is_judged_by_its_output(tmp_path):
    lines = [BATCH, {**BATCH, "custom_id": "2"}]
    output = [{"custom_id": name, "response": {"body": choice(why)}} for name, why in (("1", "stop"), ("2", "length"))]
    for name, records in (("in.jsonl", lines), ("out.jsonl", output)):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    done = convert([str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")], str(tmp_path / "train.jsonl"))
    assert (done.examples, done.unfinished_count) == (1, 1)


def test_nothing_whole_is_an_error_that_names_the_option(tmp_path):
    with pytest.raises(DataError, match="no example whose completion is whole") as refused:
        converted(tmp_path, stored("length"))
    assert "--include-unfinished" in (refused.value.hint or "")
    assert "in.jsonl:1" in refused.value.problems[1]


def test_people_see_the_count_the_reason_and_the_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [stored("length" if number % 2 else "stop") for number in range(14)]
    Path("in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    done = CliRunner().invoke(command, ["in.jsonl", "out.jsonl"])
    assert (
        "left out: 7 examples, as finish_reason is length (the completion was cut off): in.jsonl:2, in.jsonl:4"
        in done.stderr
    )
    assert "in.jsonl:10, …" in done.stderr
    assert "--include-unfinished" in done.stderr


@pytest.mark.parametrize("record", CUT.values(), ids=CUT.keys())
def test_a_run_refuses_each_line_by_name(tmp_path, record):
    records = [*[stored("stop") for _ in range(11)], record, record]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    spec = JobSpec.from_dict({"name": "n", "data": {"train": "train.jsonl"}, "model": {"local": "m"}})
    with pytest.raises(DataError) as refused:
        prepare(spec, base=tmp_path, out=tmp_path / "data")
    assert [problem.split()[0] for problem in refused.value.problems] == ["train.jsonl:12", "train.jsonl:13"]
    assert "ftbridge convert" in refused.value.problems[0]
