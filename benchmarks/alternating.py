"""Runs of several sides in turn, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def alternate(
    script: str | Path, sides: Sequence[str], arguments: Sequence[str], repeat: int
) -> dict[str, list[dict[str, float]]]:
    """Figures of `repeat` runs of each side, by side: `script one SIDE ARGUMENTS…` in turn, each in a process of its own.

    A run prints its figures as a JSON object on its last line. Raises `SystemExit` with the end of what a failed run printed.
    """
    figures: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(repeat):
        for side in sides:
            command = [sys.executable, str(script), "one", side, *arguments]
            process = subprocess.run(command, capture_output=True, text=True, check=False)
            if process.returncode:
                raise SystemExit(process.stderr[-3000:])
            figures[side].append(json.loads(process.stdout.strip().split("\n")[-1]))
    return figures
