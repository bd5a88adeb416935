"""Which format records are in: by many of them, with the options that convert needs."""

from __future__ import annotations

from typing import Any

import pytest

from ftbridge.data.detect import detect_records
from ftbridge.data.field_names import meaning_of
from ftbridge.data.file_kinds import looks_like_table, not_data
from ftbridge.data.known_formats import FORMATS

CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
ITEM = {"messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize(
    ("record", "name", "options"),
    [
        ({"question": "a", "answer": "b"}, "questions and answers", "--map prompt=question --map completion=answer"),
        ({"Query": "a", "Response": "b"}, "questions and answers", "--map prompt=Query --map completion=Response"),
        ({"input": "a", "ideal": "b"}, "questions and answers", "--map prompt=input --map completion=ideal"),
        ({"prompt": "a", "response": "b"}, "questions and answers", "--map completion=response"),
        (
            {"User Message": "a", "Bot response": "b"},
            "questions and answers",
            "--map 'prompt=User Message' --map 'completion=Bot response'",
        ),
        (
            {"instruction": "a", "context": "b", "response": "c"},
            "questions with material, and answers",
            "--map input=context --map output=response",
        ),
        ({"question": "a", "better": "b", "worse": "c"}, "preferences", "--map prompt=question --map chosen=better --map rejected=worse"),
        ({"dialogue": CHAT["messages"], "system_prompt": "s"}, "chats", "--map messages=dialogue --map system=system_prompt"),
        ({"contents": [{"role": "user", "parts": [{"text": "a"}]}]}, "Gemini", ""),
        ([{"from": "human", "value": "a"}], "a list of turns", ""),
        ({**CHAT, "label": False}, "KTO: answers that were liked or not", ""),
        ({**ITEM, "label": False}, "reinforcement: the question last", ""),
        (CHAT, "chat, the answer last", ""),
    ],
)  # fmt: skip
def test_a_format_is_named_with_the_options_that_read_it(record: Any, name: str, options: str):
    detection = detect_records([record])
    assert detection is not None
    assert (detection.name, detection.options) == (name, options)


def test_many_records_decide_and_not_the_first():
    detection = detect_records([ITEM, CHAT, CHAT, "text"])
    assert detection is not None
    assert detection.shape == "chat"
    assert detect_records([{"a": 1}, {"b": 2}, CHAT]) is None


def test_a_format_that_is_not_read_says_what_to_do():
    detection = detect_records([{"segments": [{"label": True, "text": "a"}]}])
    assert detection is not None
    assert detection.command("x.jsonl") == ""
    assert "weight 0 or 1" in detection.hint("x.jsonl")
    assert all(names.shape or names.advice for names in FORMATS)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "web page"),
        (b"\n<html lang='en'>", "web page"),
        (b"%PDF-1.7", "PDF"),
        (b"SQLite format 3\0", "SQLite"),
    ],
)
def test_files_that_hold_no_records_are_known_by_their_first_bytes(head: bytes, name: str):
    result = not_data(head)
    assert result is not None
    assert name in result[0]
    assert result[1].endswith(".")


def test_records_and_tables_are_not_taken_for_other_files():
    assert not_data(b'{"messages": []}') is None
    assert looks_like_table("prompt,completion")
    assert looks_like_table('"Question";"Answer"')
    assert not looks_like_table('{"messages": 1, "prompt": 2}')
    assert not looks_like_table("Hello, world")
    assert meaning_of("System Prompt") == "system"
