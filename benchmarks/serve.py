"""What `ftbridge serve` costs beside the local provider's own sampler, and what it gives to many clients at once.

    python benchmarks/serve.py [--rounds 7] [--tokens 48]

Both sides run the same model in processes of their own, alternate, and answer the same prompts greedily. Prints medians.

    one answer        the sampler, asked one prompt at a time     against POST /v1/chat/completions
    32 clients        tokens a second of 32 clients together      against one client alone
    two adapters      requests that alternate between two tuned models, against the same number to one of them
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from openai import OpenAI

from ftbridge.data.examples import Message
from ftbridge.providers.base import Prompt
from ftbridge.providers.local.inference.sampler import LocalSampler
from ftbridge.providers.local.request import SampleRequest
from ftbridge.server.local.spec import base_request

MODEL = "smollm2-135m-instruct"
SETTINGS = {"quantization": "none", "precision": "fp32"}
TOPICS = ("tides", "bread", "glaciers", "violins", "honey bees", "maps", "salt", "bridges")


def prompt(number: int) -> str:
    """Prompts that differ and lead to long answers."""
    return f"Write a long story, number {number}, about {TOPICS[number % len(TOPICS)]} and the sea."


@contextlib.contextmanager
def served(folder: Path) -> Iterator[OpenAI]:
    """A server of its own process, and a client."""
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    process = subprocess.Popen(
        [sys.executable, "-m", "ftbridge", "serve", "--model", MODEL, "--port", "0", "--json", "--quiet", *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "FTBRIDGE_HOME": str(folder)},
    )
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        text += process.stdout.readline()
    try:
        yield OpenAI(base_url=json.loads(text)["base_url"], api_key="any", max_retries=0, timeout=600)
    finally:
        process.terminate()
        process.wait(60)


def tuned(client: OpenAI, name: str) -> str:
    """A model tuned for one step: what matters is that it is another adapter."""
    lines = [
        {"messages": [{"role": "user", "content": f"{name} {n}"}, {"role": "assistant", "content": f"{n} {name}"}]}
        for n in range(10)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("t.jsonl", content), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=file.id, suffix=name, hyperparameters={"n_epochs": 1, "batch_size": 10}
    )
    while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in ("succeeded", "failed"):
        time.sleep(0.5)
    assert job.fine_tuned_model is not None, job.error
    return job.fine_tuned_model


def ask(client: OpenAI, model: str, number: int, tokens: int) -> int:
    """One answer; its tokens."""
    done = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt(number)}], temperature=0, max_tokens=tokens
    )
    assert done.usage is not None
    return done.usage.completion_tokens


def sample(sampler: LocalSampler, number: int, tokens: int) -> int:
    """The same answer from the sampler."""
    asked = Prompt(key="a", messages=(Message(role="user", content=prompt(number)),))
    return sum(told.completion_tokens for told in sampler.generate([asked], max_tokens=tokens, batch_size=1))


def timed(work: Callable[[], int]) -> tuple[float, int]:
    """Seconds and tokens of a piece of work."""
    began = time.perf_counter()
    tokens = work()
    return time.perf_counter() - began, tokens


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=48)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as client:
        sampler = LocalSampler(SampleRequest(request=base_request(MODEL, SETTINGS), tuned=None), Path(folder) / "log")
        ask(client, MODEL, 0, 4)
        sample(sampler, 0, 4)
        ours, theirs = [], []
        for number in range(asked.rounds):
            seconds, tokens = timed(partial(sample, sampler, number, asked.tokens))
            theirs.append(seconds / tokens)
            seconds, tokens = timed(partial(ask, client, MODEL, number, asked.tokens))
            ours.append(seconds / tokens)
        sampler.close()
        a, b = statistics.median(ours), statistics.median(theirs)
        print(f"one answer      serve {1000 * a:.1f} ms a token, sampler {1000 * b:.1f} ms: {a / b:.2f}x")

        alone, together = [], []
        for _ in range(3):
            seconds, tokens = timed(lambda: sum(ask(client, MODEL, n, asked.tokens) for n in range(4)))
            alone.append(tokens / seconds)
            with ThreadPoolExecutor(32) as pool:
                seconds, tokens = timed(lambda: sum(pool.map(lambda n: ask(client, MODEL, n, asked.tokens), range(64))))
            together.append(tokens / seconds)
        a, b = statistics.median(together), statistics.median(alone)
        print(f"32 clients      {a:.0f} tokens a second, one client {b:.0f}: {a / b:.1f}x")

        pair = [tuned(client, "first"), tuned(client, "second")]
        for model in pair:
            ask(client, model, 0, 4)
        same, mixed = [], []
        for _ in range(3):
            seconds, tokens = timed(lambda: sum(ask(client, pair[0], n, 16) for n in range(10)))
            same.append(seconds / tokens)
            seconds, tokens = timed(lambda: sum(ask(client, pair[n % 2], n, 16) for n in range(10)))
            mixed.append(seconds / tokens)
        a, b = statistics.median(mixed), statistics.median(same)
        print(f"two adapters    {1000 * a:.1f} ms a token in turns, {1000 * b:.1f} ms one alone: {a / b:.2f}x")


if __name__ == "__main__":
    main()
