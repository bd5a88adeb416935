"""Rewards that a service would refuse, keys that it does not know, settings that it took instead, data a method cannot take."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftbridge.errors import DataError, UsageError
from ftbridge.evaluation.candidates import few_shot
from ftbridge.evaluation.items import load_items
from ftbridge.providers.openai.provider import OpenAIProvider
from ftbridge.providers.openai.settings import differences
from ftbridge.spec.lowering import FieldReport
from support.openai_jobs import followed, lowered, submission
from support.simulated_service import Service

EXACT = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{ item.reference }}",
}
ASKED = [{"role": "user", "content": "{{sample.output_text}}"}]
SCORE = {"type": "score_model", "name": "s", "model": "gpt-4.1", "input": ASKED}
LABEL = {
    "type": "label_model",
    "name": "l",
    "model": "gpt-4.1",
    "labels": ["a"],
    "passing_labels": ["a"],
    "input": ASKED,
}
SIMILAR = {
    "type": "text_similarity",
    "name": "t",
    "input": "{{sample.output_text}}",
    "reference": "x",
    "evaluation_metric": "cosine",
}


def multi(part: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "multi", "name": "m", "graders": {"a": part, "b": EXACT}, "calculate_output": "a + b", **more}


def grader_mapping(grader: dict[str, Any], **openai: Any) -> tuple[FieldReport, dict[str, Any]]:
    lowering = lowered(method="reinforcement", evaluation={"graders": [grader]}, openai=openai)
    [report] = [field for field in lowering.fields if field.field == "openai.grader"]
    return report, lowering.request.body["method"]["reinforcement"]["grader"]


AZURE = {"target": "azure", "base_url": "https://r.example/openai/v1"}
JSON = {**EXACT, "input": "{{sample.output_json.a}}"}


@pytest.mark.parametrize(
    ("grader", "openai", "says"),
    [
        ({"type": "json_fields", "name": "j"}, {}, "not one of OpenAI's rewards"),
        (LABEL, {}, "not one of OpenAI's rewards"),
        (multi({"type": "json_fields", "name": "j"}), {}, "graders.a: json_fields is not one of OpenAI's graders"),
        (multi({"type": "pairwise", "name": "p", "model": "m", "question": "?"}), {}, "graders.a: pairwise"),
        (multi({**LABEL, "sampling_params": {"seed": 1}}), {}, "takes no sampling_params"),
        (SIMILAR, {}, "cosine is for evaluations only"),
        (multi(SIMILAR), {}, "graders.a: cosine"),
        ({**SCORE, "base_url": "https://judge.example/v1"}, {}, "its own models only, not judge.example"),
        (multi({**SCORE, "base_url": "https://judge.example/v1"}), {}, "graders.a: the service asks its own models"),
        (JSON, {}, "only with openai.response_format"),
        ({**EXACT, "reference": "{{item.tags[0]}}"}, AZURE, "no places in lists: item.tags[0]"),
    ],
)
def test_a_reward_that_the_service_would_refuse_is_refused_before_the_upload(
    grader: dict[str, Any], openai: dict[str, Any], says: str
) -> None:
    report, _ = grader_mapping(grader, **openai)
    assert report.outcome == "refused"
    assert says in report.how


@pytest.mark.parametrize(
    ("grader", "openai", "says"),
    [
        (EXACT, {}, "whole"),
        (multi(LABEL), {}, "whole"),
        (JSON, {"response_format": {"type": "json_object"}}, "whole"),
        (multi(EXACT, pass_threshold=0.5), {}, "without pass_threshold"),
        ({**SCORE, "timeout_seconds": 9.0}, {}, "without timeout_seconds"),
        ({**SCORE, "base_url": "https://api.openai.com/v1"}, {}, "without base_url"),
        (multi({**SCORE, "timeout_seconds": 9.0}), {}, "without graders.a.timeout_seconds"),
        (EXACT, AZURE, "without the spaces inside the braces"),
    ],
)
def test_what_is_taken_out_of_a_reward_is_told(grader: dict[str, Any], openai: dict[str, Any], says: str) -> None:
    report, sent = grader_mapping(grader, **openai)
    assert report.outcome == "translated"
    assert says in report.how
    text = json.dumps(sent)
    assert not any(key in text for key in ("base_url", "timeout_seconds", "pass_threshold"))
    assert openai != AZURE or "{{item.reference}}" in text


BODY = {
    "model": "gpt-4.1", "seed": 7, "suffix": "triage",
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({}, []),
        ({"seed": 7, "model": "gpt-4.1-2025-04-14", "hyperparameters": {"n_epochs": 3.0, "batch_size": 4}}, []),
        ({"hyperparameters": {"n_epochs": "auto", "learning_rate_multiplier": 0.5000000000001}}, []),
        ({"method": None, "seed": None, "user_provided_suffix": None}, []),
        ({"hyperparameters": {"n_epochs": 1}}, ["n_epochs 1 instead of 3"]),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"learning_rate_multiplier": 2}}}},
            ["learning_rate_multiplier 2 instead of 0.5"],
        ),
        ({"method": {"type": "dpo"}, "seed": 0}, ["method dpo instead of supervised", "seed 0 instead of 7"]),
        ({"validation_file": None}, ["no validation file, although one was sent"]),
        (
            {"model": "gpt-4.1-mini", "user_provided_suffix": "other"},
            ["suffix other instead", "model gpt-4.1-mini instead"],
        ),
    ],
)
@pytest.mark.parametrize("shape", [dict, lambda **fields: SimpleNamespace(**fields)], ids=["dict", "object"])
def test_settings_that_nobody_asked_for_are_named(job: dict[str, Any], says: list[str], shape: Any) -> None:
    result = differences(BODY, shape(**job), validation=True)
    assert len(result) == len(says)
    assert all(text in result[where] for where, text in enumerate(says))


def test_a_job_with_other_settings_is_told_once(service: Service, tmp_path: Path) -> None:
    provider = OpenAIProvider()
    handle = provider.submit(submission(tmp_path / "run", hyperparameters={"n_epochs": 3}))
    taken = {"hyperparameters.n_epochs": 1, "method": None, "validation_file": None}
    service.meets({"on": "GET /fine_tuning/jobs/{id}", "fault": "alter", "set": taken})
    messages = [event.message for event in followed(provider, handle)[1] if "other settings" in event.message]
    assert messages == [
        "the service reports other settings than were requested: n_epochs 1 instead of 3; no validation file, although one was sent"
    ]


def test_an_item_of_reinforcement_ends_with_the_users_message(tmp_path: Path) -> None:
    question = {"role": "user", "content": "q"}
    lines = [
        {"messages": [question], "reference": "a"},
        {"messages": [question, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "other"}], "reference": "b"},
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = load_items(path)
    assert [(len(item.prompt), item.fields["reference"]) for item in items] == [(1, "a"), (1, "a"), (1, "b")]
    assert [item.cluster for item in items] == ["0", "0", "2"], (
        "the same question is one cluster, however its line ends"
    )
    with pytest.raises(UsageError, match="end with the user's message"):
        few_shot(path, examples=1, seed=0).prompt(items[1])
    path.write_text(json.dumps({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}) + "\n")
    with pytest.raises(DataError):
        load_items(path)
