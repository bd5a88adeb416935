"""Linting against other checkers: the same generated chat file, side by side in one run.

    pip install 'ftbridge[bench]' together parallelogram
    python benchmarks/lint.py --megabytes 100 --repeat 5

Prints a Markdown table: median seconds, MB/s, and the ratio to Together's `check_file`, which checks structure only. Each
measurement is a process of its own that imports first and then times the check alone; ours includes starting its worker
processes. The sides alternate. The file is seeded: paragraphs of Python's standard library as chats of one or two
exchanges with one system message, about 950 bytes a line; `--memory GIGABYTES` measures the peak memory of all processes
together on a file of that size instead.

Sides: structure (ftbridge lint --select FTB0) · everything (all rules, exact tokens, near duplicates, leakage against a
second file of 5 MB) · together (check_file) · parallelogram (check: schema, roles, exact duplicates, approximate length).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib import metadata
from pathlib import Path

SIDES = ("structure", "together", "everything", "parallelogram")
JOBS = 2
_OURS = """
import sys, time, json
from ftbridge.data.lint.engine import Linting, Options
select, jobs, paths = sys.argv[1].split(",") if sys.argv[1] else [], int(sys.argv[2]), sys.argv[3:]
options = Options(method="supervised", select=tuple(select), jobs=jobs)
begun, first = time.perf_counter(), None
with Linting(paths, options, roles=["train", "test"][: len(paths)]) as linting:
    for _ in linting:
        first = first or time.perf_counter() - begun
    report = linting.report()
print(json.dumps({"seconds": time.perf_counter() - begun, "first": first, "examples": report.files[0].examples}))
"""
_TOGETHER = """
import sys, time, json
from together.lib.utils.files import check_file
begun = time.perf_counter()
found = check_file(sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - begun, "examples": found["num_samples"]}))
"""
_PARALLELOGRAM = """
import sys, time, json, contextlib, io
from typer.testing import CliRunner
from parallelogram.cli import app
begun = time.perf_counter()
result = CliRunner().invoke(app, ["check", sys.argv[1]])
print(json.dumps({"seconds": time.perf_counter() - begun, "examples": result.exit_code}))
"""


def main() -> None:
    """Generate, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--memory", type=float, metavar="GIGABYTES")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.memory:
            print(memory(Path(folder), asked.memory))
        else:
            speed(Path(folder), asked.megabytes, asked.sides.split(","), asked.repeat)


def speed(folder: Path, megabytes: float, sides: list[str], repeat: int) -> None:
    """Run every side `repeat` times, alternating, and print medians and ratios."""
    train, test = folder / "train.jsonl", folder / "test.jsonl"
    write_chats(train, megabytes * 1e6, seed=0, bad_line=50)
    write_chats(test, 5e6, seed=1)
    size = train.stat().st_size / 1e6
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    first: list[float] = []
    for _ in range(repeat):
        for side in sides:
            told = run(side, train, test)
            seconds[side].append(told["seconds"])
            if side == "everything":
                first.append(told["first"])
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, "
          f"{versions(sides)}; {size:.0f} MB, medians of {repeat}, {JOBS} processes for ftbridge\n")  # fmt: skip
    print("| side | seconds | MB/s | against together |\n|---|---|---|---|")
    for side in sides:
        ratios = [theirs / ours for ours, theirs in zip(seconds[side], seconds.get("together", []), strict=False)]
        ratio = f"{statistics.median(ratios):.2f}x" if ratios else ""
        median = statistics.median(seconds[side])
        bytes_read = size + (test.stat().st_size / 1e6 if side == "everything" else 0)
        print(f"| {side} | {median:.2f} | {bytes_read / median:.0f} | {ratio} |")
    if first:
        print(f"\nThe first finding (line 50) came after {statistics.median(first):.2f} s with everything on.")


def run(side: str, train: Path, test: Path) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = {
        "structure": [_OURS, "FTB0", str(JOBS), str(train)],
        "everything": [_OURS, "", str(JOBS), str(train), str(test)],
        "together": [_TOGETHER, str(train)],
        "parallelogram": [_PARALLELOGRAM, str(train)],
    }[side]
    done = subprocess.run([sys.executable, "-c", *command], capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def memory(folder: Path, gigabytes: float) -> str:
    """The most memory that all processes together held (proportional set size), linting a file of this size."""
    import psutil

    path = folder / "large.jsonl"
    write_chats(folder / "part.jsonl", 200e6, seed=0)
    part = (folder / "part.jsonl").read_bytes()
    with path.open("wb") as target:
        for _ in range(max(1, round(gigabytes * 1e9 / len(part)))):
            target.write(part)
    del part
    begun = time.perf_counter()
    process = psutil.Popen([sys.executable, "-c", _OURS, "", str(JOBS), str(path)], stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        held = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                held += one.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        peak = max(peak, held)
        time.sleep(0.2)
    size = path.stat().st_size / 1e9
    return f"{size:.1f} GB with everything on: at most {peak / 1e6:.0f} MB in all processes, {time.perf_counter() - begun:.0f} s"


def write_chats(path: Path, size: float, *, seed: int, bad_line: int | None = None) -> None:
    """A chat file of about `size` bytes; `bad_line` has a message without content."""
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = "\n".join(source.read_text("utf-8", "ignore") for source in sources)
    paragraphs = [part.strip() for part in text.split("\n\n") if 60 < len(part) < 600]
    draw, written, line = random.Random(seed), 0, 0
    with path.open("w", encoding="utf-8") as target:
        while written < size:
            line += 1
            messages = [{"role": "system", "content": "You are a helpful reviewer of Python code."}]
            for _ in range(draw.choice([1, 1, 1, 2])):
                messages.append({"role": "user", "content": "\n\n".join(draw.sample(paragraphs, 2))})
                answer = None if line == bad_line else "\n\n".join(draw.sample(paragraphs, 2))
                messages.append({"role": "assistant", "content": answer})  # type: ignore[dict-item]
            written += target.write(json.dumps({"messages": messages}) + "\n")


def versions(sides: list[str]) -> str:
    """The versions of what is compared."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in ("ftbridge", *sides) if name in ("ftbridge", "together", "parallelogram"))


if __name__ == "__main__":
    main()
