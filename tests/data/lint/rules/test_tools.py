"""What the rules of tools and calls say, where targets differ, and what their repairs write."""

import json
from pathlib import Path

import pytest

from ftbridge.data.lint import Options, lint
from ftbridge.data.lint.rules import Context
from ftbridge.data.lint.rules.specimens import GOOD_CALL, assistant, call, calling, chat, result, text, tool, user
from support.rule_verdicts import problems_in, repaired, severities

TOOLS = [tool()]


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        (chat(user(), calling(call(arguments={"city": "Rome"})), tools=TOOLS), "FTB061", {"openai": "error", "azure": "error", "nebius": "error", "local": "info"}),
        (chat(user(), calling({"function": call()["function"]}), tools=TOOLS), "FTB060", {"openai": "error", "azure": "error", "nebius": "error", "local": "info"}),
        (chat(user(), calling(), result([text()]), assistant(), tools=TOOLS), "FTB068", {"openai": "warning", "azure": "warning", "nebius": "warning", "local": None}),
        (chat(user(), calling(call(name="other")), tools=TOOLS), "FTB067", {"openai": "warning", "azure": "warning", "nebius": "warning", "local": "info"}),
        (chat(user(), calling(), assistant(), tools=TOOLS), "FTB066", {"openai": "warning", "azure": "error", "nebius": "warning", "local": "warning"}),
        (chat(user(), assistant(), tools=[tool("a b")]), "FTB052", {"openai": "error", "azure": "error", "nebius": "error", "local": "warning"}),
    ],
)  # fmt: skip
def test_how_bad_it_is_depends_on_where_the_file_goes(line: str, code: str, expected: dict[str, str | None]) -> None:
    assert severities(line, code) == expected


@pytest.mark.parametrize(
    ("broken", "complete"),
    [
        (chat(user(), calling(), tools=tool()), chat(user(), calling(), tools=TOOLS)),
        (chat(user(), calling(), tools=[{"function": tool()["function"]}]), chat(user(), calling(), tools=TOOLS)),
        (chat(user(), calling(), tools=[{"type": "function", **tool()["function"]}]), chat(user(), calling(), tools=TOOLS)),
        (chat(user(), assistant(), parallel_tool_calls=" False"), chat(user(), assistant(), parallel_tool_calls=False)),
        (chat(user(), assistant(), parallel_tool_calls=1), chat(user(), assistant(), parallel_tool_calls=True)),
        (chat(user(), assistant(tool_calls=[])), chat(user(), assistant())),
        (chat(user(), {"role": "assistant", "tool_calls": call()}, tools=TOOLS), chat(user(), calling(), tools=TOOLS)),
        (chat(user(), calling({"id": "call_1", "function": call()["function"]}), tools=TOOLS), chat(user(), calling(), tools=TOOLS)),
        (chat(user(), calling(call(arguments={"city": "Zürich"})), tools=TOOLS), chat(user(), calling(call(arguments='{"city": "Zürich"}')), tools=TOOLS)),
        (chat(user(), calling(), result([text("21"), text(" °C")]), assistant(), tools=TOOLS), chat(user(), calling(), result("21 °C"), assistant(), tools=TOOLS)),
        (chat(user(), calling(), {"role": "tool", "content": "21"}, assistant(), tools=TOOLS), chat(user(), calling(), {"role": "tool", "content": "21", "tool_call_id": "call_1"}, assistant(), tools=TOOLS)),
    ],
)  # fmt: skip
def test_a_repair_writes_what_was_meant(broken: str, complete: str) -> None:
    assert repaired(broken) == json.loads(complete)


@pytest.mark.parametrize(
    "line",
    [
        chat(user(), assistant(None, tool_calls=[])),
        chat(user(), calling(call(arguments="{city: Rome}")), tools=TOOLS),
        chat(user(), calling(call("a"), call("b")), {"role": "tool", "content": "21"}, assistant(), tools=TOOLS),
        chat(user(), calling(), result(id="other"), assistant(), tools=TOOLS),
        chat(user(), calling(call("a"), call("a")), tools=TOOLS),
        chat(user(), assistant(), parallel_tool_calls="maybe"),
    ],
)
def test_what_can_only_be_guessed_is_left_to_a_person(line: str) -> None:
    assert repaired(line) == json.loads(line)


def test_each_problem_is_told_where_it_is() -> None:
    line = chat(
        user(),
        calling(call("a"), call("b", name="x y"), call("c", arguments="[")),
        result(id="z"),
        assistant(),
        tools=TOOLS,
    )
    names = {(code, problem.field) for code, problem in problems_in(line, Context())}

    assert names == {
        ("FTB052", "messages[1].tool_calls[1].function.name"),
        ("FTB062", "messages[1].tool_calls[2].function.arguments"),
        ("FTB064", "messages[2].tool_call_id"),
        ("FTB066", "messages[1].tool_calls[0]"),
        ("FTB066", "messages[1].tool_calls[1]"),
        ("FTB066", "messages[1].tool_calls[2]"),
        ("FTB067", "messages[1].tool_calls[1].function.name"),
    }


def test_tools_of_a_preference_line_are_told_in_its_input() -> None:
    line = {"input": {"messages": [user()], "tools": [tool("a.b")]}, "preferred_output": [calling(call(name="a.b"))]}
    line["non_preferred_output"] = [assistant()]
    fields = {
        problem.field for code, problem in problems_in(json.dumps(line), Context(method="dpo")) if code == "FTB052"
    }

    assert fields == {"input.tools[0].function.name", "preferred_output[0].tool_calls[0].function.name"}


def test_a_file_in_which_some_lines_offer_tools_gets_advice(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f"{line}\n" for line in [GOOD_CALL] * 3 + [chat(user(), assistant())]))
    (match,) = lint(path, Options(select=("FTB213",), jobs=1)).files[0].findings

    assert match.severity == "info"
    assert "3 of 4 examples" in match.message


def test_arguments_that_are_nested_too_deeply_are_a_finding_and_no_crash() -> None:
    line = chat(user(), calling(call(arguments='{"a":' * 100_000)), tools=TOOLS)

    assert "FTB062" in {code for code, _ in problems_in(line, Context())}
