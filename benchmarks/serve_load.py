"""Load on a server: so many streaming clients for so many seconds, each asking again as soon as it was answered.

    python benchmarks/serve_load.py simulate --clients 64 --seconds 60
    python benchmarks/serve_load.py serve --clients 16 --seconds 60 --model smollm2-135m-instruct

Prints one JSON document: answers, errors, seconds to the first and to the last piece (p50, p95), pieces a second, and the
memory of the server with its children before and after, in MiB (Linux).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

NAME = "gpt-4.1-mini-2025-04-14"
WORDS = " ".join(f"word{n}" for n in range(40))


def memory(root: int) -> float:
    """Resident memory of a process and all below it, in MiB."""
    parents: dict[int, int] = {}
    sizes: dict[int, float] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = dict(
                line.split(":", 1)
                for line in (entry / "status").read_text().splitlines()
                if line.startswith(("PPid", "VmRSS"))
            )
        except (OSError, ValueError):
            continue
        parents[int(entry.name)] = int(fields.get("PPid", "0"))
        sizes[int(entry.name)] = int(fields.get("VmRSS", "0 kB").split()[0]) / 1024
    below = {root}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return round(sum(sizes.get(pid, 0.0) for pid in below), 1)


async def ask(client: AsyncOpenAI, until: float, figures: dict[str, list[float]], tokens: int) -> None:
    """Ask until the time is up."""
    while time.monotonic() < until:
        began = time.monotonic()
        first, pieces, ended = None, 0, False
        try:
            stream = await client.chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": WORDS}], stream=True, max_tokens=tokens
            )
            async for piece in stream:
                first = first or time.monotonic() - began
                pieces += 1
                ended = bool(piece.choices and piece.choices[0].finish_reason)
            if not ended:
                raise EOFError("the stream ended before its completion did")
        except Exception as error:
            print(type(error).__name__, error, file=sys.stderr)
            figures["errors"].append(1)
            continue
        figures["first"].append(first or 0.0)
        figures["last"].append(time.monotonic() - began)
        figures["pieces"].append(pieces)


async def load(address: str, clients: int, seconds: float, tokens: int) -> dict[str, list[float]]:
    """What all clients measured."""
    figures: dict[str, list[float]] = {"first": [], "last": [], "pieces": [], "errors": []}
    async with AsyncOpenAI(base_url=address, api_key="any", max_retries=0, timeout=300) as client:
        await client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "warm"}], max_tokens=1)
        until = time.monotonic() + seconds
        await asyncio.gather(*(ask(client, until, figures, tokens) for _ in range(clients)))
    return figures


def spread(values: list[float]) -> dict[str, float] | None:
    """The median and the 95th percentile, in seconds; None without a completion."""
    if not values:
        return None
    cuts = statistics.quantiles(values, n=20) if len(values) > 1 else values * 19
    return {"p50": round(cuts[9], 3), "p95": round(cuts[18], 3)}


def main() -> None:
    """Start the server, load it, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("server", choices=["serve", "simulate"])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=32, help="Tokens of an answer, at most.")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="serve: the local model.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        more = ["--map", f"{NAME}={asked.model}", "--set", "quantization=none"] if asked.server == "serve" else []
        server = subprocess.Popen(
            [sys.executable, "-m", "ftbridge", asked.server, "--port", "0", "--json", "-q", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "FTBRIDGE_HOME": home},
        )
        assert server.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += server.stdout.readline()
        address: str = json.loads(text)["base_url"]
        asyncio.run(load(address, 1, 1, asked.tokens))
        before = memory(server.pid)
        began = time.monotonic()
        figures = asyncio.run(load(address, asked.clients, asked.seconds, asked.tokens))
        spent = time.monotonic() - began
        after = memory(server.pid)
        server.terminate()
        server.wait(60)
    told: dict[str, Any] = {
        "server": asked.server, "clients": asked.clients, "seconds": round(spent, 1),
        "cores": os.cpu_count(), "answers": len(figures["last"]), "errors": len(figures["errors"]),
        "first_piece_seconds": spread(figures["first"]), "whole_answer_seconds": spread(figures["last"]),
        "pieces_per_second": round(sum(figures["pieces"]) / spent, 1), "memory_mib": {"before": before, "after": after},
    }  # fmt: skip
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
