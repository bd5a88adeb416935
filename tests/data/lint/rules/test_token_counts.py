"""Rules about token counts, in a managed model's vocabulary and by a counter from outside."""

import pytest

from ftbridge.data.lint.counting import Counted, ModelCounter
from support.rule_findings import chat, in_file


def _words(count, word=" hello"):
    return word * count


def test_an_example_that_is_cut_says_whether_its_answer_is_lost(tmp_path):
    documents = [chat(_words(70_000)), chat("Why?", _words(70_000)), chat(_words(60_000))]
    result = in_file(tmp_path, documents, "FTB200")
    assert [(one.line, one.severity) for one in result] == [(1, "warning"), (2, "warning")]
    assert "70,012 tokens; OpenAI reads 65,536" in result[0].message
    assert "nothing is left of the completion that it trains on, which begins at token 70,008." in result[0].message
    assert "the end of its last completion" in result[1].message


@pytest.mark.parametrize(
    ("options", "severities"),
    [
        ({"model": "gpt-4.1-mini-2025-04-14"}, []),
        ({"model": "ft:gpt-3.5-turbo-0125:org::1"}, ["warning"]),
        ({"target": "azure"}, []),
        ({"target": "nebius", "model": "gpt-3.5-turbo"}, ["info"]),
        ({"target": "local", "model": "smollm2-135m-instruct"}, []),
    ],
)
def test_the_limit_is_the_models(tmp_path, options, severities):
    result = in_file(tmp_path, [chat(_words(17_000))], "FTB200", **options)
    assert [one.severity for one in result] == severities


def test_a_preference_is_measured_by_one_side(tmp_path):
    def preference(prompt, better, worse):
        side = [{"role": "assistant", "content": _words(worse)}]
        return {
            "input": {"messages": [{"role": "user", "content": _words(prompt)}]},
            "preferred_output": [{"role": "assistant", "content": _words(better)}],
            "non_preferred_output": side,
        }

    result = in_file(tmp_path, [preference(10, 40_000, 40_000), preference(30_000, 40_000, 10)], "FTB200", method="dpo")
    assert [one.line for one in result] == [2]


def _counter(limit=100):
    """Counts words; refuses a text that holds the word picture."""

    def count(documents, method, thinking):
        assert thinking == "off"
        counts = []
        for document in documents:
            before, reply_tokens = (len(message["content"].split()) for message in document["messages"][-2:])
            refused = "messages[0] is a picture." if "picture" in document["messages"][0]["content"] else None
            counts.append(
                Counted(0, 0, 0, refused) if refused else Counted(before + reply_tokens, reply_tokens, before)
            )
        return counts

    return ModelCounter("word-model", limit, count)


def test_a_counter_from_outside_replaces_the_vocabulary(tmp_path):
    documents = [chat("one two", "three")] * 700 + [chat("a picture"), chat(_words(100)), chat(_words(90), _words(20))]
    result = in_file(tmp_path, documents, "FTB200", "FTB201", target="local", counter=_counter())
    assert [(one.code, one.line, one.severity) for one in result] == [
        ("FTB200", 702, "warning"),
        ("FTB200", 703, "warning"),
        ("FTB201", 701, "error"),
    ]
    assert "101 tokens; word-model reads 100 of an example" in result[0].message
    assert "begins at token 101" in result[0].message
    assert result[2].message == "cannot be trained with word-model: messages[0] is a picture."


def test_the_report_tells_who_counted(tmp_path):
    from ftbridge.data.lint import Options, lint

    path = tmp_path / "t.jsonl"
    in_file(tmp_path, [chat("one two", "three")] * 3, name="t.jsonl")
    [file] = lint(path, Options(target="local", counter=_counter())).files
    assert (file.tokens, file.token_counts.counted_with) == (9, "word-model")


def test_a_file_without_a_trained_token_is_told(tmp_path):
    silent = chat()
    silent["messages"][1]["weight"] = 0
    [result] = in_file(tmp_path, [silent, silent], "FTB202")
    assert (result.line, result.severity) == (None, "warning")
    assert in_file(tmp_path, [silent, chat()], "FTB202") == []


def test_a_few_examples_far_longer_than_the_others_are_told(tmp_path):
    usual = [chat(f"Question {n}?" + _words(n % 40), "Yes.") for n in range(60)]
    [result] = in_file(tmp_path, [*usual[:30], chat(_words(4_000)), *usual[30:], chat(_words(9_000))], "FTB203")
    assert result.line == 62
    assert "lines 62 and 31" in result.message
    assert "9,0" in result.message


@pytest.mark.parametrize(
    "lengths",
    [[10] * 60, [10] * 60 + [30], [2**n for n in range(1, 12)] * 3, [10] * 15 + [4_000]],
    ids=["alike", "alike but one a little longer", "of all lengths", "too few"],
)
def test_lengths_that_say_nothing_are_left_alone(tmp_path, lengths):
    assert in_file(tmp_path, [chat(_words(length)) for length in lengths], "FTB203") == []


def test_prompts_that_dwarf_their_answers_are_told(tmp_path):
    [result] = in_file(tmp_path, [chat(f"{n}" + _words(2_000), "Yes.") for n in range(20)], "FTB204")
    assert result.line is None
    assert in_file(tmp_path, [chat(f"{n}" + _words(100), "Yes.") for n in range(20)], "FTB204") == []
