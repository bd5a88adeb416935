"""LiteLLM's proxy in front of ftbridge, asked with OpenAI's SDK as its users ask it."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from features import (
    ASK,
    ASK_BOTH,
    ASK_WEATHER,
    BASE_URL,
    HELLO,
    JOB_MODEL,
    MODEL,
    PERSON,
    TOOL,
    batch_file,
    feature,
    report,
    training_file,
)  # fmt: skip

KEY = "sk-" + "0123456789abcdef" * 4
CONFIG = f"""
model_list:
  - model_name: {MODEL}
    litellm_params: {{model: openai/{MODEL}, api_base: {BASE_URL}, api_key: any}}
  - model_name: text
    litellm_params: {{model: text-completion-openai/{MODEL}, api_base: {BASE_URL}, api_key: any}}
  - model_name: "*"
    litellm_params: {{model: "openai/*", api_base: {BASE_URL}, api_key: any}}
files_settings:
  - {{custom_llm_provider: openai, api_base: {BASE_URL}, api_key: any}}
finetune_settings:
  - {{custom_llm_provider: openai, api_base: {BASE_URL}, api_key: any}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


def started():
    """The proxy's process and address."""
    folder = Path(tempfile.mkdtemp(prefix="ftbridge-proxy-"))
    (folder / "config.yaml").write_text(CONFIG)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "litellm"), "--config", str(folder / "config.yaml")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log, cwd=folder,
            env={**os.environ, "LITELLM_MASTER_KEY": KEY},
        )  # fmt: skip
    give_up = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5).read()
            return process, f"http://127.0.0.1:{port}/v1"
        except OSError:
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError((folder / "log").read_text()[-2000:]) from None
            time.sleep(0.2)


process, address = started()
from openai import OpenAI  # noqa: E402

client = OpenAI(base_url=address, api_key=KEY, max_retries=0)
ask = client.chat.completions.create


@feature
def chat():
    assert ask(model=MODEL, messages=ASK).choices[0].message.content == HELLO


@feature
def stream():
    chunks = list(ask(model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == HELLO
    assert chunks[-1].usage.total_tokens > 0


@feature
def logprobs():
    assert ask(model=MODEL, messages=ASK, logprobs=True, top_logprobs=1).choices[0].logprobs.content


@feature
def call_auto():
    (call,) = ask(model=MODEL, messages=ASK_WEATHER, tools=[TOOL]).choices[0].message.tool_calls
    assert call.function.arguments == '{"city": "Oslo"}'


@feature
def call_required():
    assert ask(model=MODEL, messages=ASK, tools=[TOOL], tool_choice="required").choices[0].message.tool_calls


@feature
def call_parallel():
    assert len(ask(model=MODEL, messages=ASK_BOTH, tools=[TOOL]).choices[0].message.tool_calls) == 2


@feature
def call_streamed():
    with client.chat.completions.stream(model=MODEL, messages=ASK_WEATHER, tools=[TOOL]) as events:
        assert events.get_final_completion().choices[0].message.tool_calls[0].function.arguments == '{"city": "Oslo"}'


@feature
def schema():
    shape = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    assert "name" in ask(model=MODEL, messages=ASK, response_format=shape).choices[0].message.content


@feature
def responses():
    assert client.responses.create(model=MODEL, input=HELLO).output_text == HELLO


@feature
def responses_streamed():
    with client.responses.stream(model=MODEL, input=HELLO) as events:
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == HELLO


@feature
def completions():
    assert client.completions.create(model="text", prompt=HELLO).choices[0].text == HELLO


@feature
def embeddings():
    assert len(client.embeddings.create(model=MODEL, input=[HELLO, "other"]).data) == 2


@feature
def models():
    assert MODEL in [model.id for model in client.models.list()]


@feature
def files():
    file = client.files.create(file=training_file(), purpose="fine-tune", extra_body={"custom_llm_provider": "openai"})
    assert client.files.content(file.id).read() == training_file().read_bytes()


@feature
def jobs():
    provider = {"custom_llm_provider": "openai"}
    file = client.files.create(file=training_file(), purpose="fine-tune", extra_body=provider)
    client.fine_tuning.jobs.create(model=JOB_MODEL, training_file=file.id, extra_body=provider)


@feature
def batches():
    file = client.files.create(file=batch_file(), purpose="batch", extra_body={"custom_llm_provider": "openai"})
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
        extra_body={"custom_llm_provider": "openai"},
    )  # fmt: skip
    assert client.batches.retrieve(batch.id).status in ("validating", "in_progress", "finalizing", "completed")


try:
    report("litellm", known={"jobs": "LiteLLM answers fine-tuning calls at its proxy for paying customers only"})
finally:
    process.kill()
