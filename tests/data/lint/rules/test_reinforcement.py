"""What the rules of reinforcement lines and files say, and what their repairs write."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from ftbridge.data.lint import Options, lint
from ftbridge.data.lint.rules.specimens import GOOD_REINFORCEMENT, assistant, chat, system, user
from support.rule_verdicts import repaired, severities

OPTIONS = Options(method="reinforcement", select=("FTB09",), jobs=1)


def _file(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _items(count: int, **fields: object) -> list[str]:
    return [chat(user(f"{n} + 1?"), **{"reference_answer": str(n + 1), **fields}) for n in range(count)]


def test_a_system_message_is_for_chat_lines_and_a_developer_message_for_these() -> None:
    line = chat(system(), user(), reference_answer="Paris")

    assert severities(line, "FTB090", "reinforcement") == {
        "openai": "error",
        "azure": "error",
        "nebius": "warning",
        "local": None,
    }
    assert repaired(line, "reinforcement") == json.loads(
        chat(system(role="developer"), user(), reference_answer="Paris")
    )


def test_an_items_own_fields_are_never_taken_away() -> None:
    line = chat(user(), weight=0.3, Messages=[], functions=[], reasoning_content="x", **{"a b": None})

    assert repaired(line, "reinforcement") == json.loads(line)


@pytest.mark.parametrize(
    "last", [assistant(), system(role="developer"), {"role": "tool", "content": "x", "tool_call_id": "a"}]
)
def test_a_prompt_that_does_not_end_with_the_user_is_an_error_everywhere(last: dict[str, object]) -> None:
    assert set(severities(chat(user(), last, a=1), "FTB091", "reinforcement").values()) == {"error"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (_items(12), set()),
        (_items(11) + _items(1, label="x"), {"label"}),
        ([*_items(11), chat(user("Hm?"), label="x")], {"label", "reference_answer"}),
    ],
)
def test_items_without_the_fields_of_the_others_are_counted(
    lines: list[str], message: set[str], tmp_path: Path
) -> None:
    report = lint(_file(tmp_path / "train.jsonl", lines), OPTIONS)

    assert {finding.field for finding in report.files[0].findings if finding.code == "FTB094"} == message


@pytest.mark.parametrize(
    ("fields", "count", "warned"),
    [
        ({"reference_answer": "4"}, 10, True),
        ({"reference_answer": {"value": 4}}, 10, True),
        ({"reference_answer": "4"}, 9, False),
        ({"source": "book"}, 10, False),
        ({}, 10, False),
    ],
)
def test_a_reference_that_never_changes_is_told_and_another_constant_is_not(
    fields: dict[str, object], count: int, warned: bool, tmp_path: Path
) -> None:
    report = lint(_file(tmp_path / "train.jsonl", _items(count, **fields)), OPTIONS)

    assert ("FTB098" in report.files[0].rules) is warned


@pytest.mark.parametrize(
    ("count", "role", "refused"),
    [(50_000, "train", False), (50_001, "train", True), (1_000, "validation", False), (1_001, "test", True)],
)
def test_a_job_takes_so_many_items_and_no_more(count: int, role: str, refused: bool, tmp_path: Path) -> None:
    path = _file(tmp_path / "items.jsonl", _items(count))
    options = Options(method="reinforcement", select=("FTB096",), jobs=1)
    (file,) = lint(path, options, roles=[role]).files  # type: ignore[list-item]

    assert ("FTB096" in file.rules) is refused
    assert all(finding.line is None for finding in file.findings)


def test_a_job_needs_a_validation_file_beside_its_training_file(tmp_path: Path) -> None:
    train, valid = _file(tmp_path / "train.jsonl", _items(12)), _file(tmp_path / "valid.jsonl", [GOOD_REINFORCEMENT])
    alone = lint(train, OPTIONS)
    together = lint([train, valid], OPTIONS, roles=["train", "validation"])
    job = lint(train, OPTIONS, roles=["train"])
    held_out = lint(valid, OPTIONS, roles=["validation"])

    assert [f.severity for f in job.files[0].findings if f.code == "FTB097"] == ["error"]
    assert [f.severity for f in alone.files[0].findings if f.code == "FTB097"] == ["info"], "nobody spoke of a job"
    assert "FTB097" not in together.rules
    assert "FTB097" not in held_out.rules
