"""vLLM as the answering engine: real processes and real HTTP, with a stand-in for the executable alone."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from ftbridge.data.examples import Message
from ftbridge.errors import MissingDependency, ModelUnavailable, WorkerDied
from ftbridge.providers import resolve
from ftbridge.providers.base import Prompt
from ftbridge.providers.local.lower import lower
from ftbridge.providers.local.request import LocalRequest, SampleRequest
from ftbridge.providers.local.vllm import VllmSampler, command, refusal
from ftbridge.spec import JobSpec

STAND_IN = r"""#!{python}
import json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
arguments = sys.argv[1:]
given = lambda name: arguments[arguments.index(name) + 1]
if os.environ.get("STAND_IN") == "dies":
    sys.exit("RuntimeError: Failed to infer device type")
if os.environ.get("STAND_IN") == "hangs":
    time.sleep(60)
engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(os.environ["STAND_IN_PIDS"], "w").write(f"{{os.getpid()}} {{engine.pid}}")
names = [given("--served-model-name")]
if "--lora-modules" in arguments:
    names.append(given("--lora-modules").split("=")[0])
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, {{}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = asked["messages"][-1]["content"]
        if said == "die":
            os._exit(1)
        if asked["model"] not in names or asked["temperature"] != 0:
            return self.answer(404, {{"message": "no such model"}})
        if said == "too long":
            return self.answer(400, {{"message": "maximum context length"}})
        text = asked["model"] + ": " + said
        message = {{"content": text}}
        if asked.get("chat_template_kwargs"):
            message |= {{said: f"enable_thinking={{asked['chat_template_kwargs']['enable_thinking']}}"}}
        choice = {{"message": message, "finish_reason": "stop"}}
        self.answer(200, {{"choices": [choice], "usage": {{"prompt_tokens": 3, "completion_tokens": 2}}}})
ThreadingHTTPServer(("127.0.0.1", int(given("--port"))), Handler).serve_forever()
"""


def requested(**local: object) -> LocalRequest:
    spec = JobSpec.model_validate({"name": "a", "data": {"train": "t.jsonl"}, "model": {"local": "m"}, "local": {"engine": "vllm", **local}})  # fmt: skip
    return LocalRequest.model_validate(lower(resolve(spec, 100, "local")).request)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as a base model, and the stand-in first on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_PIDS", str(tmp_path / "pids"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vllm").write_text(STAND_IN.format(python=sys.executable))
    (tmp_path / "bin" / "vllm").chmod(0o755)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights that only vLLM would read")
    return tmp_path / "model"


def sampler(base: Path, tmp_path: Path, tuned: str | None = None, **how: float) -> VllmSampler:
    request = requested().model_copy(update={"model": str(base)})
    return VllmSampler(SampleRequest(request=request, tuned=tuned), tmp_path / "vllm.log", **how)


def ask(at: VllmSampler, *texts: str) -> dict[str, object]:
    prompts = [Prompt(key=text, messages=(Message(role="user", content=text),)) for text in texts]
    return {result.key: result for result in at.generate(prompts, max_tokens=8, batch_size=4)}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("tuned", "name"), [(None, "base"), ("/adapter", "tuned")])
def test_the_base_and_the_adapter_answer_by_name_and_close_leaves_no_process(base, tmp_path, tuned, name):
    at = sampler(base, tmp_path, tuned)
    result = ask(at, "hello", "you", "too long")
    assert (result["hello"].text, result["you"].text) == (f"{name}: hello", f"{name}: you")
    assert result["too long"].error.startswith("400: ")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(alive(pid) for pid in pids)
    at.close()
    give_up = time.monotonic() + 5
    while any(alive(pid) for pid in pids) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("thinking", ["on", "off"])
def test_reasoning_is_asked_for_as_the_job_says_and_read_apart_from_the_text(base, tmp_path, key, thinking):
    request = requested(thinking=thinking).model_copy(update={"model": str(base)})
    at = VllmSampler(SampleRequest(request=request, tuned=None), tmp_path / "vllm.log")
    result = ask(at, key)[key]
    at.close()
    assert (result.text, result.reasoning_content) == (f"base: {key}", f"enable_thinking={thinking == 'on'}")


def test_death_while_loading_is_told_with_the_last_lines_of_the_log(base, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN", "dies")
    with pytest.raises(ModelUnavailable, match=r"(?s)ended while loading \(status 1\).*Failed to infer device type"):
        ask(sampler(base, tmp_path), "hello")


def test_a_server_that_does_not_come_up_is_given_up_and_ended(base, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN", "hangs")
    at = sampler(base, tmp_path, load_seconds=0.5)
    with pytest.raises(ModelUnavailable, match=r"not ready within 0\.5 seconds"):
        ask(at, "hello")


def test_death_while_answering_is_told(base, tmp_path):
    at = sampler(base, tmp_path)
    try:
        with pytest.raises(WorkerDied, match="gave no response"):
            ask(at, "die")
    finally:
        at.close()


def test_without_vllm_the_command_that_installs_it_is_named(base, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="pip install vllm"):
        ask(sampler(base, tmp_path), "hello")


@pytest.mark.parametrize(
    ("local", "tuned", "has", "lacks"),
    [
        ({}, "/a", "--quantization bitsandbytes --enable-lora --max-lora-rank 16 --lora-modules tuned=/a", "--trust"),
        ({"lora": {"r": 20}}, "/a", "--max-lora-rank 32", "rank 20"),
        ({"quantization": "none"}, None, "--served-model-name base", "--quantization"),
        ({"tuning": "full"}, "/whole", "serve /whole --host 127.0.0.1 --port 7 --served-model-name tuned --tokenizer /b", "lora"),
        ({"precision": "bf16", "quantization": "int8"}, None, "--dtype bfloat16", "--quantization"),
    ],
)  # fmt: skip
def test_the_command_line_follows_the_job(local, tuned, has, lacks):
    line = " ".join(command(SampleRequest(request=requested(**local), tuned=tuned), Path("/b"), 7))
    assert has in line
    assert lacks not in line


@pytest.mark.parametrize(
    ("local", "why"),
    [({"device": "cpu"}, "CUDA"), ({"lora": {"use_dora": True}}, "DoRA"), ({"lora": {"r": 600}}, "512")],
)
def test_what_vllm_cannot_answer_with_is_refused_when_planned(local, why):
    assert why in str(refusal(requested(**local)))
    assert refusal(requested()) is None
