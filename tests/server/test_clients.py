"""Clients that nobody here wrote, driven against the simulator: chat, streams, forced calls, schemas, the Responses API.

They are not dependencies: FTBRIDGE_CLIENTS names the Python of an environment with `clients/requirements.txt` installed, and a
client that is not there is skipped. With FTBRIDGE_WRITE_CLIENTS=1 the results go to docs/clients.json, from which docs/server.md
has its table.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from ftbridge.server import simulating

HERE = Path(__file__).parent / "clients"
RESULTS = Path(__file__).parents[2] / "docs" / "clients.json"
CLIENTS = ("openai", "azure", "instructor", "litellm", "langchain", "llama_index", "pydantic_ai", "agents")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_does_what_it_does_at_openai(client):
    python = os.environ.get("FTBRIDGE_CLIENTS")
    if not python:
        pytest.skip("FTBRIDGE_CLIENTS names no Python with the clients; see tests/server/clients/requirements.txt")
    with simulating() as simulator:
        command = [python, str(HERE / "drive.py"), client, simulator.base_url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    if told["version"] is None:
        pytest.skip(f"{client} is not installed there")
    if os.environ.get("FTBRIDGE_WRITE_CLIENTS"):
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**known, client: told}, indent=2, sort_keys=True) + "\n")
    assert {name: result for name, result in told["features"].items() if result != "ok"} == {}
