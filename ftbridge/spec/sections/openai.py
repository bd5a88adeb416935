"""The section `openai`: which OpenAI-compatible service trains, and what it alone has to know."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ftbridge.spec.sections.base import SpecModel, checked_address


class WandbIntegration(SpecModel):
    """Weights & Biases, by a key that an administrator keeps with the service."""

    type: Literal["wandb"] = Field(default="wandb", description="wandb.")
    project: str = Field(min_length=1, description="Project that the job's metrics go to.")
    name: str | None = Field(default=None, description="Display name of the W&B run; the job's id if absent.")
    entity: str | None = Field(default=None, description="W&B team or user; the key's default if absent.")
    tags: list[str] = Field(default=[], description="Tags of the W&B run.")


class OpenAISpec(SpecModel):
    """Which service, and where. Keys come from the environment, never from here."""

    target: Literal["openai", "azure", "nebius", "custom"] = Field(
        default="openai", description="Which OpenAI-compatible service."
    )
    base_url: str | None = Field(default=None, description="The service's address; needed for azure and custom.")
    organization: str | None = Field(default=None, description="OpenAI-Organization header.")
    project: str | None = Field(default=None, description="OpenAI-Project header.")
    api_version: str | None = Field(
        default=None, min_length=1, description="Azure's classic address only: its api-version; v1 addresses need none."
    )
    training_type: Literal["standard", "globalStandard", "developerTier"] | None = Field(
        default=None, description="Azure only: where training runs; open models need globalStandard."
    )
    deployment: str | None = Field(
        default=None,
        min_length=1,
        description="Name of the deployment, where a tuned model must be deployed before it can be called (azure, nebius).",
    )
    integrations: list[WandbIntegration] = Field(
        default=[], max_length=5, description="Other places where the service reports the job; OpenAI supports wandb."
    )
    grader: str | None = Field(
        default=None,
        description="Reinforcement only: the one of evaluation.graders that rewards samples; optional if there is only one.",
    )
    response_format: dict[str, Any] | None = Field(
        default=None, description="Reinforcement only: the response format that samples must follow."
    )
    batch: bool = Field(
        default=False, description="Complete test items through the Batch API: half the price, up to 24 hours."
    )
    max_quiet_hours: float | None = Field(
        default=None,
        gt=0,
        description=(
            "Hours after which to stop waiting for a job that neither changes its state nor reports anything; the "
            "job is left as it is."
        ),
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        return checked_address(address)

    @model_validator(mode="after")
    def _some_targets_need_an_address(self) -> OpenAISpec:
        if self.target in ("azure", "custom") and self.base_url is None:
            raise ValueError(f"openai.target {self.target} needs openai.base_url")
        return self
