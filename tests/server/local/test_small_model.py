"""`ftbridge serve` over a random model of two layers: what a real engine does with calls, schemas, cancels and odd requests."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import BadRequestError, OpenAI

from ftbridge.server import served
from ftbridge.server.app import application
from ftbridge.server.http import network
from support.service import lines
from support.small_model import TOOLS_TEMPLATE, write_small_model

pytestmark = pytest.mark.slow

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Lima", "Paris"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
OTHER = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {
    "place": {"$ref": "#/$defs/place"}}, "required": ["place"], "additionalProperties": False,
    "$defs": {"place": {"enum": ["here", "there"]}}}}}  # fmt: skip
ASK = [{"role": "user", "content": "What is the weather in Lima?"}]
MODELS = ("plain", "tools")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    plain = write_small_model(folder / "plain", base_model_dir)
    tools = write_small_model(folder / "tools", base_model_dir, template=TOOLS_TEMPLATE)
    settings = {"quantization": "none", "max_length": 64, "evals_per_epoch": 1}
    names = {"plain": str(plain), "tools": str(tools), "gpt-*": str(plain)}
    service = served(names, folder / "server", home=folder, settings=settings)
    bound = network.bind("127.0.0.1", 0)
    with network.in_background(application(service), bound):
        yield f"{network.address_of(bound)}/v1"
    bound.close()


@pytest.fixture
def openai(server: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=server, api_key="any", max_retries=0, timeout=120) as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "function", "function": {"name": "get_weather"}}, {"get_weather"}),
        ("required", {"get_weather", "get_time"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
            {"type": "function", "function": {"name": "get_time"}}]}}, {"get_time"}),
    ],
    ids=["named", "required", "allowed"],
)  # fmt: skip
@pytest.mark.parametrize("parallel", [True, False], ids=["several", "one"])
def test_a_forced_call_is_made_and_follows_its_schema(model, choice, names, parallel, openai):
    settings = {"model": model, "messages": ASK, "tools": [TOOL, OTHER], "tool_choice": choice,
             "parallel_tool_calls": parallel, "max_tokens": 900}  # fmt: skip
    complete = openai.chat.completions.create(**settings).choices[0]
    assert complete.finish_reason == "tool_calls"
    assert not complete.message.content
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in complete.message.tool_calls]
    assert calls
    assert len(calls) == 1 or parallel
    for name, arguments in calls:
        assert name in names
        if name == "get_weather":
            assert arguments["city"] in ("Lima", "Paris")
            assert 1 <= arguments["days"] <= 9
        else:
            assert arguments["place"] in ("here", "there")
    assert len({call.id for call in complete.message.tool_calls}) == len(calls)


def test_a_streamed_call_begins_with_its_name_and_goes_on_with_arguments(openai):
    choice = {"type": "function", "function": {"name": "get_weather"}}
    pieces = list(openai.chat.completions.create(
        model="plain", messages=ASK, tools=[TOOL], tool_choice=choice, stream=True))  # fmt: skip
    deltas = [call for piece in pieces for call in piece.choices[0].delta.tool_calls or []]
    assert (deltas[0].index, deltas[0].type, deltas[0].function.name) == (0, "function", "get_weather")
    assert deltas[0].id
    assert len(deltas) > 2
    assert json.loads("".join(delta.function.arguments for delta in deltas))["city"] in ("Lima", "Paris")
    assert pieces[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("model", MODELS)
def test_a_conversation_with_calls_goes_on(model, openai):
    reply = openai.chat.completions.create(
        model=model, messages=ASK, tools=[TOOL], tool_choice="required", max_tokens=900
    )
    message = reply.choices[0].message
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    sent_back = message.model_dump()  # with every null that the SDK knows
    after = openai.chat.completions.create(
        model=model, messages=[*ASK, sent_back, *results], tools=[TOOL], max_tokens=5
    )
    assert after.usage.prompt_tokens > reply.usage.prompt_tokens
    none = openai.chat.completions.create(model=model, messages=ASK, tools=[TOOL], tool_choice="none", max_tokens=5)
    assert not none.choices[0].message.tool_calls


def test_a_schema_is_followed_after_an_open_block_of_reasoning(openai):
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    reply = openai.chat.completions.create(
        model="tools", messages=ASK, extra_body={"chat_template_kwargs": {"enable_thinking": True}},
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})  # fmt: skip
    assert json.loads(reply.choices[0].message.content)["a"] in (1, 2)


LOOSE = {"type": "object", "properties": {"a": {"enum": [1, 2], "not": {"const": 3}}}, "required": ["a"],
         "additionalProperties": False, "if": {}, "then": {}}  # fmt: skip


def test_keywords_that_cannot_be_followed_are_passed_over_unless_the_schema_is_strict(openai):
    def request(strict):
        return {"model": "plain", "messages": ASK, "max_tokens": 40, "response_format": {
            "type": "json_schema", "json_schema": {"name": "x", "schema": LOOSE, "strict": strict}}}  # fmt: skip

    for strict in (None, False):
        assert json.loads(openai.chat.completions.create(**request(strict)).choices[0].message.content)["a"] in (1, 2)
    with pytest.raises(BadRequestError, match="cannot be enforced"):
        openai.chat.completions.create(**request(True))
    tool = {"type": "function", "function": {"name": "f", "parameters": LOOSE}}
    choice = {"type": "function", "function": {"name": "f"}}
    called = openai.chat.completions.create(
        model="plain", messages=ASK, tools=[tool], tool_choice=choice, max_tokens=40
    )
    assert json.loads(called.choices[0].message.tool_calls[0].function.arguments)["a"] in (1, 2)
    tool["function"]["strict"] = True
    with pytest.raises(BadRequestError, match="cannot be enforced"):
        openai.chat.completions.create(model="plain", messages=ASK, tools=[tool], tool_choice=choice, max_tokens=40)


@pytest.mark.parametrize(
    "odd",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {
            "type": "object", "properties": {"a": {"type": "no such type"}}}}}], "tool_choice": "required"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 5}}}},
        {"logit_bias": {"99999999": 1}},
        {"messages": [{"role": "user", "content": "x " * 5000}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        {"extra_body": {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}},
        {"extra_body": {"chat_template_kwargs": {"messages": []}}},
    ],
    ids=["schema of a tool", "schema", "bias", "too long", "image", "template", "reserved"],
)  # fmt: skip
def test_what_one_client_may_not_ask_leaves_the_others_answers_alone(odd, openai):
    by_name = {"model": "plain", "messages": ASK, "max_tokens": 5, **odd}
    with openai.chat.completions.create(model="plain", messages=ASK, max_tokens=300, stream=True) as others:
        next(others)
        with pytest.raises(BadRequestError):
            openai.chat.completions.create(**by_name)
        assert list(others)[-1].choices[0].finish_reason in ("stop", "length")


def test_biases_and_penalties_change_what_is_said(openai):
    def completion(**changes):
        reply = openai.chat.completions.create(
            model="plain", messages=ASK, max_tokens=12, temperature=0, logprobs=True, **changes)  # fmt: skip
        return [token.token for token in reply.choices[0].logprobs.content]

    assert len(set(completion(logit_bias={"1234": 100}))) == 1
    assert len(set(completion(logit_bias={"1234": 1.5}, frequency_penalty=2, presence_penalty=2))) > 1
    unlike = completion(extra_body={"repetition_penalty": 10})
    assert len(set(unlike)) == len(unlike)


def test_a_templates_marks_in_a_users_text_stay_text(openai):
    def tokens(text):
        requests = [{"role": "user", "content": text}]
        return openai.chat.completions.create(model="plain", messages=requests, max_tokens=1).usage.prompt_tokens

    mark = "<|im_end|>"
    assert tokens(f"a{mark}b") - tokens("ab") > 3, "the mark is spelt, not one token of the template"


def test_a_texts_own_probabilities_are_those_of_its_tokens(openai):
    text = "The capital of Peru is Lima."
    result = openai.completions.create(model="plain", prompt=text, max_tokens=0, echo=True, logprobs=1).choices[0]
    assert result.text == text
    assert result.logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in result.logprobs.token_logprobs[1:])
    assert len(result.logprobs.tokens) == len(result.logprobs.top_logprobs) > 4
    again = openai.completions.create(
        model="plain", prompt=text, max_tokens=3, echo=True, logprobs=0, temperature=0
    ).choices[0]
    assert again.logprobs.token_logprobs[: len(result.logprobs.tokens)] == result.logprobs.token_logprobs
    only = openai.completions.create(model="plain", prompt=text, max_tokens=3, temperature=0).choices[0]
    assert again.text == text + only.text


def test_an_embedding_is_the_mean_of_the_models_last_states(openai, base_model_dir, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = write_small_model(tmp_path / "same", base_model_dir)  # the same seed, so the same weights
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "a ticket about a refund"
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(folder)
        states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[-1][0]
    mean = states.float().mean(0)
    response = openai.embeddings.create(model="plain", input=[text, "another"])
    assert response.data[0].embedding == pytest.approx((mean / mean.norm()).tolist(), abs=0.02)
    assert response.data[0].embedding != response.data[1].embedding
    with pytest.raises(BadRequestError, match="32 dimensions"):
        openai.embeddings.create(model="plain", input=text, dimensions=8)
    with pytest.raises(BadRequestError, match="context length"):
        openai.embeddings.create(model="plain", input=[[5] * 5000])


def test_responses_come_from_the_same_engine(openai):
    tool = {"name": "get_weather", **TOOL["function"], "type": "function"}
    called = openai.responses.create(
        model="tools", input="Weather?", tools=[tool], tool_choice="required", max_output_tokens=900
    )
    assert {item.type for item in called.output} == {"function_call"}
    results = [{"type": "function_call_output", "call_id": item.call_id, "output": "sunny"} for item in called.output]
    after = openai.responses.create(
        model="tools", input=results, tools=[tool], previous_response_id=called.id, max_output_tokens=5
    )
    assert after.usage.input_tokens > called.usage.input_tokens


def test_names_that_fit_a_pattern_are_answered(openai):
    assert openai.chat.completions.create(model="gpt-4o-mini", messages=ASK, max_tokens=1).model == "gpt-4o-mini"
    assert "gpt-*" not in [model.id for model in openai.models.list()]


def _ended(openai, job):
    for _ in range(600):
        response = openai.fine_tuning.jobs.retrieve(job)
        if response.status in ("succeeded", "failed", "cancelled"):
            return response
        time.sleep(0.1)
    raise AssertionError(response.status)


def test_bad_data_are_told_without_a_path_of_the_servers_disk(openai):
    bad = openai.files.create(file=("t.jsonl", lines() + b'{"text": "x"}\n'), purpose="fine-tune")
    job = openai.fine_tuning.jobs.create(model="plain", training_file=bad.id)
    result = _ended(openai, job.id)
    assert "line 13" in result.error.message
    events = " ".join(event.message for event in openai.fine_tuning.jobs.list_events(job.id))
    assert "/" not in result.error.message + events


def _processes(name: str) -> list[str]:
    matches = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if name in command:
            matches.append(command)
    return matches


@pytest.mark.parametrize("wait", [0.0, 1.5, 4.0])
def test_a_job_cancelled_while_its_driver_starts_leaves_no_process(wait, openai):
    file = openai.files.create(file=("t.jsonl", lines()), purpose="fine-tune")
    job = openai.fine_tuning.jobs.create(model="plain", training_file=file.id, hyperparameters={"n_epochs": 50})
    while openai.fine_tuning.jobs.retrieve(job.id).status == "validating_files":
        time.sleep(0.02)
    time.sleep(wait)
    openai.fine_tuning.jobs.cancel(job.id)
    assert _ended(openai, job.id).status == "cancelled"
    for _ in range(300):
        if not _processes(job.id):
            break
        time.sleep(0.1)
    assert not _processes(job.id)
    again = openai.fine_tuning.jobs.retrieve(job.id)
    assert (again.status, again.fine_tuned_model) == ("cancelled", None)


def test_the_events_of_a_job_come_as_a_stream(openai, server):
    file = openai.files.create(file=("t.jsonl", lines()), purpose="fine-tune")
    job = openai.fine_tuning.jobs.create(model="plain", training_file=file.id, hyperparameters={"n_epochs": 1})
    messages = []
    with httpx.stream("GET", f"{server}/fine_tuning/jobs/{job.id}/events?stream=true", timeout=120) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                messages.append(line[6:])
    assert messages[-1] == "[DONE]"
    listed = [event.id for event in openai.fine_tuning.jobs.list_events(job.id, limit=100)]
    assert [json.loads(line)["id"] for line in messages[:-1]] == listed[::-1]
    assert openai.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
