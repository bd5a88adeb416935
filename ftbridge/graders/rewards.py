"""What a completion earns in reinforcement: a reward on the grader's own scale, or none.

    who failed                  error                                                    reward
    the completion              sample_parse_error, truncated_observation_error,         the grader's lowest value
                                a variable of the sample that is not there
    the grader, a judge, an     every other name, exceptions of Python source included   none
    endpoint

An evaluation may count a failed judge as 0 and say so beside it; training must not: a completion that was scored 0 because
its judge was away teaches the model that it was bad. A multi grader whose part has no reward has none, and neither has a panel
of which a judge failed: what the others say is another scale. A variable of the item
that is not there is the spec's fault: `ftbridge.graders.check` finds it before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftbridge.graders import grade, multi
from ftbridge.graders.calls import Calls
from ftbridge.graders.formula import ArithmeticFailed
from ftbridge.graders.python import PythonPolicy
from ftbridge.graders.result import ErrorName, GraderResult, JudgeCall
from ftbridge.spec.graders import Grader, MultiGrader, PythonGrader, ScoreModelGrader, SingleGrader

_OF_THE_COMPLETION: frozenset[ErrorName] = frozenset(
    {"sample_parse_error", "truncated_observation_error", "invalid_variable_error"}
)
_ANOTHER_TRY: frozenset[ErrorName] = frozenset(
    {
        "model_grader_server_error",
        "model_grader_refusal_error",
        "model_grader_parse_error",
        "python_grader_server_error",
        "unresponsive_reward_error",
    }
)


@dataclass(frozen=True)
class Reward:
    """What a completion earned. `value` is None where the grader or a judge failed.

    `parts` are the rewards of a multi grader's graders by their keys; `seconds` is how long grading took.
    """

    value: float | None
    errors: Mapping[ErrorName, str] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    calls: tuple[JudgeCall, ...] = ()
    seconds: float = 0.0

    @property
    def is_worth_another_try(self) -> bool:
        """Whether grading again may give a reward: a judge, an endpoint or a process failed, and nothing is wrong with the
        grader itself.
        """
        return self.value is None and not self.errors.keys().isdisjoint(_ANOTHER_TRY)


def lowest(grader: Grader) -> float:
    """The lowest reward that a grader declares: the beginning of score_model's range, else 0."""
    return grader.range[0] if isinstance(grader, ScoreModelGrader) else 0.0


def width(grader: Grader) -> float:
    """How far apart the lowest and the highest reward are, as the grader declares: score_model's range, else 1."""
    return grader.range[1] - grader.range[0] if isinstance(grader, ScoreModelGrader) else 1.0


def share(grader: Grader, value: float) -> float | None:
    """A reward as a share of what there is to earn, 0 at the lowest and 1 at the highest; None of python and multi, whose
    rewards have no limits that are declared.
    """
    return None if isinstance(grader, (PythonGrader, MultiGrader)) else (value - lowest(grader)) / width(grader)


def reward(
    grader: Grader,
    item: Mapping[str, Any],
    sample: Mapping[str, Any],
    *,
    policy: PythonPolicy | None = None,
    calls: Calls | None = None,
) -> Reward:
    """What one completion earns. Raises as `ftbridge.graders.grade` does, for a grader that can grade nothing."""
    if isinstance(grader, MultiGrader):
        parts = {key: reward(part, item, sample, policy=policy, calls=calls) for key, part in grader.graders.items()}
        return _together(grader, parts)
    return _of(grader, grade(grader, item, sample, policy=policy, calls=calls))


def _of(grader: SingleGrader | Grader, result: GraderResult) -> Reward:
    value: float | None = result.reward
    errors: Mapping[ErrorName, str] = result.errors or result.metadata.details.get("errors", {})
    if errors:
        value = lowest(grader) if errors.keys() <= _OF_THE_COMPLETION else None
    return Reward(
        value,
        errors=dict(errors),
        parts=dict(result.sub_rewards),
        calls=tuple(result.metadata.calls),
        seconds=result.metadata.execution_time,
    )


def _together(grader: MultiGrader, parts: Mapping[str, Reward]) -> Reward:
    """The formula over the parts' rewards; none where a part has none, or where the formula has no result."""
    errors: dict[ErrorName, str] = {}
    for key, part in parts.items():
        for name, text in part.errors.items():
            errors[name] = f"{errors[name]}; {key}: {text}" if name in errors else f"{key}: {text}"
    values = {key: part.value for key, part in parts.items() if part.value is not None}
    value: float | None = None
    if len(values) == len(parts):
        try:
            value = multi.compute(grader, values)
        except ArithmeticFailed as error:
            errors["other_error"] = f"calculate_output: {error}"
    return Reward(
        value,
        errors=errors,
        parts=values,
        calls=tuple(call for part in parts.values() for call in part.calls),
        seconds=sum(part.seconds for part in parts.values()),
    )
