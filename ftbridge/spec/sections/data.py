"""The section `data`: the files of examples, how they are read, and the replay of general prompts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftbridge.spec.sections.base import SpecModel


class ReplaySpec(SpecModel):
    """General prompts that are trained with the base model's own completions beside the examples, so that less is forgotten."""

    share: float = Field(
        default=0.1, gt=0, le=0.5, description="Share of a step's examples that are replayed, above 0, at most 0.5."
    )
    prompts: str | None = Field(
        default=None,
        min_length=1,
        description="Your own file of general prompts, named as in data.train; ftbridge's set of prompts if absent. In chats "
        "that end with an assistant message, the prompt is everything before it.",
    )
    temperature: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Sampling temperature of its completions; 0 is greedy, 1 samples from the model's own distribution.",
    )
    max_completion_tokens: int = Field(
        default=128,
        ge=1,
        le=4096,
        description="Longest completion of such a prompt by the base model, in tokens.",
    )


class DataSpec(SpecModel):
    """Where the examples come from."""

    train: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        description="Training examples: a path, a glob, an https URL, hf://datasets/OWNER/NAME/FILE.jsonl, or a list of these."
    )
    validation: str | Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Validation examples: a path, or the fraction of the training examples to hold out (split by the seed).",
    )
    test: str | None = Field(default=None, description="Examples for the evaluation; never trained on.")
    replay: ReplaySpec | None = Field(
        default=None,
        description="Replay general prompts with the base model's own completions, against forgetting. Off by default.",
    )
    format: Literal["auto", "jsonl", "json"] = Field(
        default="auto", description="File format; auto looks at the first character."
    )
    drop: list[str] = Field(
        default=[],
        description="Fields of lines and messages to drop, by path, such as score or messages[].mood.",
    )
    keep: list[str] = Field(
        default=[], description="Fields to keep with the examples although training does not read them."
    )
    map: dict[str, str] = Field(
        default={}, description="Fields to rename on reading: {prompt: question, completion: answer}."
    )
