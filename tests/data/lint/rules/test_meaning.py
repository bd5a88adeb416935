"""What a key that examples do not have may mean: moved where that says the same, removed only where nothing goes with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ftbridge.data.lint.meaning import keeps_count
from ftbridge.data.lint.rules import Context
from ftbridge.data.lint.rules.specimens import assistant, chat, preference, system, text, user
from support.rule_verdicts import problems_in, repaired

ASK, DONE = user("Is it raining?"), assistant("Yes.")
BRIEF = system("Be brief.")


@pytest.mark.parametrize(
    ("broken", "complete"),
    [
        (chat(ASK, DONE, system="Be brief."), chat(BRIEF, ASK, DONE)),
        (chat(ASK, DONE, system_prompt="Be brief."), chat(BRIEF, ASK, DONE)),
        (chat(ASK, DONE, system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]),
         chat(system([text("Be brief.")]), ASK, DONE)),
        (chat(BRIEF, ASK, DONE, system="Be brief."), chat(BRIEF, ASK, DONE)),
        (chat(ASK, DONE, system=""), chat(ASK, DONE)),
        (chat(ASK, DONE, id=7, source="forum", created_at="2024-05-01 09:00"), chat(ASK, DONE)),
        (chat(ASK, DONE, metadata={"team": "north", "ticket": 12, "tags": ["a", "b"]}), chat(ASK, DONE)),
        (chat(ASK, DONE, images=[], label=None), chat(ASK, DONE)),
        (chat(ASK, assistant("No.", train=False), ASK, assistant("Yes.", train=True)),
         chat(ASK, assistant("No.", weight=0), ASK, assistant("Yes.", weight=1))),
        (chat(ASK, assistant("No.", loss_weight=0.0), ASK, assistant("Yes.", loss=1)),
         chat(ASK, assistant("No.", weight=0), ASK, assistant("Yes.", weight=1))),
        (chat(user("Is it raining?", train=False), assistant("Yes.", train=True, weight=1)),
         chat(ASK, assistant("Yes.", weight=1))),
    ],
)  # fmt: skip
def test_what_can_be_said_elsewhere_is_moved_and_what_says_nothing_goes(broken: str, complete: str) -> None:
    assert repaired(broken) == json.loads(complete)


@pytest.mark.parametrize(
    "line",
    [
        chat(BRIEF, ASK, DONE, system="Be long."),
        chat(ASK, DONE, system={"text": "Be brief."}),
        chat(ASK, DONE, system=[{"type": "image", "source": {}}]),
        chat(ASK, DONE, images=["rain.png"]),
        chat(ASK, DONE, label=False),
        chat(ASK, DONE, rejected_response="No idea."),
        chat(ASK, DONE, context="It has rained in Oslo since noon."),
        chat(ASK, DONE, source="Regnet det i Oslo"),
        chat(ASK, DONE, metadata={"system": "Be brief."}),
        chat(ASK, DONE, metadata={"label": False}),
        chat(ASK, DONE, a_key_nobody_knows=1),
        chat(ASK, assistant("Yes.", train=False, weight=1)),
        chat(ASK, assistant("Yes.", train=0.5)),
        chat(user("Is it raining?", train=True), DONE),
        chat(user("Is it raining?", weight=1), DONE),
        chat(ASK, assistant("Yes.", reasoning_content="The window is wet.")),
        chat(user([{**text("Rain?"), "train": False}]), DONE),
        preference(ASK, score=0.9),
        preference(ASK, better=[assistant("Yes.", weight=0)]),
    ],
)
def test_what_may_carry_meaning_is_left_to_a_person(line: str) -> None:
    document = json.loads(line)

    assert repaired(line, "dpo" if "input" in document else "supervised") == document
    assert problems_in(line, Context(method="dpo" if "input" in document else "supervised"))


@pytest.mark.parametrize(
    ("key", "value", "counts"),
    [
        ("id", "row-7", True),
        ("ID", 7, True),
        ("conversation_id", "0b1c-22", True),
        ("messageId", None, True),
        ("timestamp", 1_700_000_000, True),
        ("created-at", "2024-05-01 09:00", True),
        ("usage", {"total_tokens": 7}, True),
        ("source", "web/forum", True),
        ("source", "The text to translate", False),
        ("source", {"text": "It rains."}, False),
        ("metadata", {"run": {"id": 1}}, True),
        ("metadata", {"prompt": "Rain?"}, False),
        ("meta", {"train": False}, False),
        ("score", 1, False),
        ("system", "Be brief.", False),
    ],
)
def test_what_only_keeps_count_of_the_data(key: str, value: Any, counts: bool) -> None:
    assert keeps_count(key, value) is counts


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        (chat(ASK, DONE, system="Be brief."), None),
        (chat(BRIEF, ASK, DONE, system="Be long."), "warning"),
        (chat(ASK, DONE, images=["rain.png"]), "warning"),
        (chat(ASK, DONE, id=7), None),
        (chat(ASK, assistant("Yes.", train=False)), None),
        (chat(ASK, assistant("Yes.", train=0.5)), "warning"),
    ],
)
def test_a_key_that_this_machine_would_pass_over_is_more_than_advice_where_it_means_something(
    line: str, severity: str | None
) -> None:
    from ftbridge.data.targets import TARGETS

    result = problems_in(line, Context(TARGETS["local"]))

    assert [problem.severity for code, problem in result if code in ("FTB025", "FTB031")] == [severity]
