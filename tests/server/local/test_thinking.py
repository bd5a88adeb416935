"""`ftbridge serve` over a model that reasons: reasoning is a part of its own, as the evaluator reads it, and can be switched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai as sdk
import pytest
from openai import OpenAI

from ftbridge.data.examples import Message
from ftbridge.providers.base import Prompt
from ftbridge.providers.local.inference.completions import Generator
from ftbridge.providers.local.request import SampleRequest
from ftbridge.server.local.spec import base_request
from support.served_model import client_of
from support.small_model import THINKING_TEMPLATE, write_chain_model, write_small_model

pytestmark = pytest.mark.slow

ASK: list[Any] = [{"role": "user", "content": "What is the capital of Peru?"}]
THOUGHT, SAID = "Peru has one.", "Lima!"
ON, OFF = {"enable_thinking": True}, {"enable_thinking": False}
SETTINGS = {"quantization": "none", "precision": "fp32", "max_length": 64}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("thinking")
    thinks = write_chain_model(
        folder / "thinks", base_model_dir, template=THINKING_TEMPLATE,
        completions=[("assistant\n", f"<think>{THOUGHT}</think>{SAID}<|im_end|>")],
    )  # fmt: skip
    return {"thinks": str(thinks), "plain": str(write_small_model(folder / "plain", base_model_dir))}


@pytest.fixture(scope="module")
def openai(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    home = tmp_path_factory.mktemp("home")
    with client_of(models, home, SETTINGS) as client:
        yield client


def ask(openai: OpenAI, **more: Any) -> Any:
    return openai.chat.completions.create(
        **{"model": "thinks", "messages": ASK, "temperature": 0, "max_tokens": 40, **more}
    )


@pytest.mark.parametrize(
    ("switch", "thinks"),
    [
        ({}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"extra_body": {"chat_template_kwargs": ON}}, True),
        ({"extra_body": {"chat_template_kwargs": OFF}}, False),
        ({"reasoning_effort": "high", "extra_body": {"chat_template_kwargs": OFF}}, False),
    ],
    ids=str,
)
def test_reasoning_is_a_part_of_its_own_and_can_be_switched(switch, thinks, openai):
    result = ask(openai, **switch)
    message = result.choices[0].message
    assert (message.content, getattr(message, "reasoning_content", None)) == (SAID, THOUGHT if thinks else None)
    assert result.choices[0].finish_reason == "stop"
    counted = result.usage.completion_tokens_details.reasoning_tokens
    assert (counted > 3) is thinks
    assert counted < result.usage.completion_tokens

    pieces = list(ask(openai, stream=True, stream_options={"include_usage": True}, **switch))
    deltas = [piece.choices[0].delta for piece in pieces if piece.choices]
    assert "".join(delta.content or "" for delta in deltas) == SAID
    thoughts = [getattr(delta, "reasoning_content", None) for delta in deltas]
    assert "".join(thought or "" for thought in thoughts) == (THOUGHT if thinks else "")
    assert len([thought for thought in thoughts if thought]) > 2 or not thinks
    assert pieces[-1].usage == result.usage


def test_the_evaluator_reads_the_same_completion(openai, models):
    for thinking, switch in (("on", ON), ("off", OFF)):
        request = base_request(models["thinks"], {**SETTINGS, "thinking": thinking})
        generator = Generator(SampleRequest(request=request, tuned=None))
        results: list[dict[str, Any]] = []

        def note(_: str, results_so_far: list[dict[str, Any]] = results, **fields: Any) -> None:
            results_so_far.append(fields)

        generator.complete([Prompt(key="one", messages=[Message(**ASK[0])])], 40, 1, note)
        served_one = ask(openai, extra_body={"chat_template_kwargs": switch})
        message = served_one.choices[0].message
        assert results[0]["text"] == message.content
        assert results[0]["reasoning_content"] == getattr(message, "reasoning_content", None)
        assert results[0]["prompt_tokens"] == served_one.usage.prompt_tokens
        assert results[0]["completion_tokens"] == served_one.usage.completion_tokens


def test_reasoning_is_an_item_of_a_response(openai):
    settings: dict[str, Any] = {"model": "thinks", "input": ASK, "reasoning": {"effort": "medium"}, "temperature": 0}
    response = openai.responses.create(**settings)
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert (response.output[0].content[0].text, response.output_text) == (THOUGHT, SAID)
    assert 3 < response.usage.output_tokens_details.reasoning_tokens < response.usage.output_tokens
    events = list(openai.responses.create(**settings, stream=True))
    thoughts = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert ("".join(thoughts), "".join(texts)) == (THOUGHT, SAID)
    assert len(thoughts) > 2
    sent_back = [*ASK, *(item.model_dump() for item in response.output), {"role": "user", "content": "Sure?"}]
    assert openai.responses.create(model="thinks", input=sent_back, temperature=0).output_text == SAID


def test_an_answer_cut_within_its_reasoning_has_no_text(openai):
    cut = ask(openai, max_tokens=4, reasoning_effort="low").choices[0]
    assert (cut.message.content, cut.finish_reason) == ("", "length")
    assert THOUGHT.startswith(cut.message.reasoning_content)


def test_probabilities_are_those_of_the_answers_own_tokens(openai):
    result = ask(openai, logprobs=True, reasoning_effort="low").choices[0].logprobs.content
    assert "".join(token.token for token in result).strip() == SAID


def test_json_by_construction_leaves_no_room_for_reasoning(openai):
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["Lima"]}}}
    message = ask(openai, response_format=shape, extra_body={"chat_template_kwargs": ON}).choices[0].message
    assert message.content == '"Lima"'
    assert getattr(message, "reasoning_content", None) is None


def test_a_model_that_does_not_reason_refuses_an_effort(openai):
    with pytest.raises(sdk.BadRequestError, match="does not reason"):
        ask(openai, model="plain", reasoning_effort="high")
    ask(openai, model="plain", reasoning_effort="none")
