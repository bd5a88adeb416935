"""What the OpenAI provider costs beside the service: answers in flight, and memory while uploading.

    pip install 'ftbridge[serve]' psutil
    python benchmarks/openai_provider.py [--items 500] [--megabytes 1000]

The other end is `ftbridge simulate` in a process of its own.

    answers    500 items against an endpoint that takes 100 ms for each, 32 in flight: the ideal is 500 / 32 x 100 ms. Beside it
               the loop that most scripts have, one question after the other.
    upload     a file of 1 GB: the peak memory of the uploading process, beside `client.files.create(file=open(path).read())`
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
from collections.abc import Iterator
from pathlib import Path

DELAY = 0.1
IN_FLIGHT = 32
MODEL = "gpt-4.1-mini-2025-04-14"

PEAK = """
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
"""
UPLOAD = """
import sys
from pathlib import Path
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.provider import OpenAIProvider
from ftbridge.providers.openai.request import OpenAIRequest
from ftbridge.providers.openai.jobs.upload import ensure_file
from ftbridge.providers.openai.client import connect
from ftbridge.providers.openai.lower import lower
from ftbridge.providers import resolve
from ftbridge.spec import JobSpec
spec = JobSpec.from_dict({"name": "b", "data": {"train": "t"}, "model": {"openai": "MODEL"}})
folder, path = Path(sys.argv[1]), Path(sys.argv[2])
request = OpenAIRequest.model_validate(lower(resolve(spec, 100, "openai")).request)
at = connect(request, folder)
at.client
before = peak()
ensure_file(at, Ledger(folder), path, "train")
print(before, peak())
""".replace("MODEL", MODEL)
NAIVE = """
import sys
from openai import OpenAI
client = OpenAI()
client.models.list()
before = peak()
client.files.create(file=("train.jsonl", open(sys.argv[2], "rb").read()), purpose="fine-tune")
print(before, peak())
"""


@contextlib.contextmanager
def simulated(folder: Path, scenario: dict[str, object]) -> Iterator[str]:
    """The address of a simulator in a process of its own."""
    path = folder / "scenario.json"
    path.write_text(json.dumps(scenario))
    command = [sys.executable, "-m", "ftbridge", "simulate", "--faults", str(path), "--port", "0", "--json", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        text += process.stdout.readline()
    try:
        yield json.loads(text)["base_url"]
    finally:
        process.terminate()
        process.wait(30)


def answers(items: int, folder: Path) -> None:
    """Time the sampler and the plain loop."""
    from ftbridge.data.examples import Message
    from ftbridge.providers import resolve
    from ftbridge.providers.base import Prompt
    from ftbridge.providers.openai.lower import lower
    from ftbridge.providers.openai.provider import OpenAIProvider
    from ftbridge.spec import JobSpec
    from ftbridge.spec.lowering import Lowering

    with simulated(folder, {"chat": {"first_token_seconds": DELAY}}) as url:
        os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-bench", "FTBRIDGE_HOME": str(folder / "home")}
        spec = JobSpec.from_dict({"name": "b", "data": {"train": "t"}, "model": {"openai": MODEL}})
        lowering: Lowering = lower(resolve(spec, 100, "openai"))
        prompts = [Prompt(key=str(n), messages=(Message(role="user", content=f"Item {n}?"),)) for n in range(items)]
        ideal = -(-items // IN_FLIGHT) * DELAY
        took = []
        for round_ in range(5):
            sampler = OpenAIProvider().sampler(lowering, None, folder / f"run-{round_}")
            begun = time.perf_counter()
            told = list(sampler.generate(prompts, max_tokens=8, batch_size=IN_FLIGHT))
            took.append(time.perf_counter() - begun)
            sampler.close()
            assert len(told) == items
        from openai import OpenAI

        client = OpenAI()
        begun = time.perf_counter()
        for n in range(40):
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": f"Item {n}?"}])
        loop = (time.perf_counter() - begun) / 40 * items
    median = statistics.median(took)
    print(
        f"answers   {items} items: {median:.2f} s, ideal {ideal:.2f} s ({median / ideal:.2f}x); one by one {loop:.1f} s"
    )


def upload(megabytes: int, folder: Path) -> None:
    """Measure the peak memory of both ways to upload."""
    path = folder / "train.jsonl"
    line = json.dumps(
        {"messages": [{"role": "user", "content": "x" * 900}, {"role": "assistant", "content": "y" * 100}]}
    )
    with path.open("w") as out:
        for n in range(megabytes * 1_000_000 // (len(line) + 12)):
            out.write(line.replace("xxxxxxxxxx", f"{n:010d}", 1) + "\n")
    with simulated(folder, {}) as url:
        env = {
            **os.environ,
            "OPENAI_BASE_URL": url,
            "OPENAI_API_KEY": "sk-bench",
            "FTBRIDGE_HOME": str(folder / "home"),
        }
        for name, code, size in (("ftbridge", UPLOAD, megabytes), ("files.create", NAIVE, min(megabytes, 500))):
            if size < megabytes:  # one request takes 512 MB at most
                with path.open("r+b") as stream:
                    stream.truncate(size * 1_000_000)
                    stream.seek(stream.tell())
                content = path.read_bytes()
                path.write_bytes(content[: content.rindex(b"\n") + 1])
                del content
            begun = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", PEAK + code, str(folder / name), str(path)],
                env=env,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            before, peak = (int(part) / 1024 for part in done.stdout.split())
            seconds = time.perf_counter() - begun
            print(
                f"upload    {name}, {size} MB: {seconds:.1f} s, peak {peak:.0f} MiB, {peak - before:.0f} above the start"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--megabytes", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        answers(asked.items, Path(folder))
        upload(asked.megabytes, Path(folder))


if __name__ == "__main__":
    main()
