"""Advice before a job: one small function for each piece, with what it saw and where the rule comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.planning.tokens import SplitTokens
from ftbridge.providers.local.lower import usual_learning_rate
from ftbridge.spec import JobSpec
from ftbridge.spec.sections import Method

_GUIDE = "OpenAI's fine-tuning best practices: start with 50 to 100 good examples, and double them while it helps"
_LADDER = "OpenAI's guide on optimising accuracy: prompting, then retrieval, then fine-tuning"
_LORA = "Hu et al. 2021, arXiv:2106.09685; common practice in peft's and Unsloth's guides"
_RATES: dict[Method, str] = {
    "supervised": "tinker-cookbook's fit over the widths of models, 2025; full tuning: a tenth (LoRA Without Regret)",
    "dpo": "zephyr's QLoRA recipe (alignment-handbook) and TRL's table of rates; by width as in supervised tuning",
    "reinforcement": "TRL's table of rates for GRPO; by width as in supervised tuning",
}
_USUAL_STEPS = 100
"""Steps of preference tuning and reinforcement when epochs are "auto" (`ftbridge.spec.resolve`); recipes take more.

AdamW moves a weight by at most about the rate in each step, so fewer steps take a higher rate to move the weights as far.
"""
_RANKS = {"format": (4, 16), "style": (8, 32), "domain": (32, 256)}
_FAST = ("daily", "weekly", "monthly")


class Advice(BaseModel):
    """One piece. `evidence` is what was seen, `rule` where the advice comes from."""

    model_config = ConfigDict(frozen=True)

    id: str
    level: Literal["warning", "advice"]
    text: str
    evidence: str
    rule: str = Field(description="Source.")


@dataclass(frozen=True)
class MeasuredRun:
    """What a candidate achieved on the same test bytes in an earlier run: the mean over graders, 0..1, and its slow answers."""

    run: str
    candidate: str
    score: float
    p95_seconds: float | None


@dataclass(frozen=True)
class Facts:
    """What advice is based on."""

    spec: JobSpec
    splits: dict[str, SplitTokens]
    epochs: int
    steps: int
    measured: tuple[MeasuredRun, ...] = ()
    rate_factor: float = 1.0
    """What the model's width makes of the usual learning rate (`ftbridge.providers.local.defaults.width_factor`)."""

    @property
    def examples(self) -> int:
        """Of the training split."""
        return self.splits["train"].examples


def advise(facts: Facts) -> list[Advice]:
    """Everything that applies, warnings first."""
    advice = [piece for look in _LOOKS for piece in look(facts)]
    return sorted(advice, key=lambda piece: piece.level != "warning")


def _examples(facts: Facts) -> Iterator[Advice]:
    n = facts.examples
    evidence = f"{n:,} training examples"
    if n < 100:
        text = "So few examples teach a format at best. Try few-shot prompting with them first; collect 100 or more."
        yield Advice(id="too-few-examples", level="warning", text=text, evidence=evidence, rule=_GUIDE)
    elif n < 500:
        text = "Enough for a style or a format. Gains usually grow with each doubling: if the result is close, collect more."
        yield Advice(id="few-examples", level="advice", text=text, evidence=evidence, rule=_GUIDE)
    elif n < 1000 and facts.spec.plan.task == "domain":
        text = "A domain needs a thousand examples or more; the model does not learn what they leave out."
        yield Advice(id="few-examples-for-a-domain", level="advice", text=text, evidence=evidence, rule=_GUIDE)


def _splits(facts: Facts) -> Iterator[Advice]:
    if "test" not in facts.splits:
        text = (
            "Without a test split you cannot tell whether tuning helped. Set data.test; 100 items detect a "
            "difference of about 10 points."
        )
        rule = "the detectable difference of a paired comparison, docs/evaluation.md"
        yield Advice(id="no-test", level="warning", text=text, evidence="data.test is not set", rule=rule)
    if "validation" not in facts.splits:
        text = "Without validation data, overfitting goes unnoticed. Set data.validation: 0.1."
        yield Advice(id="no-validation", level="advice", text=text, evidence="data.validation is not set", rule=_GUIDE)


def _few_shot_first(facts: Facts) -> Iterator[Advice]:
    if "test" in facts.splits and "few_shot" not in facts.spec.evaluation.baselines:
        text = "Add evaluation.baselines: [few_shot]: if prompting does as well, you need not train or host a model."
        yield Advice(id="no-baseline", level="advice", text=text, evidence="no few_shot baseline", rule=_LADDER)


def _epochs(facts: Facts) -> Iterator[Advice]:
    if facts.epochs > 3 and facts.examples < 500 and facts.spec.hyperparameters.n_epochs != "auto":
        text = "More than three epochs over little data tend to memorise it. Watch the validation loss, or stop early."
        evidence = f"{facts.epochs} epochs over {facts.examples} examples"
        yield Advice(
            id="many-epochs",
            level="advice",
            text=text,
            evidence=evidence,
            rule="common practice; OpenAI's auto aims at 3",
        )
    if facts.steps < 20:
        text = "So few optimizer steps hardly change the model. Smaller batches or more epochs give more."
        yield Advice(id="few-steps", level="advice", text=text, evidence=f"{facts.steps} steps", rule="common practice")


def _rank(facts: Facts) -> Iterator[Advice]:
    lora, task = facts.spec.local.lora, facts.spec.plan.task
    if facts.spec.model.local is None or facts.spec.local.tuning != "lora":
        return
    if not lora.use_rslora and not lora.r <= lora.alpha <= 4 * lora.r:
        text = f"alpha near twice the rank keeps the update's size as the base rate expects: {2 * lora.r}."
        yield Advice(id="alpha", level="advice", text=text, evidence=f"r {lora.r}, alpha {lora.alpha:g}", rule=_LORA)
    if task is not None:
        low, high = _RANKS[task]
        if not low <= lora.r <= high:
            text = f"A rank of {low} to {high} is usual for a {task} (8 for a format, 16 to 32 for a style, 64 for a domain)."
            yield Advice(id="rank", level="advice", text=text, evidence=f"r {lora.r}, plan.task {task}", rule=_LORA)
    elif lora.r > 32 and facts.examples < 500:
        text = "A small set is learnt with a small rank: 8 for a format, 16 to 32 for a style; 64 and more are for a domain."
        yield Advice(
            id="rank", level="advice", text=text, evidence=f"r {lora.r}, {facts.examples} examples", rule=_LORA
        )


def _rate(facts: Facts) -> Iterator[Advice]:
    """The rate on this machine; a service does not publish what its multiplier multiplies."""
    spec = facts.spec
    multiplier, base = spec.hyperparameters.learning_rate_multiplier, spec.local.base_learning_rate
    if spec.model.local is None or (multiplier == "auto" and base == "auto"):
        return
    supervised = spec.method == "supervised"
    # The rates of preferences and rewards were published for models of 7 billion parameters: smaller ones take more.
    factor = facts.rate_factor if supervised else max(1.0, facts.rate_factor)
    auto = usual_learning_rate(spec) * (facts.rate_factor if supervised else 1.0)
    usual = usual_learning_rate(spec) * factor
    most = usual * 10 * (1.0 if supervised else max(1.0, _USUAL_STEPS / max(1, facts.steps)))
    rate = (auto if base == "auto" else base) * (1.0 if multiplier == "auto" else multiplier)
    if not usual / 10 <= rate <= most:
        side = "high: the loss may diverge" if rate > usual else "low: the model may hardly learn"
        text = (
            f"A learning rate of {rate:.2g} is {side}. {usual:.2g} is usual for {spec.method} with {spec.local.tuning}"
        )
        text += " and this model." if factor != 1.0 else "."
        evidence = f"learning rate {rate:.2g}, {facts.steps} steps"
        yield Advice(id="learning-rate", level="warning", text=text, evidence=evidence, rule=_RATES[spec.method])


def _batch(facts: Facts) -> Iterator[Advice]:
    batch = facts.spec.hyperparameters.batch_size
    if isinstance(batch, int) and batch > 1 and 10 * batch > facts.examples:
        text = f"A batch of more than a tenth of the examples leaves few steps in an epoch. Try {max(1, facts.examples // 50)}."
        evidence = f"batch_size {batch}, {facts.examples} examples"
        yield Advice(id="large-batch", level="advice", text=text, evidence=evidence, rule="common practice")


def _too_long(facts: Facts) -> Iterator[Advice]:
    cut = sum(split.over_limit for split in facts.splits.values())
    if cut:
        text = "OpenAI cuts long examples at the end without an error, so the completion may be lost. Shorten them."
        rule = "OpenAI's best practices, token limits"
        yield Advice(id="over-limit", level="warning", text=text, evidence=f"{cut} examples are too long", rule=rule)


def _facts_change(facts: Facts) -> Iterator[Advice]:
    changes = facts.spec.plan.facts_change
    if changes in _FAST:
        text = "Facts that change are better looked up than learnt: measure the retrieval baseline first."
        evidence = f"plan.facts_change is {changes}"
        yield Advice(id="facts", level="warning", text=text, evidence=evidence, rule=_LADDER)
        return
    train = facts.splits["train"]
    mean = train.trained / max(1, train.examples)
    if mean > 400 and changes is None:
        text = (
            "Long completions often contain facts, which are hard to train and go out of date. Retrieval keeps them "
            "current."
        )
        yield Advice(id="facts", level="advice", text=text, evidence=f"{mean:.0f} tokens per completion", rule=_LADDER)


def _measured(facts: Facts) -> Iterator[Advice]:
    """The ladder, where earlier runs measured its steps on the same test items."""
    prompted = [measurement for measurement in facts.measured if measurement.candidate not in ("base", "tuned")]
    tuned = [measurement for measurement in facts.measured if measurement.candidate == "tuned"]
    if not prompted:
        return
    best = max(prompted, key=lambda measurement: measurement.score)
    evidence = f"{best.candidate} {100 * best.score:.1f} % in {best.run}"
    target = facts.spec.evaluation.target
    if target is not None and best.score >= target:
        text = f"{best.candidate} reached evaluation.target without training, so training may not be needed."
        yield Advice(id="prompting-is-enough", level="warning", text=text, evidence=evidence, rule=_LADDER)
    elif tuned and best.score >= (top := max(tuned, key=lambda measurement: measurement.score)).score:
        text = f"Prompting did as well as training: {best.candidate} is not worse than the tuned model."
        evidence += f", tuned {100 * top.score:.1f} % in {top.run}"
        yield Advice(id="prompting-is-enough", level="warning", text=text, evidence=evidence, rule=_LADDER)


def _latency(facts: Facts) -> Iterator[Advice]:
    limit = facts.spec.plan.p95_seconds
    if limit is None:
        return
    slow = [timing for timing in facts.measured if timing.p95_seconds is not None and timing.p95_seconds > limit]
    for timing in slow:
        text = (
            f"{timing.candidate} was slower than plan.p95_seconds allows. Use shorter prompts and completions, or a "
            "smaller model."
        )
        evidence = f"p95 {timing.p95_seconds:.2f} s in {timing.run}, plan.p95_seconds {limit:g}"
        yield Advice(id="slow-answers", level="warning", text=text, evidence=evidence, rule="measured")
    if not any(timing.p95_seconds is not None for timing in facts.measured):
        text = "No run on these test items has measured latency yet. `ftbridge eval -c base` does."
        yield Advice(
            id="latency-not-measured",
            level="advice",
            text=text,
            evidence=f"plan.p95_seconds {limit:g}",
            rule="measured",
        )


_LOOKS: tuple[Callable[[Facts], Iterator[Advice]], ...] = (
    _examples,
    _splits,
    _few_shot_first,
    _measured,
    _epochs,
    _batch,
    _rate,
    _rank,
    _too_long,
    _facts_change,
    _latency,
)
