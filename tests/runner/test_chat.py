"""`ftbridge chat`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ftbridge.errors import UsageError
from ftbridge.runner import drive
from ftbridge.runner.chat import open_chat
from ftbridge.runner.start import create_run
from ftbridge.server import simulating
from ftbridge.spec import SpecFile

BASE = "gpt-4.1-mini-2025-04-14"


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-talking")
    lines = [
        {"messages": [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(12)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    replies = [
        {"model": "ft:*", "match": r"Number (\d+)", "reply": r"It is \1."},
        {"model": "ft:*", "match": "again", "reply": "As I said."},
    ]
    with simulating({"speed": 50, "answers": replies}) as service:
        monkeypatch.setenv("OPENAI_BASE_URL", service.base_url)
        spec = {"name": "numbers", "data": {"train": str(tmp_path / "train.jsonl")}, "model": {"openai": BASE}}
        yield create_run(SpecFile.of(spec), "openai")


def test_a_conversation_goes_on_and_a_pipe_is_one_message(prepared):
    with pytest.raises(UsageError, match="no model yet"), open_chat(prepared):
        pass
    drive.drive(prepared)
    with open_chat(prepared, system="Be brief.") as talk:
        assert talk.say("Number 7?") == "It is 7."
        assert talk.say("Say it again.") == "As I said."
        assert [message.role for message in talk.messages] == ["system", "user", "assistant", "user", "assistant"]
    command = [sys.executable, "-m", "ftbridge", "chat", "latest"]
    result = subprocess.run(
        command, input="Number 3?\n", capture_output=True, text=True, timeout=60, env={**os.environ}, check=False
    )
    assert (result.returncode, result.stdout) == (0, "It is 3.\n"), result.stderr
    base = subprocess.run(
        [*command, "--base"], input="Number 3?", capture_output=True, text=True, timeout=60, check=False
    )
    assert base.stdout == "Number 3?\n"
