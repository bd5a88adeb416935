"""The sections of a job spec: strict, frozen, closed, every field described.

Hyperparameters keep OpenAI's names and bounds (`openai.types.fine_tuning`: `SupervisedHyperparameters` and the API's published
schema). Descriptions reach the JSON Schema and docs/spec.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ftbridge.redaction import address_problem
from ftbridge.spec.graders import ANSWER, REFERENCE, Grader, StringCheckGrader

Auto = Literal["auto"]
Method = Literal["supervised", "dpo", "reinforcement"]
Quantization = Literal["nf4", "int8", "none"]


RENAMED = {
    "evaluation.few_shot_by": "few_shot_selection",
    "local.keep_dequantized": "cache_dequantized_weights",
    "local.tokens_per_pass": "max_tokens_per_microbatch",
    "local.too_long": "overlength",
}
"""Fields that have a new name, by their former path. The former names are accepted in version 0.2 and gone in 0.3."""


class SpecModel(BaseModel):
    """Strict, frozen, closed: the habits every part of a spec shares."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
    former_names: ClassVar[Mapping[str, str]] = {}
    """Names of version 0.1 that are still accepted, and what each is now."""

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, document: Any) -> Any:
        return with_new_names(document, cls.former_names)


def with_new_names(document: Any, names: Mapping[str, str]) -> Any:
    """A mapping with each former name replaced by the present one; anything else as it is.

    Raises `ValueError` where both names are set.
    """
    if not isinstance(document, Mapping) or not names.keys() & document.keys():
        return document
    for former, present in names.items():
        if former in document and present in document:
            raise ValueError(f"{former} is the former name of {present}: set {present} alone")
    return {names.get(key, key): value for key, value in document.items()}


def former_names_in(section: str) -> dict[str, str]:
    """The former names of one section's fields, and what each is now."""
    return {path.partition(".")[2]: name for path, name in RENAMED.items() if path.partition(".")[0] == section}


_SLURM_TIME = r"^(UNLIMITED|[0-9]+(:[0-5]?[0-9]){0,2}|[0-9]+-[0-9]+(:[0-5]?[0-9]){0,2})$"
"""Slurm's formats of a time limit (man sbatch, --time)."""
_SLURM_RESERVED = frozenset(
    f"--{name}"
    for name in (
        "account", "array", "begin", "comment", "cpus-per-task", "error", "gpus-per-node", "job-name", "mem", "no-requeue",
        "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "partition", "qos", "requeue", "signal",
        "test-only", "time", "wait", "wrap",
    )
)  # fmt: skip
"""Options of sbatch that a field of the spec sets, or that following the job relies on."""


def _checked_address(address: str | None) -> str | None:
    if address is not None and (problem := address_problem(address)) is not None:
        raise ValueError(f"the address {problem}")
    return address


class ReplaySpec(SpecModel):
    """General prompts that are trained with the base model's own completions beside the examples, so that less is forgotten."""

    share: float = Field(
        default=0.1, gt=0, le=0.5, description="Share of a step's examples that are replayed, above 0, at most 0.5."
    )
    prompts: str | None = Field(
        default=None,
        min_length=1,
        description="A file of general prompts of your own, named as data.train is; ftbridge's set of prompts if absent. Of "
        "chats that end with the assistant's message, the prompt is what comes before it.",
    )
    temperature: float = Field(
        default=0.0, ge=0, le=2, description="Of its completions: 0 writes the likeliest, 1 draws what it would say."
    )
    max_completion_tokens: int = Field(
        default=128,
        ge=1,
        le=4096,
        description="Longest completion that the base model gives to such a prompt, in tokens.",
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
        description="Replay general prompts with the base model's own completions, against forgetting. Off unless given.",
    )
    format: Literal["auto", "jsonl", "json"] = Field(
        default="auto", description="File format; auto looks at the first character."
    )
    drop: list[str] = Field(
        default=[],
        description="Fields of lines and messages to let go, by their paths, such as score or messages[].mood.",
    )
    keep: list[str] = Field(
        default=[], description="Fields to keep with the examples although nothing that trains reads them."
    )
    map: dict[str, str] = Field(
        default={}, description="Fields to read by another name: {prompt: question, completion: answer}."
    )


class ModelSpec(SpecModel):
    """The base model on each side."""

    openai: str | None = Field(
        default=None, min_length=1, description="A model name of the managed service, or an existing ft: model."
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


class WandbIntegration(SpecModel):
    """Weights & Biases, by a key that an administrator keeps with the service."""

    type: Literal["wandb"] = Field(default="wandb", description="wandb.")
    project: str = Field(min_length=1, description="Project that the job's figures go to.")
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
        description="Where a tuned model must be deployed before it answers (azure, nebius): the name it is deployed under.",
    )
    integrations: list[WandbIntegration] = Field(
        default=[], max_length=5, description="Where the service reports the job besides; OpenAI knows wandb."
    )
    grader: str | None = Field(
        default=None,
        description="Reinforcement only: which of evaluation.graders rewards samples; may be left out when there is one.",
    )
    response_format: dict[str, Any] | None = Field(
        default=None, description="Reinforcement only: the response format that samples must keep to."
    )
    batch: bool = Field(
        default=False, description="Answer test items through the Batch API: half the price, up to 24 hours."
    )
    max_quiet_hours: float | None = Field(
        default=None,
        gt=0,
        description="Stop waiting for a job that neither changes its state nor says anything for so long; it is left as it is.",
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        return _checked_address(address)

    @model_validator(mode="after")
    def _some_targets_need_an_address(self) -> OpenAISpec:
        if self.target in ("azure", "custom") and self.base_url is None:
            raise ValueError(f"openai.target {self.target} needs openai.base_url")
        return self


class LoraSpec(SpecModel):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), in peft's names."""

    r: int = Field(default=16, ge=1, le=1024, description="Rank.")
    alpha: float = Field(default=32, gt=0, description="Scale; the update is multiplied by alpha / r.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: str | list[str] = Field(
        default="all-linear",
        description='Module names to adapt, or "all-linear" (every linear layer but the output head).',
    )
    use_rslora: bool = Field(
        default=False, description="Scale by alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv:2312.03732)."
    )
    use_dora: bool = Field(
        default=False, description="Split magnitude from direction (Liu et al. 2024, arXiv:2402.09353)."
    )
    continue_from: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of an adapter to train further, such as RUN/adapter: it gives r, alpha and target_modules. In "
        "preference tuning it is the reference model too.",
    )


class DpoSpec(SpecModel):
    """Preference tuning on this machine beyond what OpenAI's method has: other losses, label smoothing, an NLL term."""

    loss: Literal["sigmoid", "ipo", "length_normalised"] = Field(
        default="sigmoid",
        description="sigmoid: DPO (Rafailov et al. 2023, arXiv:2305.18290). ipo: a squared distance, over means of tokens "
        "(Azar et al. 2023, arXiv:2310.12036). length_normalised: sigmoid of means of tokens, against length bias.",
    )
    beta: Auto | Annotated[float, Field(gt=0)] = Field(
        default="auto",
        description="Weight of the reference model on the scale of this loss. auto: hyperparameters.beta for sigmoid "
        "(itself 0.1 when auto), 0.1 for ipo, 1.0 for length_normalised.",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Share of pairs taken to be labelled the wrong way round (conservative DPO). Not for ipo.",
    )
    nll_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the preferred completion's own loss per token, against its becoming less likely.",
    )

    @model_validator(mode="after")
    def _smoothing_has_a_meaning(self) -> DpoSpec:
        if self.label_smoothing and self.loss == "ipo":
            raise ValueError("label_smoothing has no meaning for loss ipo, which is bounded already; set it to 0")
        return self


class ReinforcementSpec(SpecModel):
    """Reinforcement on this machine beyond what OpenAI's method has: the length of completions, and how they count."""

    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Longest completion while training, in tokens; evaluation.max_completion_tokens unless given.",
    )
    kl: float = Field(
        default=0.0,
        ge=0,
        le=0.1,
        description="Weight of the distance to the model that training begins with (KL divergence by Schulman's k3), a token.",
    )
    mask_truncated: bool = Field(
        default=False,
        description="Leave completions that reach the token limit out of the update; they are graded as they are otherwise.",
    )


class EarlyStopping(SpecModel):
    """Stop when validation loss no longer falls."""

    patience: int = Field(default=2, ge=1, description="Validations without improvement before training stops.")
    min_delta: float = Field(default=0.0, ge=0, description="Smallest fall in validation loss, in nats, that counts.")


class LocalSpec(SpecModel):
    """How to train on this machine."""

    former_names: ClassVar[Mapping[str, str]] = former_names_in("local")

    tuning: Literal["lora", "full"] = Field(default="lora", description="Train an adapter, or every weight.")
    quantization: Quantization | Auto = Field(
        default="auto",
        description="Base weights: nf4 (double quantisation, bf16 compute), int8, none; auto is nf4 for lora, none for full.",
    )
    lora: LoraSpec = Field(default_factory=LoraSpec, description="The adapter.")
    dpo: DpoSpec = Field(default_factory=DpoSpec, description="Preference tuning here (method dpo).")
    reinforcement: ReinforcementSpec = Field(
        default_factory=ReinforcementSpec, description="Reinforcement here (method reinforcement)."
    )
    thinking: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether the model is asked with reasoning, and reasoning in the data is trained; auto is on when trained "
        "answers have reasoning, or reasoning_effort is given, and off otherwise.",
    )
    max_length: int = Field(default=2048, ge=8, description="Longest example, in tokens of the model's tokenizer.")
    overlength: Literal["refuse", "truncate", "drop"] = Field(
        default="refuse",
        description="What to do with examples longer than max_length; refuse lists their line numbers.",
    )
    packing: bool = Field(
        default=True, description="Lay examples end to end instead of padding; they never see each other."
    )
    max_tokens_per_microbatch: Auto | Annotated[int, Field(ge=8)] = Field(
        default="auto",
        description="Token budget of one forward and backward pass; a batch is cut into as many passes as it needs. "
        "It changes speed and memory, not the result.",
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="Off unless given; needs validation data.")
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        default="auto",
        description="auto: paged_adamw_8bit on CUDA when quantized, adamw_8bit for full tuning on CUDA, else adamw.",
    )
    base_learning_rate: Auto | Annotated[float, Field(gt=0)] = Field(
        default="auto",
        description="What learning_rate_multiplier multiplies; auto follows the model's width in supervised tuning "
        "(5e-4 x (2000 / width)^0.781 for lora, a tenth for full); 5e-6 and 5e-7 for dpo; "
        "1e-5 and 1e-6 for reinforcement.",
    )
    lr_schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Shape after warm-up; constant in reinforcement unless given."
    )
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="Share of all steps spent on linear warm-up.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay (AdamW).")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this global L2 norm.")
    gradient_checkpointing: Auto | bool = Field(
        default="auto",
        description="Recompute activations in the backward pass; auto turns it on when memory asks for it.",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        default="auto", description="Compute type; auto takes the best the device has."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="auto: cuda, then mps, then cpu.")
    cache_dequantized_weights: Auto | bool = Field(
        default="auto",
        description="Hold a 16-bit copy of the nf4 weights: same numbers, faster steps; auto when memory is ample.",
    )
    checkpoint_minutes: float = Field(default=10, gt=0, description="A checkpoint at least this often, in minutes.")
    evals_per_epoch: int = Field(
        default=2, ge=1, le=100, description="Validations in each epoch; each is also a checkpoint."
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="Newest checkpoints kept; the best one is always kept.")
    trust_remote_code: bool = Field(
        default=False, description="Run Python that comes with a hub model. Off unless you trust it."
    )
    workers: Auto | Annotated[int, Field(ge=1, le=1024)] = Field(
        default="auto",
        description="Training processes, one for each GPU; auto is every GPU that is visible, and 1 on a CPU. The batch is the "
        "same with any number, and so is the result.",
    )
    sharding: Literal["auto", "ddp", "fsdp2"] = Field(
        default="auto",
        description="How several workers hold the model: ddp, a whole copy each; fsdp2, a part each. auto is ddp where the "
        "model fits one GPU.",
    )
    engine: Literal["transformers", "vllm"] = Field(
        default="transformers",
        description="What answers test items: transformers in a child process, or vLLM on a CUDA card (installed apart).",
    )


class SlurmSpec(SpecModel):
    """What to request of a Slurm cluster (provider slurm). The run folder must be on storage that the nodes share."""

    partition: str | None = Field(default=None, min_length=1, description="Partition; the cluster's default if absent.")
    gpus: int = Field(default=1, ge=0, le=64, description="GPUs of each node; 0 trains on CPUs.")
    nodes: int = Field(default=1, ge=1, le=1024, description="Nodes; each trains on all of its requested GPUs.")
    cpus: int | None = Field(default=None, ge=1, description="CPU cores of each node; the cluster's default if absent.")
    memory: str | None = Field(
        default=None, pattern=r"^[1-9][0-9]*[KMGT]?$", description="Memory of each node, such as 64G (Slurm's --mem)."
    )
    time: str | None = Field(
        default=None,
        pattern=_SLURM_TIME,
        description="Time limit as Slurm writes it, such as 90 (minutes), 12:00:00 or 2-00:00:00. A job that reaches it saves "
        "a checkpoint and is queued again.",
    )
    account: str | None = Field(default=None, min_length=1, description="Account that the job is charged to.")
    qos: str | None = Field(default=None, min_length=1, description="Quality of service.")
    options: list[Annotated[str, Field(pattern=r"^--[a-z][a-z-]*(=.*)?$")]] = Field(
        default=[], description="More options of sbatch, such as --constraint=a100 or --reservation=team."
    )
    setup: list[str] = Field(
        default=[], description="Shell commands for the node to run before training, such as module load cuda."
    )
    python: str | None = Field(
        default=None, min_length=1, description="Python interpreter on the nodes; the path of this one if absent."
    )

    @field_validator("options")
    @classmethod
    def _are_not_set_elsewhere(cls, options: list[str]) -> list[str]:
        taken = {option.partition("=")[0] for option in options} & _SLURM_RESERVED
        if taken:
            raise ValueError(f"{', '.join(sorted(taken))}: ftbridge sets these itself, or slurm has a field for them")
        return options


class RaySpec(SpecModel):
    """Which Ray cluster, and what to request of it (provider ray). The run folder must be on storage that the nodes share."""

    address: str | None = Field(
        default=None,
        description="Address of the cluster's dashboard, such as http://head:8265; $RAY_API_SERVER_ADDRESS if absent.",
    )
    token_variable: str = Field(
        default="RAY_AUTH_TOKEN",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the bearer token, where the cluster wants one.",
    )
    gpus: float = Field(default=1, ge=0, le=64, description="GPUs of the job; 0 trains on CPUs.")
    cpus: float | None = Field(default=None, gt=0, description="CPU cores of the job; Ray's default if absent.")
    memory_gb: float | None = Field(default=None, gt=0, description="Memory that Ray reserves for the job, in GB.")
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="Custom resources, such as {a100: 1}: which nodes may run the job."
    )
    runtime_env: dict[str, Any] = Field(
        default={},
        description="Ray's runtime environment, such as {pip: [...]} or {env_vars: {...}}; never put keys here.",
    )
    python: str | None = Field(
        default=None, min_length=1, description="Python interpreter on the nodes; the path of this one if absent."
    )

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        return _checked_address(address)


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


class BudgetSpec(SpecModel):
    """Limits that stop a run instead of letting it spend on."""

    max_usd: float | None = Field(default=None, gt=0, description="Money, in US dollars, over the whole run.")
    max_hours: float | None = Field(default=None, gt=0, description="Wall-clock hours of training.")
    max_gpu_hours: float | None = Field(
        default=None, gt=0, description="Hours of GPUs, training and completing together; two GPUs for an hour are two."
    )


class PlanSpec(SpecModel):
    """What `ftbridge plan` reckons with."""

    min_life_days: int | None = Field(
        default=None, ge=1, description="Refuse, with exit code 4, a model that a service stops sooner than this."
    )
    gpu_usd_per_hour: float | None = Field(default=None, gt=0, description="What this machine's card costs an hour.")
    watts: float | None = Field(default=None, gt=0, description="Its draw, where electricity is what it costs.")
    usd_per_kwh: float | None = Field(default=None, gt=0, description="Price of electricity.")
    task: Literal["format", "style", "domain"] | None = Field(
        default=None, description="What the model is to learn, for advice on the adapter's rank."
    )
    facts_change: Literal["never", "yearly", "monthly", "weekly", "daily"] | None = Field(
        default=None, description="How often the facts in the answers change, for advice on retrieval."
    )
    p95_seconds: float | None = Field(
        default=None, gt=0, description="Slowest acceptable answer, 19 times in 20, for advice on prompts and models."
    )
    monthly_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens the tuned model will read and write a month, for comparing what serving costs.",
    )

    @property
    def hour_usd(self) -> float | None:
        """What an hour of this machine costs: the card's price, else its electricity; None when neither is told."""
        if self.gpu_usd_per_hour is not None:
            return self.gpu_usd_per_hour
        has_both = self.watts is not None and self.usd_per_kwh is not None
        return self.watts * self.usd_per_kwh / 1000 if has_both else None  # type: ignore[operator]
