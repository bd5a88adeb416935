"""Replay prompts: ours are far from the retention questions, a file's are read, ordered by the seed, and held apart from the
other splits; the count of replay examples is the share that the spec names.
"""

from __future__ import annotations

import json
import re
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ftbridge.data.prepare import origin, prepare
from ftbridge.data.replay import prompts_needed, read_prompts, replay_count, replay_line, with_replay
from ftbridge.errors import DataError, UsageError
from ftbridge.evaluation.retention.questions import suite, write_questions
from ftbridge.runner.start import create_run
from ftbridge.spec import JobSpec, SpecFile
from ftbridge.spec.sections import ReplaySpec, RetentionSpec


def chat(question: str, completion: str | None = None) -> dict[str, Any]:
    end = [] if completion is None else [{"role": "assistant", "content": completion}]
    return {"messages": [{"role": "user", "content": question}, *end]}


def write(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def job(folder: Path, prompts: list[dict[str, Any]], **data: Any) -> JobSpec:
    write(folder / "train.jsonl", [chat(f"question {n}", f"answer {n}") for n in range(12)])
    write(folder / "prompts.jsonl", prompts)
    document = {"train": "train.jsonl", "replay": {"prompts": "prompts.jsonl"}, **data}
    return JobSpec.from_dict({"name": "t", "model": {"local": "m"}, "seed": 3, "data": document})


def texts(path: Path) -> list[str]:
    return [json.loads(line)["messages"][-1]["content"] for line in path.read_text().splitlines()]


# Our own prompts


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def runs(text: str, length: int) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1)}


def test_none_of_our_prompts_is_near_a_retention_question(tmp_path: Path) -> None:
    """No four words in a row are shared, at most a third of a question's threes, and no two are alike as a whole."""
    prompts = [item.example.messages[-1].text for item in read_prompts(ReplaySpec(), tmp_path, seed=1)]
    questions = [item["messages"][0]["content"] for item in suite()]
    assert len(prompts) > 200
    for question in questions:
        threes, fours = runs(question, 3), runs(question, 4)
        for prompt in prompts:
            assert not fours & runs(prompt, 4), (prompt, question)
            assert len(threes & runs(prompt, 3)) <= len(threes) / 3, (prompt, question)
            assert SequenceMatcher(None, words(prompt), words(question)).ratio() < 0.65, (prompt, question)


def test_our_prompts_come_in_an_order_of_the_seed(tmp_path: Path) -> None:
    first, again, other = ([item.origin for item in read_prompts(ReplaySpec(), tmp_path, seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other)
    assert first[0].startswith("ftbridge's replay prompts:")


# A file of the user's


def test_prompts_of_a_file_are_a_split_with_a_hash_and_origins(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    system = {"messages": [{"role": "system", "content": "Be brief."}, *chat("why?")["messages"]], "tools": tools}
    spec = job(tmp_path, [chat("how?"), {**chat("when?"), "note": 7}, chat("how?"), system])
    manifest = prepare(spec, base=tmp_path, out=tmp_path / "out")
    assert manifest.splits["replay"].examples == 3
    assert sorted(texts(tmp_path / "out" / "replay.jsonl")) == ["how?", "when?", "why?"]
    at = texts(tmp_path / "out" / "replay.jsonl").index("why?")
    line = json.loads((tmp_path / "out" / "replay.jsonl").read_text().splitlines()[at])
    assert line == system
    assert origin(tmp_path / "out", "replay")[at] == "prompts.jsonl:4"


def test_of_chats_with_answers_the_prompts_are_taken(tmp_path: Path) -> None:
    spec = job(tmp_path, [chat("how?", "so"), chat("when?", "now")])
    prepare(spec, base=tmp_path, out=tmp_path / "out")
    assert sorted(texts(tmp_path / "out" / "replay.jsonl")) == ["how?", "when?"]


PREFERENCE = {
    "input": chat("how?"),
    "preferred_output": [{"role": "assistant", "content": "a"}],
    "non_preferred_output": [{"role": "assistant", "content": "b"}],
}
ALONE = {"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]}


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        ([chat("question 3")], DataError, "data.replay: 1 example is also in the training data"),
        ([PREFERENCE], UsageError, "holds preferences"),
        ([ALONE], DataError, "prompts.jsonl:1 has no user message that a model could reply to"),
        ([{"messages": [{"role": "user", "content": None}]}], DataError, r"prompts.jsonl:1 messages\[0\].content"),
        ([], DataError, "prompts.jsonl is empty"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_its_place(
    tmp_path: Path, prompts: list[dict[str, Any]], error: type[Exception], message: str
) -> None:
    spec = job(tmp_path, prompts)
    with pytest.raises(error, match=message):
        prepare(spec, base=tmp_path, out=tmp_path / "out")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = job(tmp_path, [], replay={"prompts": "other.jsonl"})
    with pytest.raises(UsageError, match=r"other\.jsonl"):
        prepare(spec, base=tmp_path, out=tmp_path / "out")


def test_a_test_item_or_a_canary_is_never_replayed(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [chat("how?", "so")])
    spec = job(tmp_path, [chat("how?")], test="test.jsonl")
    with pytest.raises(DataError, match="data.test: 1 example is also replayed"):
        prepare(spec, base=tmp_path, out=tmp_path / "out")
    prepare(job(tmp_path, [chat("how?")]), base=tmp_path, out=tmp_path / "out")
    canaries = write(tmp_path / "canaries.jsonl", [chat("how?", "so")])
    settings = RetentionSpec(suite=False, canaries=str(canaries))
    with pytest.raises(DataError, match=r"asks what replay\.jsonl:1 trains"):
        write_questions(settings, tmp_path / "out" / "train.jsonl", tmp_path / "retention.jsonl")


def test_the_linter_of_a_run_looks_at_the_prompts_too(tmp_path: Path, home: Path) -> None:
    del home
    job(tmp_path, [chat("Why does my key not work? " + "sk-" + "proj-Zk3Q8vN1xT7bL5mW9cR2yH6dJ4sF0aGu"), chat("how?")])
    spec = {"name": "t", "data": {"train": "train.jsonl", "replay": {"prompts": "prompts.jsonl"}}}
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**spec, "model": {"local": "smollm2-135m-instruct"}}))
    notes = create_run(SpecFile.of(path), "local").state().data.notes
    assert any("api-key" in note for note in notes), notes
    assert not any("no-item-fields" in note or "few-examples" in note for note in notes)
    bad = {**chat("how?"), "tools": [{"type": "function", "function": {"name": 7}}]}
    write(tmp_path / "prompts.jsonl", [chat("when?"), bad])
    with pytest.raises(DataError, match=r"prompts\.jsonl:2 tools\[0\]\.function\.name"):
        create_run(SpecFile.of(path), "local")


# How many, and where


@pytest.mark.parametrize(("examples", "share", "count"), [(90, 0.1, 10), (297, 0.1, 33), (3, 0.05, 1), (40, 0.5, 40)])
def test_the_share_is_of_both_together(examples: int, share: float, count: int) -> None:
    assert replay_count(examples, share) == count
    assert prompts_needed(examples, 3, share, 1_000, mixed=True) == 3 * count
    assert prompts_needed(examples, 3, share, 1_000, mixed=False) == count
    assert prompts_needed(examples, 3, share, 2, mixed=True) == min(2, 3 * count)


def test_lines_of_one_file_are_spread_evenly() -> None:
    mixed = with_replay([f"t{n}" for n in range(12)], ["r0", "r1", "r2"])
    assert [line for line in mixed if line[0] == "t"] == [f"t{n}" for n in range(12)]
    assert [line for line in mixed if line[0] == "r"] == ["r0", "r1", "r2"]
    places = [index for index, line in enumerate(mixed) if line[0] == "r"]
    assert {after - before for before, after in pairwise(places)} == {5}


def test_a_line_holds_the_prompt_and_says_whether_its_completion_was_cut() -> None:
    complete, cut = (json.loads(replay_line(chat("how?"), {"content": "so"}, cut=cut)) for cut in (False, True))
    assert complete == chat("how?", "so")
    assert cut == {**complete, "cut": True}


@pytest.mark.parametrize(
    "replay", [{"share": 0}, {"share": 0.6}, {"share": 0.1, "prompt": "x"}, {"max_completion_tokens": 0}]
)
def test_a_share_or_key_that_means_nothing_is_refused(tmp_path: Path, replay: dict[str, Any]) -> None:
    from ftbridge.errors import SpecError

    with pytest.raises(SpecError, match=r"data\.replay"):
        job(tmp_path, [], replay=replay)
