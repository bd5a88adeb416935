"""Grader objects: OpenAI's schemas to the letter, and six of ours that OpenAI does not have.

    OpenAI's    string_check · text_similarity · score_model · label_model · python · multi
    ours        match · json_schema · json_fields · tool_calls · pairwise · panel

`input` and `reference` are templates (`ftbridge.graders.template`). Of OpenAI's objects, `base_url` and `timeout_seconds` of
the model graders are ours, and so are `tokenizer` of text_similarity, `sampling_params` of label_model and `pass_threshold`
of multi.
Sources: `openai.types.graders`, the published API schema, OpenAI's graders guide.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from ftbridge.redaction import address_problem

ANSWER = "{{sample.output_text}}"
CALLS = "{{sample.output_tools}}"
REFERENCE = "{{item.reference}}"
SOURCE_BYTES = 256_000
"""A python grader's source is shorter than this (OpenAI's limit)."""

_INPUT = "Template of the text that is graded, usually {{sample.output_text}}."
_REFERENCE = "Template of what it is compared with, usually {{item.reference}}."
_THRESHOLD = "A completion passes at this reward or above."
_MODEL = "The judge: a model of the chat-completions endpoint."
_BASE_URL = (
    "Chat-completions endpoint of the judge, including /v1; its key is read from FTBRIDGE_JUDGE_API_KEY. Without it: "
    "OPENAI_BASE_URL or OpenAI, with the key OPENAI_API_KEY."
)

_TIMEOUT = "Seconds that a reply may take; 300 where absent."


class GraderModel(BaseModel):
    """Strict, frozen, closed, as every part of a spec."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def _checked(address: str) -> str:
    if (problem := address_problem(address)) is not None:
        raise ValueError(f"the address {problem}")
    return address


Address = Annotated[str, Field(pattern="^https?://"), AfterValidator(_checked)]
"""A judge's endpoint: no user name, password or key in it, since specs are copied into runs."""


class StringCheckGrader(GraderModel):
    """OpenAI's `string_check` grader: one text compared with another, letter by letter."""

    type: Literal["string_check"] = Field(description="string_check.")
    name: str = Field(min_length=1, description="Name in the results.")
    operation: Literal["eq", "ne", "like", "ilike"] = Field(
        description="eq, ne: equal or not; like, ilike: input contains reference, with or without case."
    )
    input: str = Field(description="Template, usually {{sample.output_text}}.")
    reference: str = Field(description="Template, usually {{item.reference}}.")


class TextSimilarityGrader(GraderModel):
    """OpenAI's `text_similarity` grader: how much of one text is in another, 0 to 1."""

    type: Literal["text_similarity"] = Field(description="text_similarity.")
    name: str = Field(min_length=1, description="Name in the results.")
    input: str = Field(description=_INPUT)
    reference: str = Field(description=_REFERENCE)
    evaluation_metric: Literal[
        "fuzzy_match", "bleu", "gleu", "meteor", "cosine",
        "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l",
    ] = Field(description="The measure; cosine is refused, since it needs OpenAI's embeddings.")  # fmt: skip
    tokenizer: Literal["unicode"] | None = Field(
        default=None,
        description="An extension of ftbridge, for ROUGE: unicode counts words of every script, and each character of "
        "scripts without spaces; if absent, only a-z and 0-9 count, as in the reference implementation.",
    )
    pass_threshold: float | None = Field(default=None, description=_THRESHOLD)


class TextPart(GraderModel):
    """A piece of text in a judge's message."""

    type: Literal["input_text", "output_text"] = Field(
        description="input_text or output_text; images and audio are not accepted."
    )
    text: str = Field(description="Template.")


class JudgeMessage(GraderModel):
    """One message of the prompt that a judge is asked."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="Who speaks.")
    content: str | TextPart | list[str | TextPart] = Field(description="Template, or pieces of text, joined.")
    type: Literal["message"] | None = Field(default=None, description="message, or absent.")


class JudgeSampling(GraderModel):
    """How a judge samples; what is absent is not sent."""

    seed: int | None = Field(default=None, description="Seed of the endpoint's sampling.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Nucleus sampling, above 0, at most 1.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 to 2.")
    max_completions_tokens: int | None = Field(
        default=None, ge=1, description="Longest reply, in tokens (OpenAI's spelling)."
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None, description="Reasoning effort, for judges that reason."
    )


class ScoreModelGrader(GraderModel):
    """OpenAI's `score_model` grader: a model gives a number in a range."""

    type: Literal["score_model"] = Field(description="score_model.")
    name: str = Field(min_length=1, description="Name in the results.")
    model: str = Field(min_length=1, description=_MODEL)
    input: list[JudgeMessage] = Field(min_length=1, description="The judge's prompt: messages with templates.")
    range: list[float] = Field(
        default=[0.0, 1.0],
        min_length=2,
        max_length=2,
        description="Lowest and highest score; the reply is clipped to it.",
    )
    sampling_params: JudgeSampling | None = Field(default=None, description="Sampling parameters of the judge.")
    pass_threshold: float | None = Field(default=None, description=_THRESHOLD)
    base_url: Address | None = Field(default=None, description=_BASE_URL)
    timeout_seconds: float | None = Field(default=None, gt=0, description=_TIMEOUT)

    @field_validator("range")
    @classmethod
    def _rises(cls, ends: list[float]) -> list[float]:
        if ends[0] >= ends[1]:
            raise ValueError(f"the lowest score comes first; {ends[0]:g} is not below {ends[1]:g}")
        return ends


class LabelModelGrader(GraderModel):
    """OpenAI's `label_model` grader: a model chooses a label; some labels pass."""

    type: Literal["label_model"] = Field(description="label_model.")
    name: str = Field(min_length=1, description="Name in the results.")
    model: str = Field(min_length=1, description=_MODEL)
    input: list[JudgeMessage] = Field(min_length=1, description="The judge's prompt: messages with templates.")
    labels: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, description="The labels to choose from.")
    passing_labels: list[str] = Field(min_length=1, description="The labels that score 1; the others score 0.")
    sampling_params: JudgeSampling | None = Field(default=None, description="Sampling parameters of the judge.")
    base_url: Address | None = Field(default=None, description=_BASE_URL)
    timeout_seconds: float | None = Field(default=None, gt=0, description=_TIMEOUT)

    @model_validator(mode="after")
    def _passing_are_labels(self) -> LabelModelGrader:
        if unknown := [label for label in self.passing_labels if label not in self.labels]:
            raise ValueError(f"passing_labels are some of labels; not among them: {', '.join(unknown)}")
        return self


class PairwiseGrader(GraderModel):
    """Ours: a model says which of two completions is better, asked in both orders, so that their order does not count."""

    type: Literal["pairwise"] = Field(description="pairwise.")
    name: str = Field(min_length=1, description="Name in the results.")
    model: str = Field(min_length=1, description=_MODEL)
    question: str = Field(min_length=1, description="Template of the task, and of what makes a completion good.")
    answer: str = Field(default=ANSWER, description="Template of the completion; usually {{sample.output_text}}.")
    against: str = Field(default=REFERENCE, description="Template of the completion that it is compared with.")
    sampling_params: JudgeSampling | None = Field(default=None, description="Sampling parameters of the judge.")
    pass_threshold: float | None = Field(default=None, description=_THRESHOLD)
    base_url: Address | None = Field(default=None, description=_BASE_URL)
    timeout_seconds: float | None = Field(default=None, gt=0, description=_TIMEOUT)


class PythonGrader(GraderModel):
    """OpenAI's `python` grader: `grade(sample, item)` in a process of its own; runs only when allowed by name."""

    type: Literal["python"] = Field(description="python.")
    name: str = Field(min_length=1, description="Name in the results, and in FTBRIDGE_ALLOW_PYTHON_GRADERS.")
    source: str = Field(
        min_length=1, description="Python source that defines grade(sample, item) -> float; under 256 kB."
    )
    image_tag: str | None = Field(
        default=None, description="OpenAI's image, such as 2025-05-08; here this Python and its packages are used."
    )
    pass_threshold: float | None = Field(default=None, description=_THRESHOLD)

    @field_validator("source")
    @classmethod
    def _is_short(cls, source: str) -> str:
        # A lone surrogate has no UTF-8; the compiler will refuse it with its place.
        if (size := len(source.encode("utf-8", "surrogatepass"))) >= SOURCE_BYTES:
            raise ValueError(f"source has {size:,} bytes; OpenAI takes less than {SOURCE_BYTES:,}")
        return source


class MatchGrader(GraderModel):
    """Ours: 1 when the completion matches one of the references, compared as the options say."""

    type: Literal["match"] = Field(description="match.")
    name: str = Field(min_length=1, description="Name in the results.")
    compare: Literal["equal", "contains", "number"] = Field(
        default="equal",
        description="equal: the same text; contains: the completion contains a reference; number: the same number.",
    )
    input: str = Field(default=ANSWER, description=_INPUT)
    reference: str | Annotated[list[str], Field(min_length=1)] = Field(
        default=REFERENCE,
        description="Template, or several of which one must match; a template that yields a list counts as its entries.",
    )
    extract: str | None = Field(
        default=None,
        min_length=1,
        description="Regular expression (Python's); its group 1, or all of it, is compared. Without a match: 0.",
    )
    strip: bool = Field(default=True, description="Whether white space at both ends is removed.")
    collapse_spaces: bool = Field(default=False, description="Whether runs of space and line ends count as one space.")
    ignore_case: bool = Field(default=False, description="Whether case is ignored (Unicode case folding).")
    unicode: Literal["NFC", "NFKC"] | None = Field(
        default=None, description="Unicode form that both texts are normalised to."
    )
    number: Literal["last", "first", "only"] = Field(
        default="last", description="With compare: number, which number of the completion is meant."
    )
    decimal_comma: bool = Field(default=False, description="Whether numbers are written as 1.234,5 and not as 1,234.5.")
    tolerance: float | None = Field(default=None, ge=0, description="Largest difference of numbers.")
    relative_tolerance: float | None = Field(
        default=None, ge=0, description="Largest difference of numbers, as a share of the reference."
    )
    pass_threshold: float | None = Field(default=None, description=_THRESHOLD)


_FENCED = "Whether JSON may be in a code fence: the only fenced block is read, with or without text around it."


class JsonSchemaGrader(GraderModel):
    """Ours: 1 when the completion is JSON that a schema accepts, else 0."""

    type: Literal["json_schema"] = Field(description="json_schema.")
    name: str = Field(min_length=1, description="Name in the results.")
    json_schema: dict[str, Any] = Field(description="The JSON Schema, draft 2020-12 unless its $schema says otherwise.")
    input: str = Field(default=ANSWER, description=_INPUT)
    fenced: bool = Field(default=False, description=_FENCED)


class JsonFieldsGrader(GraderModel):
    """Ours: the share of JSON fields whose values are exactly the reference's."""

    type: Literal["json_fields"] = Field(description="json_fields.")
    name: str = Field(min_length=1, description="Name in the results.")
    input: str = Field(default=ANSWER, description=_INPUT)
    reference: str = Field(default=REFERENCE, description=_REFERENCE)
    fields: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None,
        min_length=1,
        description="Paths to compare, such as order.id and tags[0]; absent: every top-level key of either side.",
    )
    fenced: bool = Field(default=False, description=_FENCED)
    pass_threshold: float | None = Field(default=None, description=_THRESHOLD)


class ToolCallsGrader(GraderModel):
    """Ours: the share of tool calls that were made as expected."""

    type: Literal["tool_calls"] = Field(description="tool_calls.")
    name: str = Field(min_length=1, description="Name in the results.")
    input: str = Field(
        default=CALLS, description="Template of the calls made, as JSON; usually {{sample.output_tools}}."
    )
    reference: str = Field(default=REFERENCE, description="Template of the expected calls, as JSON.")
    match: Literal["name_and_arguments", "name"] = Field(
        default="name_and_arguments", description="Whether arguments count, or names alone."
    )
    ordered: bool = Field(default=False, description="Whether calls must come in the order of the reference.")
    pass_threshold: float | None = Field(default=None, description=_THRESHOLD)


_Single = (
    StringCheckGrader
    | TextSimilarityGrader
    | ScoreModelGrader
    | LabelModelGrader
    | PairwiseGrader
    | PythonGrader
    | MatchGrader
    | JsonSchemaGrader
    | JsonFieldsGrader
    | ToolCallsGrader
)
SingleGrader = Annotated[_Single, Field(discriminator="type")]
"""Every grader that a multi grader may hold."""

_Variable = Annotated[str, StringConstraints(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]


class MultiGrader(GraderModel):
    """OpenAI's `multi` grader: a formula over the rewards of other graders."""

    type: Literal["multi"] = Field(description="multi.")
    name: str = Field(min_length=1, description="Name in the results.")
    graders: dict[_Variable, SingleGrader] = Field(
        min_length=1, description="Graders by the name that the formula gives them; none of them is multi."
    )
    calculate_output: str = Field(
        min_length=1,
        description="Formula over these names: + - * / ^, parentheses, min max abs floor ceil exp sqrt log.",
    )
    pass_threshold: float | None = Field(default=None, description=_THRESHOLD)


_Judge = ScoreModelGrader | LabelModelGrader | PairwiseGrader


class PanelGrader(GraderModel):
    """Ours: several judges of one question, each asked once or more; their scores are combined, their agreement shown."""

    type: Literal["panel"] = Field(description="panel.")
    name: str = Field(min_length=1, description="Name in the results.")
    judges: list[Annotated[_Judge, Field(discriminator="type")]] = Field(
        min_length=1, description="score_model, label_model or pairwise graders, with names of their own."
    )
    repeats: int = Field(default=1, ge=1, le=16, description="How often each judge is asked, with different seeds.")
    combine: Literal["mean", "median", "majority"] = Field(
        default="mean",
        description="How their scores from 0 to 1 are combined; majority: 1 where more of them are above 0.5 than below.",
    )
    pass_threshold: float | None = Field(default=None, description=_THRESHOLD)

    @model_validator(mode="after")
    def _is_several(self) -> PanelGrader:
        names = [judge.name for judge in self.judges]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"names of judges must differ; used twice: {', '.join(twice)}; use repeats to ask one more often"
            )
        if len(names) * self.repeats < 2:
            raise ValueError("a panel needs several judges, or one with repeats of 2 or more")
        return self

    def repeated_judges(self) -> list[_Judge]:
        """Each judge, `repeats` times. A repetition has a seed of its own, so that it is another request."""
        return [
            judge if number == 0 else _with_seed(judge, number)
            for judge in self.judges
            for number in range(self.repeats)
        ]


def _with_seed(judge: _Judge, number: int) -> _Judge:
    sampling = judge.sampling_params or JudgeSampling()
    drawn = sampling.model_copy(update={"seed": (sampling.seed or 0) + number})
    return judge.model_copy(update={"name": f"{judge.name} ({number + 1})", "sampling_params": drawn})


Grader = Annotated[_Single | MultiGrader | PanelGrader, Field(discriminator="type")]
"""Every grader, told apart by `type`."""


def parts_of(grader: Grader) -> list[_Single]:
    """The graders that a multi or a panel asks, in order; any other grader itself."""
    if isinstance(grader, MultiGrader):
        return list(grader.graders.values())
    return list(grader.repeated_judges()) if isinstance(grader, PanelGrader) else [grader]
