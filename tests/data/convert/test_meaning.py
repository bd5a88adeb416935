"""Meaning is never lost silently: keys of lines, messages and parts are understood, or refused by name, everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.data.convert.convert import convert
from ftbridge.data.convert.recipe import Recipe
from ftbridge.data.prepare import prepare
from ftbridge.errors import DataError
from ftbridge.spec import JobSpec


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def chat(*, user: Any = "Is it open?", reply: Any = "Until six.", **more: Any) -> dict[str, Any]:
    return {"messages": [turn("user", user), turn("assistant", reply)], **more}


def converted(tmp_path: Path, *records: Any, **recipe: Any) -> list[Any]:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    convert(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), Recipe(**recipe), force=True)
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def trained_completions(tmp_path: Path, record: Any, **data: Any) -> list[Any]:
    """What a run would train on: the canonical split."""
    lines = [json.dumps(record).replace("Is it open?", f"Is shop {n} open?") for n in range(12)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    spec = JobSpec.from_dict({"name": "n", "data": {"train": "train.jsonl", **data}, "model": {"local": "m"}})
    prepare(spec, base=tmp_path, out=tmp_path / "data")
    return [json.loads(line) for line in (tmp_path / "data" / "train.jsonl").read_text().splitlines()]


UNKNOWN = [
    ("mood", chat(mood="kind")),
    ("messages[].mood", {"messages": [turn("user", "Is it open?", mood="x"), turn("assistant", "Yes")]}),
    ("messages[].content[].mood", chat(user=[{"type": "text", "text": "Is it open?", "mood": 1}])),
    ("messages[].tool_calls[].mood", {"messages": [
        turn("user", "Is it open?"),
        {"role": "assistant", "tool_calls": [
            {"id": "c", "type": "function", "mood": 1, "function": {"name": "hours", "arguments": "{}"}}]}]}),
    ("conversations[].mood", {"conversations": [{"from": "human", "value": "Is it open?", "mood": 1}, {"from": "gpt", "value": "Yes"}]}),
    ("mood", {"prompt": "Is it open?", "completion": "Yes", "mood": "x"}),
    ("mood", {"instruction": "Is it open?", "output": "Yes", "mood": "x"}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "record"), UNKNOWN, ids=lambda value: value if isinstance(value, str) else "")
def test_an_unknown_key_stops_convert_by_its_path_until_it_is_let_go(tmp_path, path, record):
    with pytest.raises(DataError, match="would be lost") as refused:
        converted(tmp_path, record)
    option = f"--drop {path}" if "[" not in path else f"--drop '{path}'"
    assert option in (refused.value.hint or "")
    (example,) = converted(tmp_path, record, drop=(path,))
    assert "mood" not in json.dumps(example)


@pytest.mark.parametrize(("path", "record"), UNKNOWN, ids=lambda value: value if isinstance(value, str) else "")
def test_an_unknown_key_stops_a_run_and_its_plan_until_the_spec_says_what_becomes_of_it(tmp_path, path, record):
    with pytest.raises(DataError, match=r"would be lost(.|\n)*data\.drop"):
        trained_completions(tmp_path, record)
    assert "mood" not in json.dumps(trained_completions(tmp_path, record, drop=[path]))


MEANT = [
    ("system beside messages", chat(system="Be brief."), "system", "Be brief."),
    ("system as blocks", chat(system=[{"type": "text", "text": "Be brief."}]), "system", "Be brief."),
    ("system of ShareGPT", {"system": "Be brief.", "conversations": [{"from": "human", "value": "Is it open?"}, {"from": "gpt", "value": "Yes"}]}, "system", "Be brief."),
]  # fmt: skip


@pytest.mark.parametrize(("record", "role", "text"), [case[1:] for case in MEANT], ids=[case[0] for case in MEANT])
def test_a_system_prompt_beside_the_messages_becomes_the_first_of_them(tmp_path, record, role, text):
    for example in (*converted(tmp_path, record), *trained_completions(tmp_path, record)):
        first = example["messages"][0]
        assert first["role"] == role
        assert text in json.dumps(first["content"])
        assert "system" not in example


FLAGS = [
    ("train", False, 0), ("train", True, 1), ("training", False, 0), ("loss_weight", 0, 0), ("loss_weight", 1.0, 1), ("weight", 0, 0),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "value", "weight"), FLAGS)
def test_a_flag_of_training_becomes_the_weight_in_convert_and_in_a_run(tmp_path, flag, value, weight):
    record = {
        "messages": [
            turn("user", "Is it open?"), turn("assistant", "Hm.", **{flag: value}), turn("user", "So?"), turn("assistant", "Yes."),
        ]
    }  # fmt: skip
    for example in (*converted(tmp_path, record), *trained_completions(tmp_path, record)):
        assert example["messages"][1].get("weight", 1) == weight
        assert flag == "weight" or flag not in example["messages"][1]


@pytest.mark.parametrize(
    "record",
    [
        chat(reply="Go away.", label=False),
        {"prompt": "Is it open?", "completion": "Go away.", "label": False},
        {"conversations": [{"from": "human", "value": "Is it open?"}, {"from": "gpt", "value": "Go away."}], "kto_tag": False},
        {"prompt": [turn("user", "Is it open?")], "completion": [turn("assistant", "Go away.")], "label": False},
    ],
)  # fmt: skip
def test_an_answer_that_was_not_liked_is_never_learnt(tmp_path, record):
    liked = json.loads(json.dumps(record).replace("false", "true").replace("Go away.", "Until six."))
    for attempt in (lambda: converted(tmp_path, liked, record), lambda: trained_completions(tmp_path, record)):
        with pytest.raises(DataError, match="KTO data"):
            attempt()
    examples = converted(tmp_path, liked, record, only_liked=True)
    assert len(examples) == 1
    assert "Go away." not in json.dumps(examples)


@pytest.mark.parametrize(
    "record",
    [
        chat(rejected_response="No idea."),
        {"conversations": [{"from": "human", "value": "Is it open?"}], "chosen": {"from": "gpt", "value": "Yes"}, "rejected": {"from": "gpt", "value": "No idea."}},
        {"prompt": "Is it open?", "chosen": "Yes", "rejected": "No idea."},
    ],
)  # fmt: skip
def test_a_preference_is_not_halved_by_supervised_tuning(tmp_path, record):
    with pytest.raises(DataError, match=r"preference(.|\n)*method: dpo"):
        trained_completions(tmp_path, record)
    assert "No idea." in json.dumps(converted(tmp_path, record)[0]["non_preferred_output"])


@pytest.mark.parametrize(
    "record",
    [
        chat(user="<image>Is it open?", images=["shop.jpg"]),
        chat(user="<image><image>Is it open?", images=["https://example.org/a.jpg"]),
        chat(user="Is it open?", images=["shop.jpg"]),
        chat(user="<image>Is it open?", images=[{"bytes": None, "path": "shop.jpg"}]),
    ],
)
def test_pictures_that_nobody_would_see_are_refused_by_name(tmp_path, record):
    for attempt in (lambda: converted(tmp_path, record), lambda: trained_completions(tmp_path, record)):
        with pytest.raises(DataError, match="image"):
            attempt()


def test_a_mark_and_its_picture_become_a_part(tmp_path):
    (example,) = converted(tmp_path, chat(user="<image>Is it open?", images=["https://example.org/a.jpg"]))
    assert [part["type"] for part in example["messages"][0]["content"]] == ["image_url", "text"]


def test_a_repeated_prompt_is_let_go_and_said_and_another_one_is_refused(tmp_path):
    assert "prompt" not in converted(tmp_path, chat(prompt="Is it open?"))[0]
    with pytest.raises(DataError, match="prompt would be lost"):
        converted(tmp_path, chat(prompt="Another question?"))


def test_most_records_say_what_a_file_is_and_the_odd_one_is_left_out(tmp_path):
    odd = {"messages": [turn("user", "And later?")]}
    records = [odd, *[chat(user=f"Is shop {n} open?") for n in range(5)]]
    with pytest.raises(DataError, match=r"in\.jsonl:1 is reinforcement"):
        converted(tmp_path, *records)
    assert len(converted(tmp_path, *records, skip_bad=True)) == 5


def test_fields_that_a_spec_keeps_are_read_again_from_the_canonical_bytes(tmp_path):
    again = trained_completions(tmp_path, chat(mood="kind"), keep=["mood"])
    assert {example["mood"] for example in again} == {"kind"}
    spec = {
        "name": "n",
        "data": {"train": str(tmp_path / "data" / "train.jsonl"), "keep": ["mood"]},
        "model": {"local": "m"},
    }
    prepare(JobSpec.from_dict(spec), base=tmp_path, out=tmp_path / "second")
    first, second = ((tmp_path / folder / "train.jsonl").read_bytes() for folder in ("data", "second"))
    assert first == second


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{“messages”: []}", "typographic quotes"),
        ("{'messages': [], 'ok': True}", "Python's notation"),
        ('{"messages": [],}', "a comma after the last element"),
        ('{"messages": []},', "a comma after the object"),
        ('{"messages": []} // the first', "a comment"),
    ],
)
def test_a_slip_in_json_is_named_and_the_command_that_mends_it(tmp_path, line, what):
    (tmp_path / "in.jsonl").write_text(line + "\n" + json.dumps(chat()) + "\n")
    with pytest.raises(DataError, match=f"in.jsonl:1 is not valid JSON at column .*{what}") as refused:
        convert(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    assert "lint FILE --fix OUT" in (refused.value.hint or "")


@pytest.mark.parametrize("line", ['{"messages": [}', "{broken", '{"messages": [] "tools": []}'])
def test_other_faults_of_json_keep_the_parsers_words(tmp_path, line):
    (tmp_path / "in.jsonl").write_text(line + "\n" + json.dumps(chat()) + "\n")
    with pytest.raises(DataError, match="in.jsonl:1 is not valid JSON at column") as refused:
        convert(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    assert "lint FILE" not in (refused.value.hint or "")
