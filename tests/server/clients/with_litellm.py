"""LiteLLM's SDK, with ftbridge as an OpenAI-compatible provider."""

import litellm
from features import (
    ASK,
    ASK_BOTH,
    ASK_WEATHER,
    BASE_URL,
    HELLO,
    JOB_MODEL,
    MODEL,
    TOOL,
    batch_file,
    feature,
    get_weather,
    report,
    training_file,
)  # fmt: skip
from pydantic import BaseModel

where = {"api_base": BASE_URL, "api_key": "any"}
service = {**where, "custom_llm_provider": "openai"}


class Person(BaseModel):
    name: str
    age: int


def ask(messages=ASK, **more):
    return litellm.completion(model=f"openai/{MODEL}", messages=messages, num_retries=0, **where, **more)


@feature
def chat():
    completion = ask()
    assert completion.choices[0].message.content == HELLO
    assert completion.usage.total_tokens > 0


@feature
def stream():
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(stream=True)) == HELLO


@feature
def stream_usage():
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert any(getattr(chunk, "usage", None) for chunk in chunks)


@feature
async def asynchronous():
    completion = await litellm.acompletion(model=f"openai/{MODEL}", messages=ASK, **where)
    assert completion.choices[0].message.content == HELLO


@feature
def logprobs():
    tokens = ask(logprobs=True, top_logprobs=1).choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == HELLO


@feature
def call_auto():
    (call,) = ask(ASK_WEATHER, tools=[TOOL], tool_choice="auto").choices[0].message.tool_calls
    assert call.function.arguments == '{"city": "Oslo"}'


@feature
def call_required():
    assert ask(tools=[TOOL], tool_choice="required").choices[0].message.tool_calls


@feature
def call_named():
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert ask(tools=[TOOL], tool_choice=named).choices[0].message.tool_calls[0].function.name == "get_weather"


@feature
def call_parallel():
    assert len(ask(ASK_BOTH, tools=[TOOL]).choices[0].message.tool_calls) == 2


@feature
def call_streamed():
    complete = litellm.stream_chunk_builder(list(ask(ASK_BOTH, tools=[TOOL], stream=True)), messages=ASK_BOTH)
    arguments = [call.function.arguments for call in complete.choices[0].message.tool_calls]
    assert arguments == ['{"city": "Oslo"}', '{"city": "Lima"}']


@feature
def call_result():
    message = ask(ASK_WEATHER, tools=[TOOL]).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": get_weather("Oslo")}
    assert ask([*ASK_WEATHER, message, result], tools=[TOOL]).choices[0].message.content == "sunny in Oslo"


@feature
def schema():
    assert Person.model_validate_json(ask(response_format=Person).choices[0].message.content)


@feature
def responses():
    response = litellm.responses(model=f"openai/{MODEL}", input=HELLO, **where)
    assert response.output[0].content[0].text == HELLO


@feature
def responses_streamed():
    events = litellm.responses(model=f"openai/{MODEL}", input=HELLO, stream=True, **where)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == HELLO


@feature
def completions():
    completion = litellm.text_completion(model=f"text-completion-openai/{MODEL}", prompt=HELLO, **where)
    assert completion.choices[0].text == HELLO


@feature
def embeddings():
    result = litellm.embedding(model=f"openai/{MODEL}", input=[HELLO], **where)
    assert len(result.data[0]["embedding"]) > 1


@feature
def files():
    file = litellm.create_file(file=training_file().open("rb"), purpose="fine-tune", **service)
    assert file.id in [listed.id for listed in litellm.file_list(**service)]
    assert litellm.file_content(file_id=file.id, **service).content == training_file().read_bytes()


@feature
def jobs():
    file = litellm.create_file(file=training_file().open("rb"), purpose="fine-tune", **service)
    job = litellm.create_fine_tuning_job(model=JOB_MODEL, training_file=file.id, **service)
    assert job.id in [listed.id for listed in litellm.list_fine_tuning_jobs(**service)]
    assert litellm.retrieve_fine_tuning_job(fine_tuning_job_id=job.id, **service).id == job.id


@feature
def jobs_cancelled():
    file = litellm.create_file(file=training_file().open("rb"), purpose="fine-tune", **service)
    job = litellm.create_fine_tuning_job(model=JOB_MODEL, training_file=file.id, **service)
    assert litellm.cancel_fine_tuning_job(fine_tuning_job_id=job.id, **service).status == "cancelled"


@feature
def batches():
    file = litellm.create_file(file=batch_file().open("rb"), purpose="batch", **service)
    batch = litellm.create_batch(
        completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id, **service
    )
    assert litellm.retrieve_batch(batch_id=batch.id, **service).status in ("validating", "in_progress", "completed")


report("litellm")
