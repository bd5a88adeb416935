"""What a model says cannot steer a terminal, whichever command prints it."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from ftbridge.report.formats.tables import csv_text, junit_text, markdown_table
from ftbridge.report.terminal.console import SafeConsole, printable
from ftbridge.server import simulating

HOSTILE = {
    "clears the screen": "\x1b[2J\x1b[1;31mdone",
    "copies to the clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07done",
    "C1 sequence": "\x9b2Jdone",
    "goes back": "yes\rno \b\b",
    "other order": "a\u202edecba",
    "isolates": "a\u2066b\u2069",
    "half a character": "\ud83d done",
    "rings": "\x07\x07",
    "null and delete": "\x00\x7f",
}


def steering(text: str) -> set[str]:
    return {letter for letter in text if (ord(letter) < 0x20 and letter not in "\n\t") or 0x7F <= ord(letter) < 0xA0
            or "\u202a" <= letter <= "\u202e" or "\u2066" <= letter <= "\u2069" or "\ud800" <= letter <= "\udfff"}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_that_steers_is_printed_in_any_shape(text):
    stream = io.StringIO()
    console = SafeConsole(file=stream, color_system=None, width=60)
    table = Table("a", "b")
    table.add_row(text, Text(text))
    for part in (text, Text(text), table):
        console.print(part)
    assert steering(stream.getvalue()) == set()
    assert steering(csv_text(["a"], [[text]])) == set()
    assert steering(markdown_table(["a"], [[text]])) == set()
    junit_text("s", "c", [("x", text)]).encode()


def test_ordinary_text_of_every_script_is_left_alone():
    for text in ("naïve 退款 ไทย שלום مرحبا 👩‍👩‍👧 \u200d \u200c", "tab\there\nand line"):
        assert printable(text) == text


def test_colours_of_our_own_stay():
    stream = io.StringIO()
    SafeConsole(file=stream, force_terminal=True, color_system="standard").print(Text("x\x1b[2J", style="bold red"))
    assert "\x1b[1m" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()


def test_eval_at_a_real_terminal_shows_the_sequence_instead_of_obeying_it(tmp_path: Path):
    lines = [
        {"messages": [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"{n}"}]}
        for n in range(12)
    ]
    for name in ("train", "test"):
        shift = 0 if name == "train" else 100
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps(line).replace("Number ", f"Number {shift}") + "\n" for line in lines)
        )
    (tmp_path / "job.json").write_text(
        json.dumps(
            {
                "name": "n",
                "data": {"train": "train.jsonl", "test": "test.jsonl"},
                "model": {"openai": "gpt-4.1-mini-2025-04-14"},
            }
        )
    )
    with simulating({"speed": 50, "answers": [{"model": "*", "reply": "\x1b[2J\x1b]0;title\x07gone"}]}) as service:
        env = {
            **os.environ,
            "OPENAI_API_KEY": "sk-x",
            "OPENAI_BASE_URL": service.base_url,
            "TERM": "xterm",
            "FTBRIDGE_WAIT_SCALE": "0",
        }
        main, child = pty.openpty()
        words = [
            "eval",
            "job.json",
            "-c",
            "openai:gpt-4.1-mini-2025-04-14",
            "-c",
            f"{service.base_url}#gpt-4.1-mini-2025-04-14",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "ftbridge", *words], cwd=tmp_path, env=env, stdout=child, stderr=child
        )
        os.close(child)
        printed = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:
                break
            if not piece:
                break
            printed += piece
        assert process.wait(60) == 0, printed.decode(errors="replace")
    assert b"\x1b[2J" not in printed
    assert b"\x1b]0;title" not in printed
