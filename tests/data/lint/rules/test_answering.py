"""Which call a result answers: told by its tool's name, else by the order, else left to a person."""

from __future__ import annotations

from typing import Any

import pytest

from ftbridge.data.lint.rules.answering import pairs_of
from ftbridge.data.lint.rules.specimens import assistant, call, calling, chat, result, user
from support.rule_verdicts import repaired


def _calls(*ids: str, name: str = "") -> dict[str, Any]:
    """An assistant message with calls: of the tool that the id's first letter names, or of `name`."""
    return calling(*(call(identity, name or f"get_{identity[0]}") for identity in ids))


def _bare(name: str | None = None, id: str | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "tool", "content": "21"}
    return {**message, **({"name": name} if name else {}), **({"tool_call_id": id} if id else {})}


@pytest.mark.parametrize(
    ("messages", "results"),
    [
        # One call
        ([_calls("a"), _bare()], {1: "a"}),
        ([_calls("a"), _bare(name="get_a")], {1: "a"}),
        ([_calls("a"), _bare(name="get_b")], {}),
        # Parallel calls
        ([_calls("a", "b"), _bare(), _bare()], {1: "a", 2: "b"}),
        ([_calls("a", "b"), _bare("get_b"), _bare("get_a")], {1: "b", 2: "a"}),
        ([_calls("a", "b"), _bare("get_b"), _bare()], {1: "b", 2: "a"}),
        ([_calls("a", "b"), _bare("get_b")], {1: "b"}),
        ([_calls("a", "b"), _bare()], {}),
        ([_calls("a", "b"), _bare(id="b"), _bare()], {2: "a"}),
        ([_calls("a", "b"), _bare(), _bare(id="a")], {1: "b"}),
        ([_calls("a", "b"), _bare(), _bare(id="zzz")], {}),
        ([_calls("a", "b"), _bare("get_b"), _bare(id="zzz")], {1: "b"}),
        ([_calls("a", "b"), _bare(), _bare(), _bare()], {}),
        # One tool twice
        ([_calls("a1", "a2"), _bare("get_a"), _bare("get_a")], {1: "a1", 2: "a2"}),
        ([_calls("a1", "a2"), _bare("get_a")], {}),
        ([_calls("a1", "a2", "b"), _bare("get_b"), _bare("get_a"), _bare("get_a")], {1: "b", 2: "a1", 3: "a2"}),
        # Steps in a row, and one after the other
        ([_calls("a"), _calls("b"), _bare("get_a"), _bare("get_b")], {2: "a", 3: "b"}),
        ([_calls("a"), _calls("b"), _bare("get_b"), _bare("get_a")], {2: "b", 3: "a"}),
        ([_calls("a"), _calls("b"), _bare(), _bare()], {2: "a", 3: "b"}),
        ([_calls("a"), _bare(), _calls("b"), _bare()], {1: "a", 3: "b"}),
        ([_calls("a"), _bare(), _bare(), _calls("b"), _bare()], {4: "b"}),
        # Nothing is open any more
        ([_calls("a"), user(), _bare()], {}),
        ([_calls("a"), assistant("Well."), _bare()], {}),
        ([_bare(), _calls("a"), _bare()], {2: "a"}),
        # Calls that cannot be named
        ([_calls("a", "a"), _bare(), _bare()], {}),
        ([calling(call(""), call("b")), _bare(), _bare()], {}),
        ([calling({"function": {"name": "get_a"}}), _bare()], {}),
        ([calling("text"), _bare(), None, "text"], {}),
    ],
)  # fmt: skip
def test_a_result_goes_to_the_one_call_it_can_answer(messages: list[Any], results: dict[int, str]) -> None:
    assert {index: completed.id for index, completed in pairs_of(messages).items()} == results


def test_a_name_is_removed_once_the_id_says_the_same_and_kept_until_then() -> None:
    before = chat(user(), _calls("a"), _calls("b"), _bare("get_b"), _bare("get_a"), assistant())
    after = repaired(before)
    assert isinstance(after, dict)
    assert after["messages"][3] == {"role": "tool", "content": "21", "tool_call_id": "b"}
    assert after["messages"][4] == {"role": "tool", "content": "21", "tool_call_id": "a"}

    for doubtful in (_bare("get_zzz"), _bare("get_zzz", id="a"), _bare("get_a", id="zzz")):
        line = chat(user(), _calls("a"), doubtful, assistant())
        left = repaired(line)
        assert isinstance(left, dict)
        assert left["messages"][2] == doubtful, "a name that contradicts the id is for a person"


def test_an_id_that_is_there_is_never_written_over() -> None:
    line = chat(user(), _calls("a"), result(id="zzz"), assistant())
    left = repaired(line)
    assert isinstance(left, dict)
    assert left["messages"][2]["tool_call_id"] == "zzz"
