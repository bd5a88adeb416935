"""vLLM as the engine that answers test items on a CUDA card: a `vllm serve` of our own on a free loopback port.

    LocalSampler's place ──▶ vllm serve BASE --lora-modules tuned=ADAPTER ──▶ POST /v1/chat/completions, many at once

It is asked over plain HTTP: the server is ours alone, so there is nothing to retry, no key, and nothing to adapt to.
Flags: https://docs.vllm.ai/en/latest/cli/serve/, features/lora/ and features/quantization/bnb/.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx

from ftbridge.chat_completions import ChatClient, read_reply
from ftbridge.errors import MissingDependency, ModelUnavailable, WorkerDied
from ftbridge.providers.base import Completion, Prompt
from ftbridge.providers.local.request import LocalRequest, SampleRequest

LOAD_SECONDS = 1800.0
"""How long the server may take until it is healthy: large weights are read, kernels compiled, graphs captured."""
ANSWER_SECONDS = 1800.0
STOP_SECONDS = 10.0
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank takes (vllm/config/lora.py)."""
TUNED, BASE = "tuned", "base"
_LOG_LINES = 8


def command(model: SampleRequest, base: Path, port: int) -> list[str]:
    """The arguments of `vllm serve` for a base on disk, and an adapter or a whole tuned model.

    The chat template is the base tokenizer's, as in training. `--generation-config vllm` keeps sampling settings of the model's
    own out. nf4 weights are quantised by vLLM while it loads (bitsandbytes); int8 has no such path and is answered in 16 bits.
    """
    request = model.request
    full = model.tuned is not None and request.tuning == "full"
    arguments = ["vllm", "serve", str(model.tuned) if full else str(base), "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--served-model-name", TUNED if full else BASE, "--tokenizer", str(base)]
    arguments += ["--generation-config", "vllm", "--seed", str(request.seed)]
    dtype = {"auto": "auto", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[request.precision]
    arguments += ["--dtype", dtype]
    if request.quantization == "nf4":
        arguments += ["--quantization", "bitsandbytes"]
    if request.trust_remote_code:
        arguments += ["--trust-remote-code"]
    if model.tuned is not None and not full:
        rank = next(rank for rank in RANKS if rank >= request.lora_r)
        arguments += ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"{TUNED}={model.tuned}"]
    return arguments


def refusal(request: LocalRequest) -> str | None:
    """Why vLLM could not answer with what this job makes; None where it can."""
    if request.device in ("cpu", "mps"):
        return f"vLLM runs on a CUDA GPU here, not on {request.device}; use engine: transformers"
    if request.tuning == "lora" and request.use_dora:
        return "vLLM loads no DoRA adapters; use engine: transformers, or use_dora: false"
    if request.tuning == "lora" and request.lora_r > RANKS[-1]:
        return f"vLLM loads adapters up to rank {RANKS[-1]}, not {request.lora_r}; use engine: transformers"
    return None


class VllmSampler:
    """Greedy answers through a vLLM server, started on the first use and ended, with all its processes, by `close`."""

    def __init__(self, model: SampleRequest, log: Path, *, load_seconds: float = LOAD_SECONDS) -> None:
        self._model, self._log, self._load_seconds = model, log, load_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None

    def generate(self, prompts: Sequence[Prompt], *, max_tokens: int, batch_size: int) -> Iterator[Completion]:
        """Yield one completion for each prompt as it comes; `batch_size` are asked at once.

        A prompt that is refused (too long, as a rule) becomes a completion with an `error`. Raises `MissingDependency` without
        vLLM, `ModelUnavailable` when it does not come up, `WorkerDied` when it dies while it answers.
        """
        if self._client is None:
            self._start()
        name = TUNED if self._model.tuned is not None else BASE
        pool = ThreadPoolExecutor(max_workers=max(1, batch_size), thread_name_prefix="vllm")
        try:
            futures = [pool.submit(self._ask, prompt, name, max_tokens) for prompt in prompts]
            for future in as_completed(futures):
                yield future.result()
        except httpx.TransportError as error:
            raise WorkerDied(f"vLLM gave no response ({type(error).__name__}).", hint=self._last_words()) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End the server and every process it started; the card's memory goes with them."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _start(self) -> None:
        from ftbridge.providers.local.models.find import find_model

        if shutil.which("vllm") is None:
            raise MissingDependency("local.engine: vllm needs vLLM, which is not on PATH.", hint="pip install vllm")
        request = self._model.request
        base = find_model(request.model, trust_remote_code=request.trust_remote_code).path
        port = _free_port()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        # A key in the environment would make the server ask for it.
        environment = {name: value for name, value in os.environ.items() if name != "VLLM_API_KEY"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command(self._model, base, port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=ANSWER_SECONDS,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
        )
        try:
            self._wait(client, self._process)
        except BaseException:
            client.close()
            self.close()
            raise
        self._client = client

    def _wait(self, client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
        give_up = time.monotonic() + self._load_seconds
        while True:
            if (status := process.poll()) is not None:
                raise ModelUnavailable(f"vLLM ended while loading (status {status}).", hint=self._last_words())
            with contextlib.suppress(httpx.TransportError):
                if client.get("/health", timeout=5).status_code == 200:
                    return
            if time.monotonic() > give_up:
                raise ModelUnavailable(
                    f"vLLM was not ready within {self._load_seconds:g} seconds.", hint=self._last_words()
                )
            time.sleep(0.1)

    def _ask(self, prompt: Prompt, name: str, max_tokens: int) -> Completion:
        body: dict[str, Any] = {
            "model": name,
            "messages": [
                message.model_dump(mode="json", exclude_unset=True, exclude={"weight"}) for message in prompt.messages
            ],
            "temperature": prompt.temperature or 0,
            "max_tokens": max_tokens,
        }
        if prompt.seed is not None:
            body["seed"] = prompt.seed
        if (thinking := self._model.request.thinking) != "auto":
            # The names under which chat templates have the switch; a template without one ignores them.
            body["chat_template_kwargs"] = {"enable_thinking": thinking == "on", "thinking": thinking == "on"}
        if prompt.tools:
            # "none" leaves the tools in the prompt and the answer as it was written, as our own sampler does.
            body |= {"tools": list(prompt.tools), "tool_choice": "none"}
        began = time.monotonic()
        assert self._client is not None
        response = ChatClient("/v1", self._client).send(body)
        if response.status_code != 200:
            return Completion(
                key=prompt.key, text="", finish_reason="error", prompt_tokens=0, completion_tokens=0,
                error=f"{response.status_code}: {response.text[:500]}",
            )  # fmt: skip
        reply = read_reply(response.json())
        return Completion(
            key=prompt.key,
            text=reply.text or "",
            reasoning_content=reply.reasoning,
            finish_reason=reply.finish_reason or "stop",
            prompt_tokens=reply.prompt_tokens or 0,
            completion_tokens=reply.completion_tokens or 0,
            seconds=round(time.monotonic() - began, 3),
        )

    def _last_words(self) -> str:
        tail = self._log.read_bytes()[-4000:].decode(errors="replace").strip().splitlines()[-_LOG_LINES:]
        return "\n".join(["vLLM needs a free CUDA GPU. The last lines of its log:", *tail, f"Log: {self._log}"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole process group to end, then make it; vLLM's engine is a child of its server."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)
