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
        default=None, min_length=1, description="A JSONL file of examples of your own that must keep their answers."
    )
    margin: float = Field(default=0.05, ge=0, le=1, description="How much worse still counts as kept.")

    @model_validator(mode="after")
    def _something_is_asked(self) -> RetentionSpec:
        if not self.suite and self.canaries is None:
            raise ValueError("nothing is asked: leave suite on, or name canaries")
        return self


class EvaluationSpec(SpecModel):
    """How completions of the base and the tuned model are scored and compared."""

    former_names: ClassVar[Mapping[str, str]] = former_names_in("evaluation")

    graders: list[Grader] = Field(
        default=[_DEFAULT_GRADER],
        min_length=1,
        description="Grader objects in OpenAI's schemas, and six of ours; see the page on graders.",
    )
    baselines: list[Literal["zero_shot", "few_shot", "retrieval"]] = Field(
        default=[], description="More candidates to answer the test items before training, beside base."
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
        default=None, description="Also ask what the model knew before, and judge whether tuning kept it."
    )
    perplexity: bool = Field(
        default=False, description="Also tell the perplexity of the reference answers, where the provider can."
    )
    margin: float | None = Field(
        default=None, ge=0, le=1, description="Non-inferiority margin for verdicts of compare."
    )
    max_completion_tokens: int = Field(default=256, ge=1, description="Longest answer, in tokens.")
    samples: int = Field(
        default=1, ge=1, le=64, description="Completions of each item; scores are averaged by item, which is one draw."
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="Of completions: 0 (greedy) where absent and samples is 1, else 1."
    )
    batch_size: int = Field(default=32, ge=1, description="Items answered together.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Arithmetic of completions here; auto is local.precision. In fp32 one is the same in any batch.",
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
