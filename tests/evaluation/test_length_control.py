"""Win rates with lengths made equal: known truths, and nothing without width."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.length_control import length_controlled
from ftbridge.evaluation.score import judge
from ftbridge.report.terminal.judges import judge_sentences
from ftbridge.spec.graders import PairwiseGrader
from support.judge_server import judge_server


def drawn(seed, items, theta, phi, longer):
    """Wins of a model of strength `theta` before a judge who favours length by `phi`; answers are `longer` on average."""
    dice = np.random.default_rng(seed)
    apart = dice.normal(longer, 100, items)
    won = dice.random(items) < 1 / (1 + np.exp(-(theta + phi * np.tanh(apart / apart.std()))))
    return won.astype(float).tolist(), [(1000 + int(difference), 1000) for difference in apart]


def test_a_judge_that_favours_length_no_longer_makes_the_longer_model_better():
    wins, lengths = drawn(1, 2000, theta=0.0, phi=2.0, longer=100)
    result = length_controlled(wins, lengths)
    assert result.win_rate > 0.68
    assert result.ci95[0] < 0.5 < result.ci95[1]
    assert result.controlled == pytest.approx(0.5, abs=0.05)
    assert result.longer > 0.8


def test_the_interval_holds_the_truth_in_about_19_of_20_samples():
    truth = 1 / (1 + np.exp(-0.5))
    held = 0
    for seed in range(200):
        result = length_controlled(*drawn(seed, 120, theta=0.5, phi=1.0, longer=50))
        held += result.ci95[0] <= truth <= result.ci95[1]
    assert 183 <= held <= 199


def test_items_that_belong_together_widen_the_interval():
    wins, lengths = drawn(3, 60, theta=0.5, phi=0.0, longer=0)
    alone = length_controlled(wins, lengths)
    tripled = length_controlled(wins * 3, lengths * 3, list(range(60)) * 3)
    assert tripled.ci95[1] - tripled.ci95[0] == pytest.approx(alone.ci95[1] - alone.ci95[0], rel=0.15)


def test_all_wins_and_equal_lengths_have_an_interval_with_width():
    result = length_controlled([1.0] * 30, [(10, 10)] * 30)
    assert 0.8 < result.controlled < 1
    assert result.ci95[0] < result.controlled < result.ci95[1] < 1


def test_few_items_are_not_estimated():
    assert length_controlled([1.0, 0.0] * 9, [(2, 1)] * 18) is None


def test_it_is_part_of_the_evaluation_of_a_pairwise_judge():
    items = [
        Item(key=f"{n:016x}-{n}", index=n, prompt=(), tools=(), fields={"reference": "twenty characters ..."})
        for n in range(40)
    ]
    lines = [
        Prediction(key=item.key, index=item.index, prompt_sha256="x", output_text="x" * (20 + item.index % 3 * 4),
                   finish_reason="stop", prompt_tokens=1, completion_tokens=1)
        for item in items
    ]  # fmt: skip

    def favours_length(body):
        shown = [
            part.split("\n</answer")[0] for part in re.split(r"<answer_\d>\n", body["messages"][-1]["content"])[1:]
        ]
        return "1" if len(shown[0]) > len(shown[1]) else "2" if len(shown[0]) < len(shown[1]) else "tie"

    with judge_server(favours_length) as address:
        grader = PairwiseGrader(type="pairwise", name="which", model="j", question="q", base_url=address)
        evaluation = judge(items, {"tuned": lines}, [grader])
    rate = evaluation.length_controlled["tuned"]["which"]
    assert (rate.n, rate.longer, rate.win_rate) == (40, 26 / 40, 26 / 40)
    assert rate.controlled < rate.win_rate
    assert "if both completions had the same length" in judge_sentences(evaluation)[0]
