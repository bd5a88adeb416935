"""OpenAI's Python SDK, and its AzureOpenAI (with the argument `azure`): every part of the interface that ftbridge serves."""

import sys
import time

from features import (
    ASK,
    ASK_BOTH,
    ASK_WEATHER,
    BASE_URL,
    FUNCTION,
    HELLO,
    JOB_MODEL,
    MODEL,
    TOOL,
    batch_file,
    feature,
    get_weather,
    report,
    training_file,
)
from openai import AsyncOpenAI, AzureOpenAI, OpenAI
from pydantic import BaseModel

AZURE = sys.argv[1:] == ["azure"]


def new_client():
    if not AZURE:
        return OpenAI(max_retries=0)
    import os

    del os.environ["OPENAI_BASE_URL"]  # AzureOpenAI refuses an endpoint beside it
    endpoint = BASE_URL.removesuffix("/v1")
    return AzureOpenAI(azure_endpoint=endpoint, api_version="2025-03-01-preview", api_key="any", max_retries=0)


client = new_client()
ask = client.chat.completions.create


class Person(BaseModel):
    name: str
    age: int


@feature
def chat():
    completion = ask(model=MODEL, messages=ASK, temperature=0, max_tokens=50, seed=1, user="somebody")
    assert completion.choices[0].message.content == HELLO
    assert completion.usage.total_tokens > 0


@feature
def chat_choices():
    completion = ask(model=MODEL, messages=ASK, n=3, stop=["there"])
    assert [choice.message.content for choice in completion.choices] == ["hello "] * 3


@feature
def stream():
    chunks = list(ask(model=MODEL, messages=ASK, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == HELLO
    assert chunks[-1].choices[0].finish_reason == "stop"


@feature
def stream_usage():
    *_, last = ask(model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True})
    assert last.usage.total_tokens > 0
    assert last.choices == []


@feature
def logprobs():
    content = ask(model=MODEL, messages=ASK, logprobs=True, top_logprobs=1).choices[0].logprobs.content
    assert "".join(token.token for token in content) == HELLO
    assert content[0].top_logprobs[0].logprob <= 0


def calls_of(messages, **more):
    choice = ask(model=MODEL, messages=messages, tools=[TOOL], **more).choices[0]
    assert choice.finish_reason in ("tool_calls", "stop"), choice.finish_reason
    return [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]


@feature
def call_auto():
    assert calls_of(ASK_WEATHER, tool_choice="auto") == [("get_weather", '{"city": "Oslo"}')]


@feature
def call_required():
    assert calls_of(ASK, tool_choice="required")[0][0] == "get_weather"


@feature
def call_named():
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert calls_of(ASK, tool_choice=named)[0][0] == "get_weather"


@feature
def call_parallel():
    assert [name for name, _ in calls_of(ASK_BOTH)] == ["get_weather"] * 2
    assert len(calls_of(ASK_BOTH, parallel_tool_calls=False)) == 1


@feature
def call_streamed():
    with client.chat.completions.stream(model=MODEL, messages=ASK_BOTH, tools=[strict_tool()]) as events:
        done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [event.parsed_arguments["city"] for event in done] == ["Oslo", "Lima"]


def strict_tool():
    return {"type": "function", "function": {**FUNCTION, "strict": True}}


@feature
def call_result():
    message = ask(model=MODEL, messages=ASK_WEATHER, tools=[TOOL]).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": get_weather("Oslo")}
    completion = ask(model=MODEL, messages=[*ASK_WEATHER, message, result], tools=[TOOL])
    assert completion.choices[0].message.content == "sunny in Oslo"


@feature
def schema():
    completion = client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Person)
    assert isinstance(completion.choices[0].message.parsed, Person)


@feature
def schema_streamed():
    with client.chat.completions.stream(model=MODEL, messages=ASK, response_format=Person) as events:
        assert isinstance(events.get_final_completion().choices[0].message.parsed, Person)


@feature
def responses():
    response = client.responses.create(model=MODEL, input=HELLO, instructions="Repeat it.")
    assert response.output_text == HELLO
    assert response.status == "completed"


@feature
def responses_streamed():
    with client.responses.stream(model=MODEL, input=HELLO) as events:
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(pieces) == events.get_final_response().output_text == HELLO


@feature
def responses_call():
    tool = {"type": "function", **FUNCTION, "strict": True}
    first = client.responses.create(model=MODEL, input=ASK_WEATHER, tools=[tool])
    (call,) = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": get_weather("Oslo")}
    again = client.responses.create(model=MODEL, input=[*ASK_WEATHER, *first.output, result], tools=[tool])
    assert again.output_text == "sunny in Oslo"


@feature
def responses_schema():
    assert isinstance(client.responses.parse(model=MODEL, input=HELLO, text_format=Person).output_parsed, Person)


@feature
def responses_logprobs():
    response = client.responses.create(model=MODEL, input=HELLO, include=["message.output_text.logprobs"])
    assert "".join(token.token for token in response.output[0].content[0].logprobs) == HELLO


@feature
def responses_continued():
    first = client.responses.create(model=MODEL, input=HELLO)
    second = client.responses.create(model=MODEL, input="and again", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.output_text == "and again"
    assert client.responses.retrieve(first.id).output_text == HELLO
    assert len(client.responses.input_items.list(second.id).data) == 1
    client.responses.delete(first.id)


@feature
def completions():
    assert client.completions.create(model=MODEL, prompt=HELLO).choices[0].text == HELLO
    pieces = client.completions.create(model=MODEL, prompt=HELLO, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == HELLO


@feature
def completions_logprobs():
    scored = client.completions.create(model=MODEL, prompt=[HELLO, "x"], echo=True, logprobs=1, max_tokens=0)
    assert [len(choice.logprobs.tokens) for choice in scored.choices] == [2, 1]


@feature
def embeddings():
    result = client.embeddings.create(model=MODEL, input=[HELLO, "something else"]).data
    assert len(result) == 2
    assert len(result[0].embedding) == len(result[1].embedding) > 1
    assert result[0].embedding != result[1].embedding


@feature
def models():
    names = [model.id for model in client.models.list()]
    assert client.models.retrieve(JOB_MODEL).id in names


@feature
def files():
    file = client.files.create(file=training_file(), purpose="fine-tune")
    assert client.files.wait_for_processing(file.id, poll_interval=0.05).status == "processed"
    assert client.files.content(file.id).read() == training_file().read_bytes()
    assert file.id in [listed.id for listed in client.files.list()]
    client.files.delete(file.id)


def job_of(**more):
    file = client.files.create(file=training_file(), purpose="fine-tune")
    return client.fine_tuning.jobs.create(training_file=file.id, model=JOB_MODEL, suffix="triage", **more)


def ended(job):
    give_up = time.monotonic() + 60
    while job.status not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < give_up, job.status
        time.sleep(0.05)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


@feature
def jobs():
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    job = ended(job_of(method=method, metadata={"team": "support"}))
    assert job.status == "succeeded", job.error
    assert job.id in [listed.id for listed in client.fine_tuning.jobs.list()]
    assert client.files.content(job.result_files[0]).text.startswith("step,")
    assert ask(model=job.fine_tuned_model, messages=ASK).choices[0].message.content == HELLO
    assert client.models.delete(job.fine_tuned_model).deleted


@feature
def jobs_cancelled():
    assert client.fine_tuning.jobs.cancel(job_of().id).status == "cancelled"


@feature
def events():
    job = ended(job_of())
    listed = list(client.fine_tuning.jobs.list_events(job.id, limit=10))
    assert len(listed) > 10
    assert "successfully" in listed[0].message


@feature
def checkpoints():
    job = ended(job_of())
    point = client.fine_tuning.jobs.checkpoints.list(job.id).data[0]
    assert ask(model=point.fine_tuned_model_checkpoint, messages=ASK).choices[0].message.content == HELLO


@feature
def batches():
    file = client.files.create(file=batch_file(), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"team": "support"}
    )
    give_up = time.monotonic() + 60
    while batch.status not in ("completed", "failed"):
        assert time.monotonic() < give_up, batch.status
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert batch.request_counts.completed == 3
    assert len(client.files.content(batch.output_file_id).text.splitlines()) == 3
    assert batch.id in [listed.id for listed in client.batches.list()]


if not AZURE:

    @feature
    async def asynchronous():
        async with AsyncOpenAI(max_retries=0) as other:
            assert (await other.chat.completions.create(model=MODEL, messages=ASK)).choices[0].message.content == HELLO
            chunks = [c async for c in await other.chat.completions.create(model=MODEL, messages=ASK, stream=True)]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == HELLO


report("openai")
