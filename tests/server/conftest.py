import json
from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from ftbridge.server import Simulator, simulating

BASE = "gpt-4.1-mini-2025-04-14"
CHAT = [{"role": "user", "content": "Which colour?"}]


def lines(count: int = 12, first: int = 0) -> bytes:
    """A training file."""
    return b"".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"What does ticket number {n} want?"},
                    {"role": "assistant", "content": f"Ticket {n} wants a refund of {7 * n} euros."},
                ]
            }
        ).encode()
        + b"\n"
        for n in range(first, first + count)
    )


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A faultless simulator, ten times as fast."""
    with simulating({"speed": 10}) as running:
        yield running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[OpenAI]:
    """An unmodified client of it, without retries."""
    with OpenAI(base_url=simulator.base_url, api_key="any", max_retries=0) as made:
        yield made


@pytest.fixture
def http(simulator: Simulator) -> Iterator[httpx.Client]:
    """Plain HTTP to it."""
    with httpx.Client(base_url=simulator.base_url, timeout=30) as made:
        yield made


@pytest.fixture
def training_file(client: OpenAI) -> str:
    """The id of an uploaded training file."""
    return client.files.create(file=("train.jsonl", lines()), purpose="fine-tune").id
