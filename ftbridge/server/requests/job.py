"""POST /fine_tuning/jobs: its body, with the bounds that OpenAI publishes (`CreateFineTuningJobRequest`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from ftbridge.server.http.validation import Metadata, RequestBody
from ftbridge.spec.graders import Grader
from ftbridge.spec.problems import first_problem

Auto = Literal["auto"]


class Hyperparameters(RequestBody):
    """What all methods have: batch size 1 to 256, a multiplier above 0, 1 to 50 epochs."""

    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0)] = "auto"
    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"


class DpoHyperparameters(Hyperparameters):
    """`beta` is above 0, at most 2: how much the reference model holds back."""

    beta: Auto | Annotated[float, Field(gt=0, le=2)] = "auto"


class ReinforcementHyperparameters(Hyperparameters):
    """Figures of reinforcement."""

    compute_multiplier: Auto | Annotated[float, Field(gt=0.00001, le=10)] = "auto"
    eval_interval: Auto | Annotated[int, Field(ge=1)] = "auto"
    eval_samples: Auto | Annotated[int, Field(ge=1)] = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"


class Supervised(RequestBody):
    """method.supervised."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Dpo(RequestBody):
    """method.dpo."""

    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Reinforcement(RequestBody):
    """method.reinforcement."""

    grader: dict[str, Any]
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()
    response_format: dict[str, Any] | None = None

    @field_validator("grader")
    @classmethod
    def _is_a_grader(cls, grader: dict[str, Any]) -> dict[str, Any]:
        try:
            TypeAdapter(Grader).validate_python(grader)
        except ValidationError as error:
            raise ValueError(first_problem(error, root=Grader)) from None
        return grader


class Method(RequestBody):
    """`type`, and its settings under the same name."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: Reinforcement | None = None

    @model_validator(mode="after")
    def _only_its_own(self) -> Method:
        for name in ("supervised", "dpo", "reinforcement"):
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"type is {self.type}, and there are settings of {name}")
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("reinforcement needs its grader")
        return self


class Wandb(RequestBody):
    """Where Weights and Biases keeps the figures."""

    project: str
    name: str | None = None
    entity: str | None = None
    tags: list[str] | None = None


class Integration(RequestBody):
    """Only "wandb" is published."""

    type: Literal["wandb"]
    wandb: Wandb


class CreateJob(RequestBody):
    """The body. The deprecated top-level `hyperparameters` are those of a supervised job."""

    model: str = Field(min_length=1)
    training_file: str
    validation_file: str | None = None
    hyperparameters: Hyperparameters | None = None
    suffix: str | None = Field(default=None, min_length=1, max_length=64)
    seed: int | None = Field(default=None, ge=0, le=2_147_483_647)
    integrations: list[Integration] | None = Field(default=None, max_length=5)
    method: Method | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _one_place(self) -> CreateJob:
        if self.hyperparameters is not None and self.method is not None:
            raise ValueError("hyperparameters belong under method; they were given in both places")
        return self

    @property
    def kind(self) -> Literal["supervised", "dpo", "reinforcement"]:
        """The method's type; supervised where none is told."""
        return self.method.type if self.method else "supervised"

    @property
    def settings(self) -> Supervised | Dpo | Reinforcement:
        """The method's settings, with every default."""
        if self.method is None:
            return Supervised(hyperparameters=self.hyperparameters or Hyperparameters())
        settings_of_kind: Supervised | Dpo | Reinforcement | None = getattr(self.method, self.kind)
        return settings_of_kind or (Supervised() if self.kind == "supervised" else Dpo())
