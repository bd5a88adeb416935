"""The section `evaluation`: graders, baselines, how completions are sampled, and what the model must not forget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ftbridge.spec.graders import ANSWER, REFERENCE, Grader, StringCheckGrader
from ftbridge.spec.sections.base import SpecModel, former_names_in

_DEFAULT_GRADER = StringCheckGrader(
    type="string_check", name="exact", operation="eq", input=ANSWER, reference=REFERENCE
)


class RetentionSpec(SpecModel):
    """What the tuned model must not have forgotten: asked of base and tuned alike, with a verdict of its own."""

    suite: bool = Field(
        default=True,
        description="Ask ftbridge's general suite: facts, arithmetic, instructions, formats, refusal of nonsense.",
    )
    canaries: str | None = Field(
        default=None,
        min_length=1,
        description="A JSONL file of your own examples that the tuned model must still answer correctly.",
    )
    margin: float = Field(default=0.05, ge=0, le=1, description="Largest drop that still counts as kept.")

    @model_validator(mode="after")
    def _something_is_asked(self) -> RetentionSpec:
        if not self.suite and self.canaries is None:
            raise ValueError("retention has no questions: leave suite on, or set canaries")
        return self


class EvaluationSpec(SpecModel):
    """How completions of the base and the tuned model are scored and compared."""

    former_names: ClassVar[Mapping[str, str]] = former_names_in("evaluation")

    graders: list[Grader] = Field(
        default=[_DEFAULT_GRADER],
        min_length=1,
        description="Grader objects in OpenAI's schemas, and six of ftbridge's own; see the page on graders.",
    )
    baselines: list[Literal["zero_shot", "few_shot", "retrieval"]] = Field(
        default=[], description="More candidates, besides base, that complete the test items before training."
    )
    system: str | None = Field(
        default=None, min_length=1, description="System message of the zero_shot baseline, instead of the items' own."
    )
    few_shot_examples: int = Field(
        default=4, ge=1, le=64, description="Training examples shown to the few_shot baseline."
    )
    few_shot_selection: Literal["seed", "nearest"] = Field(
        default="seed",
        description="The same examples for every item, drawn by the seed; or those nearest to each item by BM25.",
    )
    documents: str | None = Field(
        default=None, min_length=1, description="Folder of .md and .txt files that the retrieval baseline reads."
    )
    target: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Score that is good enough: a baseline that reaches it on every grader stops the run before training.",
    )
    retention: RetentionSpec | None = Field(
        default=None, description="Also measure what the model could do before, and whether tuning kept it."
    )
    perplexity: bool = Field(
        default=False,
        description="Also report the perplexity of the reference completions, if the provider supports it.",
    )
    margin: float | None = Field(default=None, ge=0, le=1, description="Non-inferiority margin for verdicts.")
    max_completion_tokens: int = Field(default=256, ge=1, description="Longest completion, in tokens.")
    samples: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Completions per item; scores are averaged by item, and an item counts as one draw.",
    )
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="Sampling temperature of completions; by default 0 (greedy) if samples is 1, otherwise 1.",
    )
    batch_size: int = Field(default=32, ge=1, description="Items completed together.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description=(
            "Arithmetic of local completions; auto is local.precision. In fp32 a completion does not depend on its "
            "batch."
        ),
    )

    @property
    def sampling_temperature(self) -> float:
        """The temperature of completions, settled."""
        if self.temperature is not None:
            return self.temperature
        return 0.0 if self.samples == 1 else 1.0

    @model_validator(mode="after")
    def _samples_differ(self) -> EvaluationSpec:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"at temperature 0 the {self.samples} samples of an item are all the same; leave one out")
        return self

    @model_validator(mode="after")
    def _baselines_have_what_they_need(self) -> EvaluationSpec:
        if "retrieval" in self.baselines and self.documents is None:
            raise ValueError("the retrieval baseline needs evaluation.documents, a folder of .md and .txt files")
        return self

    @field_validator("graders")
    @classmethod
    def _names_differ(cls, graders: list[Grader]) -> list[Grader]:
        names = [grader.name for grader in graders]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"grader names must differ; used twice: {', '.join(twice)}")
        return graders
