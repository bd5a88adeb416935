"""What a host asks of its process, and what comes back; each a line of JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.data.examples import Message
from ftbridge.errors import ContextTooLong as ContextTooLong


class GenerationRequest(BaseModel):
    """One chat to answer. `adapter` is a folder, None for the base model; `n` answers, each of at most `max_tokens`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    messages: list[Message] = []
    tools: list[dict[str, Any]] = []
    adapter: str | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = None
    stop: list[str] = []
    n: int = Field(default=1, ge=1, le=128)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    json_schema: dict[str, Any] | None = None
    """Only JSON of this schema is answered."""
    lenient: bool = False
    """Whether keywords of the schema that cannot be followed are passed over, and not refused."""
    must_call: list[str] | None = None
    """Names of offered tools of which at least one has to be called, and nothing else said."""
    parallel: bool = True
    """Whether several tools may be called in one answer."""
    top_k: int | None = Field(default=None, ge=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    template: dict[str, Any] = {}
    """Variables of the chat template, such as `enable_thinking`."""
    thinking: Literal["auto", "on", "off"] | None = None
    """Whether the prompt asks for reasoning; None: as the model was loaded. `template` may say otherwise for one ask."""
    effort: str | None = None
    """How much to reason, in OpenAI's words (`low`, `high`); refused by models that do not reason, but for `none`."""
    at_end: bool = False
    """Whether nothing is wanted before the end: the whole completion is then read at once."""
    prompt: str | list[int] | None = None
    """Text to go on with as it is, without the chat template; `messages` is empty then."""
    echo: bool = False
    """Whether the prompt's own tokens come first, with their log probabilities where these are reported."""
    embed: bool = False
    """Whether `prompt` is to be read alone, for its `Embedding`; nothing is generated then."""
    dimensions: int | None = Field(default=None, ge=1)
    """How many values an embedding must have; None for the model's own number."""


class StreamDelta(BaseModel):
    """One token of one answer. `text` may be empty, or hold several tokens' text: characters are never cut."""

    model_config = ConfigDict(frozen=True)

    index: int
    text: str
    token: str | None = None
    """The token's own text; only with logprobs."""
    logprob: float | None = None
    top: list[tuple[str, float]] = []
    tool_calls: list[dict[str, Any]] = []
    """Pieces of calls, as OpenAI streams them: `index` is the call's place, the first piece has `id` and `function.name`."""
    reasoning: str = ""
    """Text of the model's reasoning, which is not part of the answer."""


class StreamEnd(BaseModel):
    """The end of one answer, with OpenAI's reason, and how many tokens it took."""

    model_config = ConfigDict(frozen=True)

    index: int
    finish_reason: Literal["stop", "length"]
    completion_tokens: int
    reasoning_tokens: int = 0
    """Those of the completion's tokens that are reasoning, its marks included."""


class StreamStart(BaseModel):
    """The prompt was read."""

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int


class Embedding(BaseModel):
    """What a text looks like inside the model: values whose squares add up to 1."""

    model_config = ConfigDict(frozen=True)

    values: list[float]


StreamEvent = StreamStart | StreamDelta | Embedding | StreamEnd

EVENT_KINDS: dict[str, type[StreamEvent]] = {
    "start": StreamStart,
    "piece": StreamDelta,
    "embedding": Embedding,
    "end": StreamEnd,
}
"""What an event is called on the line between the two processes."""


def kind_of(event: StreamEvent) -> str:
    """The name of an event's class in `EVENT_KINDS`."""
    return next(name for name, kind in EVENT_KINDS.items() if isinstance(event, kind))
