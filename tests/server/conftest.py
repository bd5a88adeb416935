from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from ftbridge.server import Simulator, simulating
from support.service import lines


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A faultless simulator, ten times as fast."""
    with simulating({"speed": 10}) as running:
        yield running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[OpenAI]:
    """An unmodified client of it, without retries."""
    with OpenAI(base_url=simulator.base_url, api_key="any", max_retries=0) as created:
        yield created


@pytest.fixture
def http(simulator: Simulator) -> Iterator[httpx.Client]:
    """Plain HTTP to it."""
    with httpx.Client(base_url=simulator.base_url, timeout=30) as created:
        yield created


@pytest.fixture
def training_file(client: OpenAI) -> str:
    """The id of an uploaded training file."""
    return client.files.create(file=("train.jsonl", lines()), purpose="fine-tune").id
