"""How fast `ftbridge lint` is, against published checkers and token counters, side by side in one run.

    pip install ftbridge together parallelogram tiktoken
    python benchmarks/lint.py --repeat 5

The file is made of paragraphs of Python's standard library, always the same ones: chats of one or two questions. Sides
alternate, each in a process of its own that is timed from the call, imports aside; processes that the call starts count.
Prints medians and ratios as Markdown tables. Sides that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

OURS = """
from ftbridge.data.lint import Options, lint
run = lambda: lint(PATHS, Options(select=SELECT, jobs=2), roles=["train", "test"][:len(PATHS)])
"""
SIDES = {
    "structure only": {
        "ftbridge --select FTB0": OURS.replace("SELECT", "('FTB0',)").replace("PATHS", "[PATH]"),
        "together check_file": "from together.lib.utils.files import check_file\nrun = lambda: check_file(PATH)",
        "parallelogram check": "import subprocess, sys\nfrom pathlib import Path\n"
        "command = [str(Path(sys.executable).parent / 'parallelogram'), 'check', PATH]\n"
        "run = lambda: subprocess.run(command, capture_output=True)",
    },
    "everything on, with leakage against a test file": {
        "ftbridge": OURS.replace("SELECT", "()").replace("PATHS", "[PATH, OTHER]"),
    },
}
COUNTERS = {
    "toktok": "import toktok\nrun = lambda: sum(toktok.batch_count(TEXTS, 'o200k_base', threads=1))",
    "bpe-openai": "import bpe_openai\nencode = bpe_openai.get_encoding('o200k_base').encode_ordinary\n"
    "run = lambda: sum(len(encode(text)) for text in TEXTS)",
    "tiktoken": """
import bpe_openai, tiktoken, tiktoken.load
ours = bpe_openai.get_encoding('o200k_base')
# The vocabulary is downloaded by tiktoken; here its ranks come from a package that is installed.
ranks = {token: rank for rank, token in enumerate(ours.token_byte_values())}
encode = tiktoken.Encoding('o200k_base', pat_str=ours._pat_str, mergeable_ranks=ranks, special_tokens={}).encode_ordinary
run = lambda: sum(len(encode(text)) for text in TEXTS)
""",
}
_TIMED = """
import json, sys, time
PATH, OTHER, WARM = sys.argv[1:]
TEXTS = json.loads(open(OTHER).read()) if OTHER.endswith('.json') else []
{code}
run() if WARM == 'warm' else None
began = time.perf_counter()
said = run()
print('\\n' + json.dumps([time.perf_counter() - began, said if isinstance(said, int) else None]))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, other, texts = folder / "train.jsonl", folder / "test.jsonl", folder / "texts.json"
        write_chats(path, arguments.megabytes, seed=0)
        write_chats(other, arguments.megabytes / 20, seed=1)
        texts.write_text(json.dumps(rich_texts(path)))
        for title, sides in SIDES.items():
            size = path.stat().st_size + (other.stat().st_size if "leakage" in title else 0)
            table(f"{title} ({size / 1e6:,.0f} MB)", measure(sides, path, other, arguments.repeat), size)
        size = sum(len(text.encode()) for text in json.loads(texts.read_text()))
        counts = measure(COUNTERS, path, texts, arguments.repeat, "warm")
        table(f"exact tokens of Unicode-rich text, one thread ({size / 1e6:,.0f} MB)", counts, size)
        print(f"First finding of the large file: {first_finding(path):.2f} s after the command.")


def write_chats(path: Path, megabytes: float, seed: int) -> None:
    """Chats of paragraphs of the standard library's sources; the fiftieth of them has an error."""
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = "\n".join(source.read_text("utf-8", "ignore") for source in sources)
    paragraphs = [part.strip() for part in text.split("\n\n") if 60 < len(part) < 600]
    draw = random.Random(seed)
    size = lines = 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            messages: list[dict[str, object]] = [{"role": "system", "content": "You review Python code."}]
            for _ in range(draw.choice([1, 1, 1, 2])):
                messages.append({"role": "user", "content": draw.choice(paragraphs)})
                messages.append({"role": "assistant", "content": "\n\n".join(draw.sample(paragraphs, 2))})
            lines += 1
            if lines == 50:
                messages[1]["content"] = None
            size += file.write(json.dumps({"messages": messages}) + "\n")


def rich_texts(path: Path) -> list[str]:
    """Texts of the file, with stretches of other scripts and signs between their words."""
    draw = random.Random(2)
    scripts = [(0x410, 0x44F), (0x4E00, 0x9FA5), (0x3041, 0x3096), (0x620, 0x64A), (0x905, 0x939), (0x1F600, 0x1F64F)]
    texts = []
    with path.open(encoding="utf-8") as file:
        for line, _ in zip(file, range(10_000), strict=False):
            low, high = draw.choice(scripts)
            foreign = "".join(chr(draw.randint(low, high)) for _ in range(draw.randint(20, 200)))
            texts.append(f"{json.loads(line)['messages'][-1]['content']} {foreign} \N{COMBINING ACUTE ACCENT}é\u2028 ₿")
    return texts


def measure(
    sides: dict[str, str], path: Path, other: Path, repeat: int, warm: str = ""
) -> dict[str, list[list[float]]]:
    """[seconds, count] of each run of each side, alternating."""
    took: dict[str, list[list[float]]] = {}
    for _ in range(repeat):
        for name, code in sides.items():
            command = [sys.executable, "-c", _TIMED.format(code=code.strip()), path, other, warm]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            took.setdefault(name, []).append(json.loads(done.stdout.strip().splitlines()[-1]))
    return took


def table(title: str, took: dict[str, list[list[float]]], size: int) -> None:
    """Medians, speeds, and the ratio to the first side."""
    print(f"\n### {title}\n\n| side | median | MB/s | ratio of ours | result |\n|---|---|---|---|---|")
    medians = {name: statistics.median(seconds for seconds, _ in runs) for name, runs in took.items()}
    ours = next(iter(medians.values()))
    for name, median in medians.items():
        result = took[name][0][1]
        told = "" if result is None else f"{result:,} tokens"
        print(f"| {name} | {median:.2f} s | {size / 1e6 / median:,.1f} | {median / ours:.2f}x | {told} |")


def first_finding(path: Path) -> float:
    """Seconds from the start of the command to the first line of its report."""
    command = [sys.executable, "-u", "-m", "ftbridge", "lint", "--jobs", "2", str(path)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "NO_COLOR": "1"})
    assert process.stdout
    while b"FTB" not in process.stdout.readline():
        pass
    took = time.perf_counter() - began
    process.kill()
    process.wait()
    return took


if __name__ == "__main__":
    main()
