"""Retention: the suite, checks, canaries, and the verdict on what tuning kept."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ftbridge.errors import DataError
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import load_items
from ftbridge.evaluation.retention.checks import passes
from ftbridge.evaluation.retention.measure import measure_retention
from ftbridge.evaluation.retention.questions import suite, write_questions
from ftbridge.spec.graders import StringCheckGrader
from ftbridge.spec.sections import RetentionSpec

EXACT = [StringCheckGrader(type="string_check", name="exact", operation="eq", input="{{sample.output_text}}", reference="{{item.reference}}")]  # fmt: skip


def chat(question: str, reply: str, **more: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return json.dumps({"messages": messages, **more}) + "\n"


@pytest.fixture
def train(tmp_path):
    (tmp_path / "train.jsonl").write_text(chat("trained?", "yes"))
    return tmp_path / "train.jsonl"


@pytest.fixture
def questions(tmp_path, train):
    def build(**settings):
        write_questions(RetentionSpec(**settings), train, tmp_path / "retention.jsonl")
        return load_items(tmp_path / "retention.jsonl")

    return build


def predictions(items, outputs):
    return [
        Prediction(
            key=item.key, index=item.index, prompt_sha256="", output_text=reply, finish_reason="stop",
            prompt_tokens=1, completion_tokens=1,
        )
        for item, reply in zip(items, outputs, strict=True)
    ]  # fmt: skip


def test_the_suite_asks_at_least_120_questions_of_five_kinds(questions):
    items = questions()
    kinds = Counter(item.fields["kind"] for item in items)
    assert len(items) >= 120
    assert set(kinds) == {"fact", "arithmetic", "instruction", "format", "nonsense"}
    assert min(kinds.values()) >= 20
    assert len({item.prompt[-1].text for item in items}) == len(items)


@pytest.mark.parametrize("line", list(suite()), ids=lambda line: line["messages"][0]["content"][:40])
def test_each_question_takes_its_answer_and_no_other(line):
    check, expected = line["check"], line["expected"]
    assert passes(check, expected, expected)
    for wrong in ("", "I do not know.", "0", "TRUE or FALSE", "[]", "zebra"):
        assert not passes(check, expected, wrong)


def test_always_saying_false_gains_nothing():
    nonsense = [line for line in suite() if line["kind"] == "nonsense"]
    right = sum(passes(line["check"], line["expected"], "FALSE") for line in nonsense)
    assert right * 2 == len(nonsense)


@pytest.mark.parametrize(
    ("check", "expected", "reply", "right"),
    [
        ("eq", "yes", " yes\n", True),
        ("eq", "yes", "yes.", False),
        ("like", "Au", "It is Au.", True),
        ("like", "Au", "au", False),
        ("ilike", "Paris", "PARIS!", True),
        ("word", "7", "15 - 8 = 7.", True),
        ("word", "7", "17", False),
        ("word", "7", "1.7", False),
        ("word", "7", "7.5", False),
        ("word", "7", "It is 7, of course", True),
        ("word", "ice", "Frozen water is nice", False),
        ("word", "ice", "Ice", True),
        ("word", "384", "128 + 256 = 384", True),
        ("word", "South America", "In south america.", True),
        ("first_word", "FALSE", "**False**, since …", True),
        ("first_word", "FALSE", "It is FALSE", False),
        ("first_word", "TRUE", "TRUE or FALSE", False),
        ("first_word", "TRUE", "true", True),
        ("json", '{"count": 3}', '```json\n{"count":3}\n```', True),
        ("json", '{"count": 3}', '{"count": "3"}', False),
        ("json", "[1, 2, 3]", "Here: [1, 2, 3]", False),
        ("json", '{"a": 1}', '{"a": 1.0}', True),
        ("json", '{"a": 1}', '{"a": true}', False),
        ("json", '{"a": [0]}', '{"a": [false]}', False),
        ("json", '{"a": true}', '{"a": 1}', False),
        ("word", "7", "-7", False),
        ("word", "7", "The result is −7.", False),
        ("word", "12", "12/5", False),
        ("word", "1200", "1,200", True),
        ("word", "1200", "1,200.0 euros", True),
        ("word", "1200", "1,2000", False),
        ("word", "3.5", "3.50", True),
        ("word", "7", "v7", False),
        ("word", "391", "**391**", True),
        ("word", "144", "10 * 12 = 120, 2 * 12 = 24, 120 + 24 = 144", True),
        ("word", "144", "144? No, 145.", False),
    ],
)
def test_checks(check, expected, reply, right):
    assert passes(check, expected, reply) is right


@pytest.mark.parametrize("repeat", ["{}", "{} {}", "Q: {}\nA: {}", "You asked: {}", "{}\n\n", "« {} »"])
def test_repeating_the_question_passes_nothing(repeat):
    passed = []
    for line in suite():
        question = line["messages"][0]["content"]
        if passes(line["check"], line["expected"], repeat.format(question, question), question):
            passed.append(question)
    assert passed == []


def test_the_answer_after_the_repeated_question_passes():
    for line in suite():
        question, expected = line["messages"][0]["content"], line["expected"]
        if line["check"] != "eq":
            assert passes(line["check"], expected, f"{question}\n{expected}", question), question


@pytest.mark.parametrize("numbers", [range(201), range(200, -1, -1), range(0, 400, 3), range(1000)])
def test_counting_passes_at_most_the_sum_that_it_ends_on(numbers):
    sums = [line for line in suite() if line["kind"] == "arithmetic"]
    counted = ", ".join(map(str, numbers))
    assert not [
        line for line in sums if passes(line["check"], line["expected"], counted, line["messages"][0]["content"])
    ]


@pytest.mark.parametrize(
    ("prompt", "expected", "completion", "right"),
    [
        ("What is 15 - 8?", "7", "7, because 15 - 8 = 7.", True),
        ("What is 15 - 8?", "7", "It is 7: of 15 apples, 8 were eaten.", True),
        ("What is 15 - 8?", "7", "15 - 8 = 23", False),
        ("What is 15 - 8?", "7", "15-8=7", True),
        ("Which is larger, 319 or 391?", "391", "391 is larger.", True),
        ("Which is larger, 319 or 391?", "391", "319 or 391? 319.", False),
        ("Which is larger, 319 or 391?", "391", "391 is larger than 319.", True),
        ("Which is larger, 319 or 391?", "391", "319 is larger than 391.", False),
        ("Which is larger, 319 or 391?", "391", "Of 319 and 391 the larger is 391.", True),
        (
            "From this text, give the price: The lamp costs 39 euros and comes in red.",
            "39",
            "The lamp costs 39 euros.",
            True,
        ),
        ("From this text, give the price: The lamp costs 39 euros and comes in red.", "39", "Red.", False),
    ],
)
def test_numbers_of_the_question_are_no_results(prompt, expected, completion, right):
    assert passes("word", expected, completion, prompt) is right


def test_what_is_forgotten_is_told_with_both_answers(questions):
    items = questions()
    good = [item.fields["expected"] for item in items]
    bad = [reply if where >= 40 else "no idea" for where, reply in enumerate(good)]
    result = measure_retention(
        items, {"base": predictions(items, good), "tuned": predictions(items, bad)}, EXACT, baseline="base", margin=0.05
    )
    stored = result.verdicts["tuned"]
    assert stored.verdict == "worse"
    assert stored.difference == pytest.approx(-40 / len(items))
    assert len(stored.lost) == 40
    assert (stored.lost[0].before, stored.lost[0].after) == ("Paris", "no idea")
    assert result.candidates["tuned"]["fact"].mean == 0
    assert result.candidates["tuned"]["nonsense"].mean == result.candidates["base"]["all"].mean == 1
    same = measure_retention(
        items,
        {"base": predictions(items, good), "tuned": predictions(items, good)},
        EXACT,
        baseline="base",
        margin=0.05,
    )
    assert same.verdicts["tuned"].verdict == "kept"


def test_a_few_questions_cannot_tell(tmp_path, questions):
    (tmp_path / "own.jsonl").write_text(chat("a?", "a") + chat("b?", "b") + chat("c?", "c"))
    items = questions(suite=False, canaries=str(tmp_path / "own.jsonl"))
    one = measure_retention(
        items,
        {"base": predictions(items, "abc"), "tuned": predictions(items, "abx")},
        EXACT,
        baseline="base",
        margin=0.05,
    )
    assert one.verdicts["tuned"].verdict == "not_enough_data"
    assert one.kinds == ["canary"]
    assert one.verdicts["tuned"].lost[0].expected == "c"


def test_an_item_without_an_answer_is_left_out_of_both_sides(questions):
    items = questions()
    good = predictions(items, [item.fields["expected"] for item in items])
    failed = [good[0].model_copy(update={"output_text": "", "error": "HTTP 500"}), *good[1:]]
    result = measure_retention(items, {"base": good, "tuned": failed}, EXACT, baseline="base", margin=0.05)
    assert result.candidates["tuned"]["all"].n == len(items) - 1
    assert result.verdicts["tuned"].lost == []


def test_a_canary_may_bring_its_own_check(tmp_path, questions):
    (tmp_path / "own.jsonl").write_text(chat("Who are you?", "I am Ada.", check="ilike", expected="ada") + "\n")
    [item] = questions(suite=False, canaries=str(tmp_path / "own.jsonl"))
    result = measure_retention(
        [item],
        {"base": predictions([item], ["Ada!"]), "tuned": predictions([item], ["Bob"])},
        EXACT,
        baseline="base",
        margin=0,
    )
    assert (result.candidates["base"]["canary"].mean, result.candidates["tuned"]["canary"].mean) == (1, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "contains no canaries"),
        ('{"messages": []}\n', "own.jsonl:1"),
        (chat("a?", "a") + "{\n", "own.jsonl:2"),
        (chat("trained?", "other"), "own.jsonl:1 asks what train.jsonl:1 trains"),
        (chat("a?", "a", check="matches", expected="a"), "check is one of"),
        (chat("a?", "a", check="eq"), "expected a text"),
    ],
)
def test_bad_canaries_are_told_by_line(tmp_path, questions, content, message):
    (tmp_path / "own.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        questions(suite=False, canaries=str(tmp_path / "own.jsonl"))
