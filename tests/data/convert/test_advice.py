"""What `convert` advises can be followed, in a plan too; and what would train bad or lost data is said first."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ftbridge
from ftbridge.cli.convert import command
from ftbridge.data.convert.convert import Converted, convert
from ftbridge.data.convert.recipe import Recipe
from ftbridge.data.lint import METHOD_ALIASES
from ftbridge.data.prepare import prepare
from ftbridge.errors import DataError, FtbridgeError, UsageError
from ftbridge.spec import JobSpec

CHAT = {"messages": [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Until six."}]}
PAIR = {"prompt": "Open?", "completion": "Until six."}
SHARED = {"conversations": [{"from": "human", "value": "Open?"}, {"from": "gpt", "value": "Until six."}]}


def converted(tmp_path: Path, *records: Any, name: str = "in.jsonl", **recipe: Any) -> Converted:
    (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return convert(str(tmp_path / name), str(tmp_path / "out.jsonl"), Recipe(**recipe), force=True)


def plan_problem(tmp_path: Path, content: bytes, name: str = "train.jsonl") -> str:
    """What a run says of a file that it refuses."""
    (tmp_path / name).write_bytes(content)
    spec = JobSpec.from_dict({"name": "n", "data": {"train": name}, "model": {"local": "m"}})
    with pytest.raises(FtbridgeError) as refused:
        prepare(spec, base=tmp_path, out=tmp_path / "data")
    return f"{refused.value} {refused.value.hint or ''}"


# Arguments of the SDK


@pytest.mark.parametrize(
    "arguments",
    [{"method": "SUPERVISED"}, {"method": "banana"}, {"target": "opnai"}, {"roles": ["training"]}, {"roles": "test"}],
    ids=str,
)
def test_lint_refuses_an_argument_that_is_none_of_its_choices(tmp_path, arguments):
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=str(next(iter(arguments)))) as refused:
        ftbridge.lint(tmp_path / "bad.jsonl", **arguments)
    assert "Use one of" in (refused.value.hint or "")


@pytest.mark.parametrize("method", ["supervised", "dpo", "reinforcement", *METHOD_ALIASES])
def test_lint_takes_every_method_that_the_command_takes(tmp_path, method):
    (tmp_path / "bad.jsonl").write_text("{}\n")
    assert not ftbridge.lint(tmp_path / "bad.jsonl", method=method).ok


def test_lint_of_no_files_and_of_too_many_roles_is_misuse(tmp_path):
    with pytest.raises(UsageError, match="nothing to lint"):
        ftbridge.lint([])
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="roles has 2"):
        ftbridge.lint(tmp_path / "a.jsonl", roles=["train", "test"])


@pytest.mark.parametrize("arguments", [{"shape": "chats"}, {"to": "banana"}, {"to": "gemini"}], ids=str)
def test_convert_refuses_a_shape_that_there_is_not(tmp_path, arguments):
    (tmp_path / "in.jsonl").write_text(json.dumps(CHAT) + "\n")
    with pytest.raises(UsageError, match="is not known") as refused:
        ftbridge.convert(tmp_path / "in.jsonl", tmp_path / "out.jsonl", **arguments)
    assert "chat" in (refused.value.hint or "")


# One object with several lists


@pytest.mark.parametrize(
    "document",
    [
        {"train": [CHAT] * 12, "test": [CHAT]},
        {"train": [{"q": 1}] * 12, "test": [{"q": 2}]},
        {"data": [PAIR] * 12, "more": [PAIR]},
        {"data": [{"q": 1}] * 12, "more": [{"q": 2}]},
        {"train": [CHAT] * 12, "validation": ["text"]},
    ],
    ids=lambda document: " ".join(document),
)
def test_an_object_with_several_lists_is_refused_and_the_lists_are_named(tmp_path, document):
    text = json.dumps(document).encode()
    first, second = document
    says = f"several lists of examples: {first} with 12, {second} with 1"
    (tmp_path / "in.json").write_bytes(text)
    with pytest.raises(DataError, match=says):
        convert(str(tmp_path / "in.json"), str(tmp_path / "out.jsonl"), Recipe(columns=(("prompt", "q"),)))
    assert says in plan_problem(tmp_path, text, "in.json")


@pytest.mark.parametrize("rest", [{"test": []}, {"columns": [{"name": "messages"}]}, {"tags": ["a"]}], ids=str)
def test_a_list_that_holds_no_examples_is_of_the_file(tmp_path, rest):
    (tmp_path / "in.json").write_text(json.dumps({"train": [CHAT] * 2, **rest}))
    assert convert(str(tmp_path / "in.json"), str(tmp_path / "out.jsonl")).examples == 2


# Advice


def test_only_endings_that_are_written_are_advised(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps(CHAT) + "\n")
    with pytest.raises(UsageError) as refused:
        convert(str(tmp_path / "in.jsonl"), str(tmp_path / "out.xlsx"))
    assert ".xlsx" not in (refused.value.hint or "")
    assert ".parquet" in (refused.value.hint or "")


def test_a_column_is_found_by_its_name_with_the_spaces_of_its_header(tmp_path):
    (tmp_path / "in.csv").write_text("question ,completion \nOpen?,Until six.\n")
    columns = (("prompt", "question "), ("completion", "completion "))
    assert convert(str(tmp_path / "in.csv"), str(tmp_path / "out.jsonl"), Recipe(columns=columns)).examples == 1


TABLES = {
    "pandas columns": {"prompt": {"0": "a", "1": "b"}, "completion": {"0": "c", "1": "d"}},
    "lists": {"prompt": ["a", "b"], "completion": ["c", "d"]},
    "split": {"columns": ["prompt", "completion"], "index": [0], "data": [["a", "b"]]},
    "index": {"0": PAIR, "1": PAIR},
}


@pytest.mark.parametrize("document", TABLES.values(), ids=TABLES.keys())
def test_a_table_in_one_object_is_named_with_how_to_write_records(tmp_path, document):
    (tmp_path / "in.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="a table in one object") as refused:
        convert(str(tmp_path / "in.json"), str(tmp_path / "out.jsonl"))
    assert "orient='records'" in (refused.value.hint or "")


def test_a_tar_archive_is_named(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps(CHAT) + "\n")
    with tarfile.open(tmp_path / "in.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in.jsonl", "in.jsonl")
    with pytest.raises(DataError, match="is a tar archive"):
        convert(str(tmp_path / "in.tar.gz"), str(tmp_path / "out.jsonl"))


def test_lines_that_were_encoded_twice_are_called_that(tmp_path):
    with pytest.raises(DataError, match="encoded twice"):
        converted(tmp_path, json.dumps(CHAT), json.dumps(CHAT))


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (json.dumps({**PAIR, "label": True}).encode(), "train.jsonl", "ftbridge convert … --only-liked"),
        ("prompt;completion\nOpen?;Já.\n".encode("cp1252"), "train.csv", "ftbridge convert … --encoding"),
        (json.dumps({**CHAT, "system": "a", "messages": [{"role": "system", "content": "b"}, *CHAT["messages"]]}).encode(),
         "train.jsonl", "ftbridge convert … --drop system"),
        (b"hello\n", "train.txt", "ftbridge convert … --input-format"),
    ],
    ids=["liked", "encoding", "system", "input-format"],
)  # fmt: skip
def test_a_run_names_the_options_of_convert_as_such(tmp_path, content, name, says):
    assert says in plan_problem(tmp_path, content, name)


# Fields that judge


@pytest.mark.parametrize("field", ["label", "liked", "kto_tag", "is_good"])
@pytest.mark.parametrize("record", [CHAT, PAIR, SHARED], ids=["chat", "pair", "ShareGPT"])
@pytest.mark.parametrize(("bad", "good"), [(0, 1), ("0", "1"), (0.0, 1.0), (False, True)])
def test_one_and_zero_are_likes_as_true_and_false_are(tmp_path, field, record, bad, good):
    records = [{**record, field: bad}, {**record, field: good}]
    with pytest.raises(DataError, match="KTO data"):
        converted(tmp_path, *records)
    assert converted(tmp_path, *records, only_liked=True).examples == 1


@pytest.mark.parametrize("field", ["score", "rating", "feedback", "Reward"])
def test_a_score_is_to_be_used_before_it_is_dropped(tmp_path, field):
    with pytest.raises(DataError, match="would be lost") as refused:
        converted(tmp_path, {**PAIR, field: 3})
    assert f"If {field} says how good a completion is, first remove the records" in (refused.value.hint or "")
    assert "first remove the records" in plan_problem(tmp_path, json.dumps({**PAIR, field: 3}).encode())


def test_what_stays_beside_the_messages_unread_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert converted(tmp_path, {**SHARED, "task": "faq"}, {**SHARED, "task": "faq"}).carried == {"task": 2}
    done = CliRunner().invoke(command, ["in.jsonl", "again.jsonl"])
    assert "2 examples have task beside the messages, which training does not read" in done.stderr
    assert converted(tmp_path, {**SHARED, "task": "faq"}, drop=("task",)).carried == {}
    assert converted(tmp_path, {**CHAT, "task": "faq"}).carried == {}
