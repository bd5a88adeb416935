"""What training takes, from a model's config alone: one arithmetic for `ftbridge plan` and for the worker's passes. No torch.

    weights      as load.py holds them: linear layers in the quantization; embeddings, head, norms, and the experts that
                 transformers 5 fuses into one parameter, in the compute type
    copy         16-bit numbers of nf4 layers, where `cache_dequantized_weights` holds them
    trained      parameters that learn, their gradients, AdamW's moments
    pass         tokens x what a token keeps until the backward pass reaches it; checkpointing keeps one vector a block
    head         chunks of logits (loss.py), never the whole; models whose head is their own pay for all of it
    generation   where rollouts are drawn: keys and values, logits, and on a CPU weights laid out for it

Bytes a parameter: nf4 with double quantisation 0.516 (4 bits, an 8-bit constant for 64 weights, a 32-bit one for 256 of those;
Dettmers et al. 2023, arXiv:2305.14314, section 3), int8 1, 16-bit 2. What a token keeps is counted from fused.py and from
transformers' decoder blocks, tensor by tensor, in the manner of Korthikanti et al. 2022 (arXiv:2205.05198).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["cuda", "mps", "cpu"]
CHUNK = 64 << 20
"""Bytes of one chunk of float32 logits; loss.py's `CHUNK_BYTES`."""
WEIGHT_BYTES = {"nf4": 0.516, "int8": 1.0, "none": 2.0}
ROWS = {"cpu": 32, "mps": 32, "cuda": 256}
"""Rollouts under way at once. CPU: measured on two cores, more rows than this no longer raise the rate."""
SHORT = 192
"""Up to here CPUs write attention out, scores and all (attention.py)."""


_GATES, _DOWNS = {"gate_up_proj", "gate_proj", "up_proj", "w1", "w3"}, {"down_proj", "w2"}
"""Names under which the two parameters of fused experts are adapted."""


class Linear(NamedTuple):
    """One kind of linear layer (torch.nn.Linear): its name, inputs, outputs, and how many of them the model has."""

    name: str
    inputs: int
    outputs: int
    times: int

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs * self.times


class ModelShape(BaseModel):
    """A decoder's sizes, read from its config by `sizes.shape_of`."""

    model_config = ConfigDict(frozen=True, strict=True)

    hidden: int = Field(gt=0, le=1 << 20)
    layers: int = Field(gt=0, le=10_000)
    heads: int = Field(gt=0, le=10_000)
    kv_heads: int = Field(gt=0, le=10_000)
    head_dim: int = Field(gt=0, le=1 << 16)
    intermediate: int = Field(gt=0, le=1 << 24, description="Width of a dense layer's MLP.")
    vocabulary: int = Field(gt=0, le=1 << 24)
    tied: bool
    attention: tuple[tuple[str, int, int], ...] = Field(
        description="Name, inputs, outputs of a layer's linear modules."
    )
    gate: tuple[str, ...] = Field(default=("gate_proj", "up_proj"), description="Modules from hidden to intermediate.")
    experts: int = Field(default=1, gt=0, le=10_000, description="Routed experts of a layer that has them.")
    expert_layers: int = Field(default=0, ge=0, le=10_000, description="Layers whose MLP is a mixture of experts.")
    expert_width: int = Field(default=0, ge=0, le=1 << 24)
    active_experts: int = Field(default=0, ge=0, le=10_000, description="Experts that a token goes through.")
    shared_width: int = Field(default=0, ge=0, le=1 << 24, description="Width of the experts that every token takes.")
    small: int = Field(default=0, ge=0, description="Parameters of norms, biases, routers and attention sinks.")
    positions: int | None = Field(default=None, description="Most tokens of one example, where the config tells.")
    own_head: bool = Field(default=False, description="The head scales or caps its logits, so it cannot run in chunks.")

    @property
    def linears(self) -> list[Linear]:
        """Every linear layer, the head aside. Routed experts are not among them: see `expert_parameters`."""
        modules = [Linear(name, inputs, outputs, self.layers) for name, inputs, outputs in self.attention]
        for width, count in (
            (self.intermediate, self.layers - self.expert_layers),
            (self.shared_width, self.expert_layers),
        ):
            if width and count:
                each = width * 2 // len(self.gate)
                modules += [Linear(name, self.hidden, each, count) for name in self.gate]
                modules.append(Linear("down_proj", width, self.hidden, count))
        return modules

    @property
    def linear_parameters(self) -> int:
        """Parameters of all linear layers, the head and routed experts aside: what bitsandbytes quantizes."""
        return sum(linear.parameters for linear in self.linears)

    @property
    def expert_parameters(self) -> int:
        """Parameters of routed experts. transformers 5 holds a layer's experts in one three-dimensional parameter each way."""
        return self.expert_layers * self.experts * 3 * self.hidden * self.expert_width

    @property
    def other_parameters(self) -> int:
        """Embeddings, head, norms, biases and routers."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.small

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.linear_parameters + self.expert_parameters + self.other_parameters

    @property
    def active_width(self) -> int:
        """The widest MLP that one token goes through."""
        mixed = self.active_experts * self.expert_width + self.shared_width if self.expert_layers else 0
        return max(mixed, self.intermediate if self.expert_layers < self.layers else 0)

    def adapter_parameters(self, r: int, modules: str | list[str] = "all-linear", *, dora: bool = False) -> int:
        """Of a LoRA adapter of rank r on the named modules of every layer; "all-linear" is every one but the head.

        Fused experts are adapted too (targets.py), each expert with r of its own; with DoRA they stay frozen.
        """
        adapted = [one for one in self.linears if modules == "all-linear" or one.name in modules]
        parameters = sum(r * (one.inputs + one.outputs) * one.times for one in adapted)
        if self.expert_layers and not dora:
            each = self.expert_layers * self.experts * r
            if modules == "all-linear" or _GATES & set(modules):
                parameters += each * (self.hidden + 2 * self.expert_width)
            if modules == "all-linear" or _DOWNS & set(modules):
                parameters += each * (self.hidden + self.expert_width)
        return parameters


class Job(BaseModel):
    """What of a job decides its memory. `compute`: bytes of the compute type, 2 or 4."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    compute: int
    tuning: Literal["lora", "full"]
    quantization: Literal["nf4", "int8", "none"]
    r: int = 16
    modules: str | list[str] = "all-linear"
    dropout: float = 0.05
    dora: bool = False
    optimizer: str = "auto"

    @property
    def moments(self) -> int:
        """Bytes of AdamW's two moments for one parameter: 2 where optim.py takes 8-bit ones."""
        saves = self.kind == "cuda" and (self.quantization != "none" or self.tuning == "full")
        return 2 if self.optimizer.endswith("8bit") or (self.optimizer == "auto" and saves) else 8


def weight_bytes(shape: ModelShape, job: Job) -> int:
    """The base model as it is loaded; full tuning holds float32."""
    if job.tuning == "full":
        return 4 * shape.parameters
    each = job.compute if job.quantization == "none" else WEIGHT_BYTES[job.quantization]
    unquantized = shape.other_parameters + shape.expert_parameters  # bitsandbytes quantizes torch.nn.Linear alone
    return round(each * shape.linear_parameters) + job.compute * unquantized


def copy_bytes(shape: ModelShape, job: Job) -> int:
    """The copy that `cache_dequantized_weights` holds; 0 where nothing is in nf4."""
    return job.compute * shape.linear_parameters if job.quantization == "nf4" and job.tuning == "lora" else 0


def trained_bytes(shape: ModelShape, job: Job) -> int:
    """Gradients and moments, and an adapter's own parameters, all float32 but 8-bit moments.

    Full tuning also holds autocast's copies of the weights, and the head's gradient once more (loss.py).
    """
    if job.tuning == "lora":
        return shape.adapter_parameters(job.r, job.modules, dora=job.dora) * (4 + 4 + job.moments)
    casts = job.compute * shape.parameters if job.compute == 2 else 0
    return shape.parameters * (4 + job.moments) + casts + 8 * shape.vocabulary * shape.hidden


def block_bytes(shape: ModelShape, job: Job, longest: int, rows: float = 1.0) -> int:
    """What one token keeps within one block. `longest` tokens in an example: short ones on a CPU keep their scores.

    `rows`: tokens that attention reads for one token of the pass. Where completions share a prompt that is computed once,
    attention still reads it once for each of them (attention.Layout.branched).
    """
    c, h, inner = job.compute, shape.hidden, shape.active_width
    a, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    if job.tuning == "full":  # float32 norms and their results, cast for each layer that reads them
        norms, mlp = 2 * 8 * h + 5 * c * h, 4 * c * inner
    else:  # a float32 input and a result for each norm; gate, act(gate), up and their product
        norms, mlp = 2 * (4 + c) * h, 4 * c * inner
    row = c * (2 * a + 2 * k)  # q, k, v as attention reads them, and its result
    if job.kind == "cpu" and longest <= SHORT:
        row += 4 * (a + 2 * k + shape.heads * longest)  # float32 q, k, v and the weights of each head
    attention = c * a + round(rows * row)  # the first is the result unpacked
    unfused = job.tuning == "lora" and (job.quantization == "int8" or job.dora)
    inputs = sum(one.inputs for one in shape.linears if one.times == shape.layers)
    mask = (4 if job.kind == "cpu" else 1) * (job.dropout > 0)
    adapter = 7 * c * job.r * (job.tuning == "lora") + (inputs * (c + mask) if unfused else 0)
    return norms + mlp + attention + adapter


def token_bytes(shape: ModelShape, job: Job, *, checkpointing: bool, longest: int, rows: float = 1.0) -> int:
    """What one token of a pass takes at the pass's peak: kept tensors, the gradients of one block, and dropout's masks.

    `longest` and `rows` as in `block_bytes`.
    """
    block = block_bytes(shape, job, longest, rows)
    stream = 4 if job.tuning == "full" else job.compute
    flowing = job.compute * (3 * shape.active_width + 4 * shape.hidden)
    stored = stream * shape.hidden * shape.layers + block if checkpointing else block * shape.layers
    pool = job.compute * max(shape.hidden, shape.active_width) * (job.tuning == "lora" and job.dropout > 0)
    return stored + flowing + pool


def head_bytes(shape: ModelShape, job: Job, *, tokens: int, loss_tokens: int) -> int:
    """Logits of a pass with so many tokens, so many of them trained."""
    hidden = 3 * job.compute * shape.hidden * loss_tokens
    if shape.own_head:
        return hidden + shape.vocabulary * (2 * job.compute * tokens + 12 * loss_tokens)
    rows = min(loss_tokens, max(1, CHUNK // (4 * shape.vocabulary)))
    return hidden + rows * shape.vocabulary * (4 + 2 * job.compute)


def generation_bytes(shape: ModelShape, job: Job, *, rows: int, columns: int) -> int:
    """What drawing `rows` rollouts at once takes, each of `columns` tokens with its prompt.

    Keys and values lie in blocks of 64 columns that are copied when they grow (columns.py), so both copies count. The logits of
    a step are there in the compute type and three times in float32 (sampling.py). In bf16 on a CPU the weights are laid out
    once more (packed.py).
    """
    states = 2 * shape.layers * shape.kv_heads * shape.head_dim * job.compute
    held = -(-columns // 64) * 64
    logits = rows * shape.vocabulary * (job.compute + 3 * 4)
    laid_out = job.compute * shape.linear_parameters if job.kind == "cpu" and job.compute == 2 else 0
    return rows * states * (2 * held - 64) + logits + laid_out


def working_bytes(shape: ModelShape, job: Job, *, copied: bool) -> int:
    """The largest nf4 weight dequantised on the spot, where no copy is kept."""
    if job.quantization != "nf4" or copied:
        return 0
    return 2 * job.compute * max(one.inputs * one.outputs for one in shape.linears)


def gathered_bytes(shape: ModelShape, job: Job) -> int:
    """What a sharded worker (fsdp2) holds whole while it computes: two blocks, one of them on its way, and the head."""
    blocks = weight_bytes(shape, job) - (4 if job.tuning == "full" else job.compute) * shape.other_parameters
    head = (4 if job.tuning == "full" else job.compute) * shape.vocabulary * shape.hidden
    gradients = (4 * (shape.parameters - shape.other_parameters) / shape.layers) if job.tuning == "full" else 0
    return round(2 * blocks / shape.layers + gradients) + head


def ring_bytes(size: int, workers: int) -> int:
    """Bytes that each of `workers` sends to add up `size` bytes in a ring: 2 (n - 1) / n of them.

    Patarasuk and Yuan 2009 ("Bandwidth optimal all-reduce algorithms"); NCCL's and gloo's way for large tensors. To gather or
    to scatter alone takes half.
    """
    return round(2 * (workers - 1) / workers * size)


def step_traffic(shape: ModelShape, job: Job, workers: int, *, sharded: bool, passes: int = 1) -> int:
    """Bytes that each worker sends in a step of `passes` micro-batches.

    Whole models add up float32 gradients once a step. Sharded ones gather weights and adapter, as they are stored, for the
    forward and again for the backward pass of each micro-batch, and scatter its gradients. A head that is the embedding is
    gathered for both, so once more.
    """
    count = shape.adapter_parameters(job.r, job.modules, dora=job.dora) if job.tuning == "lora" else shape.parameters
    if not sharded:
        return ring_bytes(4 * count, workers)
    element = 4 if job.tuning == "full" else job.compute
    gathered = weight_bytes(shape, job) + (4 * count if job.tuning == "lora" else 0)
    again = element * shape.vocabulary * shape.hidden * shape.tied
    return passes * (ring_bytes(gathered, workers) + ring_bytes(again + 4 * count, workers) // 2)
