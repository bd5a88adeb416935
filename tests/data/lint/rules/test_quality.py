"""Rules about a file as a whole: repetition, contradiction, balance, system messages."""

import random

import pytest

from support.rule_findings import chat, in_file

WORDS = [
    "river",
    "stone",
    "window",
    "paper",
    "orange",
    "cloud",
    "engine",
    "letter",
    "garden",
    "silver",
    "market",
    "bridge",
]


def _text(seed, length=60):
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def _changed(text, count=1):
    words = text.split()
    for where in range(count):
        words[(where + 1) * len(words) // (count + 1)] = "CHANGED"
    return " ".join(words)


def test_duplicates_are_told_once_with_the_lines_they_stand_in(tmp_path):
    documents = [chat("a"), chat("b"), chat("a"), chat("c"), chat("a"), chat("b")]
    result = in_file(tmp_path, documents, "FTB300")
    assert [(one.line, one.severity, one.message) for one in result] == [
        (1, "info", "is repeated in lines 3 and 5. Keep one of them."),
        (2, "info", "is repeated in line 6. Keep one of them."),
    ]


def test_the_order_of_keys_and_weights_make_no_difference_but_tools_do(tmp_path):
    one, other = chat("a"), chat("a")
    other["messages"] = [dict(reversed(message.items())) for message in other["messages"]]
    other["messages"][1]["weight"] = 1
    assert len(in_file(tmp_path, [one, other], "FTB300")) == 1
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert in_file(tmp_path, [one, chat("a", tools=tools)], "FTB300") == []


def test_near_duplicates_are_told_once_a_cluster(tmp_path):
    base = _text(1, 90)
    documents = [chat(_text(n + 10), _text(n + 100)) for n in range(40)]
    documents[3] = chat(base, "Yes, that is the case.")
    documents[17] = chat(_changed(base, 1), "Yes, that is the case.")
    documents[30] = chat(_changed(base, 2), "Yes, that is the case.")
    [result] = in_file(tmp_path, documents, "FTB301")
    assert (result.line, result.severity) == (4, "info")
    assert "lines 18 and 31" in result.message


def test_texts_that_share_half_their_words_and_exact_copies_are_no_near_duplicates(tmp_path):
    half = _text(1)
    documents = [chat(f"{half} {_text(n)}") for n in range(30)] + [chat(_text(500), _text(501))] * 3
    assert in_file(tmp_path, documents, "FTB301") == []


def test_the_same_system_message_makes_no_near_duplicates(tmp_path):
    documents = [chat(f"{_text(n, 12)}", system=_text(7, 300)) for n in range(30)]
    assert in_file(tmp_path, documents, "FTB301") == []


def test_a_prompt_with_different_answers_is_a_contradiction(tmp_path):
    documents = [chat("q", "yes"), chat("other", "no"), chat("q", "yes"), chat("q", "no")]
    [result] = in_file(tmp_path, documents, "FTB302")
    assert (result.line, result.severity) == (1, "warning")
    assert "lines 3 and 4, with 2 different completions" in result.message
    assert in_file(tmp_path, [chat("q", "yes", system="a"), chat("q", "no", system="b")], "FTB302") == []


def test_a_reinforcement_prompt_with_different_fields_is_a_contradiction(tmp_path):
    messages = [{"role": "user", "content": "2+2?"}]
    documents = [{"messages": messages, "answer": "4"}, {"messages": messages, "answer": "5"}]
    [result] = in_file(tmp_path, documents, "FTB302", method="reinforcement")
    assert "different item fields" in result.message
    assert in_file(tmp_path, [documents[0]] * 2, "FTB302", method="reinforcement") == []


def _preference(better, worse, prompt="q"):
    return {
        "input": {"messages": [{"role": "user", "content": prompt}]},
        "preferred_output": [{"role": "assistant", "content": better}],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
    }


def test_preferences_that_turn_round_are_told_at_both_lines(tmp_path):
    documents = [_preference("a", "b"), _preference("a", "c"), _preference("b", "a"), _preference("b", "a", "other")]
    result = in_file(tmp_path, documents, "FTB302", "FTB303")
    assert [(one.code, one.line, one.severity) for one in result] == [
        ("FTB303", 1, "warning"),
        ("FTB303", 3, "warning"),
    ]
    assert result[0].message == "is preferred in line 3 for the same prompt."


def test_an_order_of_three_answers_is_no_contradiction(tmp_path):
    assert in_file(tmp_path, [_preference("a", "b"), _preference("b", "c"), _preference("a", "c")], "FTB303") == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"spam": 57, "ham": 3}, '"spam" in 95%, "ham" in 5.0%'),
        ({"spam": 40, "ham": 20}, None),
        ({"a": 15, "b": 1}, None),
        ({"one": 60}, None),
    ],
    ids=["imbalanced", "balanced", "too few", "one label"],
)
def test_labels_out_of_balance_are_told(tmp_path, labels, message):
    documents = [chat(f"{label} {n}", label) for label, count in labels.items() for n in range(count)]
    result = in_file(tmp_path, documents, "FTB304")
    assert [message in one.message for one in result] == ([True] if message else [])


def test_one_answer_to_most_questions_is_told_where_answers_are_no_labels(tmp_path):
    stock = "I will forward your question to a colleague, who answers within two working days, as a rule."
    documents = [chat(f"q{n}", stock if n % 3 else _text(n)) for n in range(60)]
    [result] = in_file(tmp_path, documents, "FTB305")
    assert result.line == 2
    assert "40 of 60" in result.message
    assert in_file(tmp_path, [chat(f"q{n}", "yes" if n % 3 else "no") for n in range(60)], "FTB305") == []
    [result] = in_file(tmp_path, [chat(f"q{n}", "yes") for n in range(60)], "FTB305")
    assert "100%" in result.message


def test_system_messages_in_some_examples_are_told_with_those_that_lack_them(tmp_path):
    documents = [chat(f"q{n}", system=None if n in (3, 8) else "Be kind.") for n in range(20)]
    [result] = in_file(tmp_path, documents, "FTB306")
    assert (result.line, result.severity) == (4, "info")
    assert "18 examples with a system message and 2 without: lines 4 and 9" in result.message
    assert in_file(tmp_path, [chat("q", system="Be kind.")] * 3, "FTB306") == []


def test_a_stray_system_message_is_told(tmp_path):
    documents = [chat(f"q{n}", system="Be kind!" if n in (5, 7) else "Be kind.") for n in range(40)]
    [result] = in_file(tmp_path, documents, "FTB307")
    assert result.line == 6
    assert "95% of the examples" in result.message


def test_a_system_message_for_every_example_is_told(tmp_path):
    [result] = in_file(tmp_path, [chat(f"q{n}", system=_text(n)) for n in range(30)], "FTB307", "FTB308")
    assert (result.code, result.line) == ("FTB308", None)
    assert in_file(tmp_path, [chat(f"q{n}", system=_text(n % 5)) for n in range(30)], "FTB308") == []


def test_ten_equal_examples_get_advice_and_no_warning(tmp_path):
    result = in_file(tmp_path, [chat()] * 10)
    assert {one.severity for one in result} <= {"info"}


@pytest.mark.parametrize(
    "completion",
    [
        "null",
        "None",
        "NaN",
        "nan",
        "undefined",
        "N/A",
        "n/a",
        "#N/A",
        "[object Object]",
        "NULL\n",
        " null ",
        "<NA>",
        "(null)",
        "#REF!",
    ],
)
def test_an_answer_that_an_export_left_behind_is_told(completion, tmp_path):
    documents = [chat("Where is it?", completion), chat("And that?", "It was sent.")]
    [result] = in_file(tmp_path, documents, "FTB311")
    assert (result.line, result.field, result.severity) == (1, "messages[1].content", "warning")


@pytest.mark.parametrize(
    "completion", ["none", "Null island", "None of them.", "N/A: ask Ann", "It is undefined.", "NA", "0", "nil"]
)
def test_an_answer_that_says_something_is_left_alone(completion, tmp_path):
    assert in_file(tmp_path, [chat("null", completion, system="None")], "FTB311") == []


def test_such_words_are_found_in_parts_earlier_turns_and_preferred_answers(tmp_path):
    parts = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "text", "text": "None"}]},
        ]
    }
    turns = {"messages": [*chat("a", "undefined")["messages"], *chat("b", "c")["messages"]]}
    assert [result.line for result in in_file(tmp_path, [parts, turns], "FTB311")] == [1, 2]
    pair = {
        "input": {"messages": [{"role": "user", "content": "a"}]},
        "preferred_output": [{"role": "assistant", "content": "null"}],
        "non_preferred_output": [{"role": "assistant", "content": "b"}],
    }
    assert [result.field for result in in_file(tmp_path, [pair], "FTB311")] == ["preferred_output[0].content"]
