"""Answers over chat completions and batches: each prompt once, under rate limits, from models that are slow to appear."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ftbridge.data.examples import Message
from ftbridge.errors import FtbridgeError, ModelUnavailable, ProviderRefused
from ftbridge.providers.base import Completion, Prompt, Sampler, TunedModel
from ftbridge.providers.openai.provider import OpenAIProvider
from ftbridge.providers.openai.sampling.patience import Limit
from support.openai_jobs import lowered
from support.service_faults import fault
from support.simulated_service import Service

CHAT = "POST /chat/completions"
TUNED = TunedModel(provider="openai", id="ft:gpt-test:org::1", base="gpt-test")


def prompts(count: int) -> list[Prompt]:
    return [Prompt(key=f"k{n}", messages=(Message(role="user", content=f"item {n}"),)) for n in range(count)]


def sampler(folder: Path, model: TunedModel | None = None, **openai: Any) -> Sampler:
    return OpenAIProvider().sampler(lowered(openai=openai), model, folder)


def complete(created: Sampler, waiting: list[Prompt], at_once: int = 8) -> dict[str, Completion]:
    listing = list(created.generate(waiting, max_tokens=5, batch_size=at_once))
    created.close()
    assert len(listing) == len({completion.key for completion in listing})
    return {completion.key: completion for completion in listing}


def test_every_prompt_is_answered_once_with_its_tokens_counted(service: Service, tmp_path: Path) -> None:
    result = complete(sampler(tmp_path), prompts(30))
    assert set(result) == {f"k{n}" for n in range(30)}
    assert (result["k7"].seconds or 0) > 0
    expected = Completion(key="k7", text="you said item 7", finish_reason="stop", prompt_tokens=9, completion_tokens=4)
    assert result["k7"].model_copy(update={"seconds": None}) == expected
    assert service.requests[CHAT] == 30


def test_requests_in_flight_come_down_to_what_the_service_bears(service: Service, tmp_path: Path) -> None:
    service.change(chat={"first_token_seconds": 0.02, "at_once": 4})
    result = complete(sampler(tmp_path), prompts(120), at_once=32)
    assert len(result) == 120
    assert service.requests[CHAT] < 240  # a fixed 32 in flight would be refused many times for each answer


def test_the_limit_is_halved_once_for_a_round_and_grows_by_one_for_a_round() -> None:
    limit = Limit(16)
    sent_in = limit.round
    assert limit.throttled(sent_in)
    assert not limit.throttled(sent_in)
    assert limit.now == 8
    for _ in range(9):
        limit.succeeded()
    assert limit.now == 9
    for _ in range(20):
        limit.throttled(limit.round)
    assert limit.now == 1


@pytest.mark.slow
def test_prompts_are_completed_at_once_up_to_the_batch_size(service: Service, tmp_path: Path) -> None:
    service.change(chat={"first_token_seconds": 0.3})  # much longer than the work of both sides, which share a process
    seconds = {}
    for at_once in (8, 1):
        started = time.monotonic()
        complete(sampler(tmp_path), prompts(24), at_once=at_once)
        seconds[at_once] = time.monotonic() - started
    assert seconds[1] >= 24 * 0.3
    assert seconds[8] < seconds[1] / 2


@pytest.mark.parametrize("kind", ["429", "500", "reset_before", "reset_after", "cut_after", "html_after", "408"])
def test_a_request_that_fails_is_asked_again(service: Service, tmp_path: Path, kind: str) -> None:
    service.meets(fault(CHAT, kind, [1, 2, 5]))
    assert len(complete(sampler(tmp_path), prompts(10), at_once=2)) == 10


def test_a_fresh_model_that_is_not_loaded_yet_is_waited_for(service: Service, tmp_path: Path) -> None:
    service.offer(TUNED.id)
    service.change(chat={"not_loaded": 20})
    assert len(complete(sampler(tmp_path, TUNED), prompts(3), at_once=1)) == 3


def test_a_model_that_never_comes_ends_the_waiting(service: Service, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="waiting for ft:gpt-test"):
        complete(sampler(tmp_path, TUNED), prompts(2), at_once=1)
    assert 1 < service.requests[CHAT] < 60
    service.change(models=["gpt-other"])
    with pytest.raises(ModelUnavailable):
        complete(sampler(tmp_path / "base"), prompts(1))
    assert service.requests[CHAT] < 30


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ({"kind": "401"}, ProviderRefused),
        ({"kind": "400", "message": "context too long", "code": "context_length_exceeded"}, ProviderRefused),
        ({"kind": "429", "code": "insufficient_quota"}, ProviderRefused),
        ({"kind": "500"}, FtbridgeError),
    ],
)
def test_what_cannot_be_mended_by_asking_again_is_raised(
    service: Service, tmp_path: Path, failure: dict[str, Any], error: type[FtbridgeError]
) -> None:
    service.meets(fault(CHAT, nth=None, **failure))
    with pytest.raises(error):
        complete(sampler(tmp_path), prompts(3))
    assert service.requests[CHAT] <= 30


def test_a_model_that_takes_no_temperature_is_asked_without(service: Service, tmp_path: Path) -> None:
    refusal = {"code": "unsupported_value", "param": "temperature", "message": "temperature is not supported"}
    service.meets(fault(CHAT, "400", None, body='"temperature"', **refusal))
    assert len(complete(sampler(tmp_path), prompts(10), at_once=1)) == 10
    assert service.requests[CHAT] == 11


def test_a_deployed_model_is_asked_under_the_name_of_its_deployment(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-1")
    service.change(models=["my-deployment"])
    azure = {"target": "azure", "base_url": service.azure_url, "deployment": "my-deployment"}
    assert len(complete(sampler(tmp_path, TUNED, **azure), prompts(1))) == 1


def test_the_classic_azure_address_is_spoken_to_in_its_own_way(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftbridge.providers.openai.client import connect
    from ftbridge.providers.openai.request import OpenAIRequest

    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-1")
    azure = {"target": "azure", "base_url": "https://r.openai.azure.com", "api_version": "2025-04-01-preview"}
    client = connect(OpenAIRequest.model_validate(lowered(openai=azure).request), tmp_path).client
    assert str(client.base_url) == "https://r.openai.azure.com/openai/"
    assert client.max_retries == 0


def test_weights_of_training_are_not_sent(service: Service, tmp_path: Path) -> None:
    from ftbridge.providers.openai.sampling.chat import body_of
    from ftbridge.providers.openai.targets import TARGETS

    message = Message.model_validate({"role": "assistant", "content": "a", "weight": 0})
    prompt = Prompt(key="k", messages=(message,), tools=({"type": "function"},))
    body = body_of(prompt, "m", TARGETS["openai"], 5)
    assert body["messages"] == [{"role": "assistant", "content": "a"}]
    assert (body["tools"], body["max_completion_tokens"], body["temperature"]) == ([{"type": "function"}], 5, 0)


# Batches


def test_a_batch_answers_every_prompt_whatever_the_order(service: Service, tmp_path: Path) -> None:
    result = complete(sampler(tmp_path, batch=True), prompts(12))
    assert result["k3"].text == "you said item 3"
    assert (len(result), service.requests[CHAT], service.requests["POST /batches"]) == (12, 0, 1)


@pytest.mark.parametrize("kind", ["reset_after", "reset_before", "html_after"])
def test_a_batch_is_created_once(service: Service, tmp_path: Path, kind: str) -> None:
    service.meets(fault("POST /batches", kind))
    assert len(complete(sampler(tmp_path, batch=True), prompts(3))) == 3
    assert len(service.batches) == 1


def test_a_run_that_comes_back_takes_up_the_same_batch(service: Service, tmp_path: Path) -> None:
    complete(sampler(tmp_path, batch=True), prompts(3))
    complete(sampler(tmp_path, batch=True), prompts(3))
    assert len(service.batches) == 1


def test_requests_that_failed_in_a_batch_are_told_and_asked_again_in_a_new_one(
    service: Service, tmp_path: Path
) -> None:
    service.change(models=["gpt-other"])
    with pytest.raises(ModelUnavailable, match="3 of 3 requests unanswered: No such model: gpt-test"):
        complete(sampler(tmp_path, batch=True), prompts(3))
    service.change(models=["gpt-test"])
    assert len(complete(sampler(tmp_path, batch=True), prompts(3))) == 3


def test_a_prompt_that_the_service_will_not_take_is_told_and_the_others_are_answered(
    service: Service, tmp_path: Path
) -> None:
    service.meets(fault(CHAT, "400", 3, message="flagged", code="content_filter"))
    result = complete(sampler(tmp_path), prompts(10), at_once=1)
    assert len(result) == 10
    (refused,) = [completion for completion in result.values() if completion.error is not None]
    assert (refused.key, refused.error, refused.text, refused.finish_reason) == ("k2", "400: flagged", "", "error")
    assert service.requests[CHAT] == 10


def test_a_service_that_takes_no_prompt_at_all_is_an_error(service: Service, tmp_path: Path) -> None:
    service.meets(fault(CHAT, "400", None, message="no such mode"))
    with pytest.raises(ProviderRefused, match="no such mode"):
        complete(sampler(tmp_path), prompts(5))
