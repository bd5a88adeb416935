"""What a grader says of one answer, and the same in the shape of OpenAI's `graders/run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

ErrorName = Literal[
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
]
"""OpenAI's names for what can go wrong while grading; docs/graders.md says which means what."""

FAULTS: frozenset[ErrorName] = frozenset(
    {
        "unresponsive_reward_error",
        "python_grader_server_error",
        "model_grader_server_error",
        "model_grader_refusal_error",
        "model_grader_parse_error",
    }
)
"""Failures of a grader, a judge, or the endpoint that it was asked at: they say nothing of the answer, which has no score then.

The other errors come of the answer itself, such as one that is not JSON where JSON was asked, and score 0. So does an exception
in a python grader, as OpenAI documents: most come of answers that the source does not expect.
"""

_TOLD = {
    "python_grader_server_error": "python_grader_server_error_type",
    "python_grader_runtime_error": "python_grader_runtime_error_details",
    "model_grader_server_error": "model_grader_server_error_details",
}


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class JudgeCall(_Document):
    """One question to a judge, as it was asked and answered."""

    model: str = Field(description="The model that was asked.")
    endpoint: str = Field(description="The address that was asked.")
    messages: list[dict[str, str]] = Field(description="The prompt, templates filled in.")
    seed: int | None = Field(default=None, description="The seed that was sent.")
    reply: str | None = Field(default=None, description="The raw reply; null when none came.")
    sampled_model_name: str | None = Field(default=None, description="The model that the endpoint says answered.")
    tokens: int | None = Field(default=None, description="Tokens of prompt and reply, as the endpoint counts them.")
    finish_reason: str | None = Field(default=None, description="length: the reply was cut off at its token limit.")


class Metadata(_Document):
    """How a reward came about."""

    execution_time: float = Field(default=0.0, description="Seconds.")
    details: dict[str, Any] = Field(default={}, description="Details by type of grader, such as the label chosen.")
    calls: list[JudgeCall] = Field(default=[], description="Requests to judges.")


class GraderResult(_Document):
    """One grader's word on one answer, or on all answers to one item; these have no score when most of them have none.

    `reward` is finite, also when there are errors: an answer that could not be graded has reward 0 and says why.
    """

    name: str
    type: str
    reward: float = Field(description="0 to 1; for score_model in its range; for python and multi what they compute.")
    passed: bool | None = Field(description="Null when the grader names no threshold.")
    errors: dict[ErrorName, str] = Field(default={}, description="What went wrong, by OpenAI's name of it.")
    sub_rewards: dict[str, float] = Field(default={}, description="Of a multi grader: reward by variable.")
    metadata: Metadata = Metadata()
    samples: list[GraderResult] = Field(
        default=[], description="Where an item has several completions: the result of each; the reward is their mean."
    )

    @property
    def is_missing(self) -> bool:
        """Whether there is no score: the grader, its judge or an endpoint failed, not the model that answered."""
        return self.missing_because is not None

    @property
    def missing_because(self) -> str | None:
        """Why there is no score, or None if there is one."""
        if self.metadata.details.get(
            "no_score"
        ):  # nothing was graded: there was no completion, or no record of its score
            return next(iter(self.errors.values()), "there is no score")
        reasons = [reason for one in self.samples if (reason := one.missing_because) is not None]
        if 2 * len(reasons) > len(self.samples):
            return reasons[0]
        return next((text for name, text in self.errors.items() if name in FAULTS), None)


@dataclass(frozen=True)
class Outcome:
    """What the module of one type of grader returns; `grade` makes a `GraderResult` of it."""

    reward: float = 0.0
    errors: Mapping[ErrorName, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[JudgeCall, ...] = ()
    sub_rewards: Mapping[str, float] = field(default_factory=dict)


def failed(error: ErrorName, text: str, **details: Any) -> Outcome:
    """Reward 0, and why."""
    return Outcome(errors={error: text}, details=details)


def openai_document(result: GraderResult) -> dict[str, Any]:
    """The body that `POST /fine_tuning/alpha/graders/run` answers (`GraderRunResponse` of OpenAI's library)."""
    used: dict[str, int] = {}
    for call in result.metadata.calls:
        used[call.model] = used.get(call.model, 0) + (call.tokens or 0)
    model_names = [call.sampled_model_name for call in result.metadata.calls if call.sampled_model_name]
    errors: dict[str, bool | str | None] = {name: name in result.errors for name in get_args(ErrorName)}
    errors |= {flag: result.errors.get(name) for name, flag in _TOLD.items()}  # type: ignore[call-overload]
    return {
        "reward": result.reward,
        "metadata": {
            "name": result.name,
            "type": result.type,
            "errors": errors,
            "execution_time": result.metadata.execution_time,
            "scores": dict(result.sub_rewards) or {result.name: result.reward},
            "token_usage": sum(used.values()) if used else None,
            "sampled_model_name": model_names[0] if model_names else None,
        },
        "sub_rewards": dict(result.sub_rewards),
        "model_grader_token_usage_per_model": used,
    }
