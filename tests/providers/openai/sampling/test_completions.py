"""Prompts that a service cannot or will not complete: each is an exception of its own, and no run waits for it for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge import http
from ftbridge.data.examples import Message
from ftbridge.errors import FtbridgeError, PromptsRefused
from ftbridge.evaluation.candidates import Candidate, plain
from ftbridge.evaluation.generate import generate, read_predictions
from ftbridge.evaluation.items import Item
from ftbridge.providers.base import Completion, Prompt, Sampler, TunedModel
from ftbridge.providers.openai.provider import OpenAIProvider
from support.openai_jobs import KEY, lowered
from support.service_faults import fault
from support.simulated_service import Service

CHAT, BATCHES = "POST /chat/completions", "POST /batches"
TUNED = TunedModel(provider="openai", id="ft:gpt-test:org::1", base="gpt-test")
FILTERED = {"status": 400, "message": "the prompt was filtered", "code": "content_filter", "param": "prompt"}
NO_METADATA = [
    {"on": "POST /batches", "fault": "alter", "set": {"metadata": None}},
    {"on": "GET /batches/{id}", "fault": "alter", "set": {"metadata": None}},
    {"on": "GET /batches", "fault": "alter", "set": {"data[].metadata": None}},
]
"""A service that drops the metadata of batches."""


def items(count: int) -> list[Item]:
    return [
        Item(
            key=f"k{n}",
            index=n,
            prompt=(Message(role="user", content=f"item {n}"),),
            tools=(),
            fields={"reference": "x"},
        )
        for n in range(count)
    ]


def prompts(count: int) -> list[Prompt]:
    return [plain(item) for item in items(count)]


def sampler(folder: Path, model: TunedModel | None = None, **openai: Any) -> Sampler:
    return OpenAIProvider().sampler(lowered(openai=openai), model, folder)


def completions(source: Sampler, requests: list[Prompt], at_once: int = 2) -> dict[str, Completion]:
    return {result.key: result for result in source.generate(requests, max_tokens=5, batch_size=at_once)}


def instead(prompt: str, **does: Any) -> list[dict[str, Any]]:
    """Faults: what a prompt is answered with, whether it comes as a request or as a line of a batch."""
    return [{"on": route, "body": f'"{prompt}"', **does} for route in (CHAT, "LINE /chat/completions")]


def saying(prompt: str, message: Any, **more: Any) -> list[dict[str, Any]]:
    """Faults: the message that a prompt is answered with."""
    return instead(prompt, fault="alter", set={"choices[].message": message, **more})


@pytest.mark.parametrize("batch", [False, True], ids=["chat", "batch"])
@pytest.mark.parametrize(
    ("does", "says"),
    [
        ({"fault": "alter", "set": {"choices": []}}, "no completion"),
        ({"fault": "alter", "set": {"choices": None}}, "no completion"),
        ({"fault": "alter", "set": {"choices[].message": None}}, "no completion"),
        (FILTERED, "filtered"),
        ({"status": 413, "message": "too long"}, "too long"),
    ],
    ids=["no choices", "null choices", "no message", "filtered", "too long"],
)
def test_a_prompt_without_a_completion_holds_up_no_other(
    service: Service, tmp_path: Path, does: dict[str, Any], says: str, batch: bool
) -> None:
    service.meets(*instead("item 1", **does))
    match = completions(sampler(tmp_path, batch=batch), prompts(5))
    assert {key for key, result in match.items() if result.error is None} == {"k0", "k2", "k3", "k4"}
    assert says in (match["k1"].error or "")


def test_a_prompt_that_the_service_always_fails_at_is_given_up_while_it_answers_others(
    service: Service, tmp_path: Path
) -> None:
    service.meets(*instead("item 0", status=500))
    match = completions(sampler(tmp_path), prompts(12), at_once=1)
    assert [key for key, result in match.items() if result.error] == ["k0"]


def test_the_last_prompt_that_is_refused_ends_the_evaluation_of_a_run_that_was_stopped(
    service: Service, tmp_path: Path
) -> None:
    """Alone it looks like a service that refuses everything; what was answered before says that it does not."""
    service.meets(*instead("item 2", **FILTERED))
    path, request = tmp_path / "base.jsonl", items(3)
    more: dict[str, Any] = {"max_tokens": 5, "batch_size": 1}
    with pytest.raises(PromptsRefused):
        generate(Candidate("base", plain), request[2:], sampler(tmp_path), path, **more)
    generate(Candidate("base", plain), request[:2], sampler(tmp_path), path, **more)
    generate(Candidate("base", plain), request, sampler(tmp_path), path, **more)
    assert [bool(result.error) for result in read_predictions(path)] == [False, False, True]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("half \ud83d", "half \ufffd"),
        ("\ude00 half", "\ufffd half"),
        ("whole in two halves \ud83d\ude00", "whole in two halves \U0001f600"),
        (f"my key is {KEY}", "my key is [key]"),
        ("a word like sk-ipping stays", "a word like sk-ipping stays"),
    ],
)
@pytest.mark.parametrize("batch", [False, True], ids=["chat", "batch"])
def test_what_a_model_says_can_always_be_written(
    service: Service, tmp_path: Path, text: str, written: str, batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTBRIDGE_RECORD", "1")
    service.meets(*saying("item 0", {"role": "assistant", "content": text}))
    path = tmp_path / "base.jsonl"
    (result,) = generate(
        Candidate("base", plain), items(1), sampler(tmp_path, batch=batch), path, max_tokens=5, batch_size=1
    )
    assert result.output_text == read_predictions(path)[0].output_text == written
    for file in tmp_path.rglob("*.jsonl"):
        assert KEY not in file.read_text("utf-8")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": [{"type": "text", "text": "you "}, {"type": "text", "text": "did"}]},
        {"role": "assistant", "content": None, "refusal": "you did"},
    ],
)
def test_a_completion_in_another_shape_is_read(service: Service, tmp_path: Path, message: dict[str, Any]) -> None:
    service.meets(*saying("item 0", message, usage={"prompt_tokens": "many"}))
    result = completions(sampler(tmp_path), prompts(1))["k0"]
    assert (result.text, result.prompt_tokens) == ("you did", 0)


def test_a_retry_after_of_days_does_not_hold_up_a_fresh_model(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(http, "sleep", waits.append)
    service.offer(TUNED.id)
    service.meets(fault(CHAT, "503", range(1, 4), retry_after=100_000))
    assert len(completions(sampler(tmp_path, TUNED), prompts(1))) == 1
    assert waits == [60.0] * 3


def test_a_fresh_model_is_waited_for_ten_minutes_whatever_the_service_asks(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(http, "sleep", waits.append)
    service.offer(TUNED.id)
    service.meets(fault(CHAT, "503", None, retry_after=100_000))
    with pytest.raises(FtbridgeError, match="to be loaded"):
        completions(sampler(tmp_path, TUNED), prompts(1))
    assert sum(waits) == 600


# Batches are paid once


@pytest.mark.parametrize("kind", ["reset_after", "html_after", "cut_after"])
@pytest.mark.parametrize("forever", [False, True], ids=["pages", "pages that repeat"])
def test_a_batch_is_made_once_where_metadata_is_dropped(
    service: Service, tmp_path: Path, kind: str, forever: bool
) -> None:
    endless = [{"on": "GET /batches", "fault": "endless"}] if forever else []
    service.meets(*NO_METADATA, *endless, fault(BATCHES, kind))
    assert len(completions(sampler(tmp_path, batch=True), prompts(3))) == 3
    assert len(service.batches) == 1


def test_a_batch_of_other_requests_is_not_taken_for_ours(service: Service, tmp_path: Path) -> None:
    service.meets(*NO_METADATA)
    completions(sampler(tmp_path, batch=True), prompts(2))
    service.meets(*NO_METADATA, fault(BATCHES, "reset_before"))
    assert set(completions(sampler(tmp_path, batch=True), prompts(3)[2:])) == {"k2"}
    assert len(service.batches) == 2


@pytest.mark.parametrize("read_before", [0, 1, 3])
def test_a_run_killed_while_it_reads_a_batch_pays_for_no_other(
    service: Service, tmp_path: Path, read_before: int
) -> None:
    reading = sampler(tmp_path, batch=True).generate(prompts(4), max_tokens=5, batch_size=1)
    done = {next(iter(reading)).key for _ in range(read_before)} if read_before else {next(iter(reading)).key} - {"k"}
    rest = [prompt for prompt in prompts(4) if prompt.key not in done]
    result = completions(sampler(tmp_path, batch=True), rest)
    assert (set(result), len(service.batches)) == ({prompt.key for prompt in rest}, 1)


def test_what_a_batch_leaves_open_is_asked_in_a_new_one(service: Service, tmp_path: Path) -> None:
    created = sampler(tmp_path, batch=True)
    service.meets(*instead("item 1", status=500))
    reading = created.generate(prompts(4), max_tokens=5, batch_size=1)
    first = [next(reading) for _ in range(3)]
    service.meets()
    assert {result.key for result in [*first, *reading]} == {"k0", "k1", "k2", "k3"}
    sent = [json.loads(line)["custom_id"] for name in service.batches for line in _requests(service, name)]
    assert (len(service.batches), sorted(sent)) == (2, ["k0", "k1", "k1", "k2", "k3"])


def _requests(service: Service, batch: str) -> list[bytes]:
    return service.content(service.batches[batch]["input_file_id"]).splitlines()


def test_a_key_in_the_name_of_a_model_is_written_nowhere_and_the_model_is_asked_all_the_same(
    service: Service, tmp_path: Path
) -> None:
    service.offer(f"ft:gpt-test:{KEY}:1")
    named = TunedModel(provider="openai", id="ft:gpt-test:[key]:1", base="gpt-test")
    assert len(completions(sampler(tmp_path, named), prompts(2))) == 2
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY in path.read_text("utf-8")]


CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "Lima"}'}}
THINKING = [{"type": "thinking", "thinking": [{"type": "text", "text": "Peru."}]}, {"type": "text", "text": "Lima."}]


@pytest.mark.parametrize("batch", [False, True], ids=["chat", "batch"])
@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "Lima.", "reasoning_content": "Peru."}, "Lima.", "Peru."),
        ({"content": "Lima.", "reasoning": "Peru.\n"}, "Lima.", "Peru."),
        ({"content": THINKING}, "Lima.", "Peru."),
        ({"content": "<think>\nPeru.\n</think>\n\nLima."}, "Lima.", "Peru."),
        ({"content": "Lima.", "reasoning_content": None, "reasoning": ""}, "Lima.", None),
        ({"content": None, "tool_calls": [CALL]}, '[{"name": "look_up", "arguments": {"city": "Lima"}}]', None),
    ],
    ids=["reasoning_content", "reasoning", "parts", "a block in the text", "none", "a call"],
)
def test_reasoning_of_a_service_is_kept_apart_from_the_text_that_is_graded(
    service: Service, tmp_path: Path, message: dict[str, Any], text: str, reasoning: str | None, batch: bool
) -> None:
    service.meets(*saying("item 0", {"role": "assistant", **message}))
    path = tmp_path / "p.jsonl"
    generate(Candidate("base", plain), items(1), sampler(tmp_path, batch=batch), path, max_tokens=5, batch_size=1)
    [result] = read_predictions(path)
    assert (result.output_text, result.reasoning_content) == (text, reasoning)
    assert [call["function"] for call in result.tool_calls or ()] == [
        call["function"] for call in message.get("tool_calls", ())
    ]
