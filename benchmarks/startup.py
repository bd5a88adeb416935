"""How long `ftbridge --help` and `import ftbridge` take, against importing what they are made of.

    python benchmarks/startup.py

Prints medians of alternating runs, and the ratio to `python -c "import click, rich, pydantic"`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

SIDES = {
    "import click, rich, pydantic": [sys.executable, "-c", "import click, rich, pydantic"],
    "import ftbridge": [sys.executable, "-c", "import ftbridge"],
    "import ftbridge; ftbridge.run": [sys.executable, "-c", "import ftbridge; ftbridge.run"],
    "ftbridge --help": [sys.executable, "-m", "ftbridge", "--help"],
}


def main(repeat: int = 25) -> None:
    """Alternate the sides and print a Markdown table."""
    took: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(repeat):
        for name, command in SIDES.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            took[name].append(time.perf_counter() - began)
    first = statistics.median(took["import click, rich, pydantic"])
    print("| command | median | ratio |\n|---|---|---|")
    for name, times in took.items():
        median = statistics.median(times)
        print(f"| `{name}` | {median * 1000:.0f} ms | {median / first:.2f}x |")


if __name__ == "__main__":
    main()
