"""The Responses API, legacy completions and Azure's client, each with OpenAI's own SDK."""

import json

import httpx
import pytest
from openai import AzureOpenAI, BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel

from ftbridge.server import simulating
from support.service import BASE, lines

TOOL = {"type": "function", "name": "get_weather", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}}  # fmt: skip


class Person(BaseModel):
    """What is asked for."""

    name: str
    age: int


@pytest.mark.parametrize(
    "requested",
    [
        "Say hello.",
        [{"role": "user", "content": "Say hello."}],
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Say hello."}]}],
        [{"role": "user", "content": "x"},
         {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
         {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
          "content": [{"type": "output_text", "text": "y", "annotations": []}]},
         {"role": "user", "content": "Say hello."}],
    ],
    ids=["text", "message", "parts", "items"],
)  # fmt: skip
def test_text_messages_and_items_are_answered(requested, client: OpenAI):
    response = client.responses.create(model=BASE, input=requested, instructions="Be short.", max_output_tokens=16)
    assert (response.status, response.output_text) == ("completed", "Say hello.")
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.usage.output_tokens_details.reasoning_tokens == 0


def test_a_conversation_goes_on_from_what_was_kept(client: OpenAI, simulator):
    first = client.responses.create(model=BASE, input="One.", instructions="Only for the first.")
    second = client.responses.create(model=BASE, input="Two.", previous_response_id=first.id)
    response = simulator.service.store.get("response", second.id)
    messages = [(message["role"], message["content"]) for message in response.extra["messages"]]
    assert messages == [("user", "One."), ("assistant", "One."), ("user", "Two."), ("assistant", "Two.")]
    assert client.responses.retrieve(second.id).output_text == "Two."
    assert [item.content[0].text for item in client.responses.input_items.list(second.id)] == ["Two."]
    client.responses.delete(first.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(BadRequestError, match="not found"):
        client.responses.create(model=BASE, input="Three.", previous_response_id=first.id)
    forgotten = client.responses.create(model=BASE, input="x", store=False)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(forgotten.id)


def test_structured_output_and_forced_calls(client: OpenAI):
    parsed = client.responses.parse(model=BASE, input="Who?", text_format=Person)
    assert isinstance(parsed.output_parsed, Person)
    called = client.responses.create(model=BASE, input="Weather?", tools=[TOOL], tool_choice="required")
    (call,) = called.output
    assert (call.type, call.name, set(json.loads(call.arguments))) == ("function_call", "get_weather", {"city"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    after = client.responses.create(model=BASE, input=[result], tools=[TOOL], previous_response_id=called.id)
    assert after.output_text == "sunny"
    named = client.responses.create(
        model=BASE, input="x", tools=[TOOL], tool_choice={"type": "function", "name": "get_weather"}
    )
    assert named.output[0].name == "get_weather"


@pytest.mark.parametrize("tools", [False, True], ids=["text", "call"])
def test_a_stream_is_its_named_events_in_order(tools, client: OpenAI):
    more = {"tools": [TOOL], "tool_choice": "required"} if tools else {}
    events = list(client.responses.create(model=BASE, input="Say hello there.", stream=True, **more))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-2:] == ["response.output_item.done", "response.completed"]
    complete = events[-1].response
    if tools:
        pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        assert "".join(pieces) == complete.output[0].arguments
    else:
        assert (
            "".join(event.delta for event in events if event.type == "response.output_text.delta")
            == complete.output_text
        )
    with client.responses.stream(model=BASE, input="Again.", **more) as stream:
        assert stream.get_final_response().status == "completed"


@pytest.mark.parametrize(
    ("request_for", "alternatives"),
    [({"top_logprobs": 1}, 1), ({"include": ["message.output_text.logprobs"]}, 0)],
    ids=["top_logprobs", "include"],
)
def test_log_probabilities_stand_beside_the_text(request_for, alternatives, client: OpenAI):
    response = client.responses.create(model=BASE, input="one two", **request_for)
    tokens = response.output[0].content[0].logprobs
    assert "".join(token.token for token in tokens) == response.output_text == "one two"
    assert [len(token.top_logprobs) for token in tokens] == [alternatives] * 2
    events = list(client.responses.create(model=BASE, input="one two", stream=True, **request_for))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [event.logprobs[0].token for event in deltas] == ["one", " two"]
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert len(done.logprobs) == 2
    plain = client.responses.create(model=BASE, input="one two")
    assert plain.output[0].content[0].logprobs == []


def test_a_cut_answer_is_incomplete(client: OpenAI):
    response = client.responses.create(model=BASE, input="one two three four", max_output_tokens=2)
    assert (response.status, response.incomplete_details.reason, response.output_text) == (
        "incomplete",
        "max_output_tokens",
        "one two",
    )


@pytest.mark.parametrize(
    "change",
    [{"background": True}, {"tools": [{"type": "web_search"}]}, {"conversation": "conv_1"}, {"reasoning": {"effort": "huge"}},
     {"input": [{"type": "item_reference", "id": "x"}]}, {"input": []}, {"no_such": 1}, {"tool_choice": "required", "tools": []},
     {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_acted_on_is_refused(change, http: httpx.Client):
    expected = 200 if change.get("tools") == [] else 400
    assert http.post("/responses", json={"model": BASE, "input": "x", **change}).status_code == expected


def test_text_goes_on_without_a_template(client: OpenAI):
    response = client.completions.create(
        model=BASE, prompt=["one two", "three"], max_tokens=4, echo=True, logprobs=1, n=2
    )
    assert [choice.index for choice in response.choices] == [0, 1, 2, 3]
    assert response.choices[0].text.startswith("one two")
    logprobs = response.choices[0].logprobs
    assert "".join(logprobs.tokens) == response.choices[0].text
    pairs = zip(logprobs.text_offset, logprobs.tokens, strict=True)
    assert all(response.choices[0].text[at:].startswith(token) for at, token in pairs)
    pieces = list(client.completions.create(model=BASE, prompt="one two", stream=True, max_tokens=5))
    assert "".join(piece.choices[0].text for piece in pieces) == "one two"
    ids = client.completions.create(model=BASE, prompt=[11, 22, 33], max_tokens=0, echo=True, logprobs=1)
    assert ids.choices[0].logprobs.tokens == [" 11", " 22", " 33"]
    assert ids.choices[0].logprobs.token_logprobs == [None, 0.0, 0.0]
    assert ids.choices[0].logprobs.top_logprobs == [None, {" 22": 0.0}, {" 33": 0.0}]
    assert ids.usage.prompt_tokens == 3
    only = client.completions.create(model=BASE, prompt="one two", max_tokens=0, echo=True)
    assert only.choices[0].text == "one two"
    with pytest.raises(BadRequestError, match="suffix"):
        client.completions.create(model=BASE, prompt="x", suffix="y")


@pytest.mark.parametrize("deployment", [None, "gpt-4o-mini"])
def test_azures_client_from_upload_to_chat(deployment):
    with simulating({"speed": 50}) as simulator:
        address = simulator.base_url.removesuffix("/v1")
        named = {"azure_deployment": deployment} if deployment else {}
        client = AzureOpenAI(azure_endpoint=address, api_key="k", api_version="2024-10-21", max_retries=0, **named)
        file = client.files.create(file=("train.jsonl", lines()), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            model="gpt-4o-mini", training_file=file.id, suffix="t", extra_body={"trainingType": "GlobalStandard"}
        )
        simulator.advance(1000)
        client.fine_tuning.jobs.retrieve(job.id)
        for _ in range(200):
            if (job := client.fine_tuning.jobs.retrieve(job.id)).status == "succeeded":
                break
        assert [event.object for event in client.fine_tuning.jobs.list_events(job.id, limit=2)]
        assert client.files.content(file.id).read() == lines()
        model = deployment or job.fine_tuned_model
        completion = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
        assert completion.choices[0].message.content == "hi"
        assert client.models.list().data
        v1 = OpenAI(
            base_url=f"{address}/openai/v1/", api_key="k", default_query={"api-version": "preview"}, max_retries=0
        )
        assert v1.responses.create(model="gpt-4o-mini", input="hi").output_text == "hi"
        bad = httpx.post(f"{address}/openai/fine_tuning/jobs?api-version=2024-10-21",
                         json={"model": "gpt-4o-mini", "training_file": file.id, "trainingType": "Nowhere"})  # fmt: skip
        assert bad.status_code == 400
