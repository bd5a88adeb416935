"""The sections `model` and `hyperparameters`: what is trained and how, in words that both providers share.

Hyperparameters keep OpenAI's names and bounds (`openai.types.fine_tuning`: `SupervisedHyperparameters` and the API's published
schema).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ftbridge.spec.sections.base import Auto, SpecModel


class ModelSpec(SpecModel):
    """The base model on each side."""

    openai: str | None = Field(
        default=None, min_length=1, description="A model name of the hosted provider, or an existing ft: model."
    )
    local: str | None = Field(
        default=None,
        min_length=1,
        description="A local directory, a hub id (OWNER/NAME), a GGUF file, or the built-in smollm2-135m-instruct.",
    )

    @model_validator(mode="after")
    def _one_is_needed(self) -> ModelSpec:
        if self.openai is None and self.local is None:
            raise ValueError("name at least one of model.openai and model.local")
        return self


class Hyperparameters(SpecModel):
    """OpenAI's names and bounds; "auto" is settled by the rules in `ftbridge.spec.resolve` and recorded with its reason."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = Field(
        default="auto", description="Passes over the data, 1 to 50."
    )
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = Field(
        default="auto", description="Examples per optimizer step, 1 to 256."
    )
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0)] = Field(
        default="auto", description="Factor on the provider's base learning rate, above 0."
    )
    beta: Auto | Annotated[float, Field(gt=0, le=2)] | None = Field(
        default=None, description="DPO only: weight of the penalty against the reference model, above 0, at most 2."
    )
    compute_multiplier: Auto | Annotated[float, Field(gt=0.00001, le=10)] | None = Field(
        default=None, description="Reinforcement only: factor on exploration compute, above 0.00001, at most 10."
    )
    eval_interval: Auto | Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Reinforcement only: steps between evaluations."
    )
    eval_samples: Auto | Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Reinforcement only: samples per evaluation item."
    )
    reasoning_effort: Literal["default", "low", "medium", "high"] | None = Field(
        default=None, description="Reinforcement only."
    )
