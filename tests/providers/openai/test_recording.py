"""Record a run, and play it again without the service: the same results, and no key anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ftbridge.errors import UsageError
from ftbridge.server import simulating
from ftbridge.server.simulator.replay import Exchange

BASE = "gpt-4.1-mini-2025-04-14"
SECRET = "sk-planted-recording-77c1"


def lines(first: int, count: int) -> str:
    messages = [
        {"messages": [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(first, first + count)
    ]
    return "".join(json.dumps(line) + "\n" for line in messages)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines(0, 12))
    (tmp_path / "test.jsonl").write_text(lines(100, 6))
    spec = {"name": "numbers", "data": {"train": "train.jsonl", "test": "test.jsonl"}, "model": {"openai": BASE}}
    path = tmp_path / "job.json"
    path.write_text(json.dumps(spec))
    return path


def run(job: Path, url: str, home: Path, *more: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "ftbridge", "run", str(job), "--provider", "openai", "--json", *more],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": url, "FTBRIDGE_HOME": str(home), "FTBRIDGE_WAIT_SCALE": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_recorded_run_is_played_again_without_the_service(job, tmp_path):
    scenario = {
        "speed": 20,
        "answers": [{"model": "ft:*", "match": r"Number (\d+)\?", "reply": r"It is \1."}],
        "faults": [
            {"on": "GET /fine_tuning/jobs/{id}", "nth": 2, "status": 503},
            {"on": "POST /chat/completions", "nth": 3, "status": 500, "message": f"your key {SECRET} is fine"},
        ],
    }
    with simulating(scenario) as service:
        first = run(job, service.base_url, tmp_path / "first", "--record")
    exchange = Path(first["path"]) / "openai" / "exchange.jsonl"
    text = exchange.read_text()
    assert SECRET not in text
    assert "[key]" in text
    messages = [json.loads(line) for line in text.splitlines()]
    assert {"GET", "POST"} == {entry["request"]["method"] for entry in messages}
    uploads = [
        entry["request"]
        for entry in messages
        if entry["request"]["path"].endswith("/files") and entry["request"]["method"] == "POST"
    ]
    assert [upload["body"] for upload in uploads] == [None]
    assert uploads[0]["bytes"] > 500
    assert 503 in [entry["response"]["status"] for entry in messages]

    playing = subprocess.Popen(
        [sys.executable, "-m", "ftbridge", "simulate", "--replay", str(exchange), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert playing.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            text += playing.stdout.readline()
        again = run(job, json.loads(text)["base_url"], tmp_path / "second")
    finally:
        playing.send_signal(signal.SIGTERM)
        playing.wait(20)
    assert again["model"]["tuned"] == first["model"]["tuned"]
    assert again["evaluation"]["candidates"] == first["evaluation"]["candidates"]
    assert again["evaluation"]["candidates"]["tuned"]["exact"]["mean"] == 1.0
    assert not (Path(again["path"]) / "openai" / "exchange.jsonl").exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_what_is_no_recording_is_misuse(tmp_path):
    path = tmp_path / "exchange.jsonl"
    with pytest.raises(UsageError, match="cannot be read"):
        Exchange(path)
    path.write_text("")
    with pytest.raises(UsageError, match="no exchange"):
        Exchange(path)
    good = json.dumps(
        {
            "request": {"method": "GET", "path": "/v1/models", "body": None},
            "response": {"status": 200, "headers": {}, "body": {}},
        }
    )
    path.write_text(f"nonsense\n{good}\n")
    with pytest.raises(UsageError, match=r"exchange\.jsonl:1"):
        Exchange(path)
    path.write_text(f'{good}\n{{"torn')
    assert Exchange(path).requests == 1
