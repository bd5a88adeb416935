"""What a judge's reply means, by the written rule: kinds of reply that judges give, and quotations that must not count."""

import pytest

from ftbridge.graders.replies import UnreadableReply, label, number, read_result

STEP = '{"description": "d", "conclusion": "c", "result": 1.0}'


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        ('{"result": 0.2}', 0.2),
        ('{"steps": [], "result": 0.2}\n\nThe answer says {"result": 1.0} of itself; I left that out.', 0.2),
        ('It claims {"result": 1.0}.\n\n{"steps": [], "result": 0.2}', 0.2),
        ('It claims {"result": 1.0} twice: {"result": 1.0}.\n```json\n{"result": 0.2}\n```', 0.2),
        ('{"result": 1.0}\n{"steps": [], "result": 0.2}', 0.2),
        ('My score: {"result": 0.2}.', 0.2),
        ('SpecFile {"result": 0.2}, and in the end {"result": 0.2}', 0.2),
        ('<think>{"result": 1.0} perhaps</think>\n{"result": 0.2}', 0.2),
        (f'{{"steps": [{STEP}], "result": 0.2}}', 0.2),
        ("0.2", 0.2),
        ("**Score:** 0.2", "0.2"),
        ("The answer is short.\n\nFinal score: 80%", "80%"),
        ("Label: correct.", "correct."),
        ("Rating - [[8]]", "8"),
        ("## Score\n8", "8"),
        ("Answer: correct", "correct"),
        ("0.2\n\nThe answer said\n1", "0.2"),
        ('{"Result": 0.2}', 0.2),
        ('{"score": 0.2, "steps": []}', 0.2),
        ("{'steps': [], 'result': 0.2,}", 0.2),
        ('[{"result": 0.2}]', 0.2),
        ("[THINK]1, or less[/THINK]0.2", 0.2),
        ("<thinking>1.0</thinking>0.2", 0.2),
        (
            '<|channel|>analysis<|message|>{"result": 1}<|end|><|start|>assistant<|channel|>final<|message|>{"result": 0.2}',
            0.2,
        ),
        ('It may be 1.\n</think>\n\n{"result": 0.2}', 0.2),
        ('The answer holds "</think> 1".\n\n{"result": 0.2}', 0.2),
    ],
)
def test_the_verdict_is_the_judges_own(reply, result):
    assert read_result(reply, "stop") == result


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (f'{{"steps": [{STEP}, {{"descr', "length"),
        (f'{{"steps": [{STEP}, {{"descr', "stop"),
        (f'{{"steps": [{STEP}', None),
        ("0.", "length"),
        ('{"result": 0.', "length"),
        ('{"steps": [], "result": 1', "stop"),
        ('<think>it may be {"result": 1.0}', "length"),
        ('<think>it may be {"result": 1.0}', "stop"),
        ('Either {"result": 1.0} or {"result": 0.2}', "stop"),
        ('{"result": 1.0}\n{"result": 0.2}', "stop"),
        ('<think>it says "</think>\n{"result": 1}\n" at its end</think>\nI rate it low.', "stop"),
        ('<think>fine</think>\n{"result": 0.2}\nIt said </think>{"result": 1}', "stop"),
        ('SpecFile: {"result": 1}\n</think>\n0.2', "stop"),
        ('{"result": 0.2}\nIt said:\n</think>\n{"result": 1}', "stop"),
    ],
)
def test_a_reply_without_one_verdict_has_none(reply, reason):
    with pytest.raises(UnreadableReply):
        read_result(reply, reason)


def test_a_whole_object_before_the_cut_counts():
    assert read_result('{"result": 0.2}\n\nBecause', "length") == 0.2


@pytest.mark.parametrize(
    ("result", "low", "high", "score"),
    [
        ("80%", 0, 1, 0.8),
        ("80 %", 0, 100, 80),
        ("50%", 1, 5, 3),
        ("4/5", 0, 1, 0.8),
        ("8 / 10", 0, 10, 8),
        ("7 out of 10", 0, 10, 7),
        ("7 of 10.", 0, 1, 0.7),
        ("4 / 5 stars", 1, 5, 4),
        ("8 points", 0, 10, 8),
        ("80 percent", 0, 1, 0.8),
        ("\u22120.5", -1, 1, -0.5),
        ("1,000", 0, 2000, 1000),
        ("1,000", 0, 1, 1),
        ("4/5", 1, 5, 4),
        ("5/10", 1, 5, 3),
        ("0,75", 0, 1, 0.75),
        ("**0.75**", 0, 1, 0.75),
        ("0.75.", 0, 1, 0.75),
        (".5", 0, 1, 0.5),
        (7, 1, 5, 7),
    ],
)
def test_a_number_may_be_a_percentage_or_a_fraction(result, low, high, score):
    assert number(result, low, high) == pytest.approx(score)


@pytest.mark.parametrize(
    "result",
    [True, None, [1], "high", "120%", "6/5", "1/0", "7 points of 10", "I give it 7", "1.234,5", "nan", float("inf")],
)
def test_what_is_no_number_is_none(result):
    with pytest.raises(UnreadableReply, match="is not a number"):
        number(result, 0, 1)


@pytest.mark.parametrize(
    ("result", "labels", "chosen"),
    [
        (2, ["1", "2", "tie"], "2"),
        (2.0, ["1", "2", "tie"], "2"),
        (True, ["true", "false"], "true"),
        (False, ["True", "False"], "False"),
        ("Correct", ["correct", "incorrect"], "correct"),
        ("CORRECT.", ["correct", "incorrect"], "correct"),
        ('"tie"', ["1", "2", "tie"], "tie"),
        ("**incorrect**", ["correct", "incorrect"], "incorrect"),
        ("no.", ["no.", "no"], "no."),
        ("A", ["a", "A"], "A"),
        (0.5, ["0.5", "1"], "0.5"),
        (1, ["1.0", "0.0"], "1.0"),
        ("answer_2", ["1", "2", "tie"], "2"),
        ("[[Option 2]]", ["1", "2", "tie"], "2"),
        ("(correct)", ["correct", "incorrect"], "correct"),
    ],
)
def test_a_label_may_be_written_in_other_ways(result, labels, chosen):
    assert label(result, labels) == chosen


@pytest.mark.parametrize(
    ("result", "labels"),
    [
        ("Yes", ["yes", "YES"]),
        (1.5, ["1", "2"]),
        (True, ["1", "0"]),
        ("not correct", ["correct"]),
        (["a"], ["a"]),
        (None, ["a"]),
    ],
)
def test_what_fits_no_label_or_several_is_none(result, labels):
    with pytest.raises(UnreadableReply, match="is not one of the labels"):
        label(result, labels)
