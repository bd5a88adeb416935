"""What a client library does against a server, one feature after the other: run by the Python that has the libraries.

python drive.py CLIENT BASE_URL     prints {"version": …, "features": {name: "ok" or the error}}
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from typing import Any

MODEL = "gpt-4.1-mini"
CLIENT, BASE = sys.argv[1], sys.argv[2]
os.environ.update(
    OPENAI_API_KEY="any", OPENAI_BASE_URL=BASE, OPENAI_AGENTS_DISABLE_TRACING="1", LITELLM_LOCAL_MODEL_COST_MAP="True"
)

from pydantic import BaseModel  # noqa: E402


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK = [{"role": "user", "content": "hello there"}]


def check(value: Any) -> None:
    """Fail unless there is a value."""
    assert value, f"nothing came: {value!r}"


def openai() -> dict[str, Callable[[], None]]:
    """OpenAI's Python SDK."""
    from openai import OpenAI

    client = OpenAI()
    forced: Any = {"model": MODEL, "messages": ASK, "tools": [TOOL], "tool_choice": "required"}
    return {
        "chat": lambda: check(client.chat.completions.create(model=MODEL, messages=ASK).choices[0].message.content),
        "stream": lambda: check(list(client.chat.completions.create(model=MODEL, messages=ASK, stream=True))),
        "call": lambda: check(client.chat.completions.create(**forced).choices[0].message.tool_calls),
        "schema": lambda: check(
            client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Person).choices[0].message.parsed
        ),
        "responses": lambda: check(client.responses.create(model=MODEL, input="hi").output_text),
    }


def azure() -> dict[str, Callable[[], None]]:
    """AzureOpenAI."""
    from openai import AzureOpenAI

    client = AzureOpenAI(azure_endpoint=BASE.removesuffix("/v1"), api_version="2024-10-21", api_key="any")
    forced: Any = {"model": MODEL, "messages": ASK, "tools": [TOOL], "tool_choice": "required"}
    return {
        "chat": lambda: check(client.chat.completions.create(model=MODEL, messages=ASK).choices[0].message.content),
        "stream": lambda: check(list(client.chat.completions.create(model=MODEL, messages=ASK, stream=True))),
        "call": lambda: check(client.chat.completions.create(**forced).choices[0].message.tool_calls),
        "schema": lambda: check(
            client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Person).choices[0].message.parsed
        ),
    }


def instructor() -> dict[str, Callable[[], None]]:
    """Instructor, in its modes of tools and of JSON schemas."""
    import instructor as library
    from openai import OpenAI

    def made(mode: Any) -> Callable[[], None]:
        client = library.from_openai(OpenAI(), mode=mode)
        return lambda: check(
            client.chat.completions.create(model=MODEL, messages=ASK, response_model=Person, max_retries=0)
        )

    return {"call": made(library.Mode.TOOLS), "schema": made(library.Mode.JSON_SCHEMA)}


def litellm() -> dict[str, Callable[[], None]]:
    """LiteLLM's SDK."""
    import litellm as library

    told: Any = {"model": f"openai/{MODEL}", "messages": ASK, "api_base": BASE, "api_key": "any"}
    return {
        "chat": lambda: check(library.completion(**told).choices[0].message.content),
        "stream": lambda: check(list(library.completion(**told, stream=True))),
        "call": lambda: check(
            library.completion(**told, tools=[TOOL], tool_choice="required").choices[0].message.tool_calls
        ),
        "schema": lambda: check(
            Person.model_validate_json(library.completion(**told, response_format=Person).choices[0].message.content)
        ),
        "responses": lambda: check(
            library.responses(model=f"openai/{MODEL}", input="hi", api_base=BASE, api_key="any").output
        ),
    }


def langchain() -> dict[str, Callable[[], None]]:
    """LangChain's ChatOpenAI."""
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, max_retries=0)
    return {
        "chat": lambda: check(model.invoke("hi").content),
        "stream": lambda: check(list(model.stream("hi"))),
        "call": lambda: check(model.bind_tools([get_weather], tool_choice="any").invoke("hi").tool_calls),
        "schema": lambda: check(model.with_structured_output(Person).invoke("hi")),
        "responses": lambda: check(ChatOpenAI(model=MODEL, use_responses_api=True, max_retries=0).invoke("hi").content),
    }


def llama_index() -> dict[str, Callable[[], None]]:
    """LlamaIndex's OpenAILike."""
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(
        model=MODEL, api_base=BASE, api_key="any", is_chat_model=True, is_function_calling_model=True, max_retries=0
    )
    tool = FunctionTool.from_defaults(get_weather)
    return {
        "chat": lambda: check(model.chat([ChatMessage(role="user", content="hi")]).message.content),
        "stream": lambda: check(list(model.stream_chat([ChatMessage(role="user", content="hi")]))),
        "call": lambda: check(
            model.get_tool_calls_from_response(model.chat_with_tools([tool], "hi", tool_required=True))
        ),
        "schema": lambda: check(model.as_structured_llm(Person).complete("hi").raw),
    }


def pydantic_ai() -> dict[str, Callable[[], None]]:
    """pydantic-ai, whose default is a forced call."""
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

    chat = OpenAIChatModel(MODEL)
    return {
        "chat": lambda: check(Agent(chat).run_sync("hi").output),
        "call": lambda: check(Agent(chat, output_type=Person).run_sync("hi").output.name),
        "schema": lambda: check(Agent(chat, output_type=NativeOutput(Person)).run_sync("hi").output.name),
        "responses": lambda: check(Agent(OpenAIResponsesModel(MODEL)).run_sync("hi").output),
    }


def agents() -> dict[str, Callable[[], None]]:
    """OpenAI's Agents SDK, whose default is the Responses API."""
    from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
    from openai import AsyncOpenAI

    def run(**more: Any) -> Any:
        return Runner.run_sync(Agent(name="a", **{"model": MODEL, **more}), "hi").final_output

    async def streamed() -> Any:
        model = OpenAIResponsesModel(MODEL, AsyncOpenAI())  # a client belongs to its event loop
        result = Runner.run_streamed(Agent(name="a", model=model), "hi")
        return [event async for event in result.stream_events()] and result.final_output

    once = ModelSettings(tool_choice="required")
    return {
        "responses": lambda: check(run()),
        "stream": lambda: check(asyncio.run(streamed())),
        "call": lambda: check(
            run(tools=[function_tool(get_weather)], model_settings=once, tool_use_behavior="stop_on_first_tool")
        ),
        "schema": lambda: check(run(output_type=Person)),
        "chat": lambda: check(run(model=OpenAIChatCompletionsModel(MODEL, AsyncOpenAI()))),
    }


PACKAGES = {"openai": "openai", "azure": "openai", "instructor": "instructor", "litellm": "litellm", "langchain": "langchain-openai",
            "llama_index": "llama-index-llms-openai-like", "pydantic_ai": "pydantic-ai-slim", "agents": "openai-agents"}  # fmt: skip


def main() -> None:
    """Drive one client."""
    try:
        version = importlib.metadata.version(PACKAGES[CLIENT])
    except importlib.metadata.PackageNotFoundError:
        print(json.dumps({"version": None, "features": {}}))
        return
    if CLIENT == "azure":
        os.environ.pop("OPENAI_BASE_URL")
    told = {}
    for name, feature in globals()[CLIENT]().items():
        try:
            feature()
            told[name] = "ok"
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps({"version": version, "features": told}))


main()
