"""The job spec: what the user wrote, validated.

Validation is strict: unknown keys are refused with the nearest known key, types are not coerced. "auto" stays "auto" here;
it is settled by written rules in `ftbridge.spec.resolve`. The sections are in `ftbridge.spec.sections`,
reading files in `loading`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from ftbridge.errors import SpecError
from ftbridge.spec.graders import Grader
from ftbridge.spec.problems import problems
from ftbridge.spec.sections import (
    BudgetSpec,
    DataSpec,
    DpoSpec,
    EvaluationSpec,
    Hyperparameters,
    LocalSpec,
    Method,
    ModelSpec,
    OpenAISpec,
    PlanSpec,
    RaySpec,
    ReinforcementSpec,
    SlurmSpec,
    SpecModel,
)


class JobSpec(SpecModel):
    """One fine-tuning job, for any provider."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Short name; run ids begin with it.")
    method: Method = Field(default="supervised", description="As OpenAI names them.")
    data: DataSpec = Field(description="Examples to train, validate and test on.")
    model: ModelSpec = Field(description="Base model at the hosted provider, on this machine, or both.")
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters, description="OpenAI's names and bounds.")
    seed: int = Field(
        default=42, ge=0, le=2147483647, description="Fixes splits, data order and initial adapter weights."
    )
    suffix: str | None = Field(
        default=None, min_length=1, max_length=64, description="Goes into the tuned model's name."
    )
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] = Field(
        default={}, max_length=16, description="Up to 16 pairs of text kept with the job."
    )
    openai: OpenAISpec = Field(default_factory=OpenAISpec, description="Settings of the hosted provider.")
    local: LocalSpec = Field(default_factory=LocalSpec, description="Settings of training on this machine.")
    slurm: SlurmSpec = Field(default_factory=SlurmSpec, description="What to request from a Slurm cluster.")
    ray: RaySpec = Field(default_factory=RaySpec, description="The Ray cluster, and what to request from it.")
    evaluation: EvaluationSpec = Field(
        default_factory=EvaluationSpec, description="How completions are scored and compared."
    )
    budget: BudgetSpec = Field(default_factory=BudgetSpec, description="Limits that stop a run.")
    plan: PlanSpec = Field(default_factory=PlanSpec, description="Figures and limits for `ftbridge plan`.")
    fallback: str | None = Field(
        default=None,
        description="The provider to train with when the first refuses or fails for good: openai, local, slurm, ray or an "
        "installed one.",
    )

    @model_validator(mode="after")
    def _fields_suit_the_method(self) -> JobSpec:
        only = {"beta": "dpo", "compute_multiplier": "reinforcement", "eval_interval": "reinforcement"}
        only |= {"eval_samples": "reinforcement", "reasoning_effort": "reinforcement"}
        for field, method in only.items():
            if getattr(self.hyperparameters, field) is not None and self.method != method:
                raise ValueError(f"hyperparameters.{field} belongs to method {method}, but method is {self.method}")
        if self.local.early_stopping is not None and self.data.validation is None:
            raise ValueError("local.early_stopping needs data.validation (a path or a fraction such as 0.1)")
        if self.method != "dpo" and self.local.dpo != DpoSpec():
            raise ValueError(f"local.dpo belongs to method dpo, but method is {self.method}")
        if self.method != "reinforcement" and self.local.reinforcement != ReinforcementSpec():
            raise ValueError(f"local.reinforcement belongs to method reinforcement, but method is {self.method}")
        if self.local.tuning == "full" and self.local.lora.continue_from is not None:
            raise ValueError("local.lora.continue_from names an adapter, but local.tuning is full")
        if self.local.tuning == "full" and self.local.quantization in ("nf4", "int8"):
            raise ValueError(
                f"local.tuning full cannot train {self.local.quantization} weights; set local.quantization: none"
            )
        return self

    @property
    def reward_grader(self) -> Grader | None:
        """The grader of `evaluation.graders` that rewards samples in reinforcement; None where it is not clear which."""
        graders = {grader.name: grader for grader in self.evaluation.graders}
        if self.openai.grader is not None:
            return graders.get(self.openai.grader)
        return next(iter(graders.values())) if len(graders) == 1 else None

    @classmethod
    def from_dict(cls, document: object, *, where: str = "spec") -> JobSpec:
        """Validate a parsed document. Raises `SpecError` with every problem, each naming its field."""
        if not isinstance(document, dict):
            raise SpecError(f"{where}: a job spec is a mapping of keys to values, not {type(document).__name__}.")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise SpecError("\n".join(problems(error, cls, where))) from None
