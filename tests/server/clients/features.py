"""What every driver of a client shares: the questions, the tool, the data, and how features are run and reported.

A driver is a program of the client's own environment. It names each feature by a function, and `report` runs them in order:

    @feature
    def chat(): assert client.ask("hello") == "hello"

    report("name-of-its-package", known={"embeddings": "why it cannot work"})

It prints one JSON document: {"version": …, "features": {name: "ok" or the error}, "known": {name: reason}}. All features run in
one event loop, since asynchronous clients keep connections that belong to a loop. `FTBRIDGE_BASE_URL` is the server's address.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASE_URL = os.environ["FTBRIDGE_BASE_URL"]
MODEL = os.environ.get("FTBRIDGE_MODEL", "gpt-4.1-mini")
JOB_MODEL = "gpt-4.1-mini-2025-04-14"
HELLO = "hello there"
WEATHER, BOTH = "What is the weather in Oslo?", "Compare the weather in Oslo and Lima."
ASK: list[Any] = [{"role": "user", "content": HELLO}]
ASK_WEATHER: list[Any] = [{"role": "user", "content": WEATHER}]
ASK_BOTH: list[Any] = [{"role": "user", "content": BOTH}]
CITY: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION: Any = {"name": "get_weather", "description": "The weather of a city.", "parameters": CITY}
TOOL: Any = {"type": "function", "function": FUNCTION}
PERSON: Any = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

os.environ.update(
    OPENAI_API_KEY="any",
    OPENAI_BASE_URL=BASE_URL,
    OPENAI_AGENTS_DISABLE_TRACING="1",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    LANGCHAIN_TRACING_V2="false",
    HF_HUB_OFFLINE="1",
)

_features: dict[str, Callable[[], Any]] = {}


def feature(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, registered as the feature of its name."""
    _features[function.__name__] = function
    return function


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def training_file() -> Path:
    """A file of twelve examples that a service trains on."""
    examples = [
        {
            "messages": [
                {"role": "user", "content": f"What does ticket number {number} want?"},
                {"role": "assistant", "content": f"Ticket {number} wants a refund of {7 * number} euros."},
            ]
        }
        for number in range(12)
    ]
    return _written("train.jsonl", examples)


def batch_file() -> Path:
    """A file of three chats for a batch."""
    body = {"model": MODEL, "messages": ASK}
    requests = [
        {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(3)
    ]
    return _written("requests.jsonl", requests)


def _written(name: str, lines: list[Any]) -> Path:
    path = Path(tempfile.mkdtemp(prefix="ftbridge-client-")) / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def report(package: str, features: dict[str, str] | None = None) -> None:
    """Run the features, and print what came of them. `known` has the reasons of those that cannot work."""
    results = {}
    with asyncio.Runner() as runner:
        for name, function in _features.items():
            try:
                result = function()
                if inspect.isawaitable(result):
                    runner.run(_awaited(result))
                results[name] = "ok"
            except BaseException as error:  # a client's command line ends with SystemExit
                results[name] = f"{type(error).__name__}: {error}"[:600]
                if isinstance(error, KeyboardInterrupt):
                    raise
    document = {"version": importlib.metadata.version(package), "features": results, "known": features or {}}
    sys.stdout.write("\n" + json.dumps(document) + "\n")
    sys.stdout.flush()
    os._exit(0)  # a client's threads must not keep the test waiting


async def _awaited(result: Any) -> Any:
    return await asyncio.wait_for(result, 60)
