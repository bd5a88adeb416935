"""What a job on a service is made from: the request that lowering writes and every later step reads."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from ftbridge.providers.openai.targets import TARGETS, Name, Target
from ftbridge.spec.lowering import ProviderRequest


class OpenAIRequest(ProviderRequest):
    """The service and the body of its create call, all but the files, which get their ids when they are uploaded.

    `body` is what `POST /fine_tuning/jobs` takes; `extra` holds fields beyond OpenAI's own. `deployment` is the name under
    which a tuned model answers where it must be deployed first. `max_usd` is the budget, `n_epochs` what it is reckoned by (an
    estimate where the body leaves epochs to the service), `min_life_days` how long the tuned model must live.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Name
    base_url: str | None
    organization: str | None
    project: str | None
    api_version: str | None
    deployment: str | None
    batch: bool
    max_usd: float | None
    min_life_days: int | None = None
    n_epochs: int
    body: dict[str, Any]
    extra: dict[str, Any]

    @property
    def service(self) -> Target:
        """What the service can do."""
        return TARGETS[self.target]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the body says of hyperparameters, wherever they stand in it."""
        method = self.body.get("method") or {}
        return self.body.get("hyperparameters") or (method.get(method.get("type")) or {}).get("hyperparameters") or {}

    @property
    def model(self) -> str:
        """The base model, or the tuned one that training goes on with."""
        return str(self.body["model"])
