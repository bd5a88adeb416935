"""`ftbridge eval`: candidates by name, answers kept by model and prompt, over HTTP against the simulator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import ftbridge
from ftbridge import files
from ftbridge.errors import DataError, ModelUnavailable, RunBusy, UsageError
from ftbridge.evaluation.baselines import read_passages, retrieval
from ftbridge.evaluation.candidate_names import RequestedCandidate, parse_candidate
from ftbridge.evaluation.items import load_items
from ftbridge.evaluation.search import searcher
from ftbridge.graders import GraderError
from ftbridge.runner import drive
from ftbridge.runner.start import create_run
from ftbridge.server import simulating
from ftbridge.spec import SpecFile

BASE, OTHER = "gpt-4.1-mini-2025-04-14", "gpt-4o-mini-2024-07-18"
CHATS = "POST /chat/completions"
ANSWERS = [
    {"model": "ft:*", "match": r"Number (\d+)\?", "reply": r"It is \1."},
    {"model": "gpt-4o*", "match": r"Number (\d+[02468])\?", "reply": r"It is \1."},
    {"model": "*", "reply": "No idea."},
]


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-evaluated")
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.02)
    with simulating({"speed": 50, "answers": ANSWERS}) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        yield running


def _lines(first, count):
    lines = [
        {"messages": [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(first, first + count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def spec(tmp_path):
    """The path of a job spec with 40 test items; keywords change its evaluation."""

    def evaluated(test=(100, 40), **evaluation):
        (tmp_path / "train.jsonl").write_text(_lines(0, 12))
        data = {"train": "train.jsonl"}
        if test is not None:
            (tmp_path / "test.jsonl").write_text(_lines(*test))
            data["test"] = "test.jsonl"
        by_name = {"name": "numbers", "data": data, "model": {"openai": BASE}, "evaluation": evaluation}
        (tmp_path / "job.json").write_text(json.dumps(by_name))
        return tmp_path / "job.json"

    return evaluated


def _run(path):
    started = create_run(SpecFile.of(path), "openai")
    drive.drive(started)
    return started


def _means(summary):
    return {name: scores["exact"].mean for name, scores in summary.candidates.items()}


def _chats(service):
    return service.requests.get(CHATS, 0)


def test_base_a_run_another_model_and_an_endpoint_answer_the_same_items(service, spec, monkeypatch):
    path = spec()
    run = _run(path)
    monkeypatch.setenv("FTBRIDGE_ENDPOINT_API_KEY", "sk-other")
    endpoint = f"{service.base_url}#{OTHER}"
    names = ["base", f"run:{run.id}", f"openai:{OTHER}", endpoint]
    result = ftbridge.evaluate(path, names)
    assert _means(result) == {"base": 0.0, names[1]: 1.0, names[2]: 0.5, endpoint: 0.5}
    assert list(result.verdicts) == [f"{name}-base" for name in names[1:]]
    assert all(by["exact"].verdict == "better" for by in result.verdicts.values())
    assert result.answered[names[1]].model == run.state().tuned.id
    assert result.answered["base"].p95_seconds > 0
    assert any("chat template, tokenizer and arithmetic" in note for note in result.notes)


def test_what_was_answered_once_is_not_asked_again_whatever_changes_around_it(service, spec):
    first = ftbridge.evaluate(spec(), ["base", f"openai:{OTHER}"])
    assert _chats(service) == 80
    again = ftbridge.evaluate(spec(), ["base", f"openai:{OTHER}"])
    assert (_chats(service), again) == (80, first)
    like = {
        "type": "string_check",
        "name": "has_it",
        "operation": "like",
        "input": "{{sample.output_text}}",
        "reference": "is",
    }
    changed = ftbridge.evaluate(spec(graders=[like]), [f"openai:{OTHER}", "base"])
    assert _chats(service) == 80
    assert changed.graders == ["has_it"]
    more = ftbridge.evaluate(spec(test=(90, 50)), ["base"])
    assert (_chats(service), more.items) == (90, 50)
    ftbridge.evaluate(spec(max_completion_tokens=9), ["base"])
    assert _chats(service) == 130
    ftbridge.evaluate(spec(), ["base"], fresh=True)
    assert _chats(service) == 170


def test_prompted_candidates_differ_by_their_prompts_alone(service, spec, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "numbers.md").write_text("A lamp is 104.\n\nNothing else.\n")
    names = ["base", "zero_shot", "few_shot", "retrieval"]
    result = ftbridge.evaluate(spec(), names, system="Answer as told.", documents=folder)
    tokens = {name: result.answered[name].prompt_tokens for name in names}
    assert tokens["base"] < tokens["zero_shot"] < tokens["few_shot"]
    assert tokens["base"] < tokens["retrieval"]
    assert _chats(service) == 4 * 40 - 39, "39 items find no passage, so their prompts are base's"
    with pytest.raises(UsageError, match="documents"):
        ftbridge.evaluate(spec(), ["retrieval"])


def test_an_evaluation_killed_half_way_generates_only_what_is_missing(service, spec):
    service.play({"chat": {"first_token_seconds": 0.1}, "answers": ANSWERS})
    command = [sys.executable, "-m", "ftbridge", "eval", str(spec(batch_size=2)), "-c", "base", "--json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ})
    deadline = time.monotonic() + 60
    while _chats(service) < 12:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    request = _chats(service)
    (stored,) = (files.home() / "answers").glob("*/answers.jsonl")
    completed = len(stored.read_bytes().splitlines())
    assert 8 <= completed < 40
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["items"] == 40
    assert _chats(service) - request <= 40 - completed + 2, "two were under way, and their answers were lost"


def test_the_command_prints_a_table_or_json_and_keeps_the_gate(service, spec):
    path = str(spec())

    def ask(*more):
        command = [sys.executable, "-m", "ftbridge", "eval", path, "-c", f"openai:{OTHER}", "-c", "base", *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    result = ask()
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"openai:{OTHER} is better than base on exact.\n")
    assert "40 items show a difference of" in result.stdout
    assert "50.0 %" in result.stdout
    assert "-50.0 [" in result.stdout
    assert f"base is worse than openai:{OTHER} on exact (-50.0 points" in " ".join(ask("-v").stdout.split())
    gated = ask("--margin", "0.02", "--json")
    assert gated.returncode == 4
    assert json.loads(gated.stdout)["verdicts"][f"base-openai:{OTHER}"]["exact"]["verdict"] == "worse"
    assert "the margin of 0.02 is not met by base on exact" in gated.stderr


def test_items_that_a_service_will_not_take_are_left_out_and_said(service, spec):
    service.play(
        {
            "answers": [{"model": "*", "match": r"Number (\d+)\?", "reply": r"It is \1."}],
            "faults": [{"on": CHATS, "nth": [3, 7], "status": 400, "code": "content_filter", "message": "flagged"}],
        }
    )
    result = ftbridge.evaluate(spec(batch_size=1), ["base"])
    score = result.candidates["base"]["exact"]
    assert (score.mean, score.n, score.missing) == (1.0, 38, 2)
    assert result.answered["base"].failed == 2
    assert any("flagged" in note for note in result.notes)
    again = ftbridge.evaluate(spec(batch_size=1), ["base"])
    assert (again.candidates["base"]["exact"].n, _chats(service)) == (40, 42)


def test_a_checkpoint_is_asked_by_its_step(service, spec):
    path = spec()
    run = _run(path)
    names = run.state().tuned.checkpoints
    step = int(names[-1].rpartition("-")[2])
    result = ftbridge.evaluate(path, ["base", f"checkpoint:{run.id}@{step}"])
    assert result.candidates[f"checkpoint:{run.id}@{step}"]["exact"].mean == 1.0
    assert result.answered[f"checkpoint:{run.id}@{step}"].model == names[-1]
    with pytest.raises(UsageError, match="no checkpoint of step 7777"):
        ftbridge.evaluate(path, [f"checkpoint:{run.id}@7777"])


def test_bad_names_and_specs_are_refused_before_anybody_is_asked(service, spec, tmp_path):
    path = spec()
    for names, message in [
        (["base", "nobody"], "no candidate 'nobody'"),
        (["base", "base"], "named twice"),
        (["base", "run:nothing"], "no run 'nothing'"),
        ([], "at least one"),
    ]:
        with pytest.raises(UsageError, match=message):
            ftbridge.evaluate(path, names)
    with pytest.raises(UsageError, match="no test items"):
        ftbridge.evaluate(spec(test=None), ["base"])
    with pytest.raises(DataError):
        ftbridge.evaluate(spec(test=(0, 0)), ["base"])
    missing = {"type": "string_check", "name": "x", "operation": "eq", "input": "{{item.topic}}", "reference": "is"}
    with pytest.raises(GraderError, match="topic"):
        ftbridge.evaluate(spec(graders=[missing]), ["base"])
    with pytest.raises(ModelUnavailable):
        ftbridge.evaluate(spec(), ["openai:gpt-unheard-of"])
    assert _chats(service) <= 32, "only the unknown model was asked for"


def test_two_evaluations_of_one_model_do_not_write_over_each_other(service, spec):
    from filelock import FileLock

    ftbridge.evaluate(spec(), ["base"])
    (folder,) = (files.home() / "answers").iterdir()
    with FileLock(folder / "lock"), pytest.raises(RunBusy, match="model of base"):
        ftbridge.evaluate(spec(), ["base"])


@pytest.mark.parametrize(
    ("name", "requested"),
    [
        ("base", RequestedCandidate("base", "base")),
        ("run:latest", RequestedCandidate("run:latest", "run", "latest")),
        ("checkpoint:a-b@40", RequestedCandidate("checkpoint:a-b@40", "checkpoint", "a-b", step=40)),
        ("openai:ft:gpt:org::1", RequestedCandidate("openai:ft:gpt:org::1", "openai", "ft:gpt:org::1")),
        ("local:owner/name", RequestedCandidate("local:owner/name", "local", "owner/name")),
        ("new=http://h/v1#m=2", RequestedCandidate("new", "endpoint", "http://h/v1", model="m=2")),
        ("v1.2-b=run:latest", RequestedCandidate("v1.2-b", "run", "latest")),
        ("openai:ft:a=b", RequestedCandidate("openai:ft:a=b", "openai", "ft:a=b")),
        (
            "http://h:8000/v1/#m#x",
            RequestedCandidate("http://h:8000/v1/#m#x", "endpoint", "http://h:8000/v1", model="m#x"),
        ),
    ],
)
def test_names_mean_who_answers(name, requested):
    assert parse_candidate(name) == requested


@pytest.mark.parametrize(
    "name", ["", "Base", "new=", "new=Base", "a b=base", "run:", "checkpoint:x", "checkpoint:x@", "checkpoint:@3", "http://h/v1", "https://#m", "https://u:p@h/v1#m", "ftp://h#m"],
)  # fmt: skip
def test_names_that_mean_nothing_are_refused(name):
    with pytest.raises(UsageError):
        parse_candidate(name)


def test_bm25_ranks_as_the_formula_says():
    passages = ["the red lamp", "a lamp, a red red lamp and more words here", "nothing of the kind"]
    search = searcher(passages)
    assert search("kind", 2) == [2]
    assert search("absent", 3) == []
    # By hand: both words are in two of three passages, so have the same idf; lengths 3, 10 and 4, mean 17 / 3.
    # Passage 0, once each: 2.2 / (1 + 1.2 (0.25 + 0.75 * 3 / 5.667)) = 1.238; passage 1, twice each: 4.4 / (2 + 1.888) = 1.132.
    assert search("red lamp", 3) == [0, 1]
    assert search("LAMP?", 1) == [0]


def test_passages_are_paragraphs_joined_up_to_a_length(tmp_path):
    words = " ".join(["word"] * 100)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.md").write_text(f"short one\n\nshort two\n\n{words}\n\n{words}\n")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "c.bin").write_bytes(b"\x00")
    passages = read_passages(tmp_path)
    assert passages[0] == "caf\ufffd"
    assert passages[1] == f"short one\nshort two\n{words}"
    assert passages[2] == words
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="contains no .md or .txt file with text"):
        read_passages(empty)


def test_passages_stand_at_the_end_of_the_system_message(tmp_path):
    (tmp_path / "a.md").write_text("A lamp is 5 euros.")
    messages = [{"role": "user", "content": "What is a lamp?"}, {"role": "assistant", "content": "5"}]
    test = tmp_path / "test.jsonl"
    lines = [{"messages": [{"role": "system", "content": "Be brief."}, *messages]}, {"messages": messages}]
    test.write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = (retrieval(tmp_path).prompt(item).messages for item in load_items(test))
    assert first[0].text == "Be brief.\n\nThese passages may help:\n\n[1] A lamp is 5 euros."
    assert second[0].text == "These passages may help:\n\n[1] A lamp is 5 euros."
    assert [len(first), len(second)] == [2, 2]
