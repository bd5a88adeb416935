"""Formats that people have in daily use: each is read, or named with what to do."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.data.convert.convert import convert
from ftbridge.data.convert.recipe import Recipe
from ftbridge.data.lint import lint
from ftbridge.errors import FtbridgeError


def read(
    tmp_path: Path, *records: Any, name: str = "in.jsonl", content: bytes | None = None, **recipe: Any
) -> list[Any]:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    (tmp_path / name).write_bytes(text if content is None else content)
    convert(str(tmp_path / name), str(tmp_path / "out.jsonl"), Recipe(**recipe), force=True)
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def roles(example: Any) -> list[str]:
    return [message["role"] for message in example["messages"]]


def calls(example: Any) -> list[tuple[str, Any]]:
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for message in example["messages"]
        for call in message.get("tool_calls", [])
    ]


ASK, ANSWER = {"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Until six."}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}

PLAIN = {
    "a stored completion": {"object": "chat.completion", "id": "c", "model": "m", "messages": [ASK], "choices": [{"index": 0, "message": ANSWER, "finish_reason": "stop"}]},
    "a stored completion with a list object": {"object": "chat.completion", "id": "c", "messages": {"object": "list", "data": [ASK]}, "choices": [{"message": ANSWER}]},
    "a logged request": {"request": {"model": "m", "messages": [ASK]}, "response": {"choices": [{"message": ANSWER}]}},
    "a logged request with bodies": {"request": {"body": {"messages": [ASK]}}, "response": {"body": {"choices": [{"message": ANSWER}]}}},
    "Responses items": {"input": [ASK], "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Until six."}]}]},
    "Responses with a text": {"instructions": "Be brief.", "input": "Open?", "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Until six."}]}]},
    "Anthropic": {"system": "Be brief.", "messages": [{"role": "user", "content": [{"type": "text", "text": "Open?"}]}, {"role": "assistant", "content": [{"type": "text", "text": "Until six."}]}]},
    "Bedrock": {"system": [{"text": "Be brief."}], "messages": [{"role": "user", "content": [{"text": "Open?"}]}, {"role": "assistant", "content": [{"text": "Until six."}]}]},
    "Gemini": {"contents": [{"role": "user", "parts": [{"text": "Open?"}]}, {"role": "model", "parts": [{"text": "Until six."}]}]},
    "Vertex with a system": {"systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]}, "contents": [{"role": "user", "parts": [{"text": "Open?"}]}, {"role": "model", "parts": [{"text": "Until six."}]}]},
    "role model": {"messages": [ASK, {"role": "model", "content": "Until six."}]},
    "Cohere": {"messages": [{"role": "User", "content": "Open?"}, {"role": "Chatbot", "content": "Until six."}]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "Open?"}, {"from": "gpt", "value": "Until six."}]},
    "ShareGPT with roles": {"conversations": [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Until six."}]},
    "messages as JSON text": {"messages": json.dumps([ASK, ANSWER])},
    "conversations as JSON text": {"conversations": json.dumps([{"from": "human", "value": "Open?"}, {"from": "gpt", "value": "Until six."}])},
    "a list of turns": [ASK, ANSWER],
    "a list of ShareGPT turns": [{"from": "human", "value": "Open?"}, {"from": "gpt", "value": "Until six."}],
    "Alpaca with a history": {"instruction": "Open?", "input": "", "output": "Until six.", "history": []},
    "parts with a value": {"messages": [{"role": "user", "content": [{"type": "text", "value": "Open?"}]}, ANSWER]},
    "TRL lists": {"prompt": [ASK], "completion": [ANSWER]},
}  # fmt: skip


@pytest.mark.parametrize("record", PLAIN.values(), ids=PLAIN.keys())
def test_it_becomes_a_chat_that_passes_the_linter(tmp_path, record):
    example = read(tmp_path, record, record)[0]
    lines = [role for role in roles(example) if role != "system"]
    assert lines == ["user", "assistant"]
    text = json.dumps(example["messages"])
    assert "Open?" in text
    assert "Until six." in text
    if "Be brief." in json.dumps(record):
        assert "Be brief." in json.dumps(example["messages"][0])
    report = lint([tmp_path / "out.jsonl"])
    assert [
        finding.code
        for file in report.files
        for finding in file.findings
        if finding.severity == "error" and finding.line
    ] == []


CALLING = {
    "tools as JSON text, arguments as an object": {"tools": json.dumps([WEATHER]), "messages": [ASK, {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]}, {"role": "tool", "content": "rain"}, ANSWER]},
    "Anthropic's blocks": {"tools": [{"name": "weather", "input_schema": WEATHER["function"]["parameters"]}], "messages": [ASK, {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "rain"}]}, ANSWER]},
    "Gemini's parts": {"tools": [{"functionDeclarations": [{"name": "weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}]}], "contents": [{"role": "user", "parts": [{"text": "Open?"}]}, {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}]}, {"role": "function", "parts": [{"functionResponse": {"name": "weather", "response": {"sky": "rain"}}}]}, {"role": "model", "parts": [{"text": "Rain."}]}]},
    "Hermes tags": {"conversations": [{"from": "human", "value": "Open?"}, {"from": "gpt", "value": "<tool_call>\n" + json.dumps(CALL) + "\n</tool_call>"}, {"from": "tool", "value": "<tool_response>\nrain\n</tool_response>"}, {"from": "gpt", "value": "Rain."}]},
    "Hermes tags in Python's notation": {"conversations": [{"from": "human", "value": "Open?"}, {"from": "gpt", "value": "<tool_call>\n{'name': 'weather', 'arguments': {'city': 'Oslo'}}\n</tool_call>"}, {"from": "tool", "value": "<tool_response>\nrain\n</tool_response>"}, {"from": "gpt", "value": "Rain."}]},
    "LLaMA-Factory": {"conversations": [{"from": "human", "value": "Open?"}, {"from": "function_call", "value": json.dumps(CALL)}, {"from": "observation", "value": "rain"}, {"from": "gpt", "value": "Rain."}], "tools": json.dumps([WEATHER["function"]])},
    "xLAM": {"query": "Open?", "tools": json.dumps([{"name": "weather", "description": "", "parameters": {"city": {"type": "str", "description": ""}}}]), "answers": json.dumps([CALL])},
    "glaive v2": {"system": 'SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n{"name": "weather", "description": "", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}', "chat": "USER: Open?\n\n\nASSISTANT: <functioncall> {\"name\": \"weather\", \"arguments\": '{\"city\": \"Oslo\"}'} <|endoftext|>\n\n\nFUNCTION RESPONSE: {\"sky\": \"rain\"}\n\n\nASSISTANT: Rain. <|endoftext|>\n\n\n"},
}  # fmt: skip


@pytest.mark.parametrize("record", CALLING.values(), ids=CALLING.keys())
def test_calls_and_their_results_are_read(tmp_path, record):
    (example,) = read(tmp_path, record)
    assert calls(example) == [("weather", {"city": "Oslo"})]
    results = [message for message in example["messages"] if message["role"] == "tool"]
    ids = [call["id"] for message in example["messages"] for call in message.get("tool_calls", [])]
    assert [result["tool_call_id"] for result in results] == ids[: len(results)]


def test_several_calls_and_several_results_are_paired_in_order(tmp_path):
    two = [{"name": "weather", "arguments": {"city": city}} for city in ("Oslo", "Rome")]
    turns = [{"from": "human", "value": "Both?"}, *[{"from": "function_call", "value": json.dumps(call)} for call in two],
             *[{"from": "observation", "value": sky} for sky in ("rain", "sun")], {"from": "gpt", "value": "Rain and sun."}]  # fmt: skip
    (example,) = read(tmp_path, {"conversations": turns})
    assert [arguments["city"] for _, arguments in calls(example)] == ["Oslo", "Rome"]
    of = {
        call["id"]: json.loads(call["function"]["arguments"])["city"]
        for message in example["messages"]
        for call in message.get("tool_calls", [])
    }
    by_name = {
        of[message["tool_call_id"]]: message["content"] for message in example["messages"] if message["role"] == "tool"
    }
    assert by_name == {"Oslo": "rain", "Rome": "sun"}


def test_a_batch_and_its_output_are_joined_by_id(tmp_path):
    (tmp_path / "input.jsonl").write_text("".join(
        json.dumps({"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": [{"role": "user", "content": f"Q{n}"}]}}) + "\n"
        for n in range(4)))  # fmt: skip
    (tmp_path / "output.jsonl").write_text("".join(
        json.dumps({"id": f"b{n}", "custom_id": f"r{n}", "response": {"status_code": 200, "body": {"choices": [{"message": {"role": "assistant", "content": f"A{n}"}}]}}, "error": None}) + "\n"
        for n in (3, 0, 1, 2)))  # fmt: skip
    convert(
        [str(tmp_path / "input.jsonl"), str(tmp_path / "output.jsonl")],
        str(tmp_path / "out.jsonl"),
        Recipe(),
        force=True,
    )
    pairs = {
        tuple(message["content"] for message in json.loads(line)["messages"])
        for line in (tmp_path / "out.jsonl").read_text().splitlines()
    }
    assert pairs == {(f"Q{n}", f"A{n}") for n in range(4)}


PREFERENCES = {
    "HH-RLHF": {"chosen": "\n\nHuman: Open?\n\nAssistant: Until six.", "rejected": "\n\nHuman: Open?\n\nAssistant: No idea."},
    "LLaMA-Factory": {"conversations": [{"from": "human", "value": "Open?"}], "chosen": {"from": "gpt", "value": "Until six."}, "rejected": {"from": "gpt", "value": "No idea."}},
    "ms-swift": {"messages": [ASK, ANSWER], "rejected_response": "No idea."},
    "TRL's implicit prompt": {"chosen": [ASK, ANSWER], "rejected": [ASK, {"role": "assistant", "content": "No idea."}]},
    "TRL's explicit prompt": {"prompt": [ASK], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "No idea."}]},
}  # fmt: skip


@pytest.mark.parametrize("record", PREFERENCES.values(), ids=PREFERENCES.keys())
def test_it_becomes_a_preference(tmp_path, record):
    (example,) = read(tmp_path, record)
    assert example["input"]["messages"][-1]["content"] == "Open?"
    assert [example[side][0]["content"] for side in ("preferred_output", "non_preferred_output")] == [
        "Until six.",
        "No idea.",
    ]


NAMED = {
    "Nectar": {"prompt": "\n\nHuman: Open? \n\nAssistant: ", "answers": [{"answer": "Yes", "rank": 1.0}, {"answer": "No", "rank": 2.0}]},
    "UltraFeedback": {"instruction": "Open?", "models": ["m"], "completions": [{"response": "Yes", "overall_score": 9.0}]},
    "Label Studio": {"id": 1, "data": {"text": "Open?"}, "annotations": [{"result": [{"value": {"text": ["Yes"]}}]}]},
    "promptfoo": {"vars": {"question": "Open?"}, "assert": [{"type": "equals", "value": "Yes"}]},
    "OpenAssistant": {"message_tree_id": "1", "prompt": {"text": "Open?", "role": "prompter", "replies": [{"text": "Yes", "role": "assistant"}]}},
    "Axolotl": {"segments": [{"label": False, "text": "Open?"}, {"label": True, "text": "Yes"}]},
}  # fmt: skip


@pytest.mark.parametrize(("name", "record"), NAMED.items(), ids=NAMED.keys())
def test_what_is_not_read_is_named_once_with_what_to_do(tmp_path, name, record):
    with pytest.raises(FtbridgeError) as refused:
        read(tmp_path, record, record, record)
    assert refused.value.message.count(name) == 1
    assert refused.value.hint


MAPPED = [
    ({"question": "Open?", "answer": "Yes"}, ("prompt=question", "completion=answer")),
    ({"Question": "Open?", "Answer": "Yes"}, ("prompt=Question", "completion=Answer")),
    ({"query": "Open?", "response": "Yes"}, ("prompt=query", "completion=response")),
    ({"input": "Open?", "ideal": "Yes"}, ("prompt=input", "completion=ideal")),
]


@pytest.mark.parametrize(("record", "maps"), MAPPED, ids=[" ".join(maps) for _, maps in MAPPED])
def test_a_hint_of_names_works_when_it_is_followed(tmp_path, record, maps):
    with pytest.raises(FtbridgeError) as refused:
        read(tmp_path, record, record, record)
    for option in maps:
        assert f"--map {option}" in (refused.value.hint or "")
    columns = tuple(tuple(option.split("=")) for option in maps)
    assert len(read(tmp_path, record, record, record, columns=columns)) == 3


SHEETS = {
    "UTF-16 with tabs": "prompt\tcompletion\nOpen?\tJá.\n".encode("utf-16"),
    "UTF-16 with semicolons": "prompt;completion\r\nOpen?;Já.\r\n".encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + "prompt,completion\nOpen?,Já.\n".encode("utf-16-be"),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + "prompt,completion\nOpen?,Já.\n".encode(),
    "sep=": "sep=;\nprompt;completion\nOpen?;Já.\n".encode(),
    "empty rows": "prompt,completion\n,\nOpen?,Já.\n,\n\n".encode(),
    "the index of pandas": ",prompt,completion\n0,Open?,Já.\n".encode(),
    "the index of pandas, named": "Unnamed: 0,prompt,completion\n0,Open?,Já.\n".encode(),
}


@pytest.mark.parametrize("content", SHEETS.values(), ids=SHEETS.keys())
def test_a_sheet_as_programs_write_it_is_read(tmp_path, content):
    (example,) = read(tmp_path, name="in.csv", content=content)
    assert [message["content"] for message in example["messages"]] == ["Open?", "Já."]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1250"])
def test_a_code_page_is_named_and_read_when_it_is_said(tmp_path, encoding):
    content = "prompt;completion\nOpen?;Já.\n".encode(encoding)
    with pytest.raises(FtbridgeError) as refused:
        read(tmp_path, name="in.csv", content=content)
    assert "--encoding" in (refused.value.hint or "")
    (example,) = read(tmp_path, name="in.csv", content=content, encoding=encoding)
    assert example["messages"][1]["content"] == "Já."


def test_a_workbook_is_read(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["prompt", "completion"], ["Open?", "Já."], [None, None], ["And on Sunday?", 7]):
        book.active.append(row)
    stream = io.BytesIO()
    book.save(stream)
    examples = read(tmp_path, name="in.xlsx", content=stream.getvalue())
    assert [example["messages"][1]["content"] for example in examples] == ["Já.", "7"]


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "in.jsonl", "LFS"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "in.jsonl", "web page"),
        (b"%PDF-1.7 x", "in.jsonl", "PDF"),
    ],
)
def test_what_is_no_data_is_named(tmp_path, content, name, says):
    with pytest.raises(FtbridgeError) as refused:
        read(tmp_path, name=name, content=content)
    assert says in refused.value.message
    assert "--skip-invalid" not in (refused.value.hint or "")


@pytest.mark.parametrize("key", ["data", "examples", "rows", "train"])
def test_an_object_that_holds_the_examples_is_read(tmp_path, key):
    document = {"version": 1, key: [{"messages": [ASK, ANSWER]}, {"messages": [ASK, ANSWER]}]}
    assert len(read(tmp_path, name="in.json", content=json.dumps(document, indent=1).encode())) == 2
