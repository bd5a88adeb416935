"""What a host asks of its process, and what comes back; each a line of JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.data.examples import Message
from ftbridge.errors import ContextTooLong as ContextTooLong


class Ask(BaseModel):
    """One chat to answer. `adapter` is a folder, None for the base model; `n` answers, each of at most `max_tokens`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    messages: list[Message]
    tools: list[dict[str, Any]] = []
    adapter: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = None
    stop: list[str] = []
    n: int = Field(default=1, ge=1, le=128)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    json_schema: dict[str, Any] | None = None
    """Only JSON of this schema is answered."""


class Piece(BaseModel):
    """One token of one answer. `text` may be empty, or hold several tokens' text: characters are never cut."""

    model_config = ConfigDict(frozen=True)

    index: int
    text: str
    token: str | None = None
    """The token's own text; only with logprobs."""
    logprob: float | None = None
    top: list[tuple[str, float]] = []
    tool_calls: list[dict[str, Any]] = []
    """Whole calls, as OpenAI writes them; only from a script."""


class End(BaseModel):
    """The end of one answer, with OpenAI's reason, and how many tokens it took."""

    model_config = ConfigDict(frozen=True)

    index: int
    finish_reason: Literal["stop", "length"]
    completion_tokens: int


class Start(BaseModel):
    """The prompt was read."""

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int


Told = Start | Piece | End
