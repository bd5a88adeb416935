"""What the rules of lines, messages and order say, where targets differ, and what their repairs write."""

import json
from pathlib import Path

import pytest

from ftbridge.data.lint import Options, lint
from ftbridge.data.lint.rules import Context
from ftbridge.data.lint.rules.specimens import assistant, chat, preference, system, text, user
from support.rule_verdicts import problems_in, repaired, severities

ERROR_EVERYWHERE = {"openai": "error", "azure": "error", "nebius": "error", "local": "error"}


def test_a_message_without_content_is_told_as_everywhere_in_ftbridge() -> None:
    ((code, problem),) = problems_in(chat(user(), assistant(None)), Context())

    assert (code, problem.field) == ("FTB021", "messages[1].content")
    assert problem.message == "is null but the message has no tool_calls. Give it text, or remove the message."


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        (chat(user(), assistant(), id=1), "FTB025", {"openai": "error", "azure": "error", "nebius": "warning", "local": "info"}),
        (chat(user(id=1), assistant()), "FTB031", {"openai": "error", "azure": "error", "nebius": "warning", "local": "info"}),
        (chat(user(), assistant(reasoning_content="…")), "FTB031", {"openai": "error", "azure": "error", "nebius": "warning", "local": None}),
        (chat(system(role="developer"), user(), assistant()), "FTB030", {"openai": "warning", "azure": "warning", "nebius": "warning", "local": None}),
        (chat(user(), assistant(), user(), assistant(weight=0)), "FTB045", {"openai": "error", "azure": "error", "nebius": "warning", "local": None}),
        (chat(user(weight=1), assistant()), "FTB043", {"openai": "error", "azure": "error", "nebius": "warning", "local": "error"}),
        (chat(system(), assistant()), "FTB035", {"openai": "warning", "azure": "warning", "nebius": "info", "local": "info"}),
        (chat(user(), assistant(weight=0)), "FTB044", ERROR_EVERYWHERE),
        (chat(user(), assistant(), user()), "FTB047", ERROR_EVERYWHERE),
        (chat(user(42), assistant()), "FTB033", ERROR_EVERYWHERE),
    ],
)  # fmt: skip
def test_how_bad_it_is_depends_on_where_the_file_goes(line: str, code: str, expected: dict[str, str | None]) -> None:
    assert severities(line, code) == expected


@pytest.mark.parametrize(
    ("broken", "complete"),
    [
        (chat(user(), assistant(), id=1, source=None), chat(user(), assistant())),
        (chat(user(id=1, created_at="2024-05-01 9:00"), assistant(annotations=[])), chat(user(), assistant())),
        (chat(user(), assistant(name=None, tool_calls=None)), chat(user(), assistant())),
        (chat({"role": " User", "content": "Hi"}, {"role": "ASSISTANT", "content": "Ho"}), chat(user("Hi"), assistant("Ho"))),
        (chat(system(role="developer"), user(), assistant()), chat(system(), user(), assistant())),
        (chat(user(), assistant(weight="1.0")), chat(user(), assistant(weight=1))),
        (chat(user(weight=0), assistant(weight=True)), chat(user(), assistant(weight=1))),
        (chat(user([{"text": "Hi"}]), assistant()), chat(user([text("Hi")]), assistant())),
        (chat(user([{"type": "input_text", "text": "Hi"}]), assistant()), chat(user([text("Hi")]), assistant())),
        (chat(user([{**text(), "cache_control": {}}]), assistant()), chat(user([text()]), assistant())),
        (json.dumps({"Messages ": [user(), assistant()]}), chat(user(), assistant())),
    ],
)  # fmt: skip
def test_a_repair_writes_what_was_meant(broken: str, complete: str) -> None:
    assert json.dumps(repaired(broken)) == json.dumps(json.loads(complete))


@pytest.mark.parametrize(
    "line",
    [
        chat(user(""), assistant()),
        chat(user(), assistant(None)),
        chat({"role": "human", "content": "Hi"}, assistant()),
        chat(user(), assistant(weight=0.5)),
        chat(user(), assistant(), tool=[]),
        chat(user(tool_calls=[{"id": "a"}]), assistant()),
        chat(user([text(), "more"]), assistant()),
        chat(user(), assistant(), user("Thanks")),
    ],
)
def test_what_a_model_learns_from_is_left_to_a_person(line: str) -> None:
    assert repaired(line) == json.loads(line)


def test_reasoning_that_local_templates_read_is_kept_for_this_machine() -> None:
    line = chat(user(), assistant(reasoning_content="France, so Paris."))

    assert repaired(line, target="local") == json.loads(line)
    assert repaired(line, target="openai") == json.loads(line), "what somebody wants learnt is left to them"


def test_a_misspelled_key_is_named_and_not_removed() -> None:
    line = chat(user(), assistant(), tool=[{"type": "function"}])
    ((_, problem),) = problems_in(line, Context())

    assert problem.field == "tool"
    assert "Is it tools?" in problem.message
    assert problem.repair is None


def test_a_line_of_another_format_gets_one_error_and_not_five() -> None:
    for line in ('{"prompt": "a", "completion": "b"}', '{"conversations": []}', preference()):
        assert len(problems_in(line, Context(method="supervised"))) == 1
    assert [code for code, _ in problems_in(chat(user(), assistant()), Context(method="dpo"))] == ["FTB024"]


def test_a_file_of_two_methods_says_how_many_lines_each_has(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join([chat(user(f"{n}?"), assistant(f"{n}")) for n in range(11)] + [preference()]) + "\n")
    by_name = {finding.code: finding for finding in lint(path, Options(jobs=1)).files[0].findings}

    assert by_name["FTB212"].message == "mixes lines of several kinds: 11 supervised, 1 dpo. Use one file per method."
    assert by_name["FTB024"].line == 12


@pytest.mark.parametrize(
    ("lines", "target", "role", "expected"),
    [
        (9, "openai", "train", {"FTB210": "error"}),
        (9, "azure", "train", {"FTB210": "error"}),
        (9, "nebius", "train", {"FTB211": "info"}),
        (9, "local", "train", {"FTB211": "info"}),
        (1, "local", "train", {"FTB210": "error"}),
        (9, "openai", "validation", {}),
        (10, "openai", "train", {"FTB211": "info"}),
        (499, "openai", "train", {"FTB211": "info"}),
        (500, "openai", "train", {}),
    ],
)
def test_a_training_file_has_enough_examples(
    lines: int, target: str, role: str, expected: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("".join(chat(user(f"{n} + 1?"), assistant(f"{n + 1}")) + "\n" for n in range(lines)))
    report = lint(path, Options(target=target, select=("FTB21",), jobs=1), roles=[role])  # type: ignore[list-item]

    assert {finding.code: finding.severity for finding in report.files[0].findings} == expected
