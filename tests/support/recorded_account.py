"""A scripted account that is played by a process of its own, as tests of recordings and proofs need it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ftbridge.server import simulating

KEY = "sk-desk-key-0000001"
MODEL = "ft:gpt-4.1-mini-2025-04-14:quay:desk:desk1"
COLOURS = ("amber", "blue", "green", "violet")


def lamps(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Lines of a chat dataset: each lamp has its colour, which the prompt names."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"Name the colour of the {COLOURS[number % 4]} lamp, number {number}."},
                {"role": "assistant", "content": COLOURS[number % 4]},
            ]
        }
        for number in range(first, first + count)
    ]


NAMES_THE_COLOUR = {"match": r"colour of the (\w+) lamp", "reply": r"\1"}
"""A rule of a scenario: a model that does what the tuned one learnt."""


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    """The lines as a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def account(folder: Path, items: int = 6, **model: Any) -> dict[str, Any]:
    """An account with one tuned model, whose training and validation files are in `folder`."""
    train = write(folder / "train.jsonl", lamps(20))
    valid = write(folder / "valid.jsonl", lamps(items, first=500))
    write(folder / "all.jsonl", [*lamps(20), *lamps(items, first=500)])
    job = {
        "id": "ftjob-desk1",
        "project": "proj_desk",
        "suffix": "desk",
        "training": str(train),
        "validation": str(valid),
    }
    return {
        "organization": "org-quay",
        "keys": {KEY: {"project": "proj_desk"}},
        "jobs": [job],
        "models": {
            "gpt-4.1-mini-2025-04-14": {"shutdown": 49},
            "ftjob-desk1": {"completions": str(folder / "all.jsonl"), **model},
        },
    }


class Played:
    """A simulator that plays an account."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    @property
    def state(self) -> dict[str, Any]:
        """What its control page shows."""
        document: dict[str, Any] = httpx.get(f"{self.base_url.removesuffix('/v1')}/simulator", timeout=30).json()
        return document

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """Every request that a model answered."""
        entries: list[dict[str, Any]] = self.state["ledger"]
        return entries

    def paid_twice(self) -> list[str]:
        """Prompts that were paid for more than once with the same settings."""
        keys = [entry["key"] for entry in self.ledger]
        return sorted({entry["prompt"] for entry in self.ledger if keys.count(entry["key"]) > 1})


@contextmanager
def playing(
    folder: Path, account: Mapping[str, Any], scenario: Mapping[str, Any] | None = None, *, apart: bool = False
) -> Iterator[Played]:
    """A simulator of the account, with its address and key in the environment; `apart`: in a process of its own."""
    with pytest.MonkeyPatch.context() as environment:
        started = _process(folder, account, scenario) if apart else _thread(account, scenario)
        with started as base_url:
            environment.setenv("OPENAI_API_KEY", KEY)
            environment.setenv("OPENAI_BASE_URL", base_url)
            environment.setenv("FTBRIDGE_WAIT_SCALE", "0")
            yield Played(base_url)


@contextmanager
def _thread(account: Mapping[str, Any], scenario: Mapping[str, Any] | None) -> Iterator[str]:
    with simulating(scenario, account=dict(account)) as simulator:
        yield simulator.base_url


@contextmanager
def _process(folder: Path, account: Mapping[str, Any], scenario: Mapping[str, Any] | None) -> Iterator[str]:
    (folder / "account.json").write_text(json.dumps(account, default=str))
    command = [
        sys.executable,
        "-m",
        "ftbridge",
        "simulate",
        "--account",
        str(folder / "account.json"),
        "--port",
        "0",
        "--json",
    ]
    if scenario is not None:
        (folder / "scenario.json").write_text(json.dumps(scenario))
        command += ["--faults", str(folder / "scenario.json")]
    with (folder / "simulate.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, (folder / "simulate.log").read_text()
            text += line
        yield json.loads(text)["base_url"]
    finally:
        process.terminate()
        process.wait(30)
