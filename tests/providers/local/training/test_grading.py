"""Judges of rewards that are slow, down, or hard to read, and runs that end while they are asked."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ftbridge.errors import GateNotMet
from ftbridge.graders.budget import JudgeBudget
from ftbridge.graders.calls import Calls, read_calls
from ftbridge.graders.rewards import reward
from ftbridge.prices import load_prices
from ftbridge.providers.local.process.job import JobInterrupted
from ftbridge.providers.local.training.grading import RewardGrading
from ftbridge.spec.graders import PanelGrader, ScoreModelGrader
from support.priced_judge import HOST, Judge

PAUSED = """
import sys
from pathlib import Path
from ftbridge.graders.calls import Calls
from ftbridge.providers.local.process.child import end_process
from ftbridge.providers.local.process.job import JobInterrupted
from ftbridge.providers.local.training.grading import RewardGrading
from ftbridge.spec.graders import ScoreModelGrader
grading = RewardGrading(ScoreModelGrader.model_validate_json(sys.argv[1]), Calls(Path(sys.argv[2])))
stop = Path(sys.argv[3])
try:
    grading.settled([({}, {"output_text": str(n)}) for n in range(20)], lambda: "pause" if stop.exists() else None)
    print("done")
except JobInterrupted:
    grading.stop()
end_process(0)
"""


def test_a_process_that_pauses_while_judges_reply_pays_none_twice(tmp_path: Path, judge: Judge) -> None:
    judge.seconds = 1.0
    calls, stop = tmp_path / "calls.jsonl", tmp_path / "stop"
    command = [sys.executable, "-c", PAUSED, json.dumps(judge.grader), str(calls), str(stop)]
    with subprocess.Popen(command):
        while not judge.questions:
            time.sleep(0.05)
        stop.touch()
    first = len(judge.questions)
    assert 1 <= first < 20
    assert len(read_calls(calls)) == first, "every reply that is paid is on disk"
    stop.unlink()
    assert subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout == "done\n"
    assert set(Counter(judge.questions).values()) == {1}
    assert len(judge.questions) == 20


def test_a_reply_that_cannot_be_read_is_asked_for_again_after_a_wait(tmp_path: Path, judge: Judge) -> None:
    readable = judge.reply_to
    judge.reply_to = lambda text: ("I cannot say", 200) if len(judge.questions) <= 2 else readable(text)
    grading = RewardGrading(ScoreModelGrader.model_validate(judge.grader), Calls(tmp_path / "calls.jsonl"))
    rewards = grading.settled([({}, {"output_text": text}) for text in ("a", "bc")])
    assert [one.value for one in rewards] == [2.0, 3.0]
    assert sorted(judge.questions) == ["a", "a", "bc", "bc"]


def test_a_reply_that_can_never_be_read_is_asked_for_three_times_a_step(tmp_path: Path, judge: Judge) -> None:
    judge.reply_to = lambda text: ("I cannot say", 200)
    grading = RewardGrading(ScoreModelGrader.model_validate(judge.grader), Calls(tmp_path / "calls.jsonl"))
    for step in (1, 2):
        (one,) = grading.settled([({}, {"output_text": "a"})])
        assert one.value is None
        assert len(judge.questions) == 3 * step


def test_a_pause_is_heard_during_the_wait_before_another_try(
    tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "10")
    judge.reply_to = lambda text: ("I cannot say", 200)
    grading = RewardGrading(ScoreModelGrader.model_validate(judge.grader), Calls(tmp_path / "calls.jsonl"))
    with pytest.raises(JobInterrupted):
        grading.settled([({}, {"output_text": "a"})], lambda: "pause" if judge.questions else None)
    assert len(judge.questions) == 1


def test_only_questions_without_a_reply_are_held_against_the_budget(tmp_path: Path, judge: Judge) -> None:
    path = tmp_path / "calls.jsonl"
    grader = ScoreModelGrader.model_validate(judge.grader)
    each = load_prices().judge_usd(grader.model, f"http://{HOST}/v1", 1000, 1000)
    assert each
    pairs = [({}, {"output_text": "word " * n}) for n in range(12)]
    RewardGrading(grader, Calls(path)).settled(pairs[:8])
    budget = JudgeBudget(each * 12.5, on_used_up=GateNotMet, earlier=read_calls(path))
    grading = RewardGrading(grader, Calls(path, budget))
    assert grading.unpaid(pairs) == 4
    budget.hold(grading.unpaid(pairs))
    with pytest.raises(GateNotMet):
        budget.hold(len(pairs))
    grading.settled(pairs)
    assert grading.unpaid(pairs) == 0
    assert len(judge.questions) == 12


@pytest.mark.parametrize("down", [1, 2])
def test_a_panel_without_one_of_its_judges_gives_no_reward(tmp_path: Path, judge: Judge, down: int) -> None:
    judges = [{**judge.grader, "name": f"judge {n}", "model": f"m{n}"} for n in range(3)]
    panel = PanelGrader.model_validate({"type": "panel", "name": "panel", "judges": judges})
    assert reward(panel, {}, {"output_text": "a"}).value is not None
    counted: Counter[str] = Counter()

    def reply_to(text: str) -> tuple[str, int]:
        counted[text] += 1
        return ("I cannot say", 200) if counted[text] <= down else (json.dumps({"steps": [], "result": 1}), 200)

    judge.reply_to = reply_to
    partial = reward(panel, {}, {"output_text": "b"})
    assert partial.value is None
    assert list(partial.errors) == ["model_grader_parse_error"]
    assert partial.is_worth_another_try
