"""What the rules of preference lines say, where targets differ, and what their repairs write."""

import json

import pytest

from ftbridge.data.lint.rules import Context
from ftbridge.data.lint.rules.specimens import GOOD_PREFERENCE, assistant, image, preference, system, text, tool, user
from support.rule_verdicts import problems_in, repaired, severities

WHOLE = json.loads(GOOD_PREFERENCE)
WITH_TOOLS = {**WHOLE, "input": {"messages": [user()], "tools": [tool()], "parallel_tool_calls": False}}


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        (preference(system()), "FTB087", {"openai": "warning", "azure": "error", "nebius": "warning", "local": "info"}),
        (preference(better=[assistant("Paris.", weight=1)]), "FTB086", {"openai": "error", "azure": "error", "nebius": "warning", "local": "info"}),
        (preference(tools=[tool()]), "FTB085", {"openai": "error", "azure": "error", "nebius": "warning", "local": "warning"}),
        (preference(user([text(), image()])), "FTB089", {"openai": "warning", "azure": "warning", "nebius": "warning", "local": None}),
        (preference(id=1), "FTB025", {"openai": "error", "azure": "error", "nebius": "warning", "local": "info"}),
    ],
)  # fmt: skip
def test_how_bad_it_is_depends_on_where_the_file_goes(line: str, code: str, expected: dict[str, str | None]) -> None:
    assert severities(line, code, "dpo") == expected


@pytest.mark.parametrize(
    ("broken", "complete"),
    [
        ({**WHOLE, "input": [user()]}, WHOLE),
        ({**WHOLE, "preferred_output": "Paris"}, WHOLE),
        ({**WHOLE, "non_preferred_output": assistant("Lyon")}, WHOLE),
        ({**WHOLE, "preferred_output": [{"content": "Paris"}]}, WHOLE),
        ({**WHOLE, "preferred_output": [assistant(weight=1)]}, WHOLE),
        ({**WHOLE, "timestamp": 1}, WHOLE),
        ({**WHOLE, "input": {"messages": [user()], "id": 4}}, WHOLE),
        ({"messages": [user()], "preferred_output": [assistant()], "non_preferred_output": [assistant("Lyon")]}, WHOLE),
        ({"input": [user()], "preferred_completion": assistant(), "non_preferred_completion": "Lyon"}, WHOLE),
        ({**WHOLE, "tools": [tool()], "parallel_tool_calls": False}, WITH_TOOLS),
        ({**WITH_TOOLS, "tools": [tool()]}, WITH_TOOLS),
        ({**WHOLE, "input": [user()], "tools": tool(), "parallel_tool_calls": "false"}, WITH_TOOLS),
        ({**WHOLE, "input": {"messages": [system(role="developer"), user()]}}, {**WHOLE, "input": {"messages": [system(), user()]}}),
    ],
)  # fmt: skip
def test_a_repair_writes_what_was_meant(broken: dict[str, object], complete: dict[str, object]) -> None:
    assert repaired(json.dumps(broken), "dpo") == complete


@pytest.mark.parametrize(
    "document",
    [
        {**WHOLE, "preferred_output": [assistant(), assistant("Indeed")]},
        {**WHOLE, "preferred_output": [user("Paris")]},
        {**WHOLE, "non_preferred_output": [assistant()]},
        {**WITH_TOOLS, "tools": [tool("other")]},
        {**WHOLE, "preferred_completion": [assistant("Rome")]},
        {**WHOLE, "preferred_outputs": [assistant("Rome")]},
    ],
)
def test_what_can_only_be_guessed_is_left_to_a_person(document: dict[str, object]) -> None:
    assert repaired(json.dumps(document), "dpo") == document


def test_each_problem_of_an_answer_is_told_where_it_is() -> None:
    line = preference(better=[assistant(None, note="x")], worse=[assistant([{"type": "text"}])])
    names = {(code, problem.field) for code, problem in problems_in(line, Context(method="dpo"))}

    assert names == {
        ("FTB021", "preferred_output[0].content"),
        ("FTB031", "preferred_output[0].note"),
        ("FTB037", "non_preferred_output[0].content[0].text"),
    }


@pytest.mark.parametrize(
    ("better", "worse", "same"),
    [
        (assistant("Paris"), assistant("Paris\n"), True),
        (assistant("Paris", refusal=None), assistant("Paris"), True),
        (assistant("Paris"), assistant("paris"), False),
        (assistant("Paris"), assistant([text("Paris")]), False),
    ],
)
def test_answers_are_the_same_when_nothing_that_is_learnt_differs(better: object, worse: object, same: bool) -> None:
    codes = {code for code, _ in problems_in(preference(better=[better], worse=[worse]), Context(method="dpo"))}

    assert ("FTB084" in codes) is same
