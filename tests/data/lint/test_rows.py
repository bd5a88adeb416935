"""Rows: what counts as the same example, the same prompt, the same answer; tokens by message."""

import json

import numpy as np
import pytest

from ftbridge.data.lint.block import Checker, LintPlan
from ftbridge.data.lint.rule import Context
from ftbridge.data.tokens import count_texts

ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


def rows(*documents, method="supervised"):
    raw = "".join(json.dumps(document) + "\n" for document in documents).encode()
    return Checker(LintPlan(Context(method=method), ())).check(raw, first=True, last=True)


def chat(*messages, **more):
    return {"messages": list(messages), **more}


SAME = {
    "keys in another order": (chat(ASK, SAY), chat(dict(reversed(ASK.items())), SAY)),
    "a weight": (chat(ASK, SAY), chat(ASK, {**SAY, "weight": 1})),
    "nulls": (chat(ASK, SAY), chat({**ASK, "name": None}, SAY)),
    "calls with null content": (chat(ASK, CALL), chat(ASK, {**CALL, "content": None})),
}
OTHER = {
    "another answer": (chat(ASK, SAY), chat(ASK, {**SAY, "content": "No."})),
    "another role": (chat(ASK, SAY), chat({**ASK, "role": "system"}, SAY)),
    "tools": (chat(ASK, SAY), chat(ASK, SAY, tools=[{"type": "function"}])),
    "a name": (chat(ASK, SAY), chat({**ASK, "name": "Ann"}, SAY)),
    "texts cut elsewhere": (chat(ASK, ASK, SAY), chat({**ASK, "content": "Why?Why?"}, SAY)),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_examples_that_say_the_same_have_the_same_hash(pair):
    one, other = rows(*pair).columns.content
    assert one == other


@pytest.mark.parametrize("pair", OTHER.values(), ids=OTHER)
def test_examples_that_differ_have_other_hashes(pair):
    one, other = rows(*pair).columns.content
    assert one != other


def test_a_prompt_is_what_stands_before_the_last_answer():
    columns = rows(chat(ASK, SAY), chat(ASK, {**SAY, "content": "No."}), chat(ASK, SAY, ASK, SAY)).columns
    assert columns.prompt[0] == columns.prompt[1] != columns.prompt[2]
    assert columns.completion[0] == columns.completion[2] != columns.completion[1]
    assert not columns.system.any()


def test_tokens_are_counted_by_message_and_by_what_is_trained_on():
    system = {"role": "system", "content": "Answer in one word, please."}
    document = chat(system, ASK, {**SAY, "weight": 0}, ASK, SAY)
    columns = rows(document).columns
    length = dict(zip(("system", "ask", "say"), count_texts([system["content"], "Why?", "Because."]), strict=True))
    total = 3 + 5 * 4 + length["system"] + 2 * length["ask"] + 2 * length["say"]

    assert columns.tokens.tolist() == [total]
    assert columns.loss_tokens.tolist() == [1 + length["say"]]
    assert columns.target.tolist() == [total - 4 - length["say"]]


def test_preference_lines_are_compared_by_prompt_and_preferred_answer():
    def line(good, bad):
        outputs = [[{"role": "assistant", "content": text}] for text in (good, bad)]
        return {"input": chat(ASK), "preferred_output": outputs[0], "non_preferred_output": outputs[1]}

    columns = rows(line("a", "b"), line("a", "c"), line("b", "a"), method="dpo").columns
    assert len(set(columns.prompt.tolist())) == 1
    assert columns.completion[0] == columns.completion[1] != columns.completion[2]
    assert len(set(columns.content.tolist())) == 3


def test_what_is_no_example_has_no_row():
    block = rows(chat(ASK, SAY), [1], None, chat(ASK, SAY))
    np.testing.assert_array_equal(block.columns.line, [1, 4])
    assert rows([1]).columns is None
