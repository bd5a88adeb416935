"""The `pairwise` grader, ours: a judge model says which of two answers is better, and is asked in both orders.

    question, answer 1 = answer, answer 2 = against ─▶ judge ─▶ 1, 2 or tie ─┐
    question, answer 1 = against, answer 2 = answer ─▶ judge ─▶ 1, 2 or tie ─┴▶ reward

Judges favour a place, mostly the first (Wang et al. 2023, arXiv:2305.17926; Zheng et al. 2023, arXiv:2306.05685). So a win
counts only when it does not depend on the order: 1 for both orders, 0 for losing both, 0.5 for ties and for a judge that
changes its mind; how often it does is told in the evaluation's notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftbridge.graders import judge
from ftbridge.graders.calls import Calls
from ftbridge.graders.result import Outcome
from ftbridge.spec.graders import JudgeMessage, LabelModelGrader, PairwiseGrader

LABELS = ("1", "2", "tie")
_PROMPT = """{question}

Two answers were given. Say which is better. Their order means nothing, and neither does their length.

<answer_1>
{first}
</answer_1>

<answer_2>
{second}
</answer_2>

The label is 1 if the first answer is better, 2 if the second is, tie if neither is."""


def grade(
    grader: PairwiseGrader, item: Mapping[str, Any], sample: Mapping[str, Any], calls: Calls | None = None
) -> Outcome:
    """1, 0.5 or 0; `details` hold both verdicts and whether they agree. Errors as for `label_model`, of either question."""
    forward, backward = (judge.grade_label(order, item, sample, calls) for order in orders(grader))
    both = (*forward.calls, *backward.calls)
    for outcome in (forward, backward):
        if outcome.errors:
            return Outcome(0.0, errors=outcome.errors, calls=both)
    first, second = str(forward.details["label"]), str(backward.details["label"])
    # What the second question calls 1 is the other answer.
    seen = {"1": 1.0, "2": 0.0, "tie": 0.5}[first], {"1": 0.0, "2": 1.0, "tie": 0.5}[second]
    reward = seen[0] if seen[0] == seen[1] else 0.5
    details = {"in_order": first, "in_reverse": second, "consistent": seen[0] == seen[1]}
    return Outcome(reward, details=details, calls=both)


def orders(grader: PairwiseGrader) -> tuple[LabelModelGrader, LabelModelGrader]:
    """The two questions, as label_model graders: the answer first, and second."""
    return _asked(grader, grader.answer, grader.against), _asked(grader, grader.against, grader.answer)


def _asked(grader: PairwiseGrader, first: str, second: str) -> LabelModelGrader:
    text = _PROMPT.replace("{question}", grader.question).replace("{first}", first).replace("{second}", second)
    return LabelModelGrader(
        type="label_model",
        name=grader.name,
        model=grader.model,
        input=[JudgeMessage(role="user", content=text)],
        labels=list(LABELS),
        passing_labels=["1"],
        sampling_params=grader.sampling_params,
        base_url=grader.base_url,
        timeout_seconds=grader.timeout_seconds,
    )
