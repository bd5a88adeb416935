"""Advice before a job: one small function for each piece, with what it saw and where the rule comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.planning.tokens import SplitTokens
from ftbridge.spec import JobSpec

_GUIDE = "OpenAI's fine-tuning best practices: start with 50 to 100 good examples"
_LADDER = "OpenAI's guide on optimising accuracy: prompting, then retrieval, then fine-tuning"
_LORA = "Hu et al. 2021, arXiv:2106.09685; common practice in peft's and Unsloth's guides"


class Advice(BaseModel):
    """One piece. `evidence` is what was seen, `rule` where the advice comes from."""

    model_config = ConfigDict(frozen=True)

    id: str
    level: Literal["warning", "advice"]
    text: str
    evidence: str
    rule: str = Field(description="Source.")


@dataclass(frozen=True)
class Facts:
    """What advice is drawn from."""

    spec: JobSpec
    splits: dict[str, SplitTokens]
    epochs: int
    steps: int

    @property
    def examples(self) -> int:
        """Of the training split."""
        return self.splits["train"].examples


def advise(facts: Facts) -> list[Advice]:
    """Everything that applies, warnings first."""
    told = [piece for look in _LOOKS for piece in look(facts)]
    return sorted(told, key=lambda piece: piece.level != "warning")


def _examples(facts: Facts) -> Iterator[Advice]:
    n = facts.examples
    evidence = f"{n:,} training examples"
    if n < 50:
        text = "So few examples teach a format at best. Try few-shot prompting with them first; collect 100 or more."
        yield Advice(id="too-few-examples", level="warning", text=text, evidence=evidence, rule=_GUIDE)
    elif n < 500:
        text = "Enough for a style or a format. Gains usually grow with each doubling: if the result is close, collect more."
        yield Advice(id="few-examples", level="advice", text=text, evidence=evidence, rule=_GUIDE)


def _splits(facts: Facts) -> Iterator[Advice]:
    if "test" not in facts.splits:
        text = "Without a test split nobody can say whether it helped. Set data.test; 100 items show about 10 points."
        rule = "the detectable difference of a paired comparison, docs/evaluation.md"
        yield Advice(id="no-test", level="warning", text=text, evidence="data.test is not set", rule=rule)
    if "validation" not in facts.splits:
        text = "Without validation data overfitting is not seen while it happens. Set data.validation: 0.1."
        yield Advice(id="no-validation", level="advice", text=text, evidence="data.validation is not set", rule=_GUIDE)


def _few_shot_first(facts: Facts) -> Iterator[Advice]:
    if "test" in facts.splits and "few_shot" not in facts.spec.evaluation.baselines:
        text = "Add evaluation.baselines: [few_shot]: if prompting does as well, there is nothing to train or to keep alive."
        yield Advice(id="no-baseline", level="advice", text=text, evidence="no few_shot baseline", rule=_LADDER)


def _epochs(facts: Facts) -> Iterator[Advice]:
    if facts.epochs > 3 and facts.examples < 500 and facts.spec.hyperparameters.n_epochs != "auto":
        text = "More than three epochs over little data tend to repeat it. Watch the validation loss, or stop early."
        evidence = f"{facts.epochs} epochs over {facts.examples} examples"
        yield Advice(
            id="many-epochs",
            level="advice",
            text=text,
            evidence=evidence,
            rule="common practice; OpenAI's auto aims at 3",
        )
    if facts.steps < 20:
        text = "So few optimizer steps hardly move the model. Smaller batches or more epochs give more."
        yield Advice(id="few-steps", level="advice", text=text, evidence=f"{facts.steps} steps", rule="common practice")


def _rank(facts: Facts) -> Iterator[Advice]:
    lora = facts.spec.local.lora
    if facts.spec.model.local is None or facts.spec.local.tuning != "lora":
        return
    if not lora.use_rslora and not lora.r <= lora.alpha <= 4 * lora.r:
        text = f"alpha near twice the rank keeps the update's size as the base rate expects: {2 * lora.r}."
        yield Advice(id="alpha", level="advice", text=text, evidence=f"r {lora.r}, alpha {lora.alpha:g}", rule=_LORA)
    if lora.r > 32 and facts.examples < 500:
        text = "A small set is learnt with a small rank: 8 for a format, 16 to 32 for a style; 64 and more are for a domain."
        yield Advice(
            id="rank", level="advice", text=text, evidence=f"r {lora.r}, {facts.examples} examples", rule=_LORA
        )


def _too_long(facts: Facts) -> Iterator[Advice]:
    cut = sum(split.over_limit for split in facts.splits.values())
    if cut:
        text = "OpenAI cuts examples at their end without an error: the answer to learn may be gone. Shorten them."
        rule = "OpenAI's best practices, token limits"
        yield Advice(id="over-limit", level="warning", text=text, evidence=f"{cut} examples are too long", rule=rule)


def _facts_change(facts: Facts) -> Iterator[Advice]:
    train = facts.splits["train"]
    mean = train.trained / max(1, train.examples)
    if mean > 400:
        text = "Long answers often carry facts, which training learns badly and which grow old. Retrieval keeps them fresh."
        yield Advice(id="facts", level="advice", text=text, evidence=f"{mean:.0f} tokens an answer", rule=_LADDER)


_LOOKS: tuple[Callable[[Facts], Iterator[Advice]], ...] = (
    _examples,
    _splits,
    _few_shot_first,
    _epochs,
    _rank,
    _too_long,
    _facts_change,
)
