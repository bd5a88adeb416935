"""Linting for this machine takes what a run takes: the same reader, the same preparation, the same rules afterwards."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftbridge.data.lint.engine import Options, lint
from ftbridge.data.lint.prepared import lint_prepared, stop_on_errors
from ftbridge.data.lint.rules.specimens import assistant, call, calling, image, result, system, text, tool, user
from ftbridge.data.prepare import prepare
from ftbridge.errors import FtbridgeError
from ftbridge.spec import JobSpec

Record = Callable[[int], Any]


def _chat(**more: Any) -> Record:
    return lambda n: {"messages": [user(f"{n}?"), assistant(f"{n}!")], **more}


def _said(message: dict[str, Any]) -> Record:
    return lambda n: {"messages": [user(f"{n}?"), {"content": f"{n}!", "role": "assistant", **message}]}


def _preference(n: int) -> dict[str, Any]:
    return {
        "input": {"messages": [user(f"{n}?")]},
        "preferred_output": [assistant(f"{n}!")],
        "non_preferred_output": [assistant("No")],
    }


def _stored(n: int) -> dict[str, Any]:
    choices = [{"index": 0, "message": assistant(f"{n}!"), "finish_reason": "stop"}]
    return {"id": f"c{n}", "object": "chat.completion", "messages": [user(f"{n}?")], "choices": choices}


LINES: dict[str, Record] = {
    "a chat": _chat(),
    "a name in the chat": lambda n: {"messages": [user(f"{n}?", name="ann"), assistant(f"{n}!")]},
    "an id": _chat(id=7),
    "a null key": _chat(source=None),
    "a system prompt beside messages": _chat(system="Be brief."),
    "system_prompt": _chat(system_prompt="Be brief."),
    "context": _chat(context="The sky is blue."),
    "score": _chat(score=0.5),
    "weight of the line": _chat(weight=1.0),
    "metadata": _chat(metadata={"note": "a long note that somebody wrote"}),
    "KTO's label": _chat(label=False),
    "liked": _chat(liked=True),
    "rejected": _chat(rejected="No"),
    "videos": _chat(videos=["a.mp4"]),
    "images that are files": _chat(images=["a.png"]),
    "output": _chat(output="More"),
    "mask": _said({"mask": True}),
    "ignore": _said({"ignore": True}),
    "learn": _said({"learn": False}),
    "timestamp": _said({"timestamp": 1_700_000_000}),
    "train": _said({"train": True}),
    "weight 0 everywhere": _said({"weight": 0}),
    "weight 2": _said({"weight": 2}),
    "weight 0.5": _said({"weight": 0.5}),
    "a part with train": _said({"content": [{**text("Yes"), "train": False}]}),
    "a part": _said({"content": [text("Yes")]}),
    "an empty completion": _said({"content": None}),
    "reasoning": _said({"reasoning_content": "I think."}),
    "half a character": lambda n: {"messages": [user(f"{n}\ud800"), assistant("x")]},
    "half a character in a completion": _said({"content": "\udc00"}),
    "role Assistant": _said({"role": "Assistant"}),
    "role model": _said({"role": "model"}),
    "role robot": _said({"role": "robot"}),
    "no completion": lambda n: {"messages": [system(), user(f"{n}?")]},
    "an image": lambda n: {"messages": [user([text(f"{n}?"), image()]), assistant("A cat")]},
    "a call": lambda n: {"messages": [user(f"{n}?"), calling()], "tools": [tool()]},
    "arguments that are an object": lambda n: {
        "messages": [user(f"{n}?"), calling(call(arguments={"city": "Rome"}))], "tools": [tool()]
    },
    "a result without its id": lambda n: {
        "messages": [user(f"{n}?"), calling(), {"role": "tool", "content": "21"}, assistant()], "tools": [tool()]
    },
    "a result of no call": lambda n: {"messages": [user(f"{n}?"), result(id="zzz"), assistant()], "tools": [tool()]},
    "tools that are text": _chat(tools=json.dumps([tool()])),
    "tools that are an object": _chat(tools=tool()),
    "prompt and completion": lambda n: {"prompt": f"{n}?", "completion": f"{n}!"},
    "question and answer": lambda n: {"question": f"{n}?", "answer": f"{n}!"},
    "Alpaca": lambda n: {"instruction": "Add", "input": f"{n}", "output": f"{n}!"},
    "ShareGPT": lambda n: {"conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": f"{n}!"}]},
    "Gemini": lambda n: {
        "contents": [{"role": "user", "parts": [{"text": f"{n}?"}]}, {"role": "model", "parts": [{"text": f"{n}!"}]}]
    },
    "a stored completion": _stored,
    "messages as text": lambda n: {"messages": json.dumps([user(f"{n}?"), assistant()])},
    "a list of messages": lambda n: [user(f"{n}?"), assistant()],
    "a line encoded twice": lambda n: json.dumps({"messages": [user(f"{n}?"), assistant()]}),
    "a line of columns": lambda n: {"prompt": ["a", "b"], "completion": ["c", f"{n}"]},
    "a number": lambda n: n,
    "nothing known": lambda n: {"a": n, "b": "c"},
}  # fmt: skip

DPO: dict[str, Record] = {
    "a preference": _preference,
    "a preference with an id": lambda n: {**_preference(n), "id": n},
    "a preference with a score": lambda n: {**_preference(n), "score": 0.5},
    "chosen and rejected": lambda n: {"prompt": f"{n}?", "chosen": f"{n}!", "rejected": "No"},
    "chosen and rejected with a score": lambda n: {"prompt": f"{n}?", "chosen": f"{n}!", "rejected": "No", "score": 1},
    "an output of two messages": lambda n: {**_preference(n), "preferred_output": [assistant("a"), assistant("b")]},
}


def _lines(record: Record) -> bytes:
    return "".join(json.dumps(record(n)) + "\n" for n in range(12)).encode()


def _archive(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("train.jsonl")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


_GOOD = _lines(_chat())
_ALL = json.dumps([_chat()(n) for n in range(12)])
_ROWS = "".join(f"{n}?,{n}!\n" for n in range(12))
FILES: dict[str, tuple[str, bytes]] = {
    "a table": ("t.csv", f"prompt,completion\n{_ROWS}".encode()),
    "a ragged table": ("t.csv", f"prompt,completion\n{_ROWS}a,b,c\n".encode()),
    "a header twice": ("t.csv", f"prompt,prompt\n{_ROWS}".encode()),
    "unknown columns": ("t.csv", f"utterance,act\n{_ROWS}".encode()),
    "a table for Excel": ("t.csv", ("sep=;\nprompt;completion\n" + _ROWS.replace(",", ";")).encode()),
    "a table in UTF-16": ("t.csv", f"prompt,completion\n{_ROWS}".encode("utf-16")),
    "a table in a Windows code page": ("t.csv", f"prompt,completion\n{_ROWS}Café?,ja\n".encode("cp1252")),
    "lines in UTF-16": ("t.jsonl", _GOOD.decode().encode("utf-16")),
    "lines with a mark": ("t.jsonl", b"\xef\xbb\xbf" + _GOOD),
    "gzip": ("t.jsonl.gz", gzip.compress(_GOOD)),
    "tar.gz": ("t.tar.gz", _archive(_GOOD)),
    "an array": ("t.json", _ALL.encode()),
    "an array named as lines": ("t.jsonl", _ALL.encode()),
    "a cut array": ("t.json", _ALL[:-9].encode()),
    "one object with a list": ("t.json", json.dumps({"data": json.loads(_ALL)}).encode()),
    "one object with a list, named as lines": ("t.jsonl", json.dumps({"data": json.loads(_ALL)}).encode()),
    "an object over lines": ("t.jsonl", json.dumps(_chat()(1), indent=1).encode() * 3),
    "lines named .json": ("t.json", _GOOD),
    "lines named .csv": ("t.csv", _GOOD),
    "lines without an ending": ("train", _GOOD),
    "lines with a cut end": ("t.jsonl", _GOOD[:-9]),
    "lines with a key twice": ("t.jsonl", _GOOD + b'{"messages": [], ' + _GOOD.split(b"\n")[0][1:] + b"\n"),
    "columns as pandas writes them": (
        "t.json",
        b'{"prompt": {"0": "a", "1": "b"}, "completion": {"0": "c", "1": "d"}}',
    ),
    "an empty list": ("t.json", b"[]"),
    "an empty file": ("t.jsonl", b""),
    "a PDF": ("t.jsonl", b"%PDF-1.4\n"),
}


def _run_takes(path: Path, method: str, out: Path) -> bool:
    spec = {"name": "n", "method": method, "model": {"local": "m"}, "data": {"train": path.name}}
    job = JobSpec.from_dict(spec)
    try:
        prepare(job, base=path.parent, out=out)
        stop_on_errors(lint_prepared(out, method=method, target="local", model=None), out)  # type: ignore[arg-type]
    except FtbridgeError:
        return False
    return True


def _cases() -> list[Any]:
    named = [(name, "t.jsonl", _lines(record), "supervised") for name, record in LINES.items()]
    named += [(name, "t.jsonl", _lines(record), "dpo") for name, record in DPO.items()]
    named += [(name, path, content, "supervised") for name, (path, content) in FILES.items()]
    return [pytest.param(path, content, method, id=name) for name, path, content, method in named]


@pytest.mark.parametrize(("name", "content", "method"), _cases())
def test_lint_for_this_machine_fails_exactly_where_a_run_refuses_the_data(
    name: str, content: bytes, method: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    report = lint(path, Options(target="local", method=method, jobs=1))  # type: ignore[arg-type]
    errors = {
        f"{finding.code} {finding.message}" for finding in report.files[0].findings if finding.severity == "error"
    }

    assert report.ok == _run_takes(path, method, tmp_path / "out"), errors


@pytest.mark.parametrize("variables", [("item.score",), ()])
def test_a_field_that_a_grader_reads_is_no_error(variables: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(_lines(_chat(score=0.5)))

    assert lint(path, Options(target="local", variables=variables)).ok == bool(variables)


def test_lines_in_another_format_are_counted_and_compared_as_the_run_prepares_them(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(_lines(LINES["Alpaca"]) + json.dumps(LINES["Alpaca"](3)).encode() + b"\n")
    [report] = lint(path, Options(target="local")).files

    assert report.examples == 13
    assert report.tokens
    assert [finding.message for finding in report.findings if finding.code == "FTB300"] == [
        "is repeated in line 13. Keep one of them."
    ]


def test_a_refusal_is_told_in_the_words_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(_lines(_chat(context="The sky is blue.")))
    refusals = {
        finding.message for finding in lint(path, Options(target="local")).files[0].findings if finding.code == "FTB019"
    }
    spec = JobSpec.from_dict({"name": "n", "model": {"local": "m"}, "data": {"train": path.name}})
    with pytest.raises(FtbridgeError) as caught:
        prepare(spec, base=tmp_path, out=tmp_path / "out")

    [refusal] = refusals
    assert refusal in caught.value.message


def test_a_rule_that_is_ignored_stays_ignored_in_the_words_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(_lines(LINES["an empty completion"]))

    assert not lint(path, Options(target="local")).ok
    assert lint(path, Options(target="local", ignore=("FTB021",))).ok
