"""Graders held beside people's scores: published kappa, coverage of the corrected mean, files, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ftbridge.cli import main
from ftbridge.errors import DataError
from ftbridge.evaluation.calibration import Labelled, calibration, cohens_kappa, correct, read_labelled
from support.judge_server import judge_server


def test_kappa_is_that_of_a_published_table():
    # Two readers of 50 grant proposals, the example of Wikipedia's article on the measure: 0.70 where chance gives 0.50.
    assert cohens_kappa(20, 5, 10, 15) == pytest.approx(0.4)
    # There too: the same agreement of 0.60, other margins.
    assert cohens_kappa(45, 15, 25, 15) == pytest.approx(0.1304, abs=1e-4)
    assert cohens_kappa(25, 35, 5, 35) == pytest.approx(0.2593, abs=1e-4)
    assert cohens_kappa(10, 0, 0, 0) is None


def test_the_corrected_mean_covers_the_truth_where_the_graders_own_interval_does_not():
    # A lenient judge: it passes all that is right and 40 % of what is wrong; 60 % are right.
    dice, held, naive, widths = np.random.default_rng(7), 0, 0, []
    for _ in range(400):
        right = dice.random(460) < 0.6
        result = np.where(right, 1.0, dice.random(460) < 0.4).astype(float)
        labelled = slice(0, 60)
        outcome = correct(
            right[labelled].astype(float).tolist(),
            result[labelled].tolist(),
            result[60:].tolist(),
            [str(n) for n in range(400)],
        )
        held += outcome.ci95[0] <= 0.6 <= outcome.ci95[1]
        widths.append(outcome.ci95[1] - outcome.ci95[0])
        mean = result[60:].mean()
        naive += abs(mean - 0.6) <= 1.96 * np.sqrt(mean * (1 - mean) / 400)
    assert 0.93 <= held / 400 <= 0.99
    assert naive == 0
    assert np.mean(widths) < 0.25 - 0.02  # narrower than people's 60 scores alone, plus or minus 12.4 points


def test_a_useless_grader_counts_for_nothing_and_a_perfect_one_for_almost_all():
    people = [1.0, 0.0] * 20
    noise = [1.0, 1.0, 0.0, 0.0] * 10
    test = [1.0, 0.0] * 200
    names = [str(n) for n in range(400)]
    assert correct(people, noise, test, names).weight == pytest.approx(0, abs=0.01)
    assert correct(people, people, test, names).weight > 0.85


def test_people_who_all_agree_have_an_interval_with_width():
    low, high = correct([1.0] * 30, [1.0] * 30, [1.0] * 100, [str(n) for n in range(100)]).ci95
    assert low < 0.97
    assert high == 1.0


def test_few_labels_correct_nothing():
    assert correct([1.0] * 19, [1.0] * 19, [1.0] * 50, [str(n) for n in range(50)]) is None


def labelled(human, candidate=None):
    return Labelled({"reference": "r"}, "text", human, candidate)


def test_bias_confusion_and_the_candidates_own_labels():
    people = [*[labelled(1.0, "tuned")] * 12, *[labelled(0.0, "tuned")] * 12, *[labelled(0.0)] * 6]
    scores = [*[1.0] * 12, *[1.0] * 6, *[0.0] * 6, *[0.0] * 5, None]
    test = ([1.0] * 30 + [0.0] * 10, [str(n) for n in range(40)])
    result = calibration(people, scores, {"tuned": test, "base": test})
    assert (result.n, result.confusion) == (29, {"yes_yes": 12, "yes_no": 0, "no_yes": 6, "no_no": 11})
    assert result.bias == pytest.approx(6 / 29)
    assert result.bias_ci95[0] > 0
    assert (result.corrected["tuned"].own, result.corrected["tuned"].labelled) == (True, 24)
    assert (result.corrected["base"].own, result.corrected["base"].labelled) == (False, 29)
    assert result.corrected["tuned"].mean < 0.75
    assert calibration(people, [None] * 30, {}) is None


LINE = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}], "completion": "c", "human": True}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"human": 2}, "human is not a number from 0 to 1"),
        ({"human": "good"}, "human is not a number from 0 to 1"),
        ({"completion": None}, "completion is not text"),
        ({"candidate": 3}, "candidate is not a name"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, change, says):
    path = tmp_path / "human.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps({**LINE, **change}) + "\n")
    with pytest.raises(DataError, match=rf"human.jsonl:2 {says}"):
        read_labelled(path)
    path.write_text(json.dumps({key: value for key, value in LINE.items() if key != "human"}) + "\n")
    with pytest.raises(DataError, match="has no human"):
        read_labelled(path)


def test_eval_holds_a_judge_beside_people(tmp_path, monkeypatch, capsys):
    """The candidate is an endpoint that echoes; the judge is lenient; people are not."""
    monkeypatch.setenv("FTBRIDGE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def reply(body):
        return 1.0 if body["model"] == "judge" else "an answer"

    with judge_server(reply) as address:
        chats = [
            [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": "r"}] for n in range(90)
        ]
        for name, part in (("train", chats[:30]), ("test", chats[30:60])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in part))
        lines = [
            {"messages": chat, "completion": "an answer", "human": n % 2 == 0} for n, chat in enumerate(chats[60:])
        ]
        (tmp_path / "human.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        grader = {"type": "score_model", "name": "good", "model": "judge", "base_url": address,
                  "input": [{"role": "user", "content": "{{sample.output_text}}"}]}  # fmt: skip
        spec = {"name": "n", "model": {"openai": "gpt-4o-mini-2024-07-18"}, "data": {"train": "train.jsonl", "test": "test.jsonl"},
                "evaluation": {"graders": [grader]}}  # fmt: skip
        (tmp_path / "job.json").write_text(json.dumps(spec))
        command = ["eval", "job.json", "-c", f"new={address}#m", "--human", "human.jsonl"]
        with pytest.raises(SystemExit, match="0"):
            main([*command, "--json"])
        output = json.loads(capsys.readouterr().out)["calibration"]["good"]
        with pytest.raises(SystemExit, match="0"):
            main([*command, "--report", "page.html"])
        shown = capsys.readouterr().out
    assert (output["n"], output["human"], output["grader"], output["bias"]) == (30, 0.5, 1.0, 0.5)
    assert output["corrected"]["new"]["mean"] == pytest.approx(0.5, abs=0.01)
    assert "good compared with people" in " ".join(shown.split())
    assert "as people would score it" in (tmp_path / "page.html").read_text()
