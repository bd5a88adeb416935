"""Settling "auto": written rules turn a spec's open fields into numbers, and every settlement says why.

The rules here are general ones; a provider may have its own (`Provider.auto`), as training on this machine has for supervised
tuning (`ftbridge.providers.local.defaults`), or leave the choice to its service. What is left to a service stays "auto", and
plans and budgets reckon with an estimate (`ResolvedSpec.planned`) until the job reports what was chosen.

    batch_size      supervised: 0.2 % of the examples, 1 to 256
                    dpo: a 32nd of the pairs, 4 to 32
                    reinforcement: a tenth of the prompts, 4 to 32
    n_epochs        supervised: 3; more for few examples, fewer for many
                    dpo: enough for about 100 steps, 1 to 3; reinforcement: the same, 1 to 10
    learning_rate_multiplier   by the provider alone, or left to the service, which reports what it chose

What depends on the machine or the service (precision, max_tokens_per_microbatch, beta, …) is settled by the provider, with
`ResolvedSpec.with_settled`. Pure: no files, no network, no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from ftbridge.spec.job import JobSpec
from ftbridge.spec.sections import Method

_TARGET_EPOCHS = 3
_MOST_EPOCHS = 25
_FEWEST_SEEN = 100
_MOST_SEEN = 25_000
_LARGEST_BATCH = 256
_FEWEST_PAIRS, _MOST_PAIRS, _PAIR_STEPS = 4, 32, 100
_FEWEST_PROMPTS, _MOST_PROMPTS, _PRACTICE_STEPS, _MOST_PRACTICE = 4, 32, 100, 10


class Settled(BaseModel):
    """One field that was "auto": its dotted path, the value requested, the value it has now ("auto" if left open), and why.

    `estimate` is what plans and budgets reckon with for a field that is left to a service.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)
    field: str
    requested: Any = Field(validation_alias=AliasChoices("requested", "asked"))
    value: Any
    reason: str
    estimate: int | None = None


class ResolvedSpec(BaseModel):
    """A spec whose "auto" fields have values, and how each came by its value."""

    model_config = ConfigDict(frozen=True)
    spec: JobSpec
    settled: list[Settled] = []

    @property
    def estimated(self) -> dict[str, int]:
        """Hyperparameters that are left to a service, with what plans and budgets reckon with for each."""
        return {
            entry.field.removeprefix("hyperparameters."): entry.estimate
            for entry in self.settled
            if entry.value == "auto" and entry.estimate is not None
        }

    def planned(self, name: Literal["n_epochs", "batch_size"]) -> int:
        """The hyperparameter's value, or what is reckoned with where it is left to a service; `ValueError` without either."""
        value = getattr(self.spec.hyperparameters, name)
        return int(self.estimated.get(name, value) if value == "auto" else value)

    def with_settled(self, settled: Settled) -> ResolvedSpec:
        """A copy in which `settled.field` has `settled.value` and this entry replaces an earlier one for the field.

        Raises `ValueError` for a field the spec does not have, and pydantic's `ValidationError` for a value the spec
        would refuse: both are bugs in the caller's rule.
        """
        document = self.spec.model_dump(exclude_unset=True)
        *sections, name = settled.field.split(".")
        node, model = document, type(self.spec)
        for section in sections:
            model = _section(model, section, settled.field)
            node = node.setdefault(section, {})
        if name not in model.model_fields:
            raise ValueError(f"a job spec has no field {settled.field}")
        node[name] = settled.value
        others = [entry for entry in self.settled if entry.field != settled.field]
        return ResolvedSpec(spec=JobSpec.model_validate(document), settled=[*others, settled])

    def document(self) -> dict[str, Any]:
        """What `resolved.json` holds: the whole spec with its values, and `settled`, the list of entries."""
        entries = [entry.model_dump(mode="json") for entry in self.settled]
        return {**self.spec.model_dump(mode="json"), "settled": entries}


ProviderRule = Callable[[str, JobSpec, int], "tuple[Any, str] | None"]
"""A provider's own value for a field at "auto" and the reason, or None: its arguments are those of `Provider.auto`."""


def resolve(
    spec: JobSpec,
    train_examples: int,
    provider_rule: ProviderRule,
    multiplier: tuple[float | str, str],
    reasoning: int | None = None,
) -> ResolvedSpec:
    """Settle the hyperparameters that are "auto" for a job of `train_examples` (1 or more).

    A provider's own rule comes first (`ftbridge.providers.resolve` looks it up); `multiplier` is the learning rate multiplier
    and its reason where the provider has no rule for it.

    The general epochs rule is OpenAI's cookbook's (examples/Chat_finetuning_data_prep.ipynb), written for an earlier
    generation of models: an estimate of what the service would take. The general batch rule is the one OpenAI published for
    its first fine-tuning endpoint (about 0.2 % of the training examples, at most 256). Where the provider's rule leaves epochs
    or batch size at "auto", these are the estimate; for preference pairs and reinforcement, whose rules no service publishes,
    epochs are estimated at the most that the general rules take, so that a budget is not held too loosely. `reasoning` is how
    many training examples have an answer with reasoning; None, where the data were not read, leaves `local.thinking` open.
    """
    if train_examples < 1:
        raise ValueError(f"train_examples is {train_examples}; a job has at least 1")
    resolved = ResolvedSpec(spec=spec)
    for name in ("batch_size", "n_epochs", "learning_rate_multiplier"):
        settled = resolved.spec.hyperparameters
        if getattr(settled, name) != "auto":
            continue
        rule = provider_rule(name, resolved.spec, train_examples) or _general(name, resolved, train_examples)
        value, reason = rule or multiplier
        estimate = None
        if value == "auto" and name != "learning_rate_multiplier":
            estimate, why = _estimate(name, spec.method, train_examples)
            reason = f"{reason}; planned with {estimate}, an estimate: {why}"
        resolved = resolved.with_settled(_entry(name, value, reason, estimate))
    effort = spec.hyperparameters.reasoning_effort
    if spec.local.thinking == "auto" and (reasoning is not None or effort is not None):
        thinking, reason = _thinking(effort, reasoning or 0, train_examples)
        by_data = Settled(field="local.thinking", requested="auto", value=thinking, reason=reason)
        resolved = resolved.with_settled(by_data)
    return resolved


def _thinking(effort: str | None, reasoning: int, examples: int) -> tuple[str, str]:
    if effort is not None and effort != "default":
        return "on", f"reasoning_effort is {effort}"
    if reasoning:
        return "on", f"{reasoning:,} of {examples:,} training examples have completions with reasoning"
    return "off", "no completion that is trained on has reasoning"


def general_rules(method: Method, examples: int, batch_size: int | None = None) -> tuple[int, int]:
    """Batch size and epochs by the general rules for a job of so many examples; `batch_size` where it is known already."""
    batch = batch_size or _batch_rule(method)(examples)[0]
    return batch, _epochs_of(method, examples, batch)[0]


def _general(name: str, resolved: ResolvedSpec, examples: int) -> tuple[int, str] | None:
    method = resolved.spec.method
    if name == "batch_size":
        return _batch_rule(method)(examples)
    return _epochs_of(method, examples, resolved.planned("batch_size")) if name == "n_epochs" else None


def _estimate(name: str, method: Method, examples: int) -> tuple[int, str]:
    """What a service is expected to choose at most, and why."""
    if name == "batch_size":
        return _batch_rule(method)(examples)
    if method == "supervised":
        return _epochs(examples)
    most = _TARGET_EPOCHS if method == "dpo" else _MOST_PRACTICE
    return most, f"the most that is usual for {method}, whose rule the service does not publish"


def _entry(name: str, value: int | float | str, reason: str, estimate: int | None) -> Settled:
    return Settled(field=f"hyperparameters.{name}", requested="auto", value=value, reason=reason, estimate=estimate)


def _epochs(examples: int) -> tuple[int, str]:
    seen = examples * _TARGET_EPOCHS
    if seen < _FEWEST_SEEN:
        epochs = min(_MOST_EPOCHS, _FEWEST_SEEN // examples)
        return epochs, (
            f"{examples} examples x {_TARGET_EPOCHS} epochs are fewer than {_FEWEST_SEEN}: "
            f"{_FEWEST_SEEN} // {examples}, at most {_MOST_EPOCHS}"
        )
    if seen > _MOST_SEEN:
        epochs = max(1, _MOST_SEEN // examples)
        return epochs, (
            f"{examples:,} examples x {_TARGET_EPOCHS} epochs are more than {_MOST_SEEN:,}: "
            f"{_MOST_SEEN:,} // {examples:,}, at least 1"
        )
    return _TARGET_EPOCHS, f"{_TARGET_EPOCHS} epochs for {_FEWEST_SEEN} to {_MOST_SEEN:,} examples seen in all"


def _batch(examples: int) -> tuple[int, str]:
    """0.2 % rounded half up in whole numbers, so that no platform rounds otherwise."""
    batch = min(_LARGEST_BATCH, max(1, (examples + 250) // 500))
    return batch, f"0.2 % of {examples:,} examples, rounded, 1 to {_LARGEST_BATCH}"


def _pairs(pairs: int) -> tuple[int, str]:
    """A 32nd, so that an epoch is about 32 steps; the bounds are ours: the paper's 64 pairs a step are for 100,000 of them."""
    batch = min(_MOST_PAIRS, max(_FEWEST_PAIRS, pairs // 32))
    return batch, f"{pairs:,} pairs // 32, {_FEWEST_PAIRS} to {_MOST_PAIRS}"


def _pair_epochs(pairs: int, batch: int) -> tuple[int, str]:
    """Enough for about 100 steps. Peers take 1 epoch (alignment-handbook, tinker-cookbook) to 3 (TRL)."""
    epochs = min(_TARGET_EPOCHS, max(1, -(-_PAIR_STEPS * batch // pairs)))
    return epochs, f"about {_PAIR_STEPS} steps of {batch} pairs, 1 to {_TARGET_EPOCHS} epochs of {pairs:,} pairs"


def _prompts(prompts: int) -> tuple[int, str]:
    """A tenth, as OpenAI's guide counts tens to hundreds of prompts; 32 at most, since LoRA learns best from small batches
    ("LoRA Without Regret", Schulman et al. 2025) and Google's service takes 32.
    """
    batch = min(_MOST_PROMPTS, max(_FEWEST_PROMPTS, prompts // 10))
    return batch, f"{prompts:,} prompts // 10, {_FEWEST_PROMPTS} to {_MOST_PROMPTS}"


def _practice_epochs(prompts: int, batch: int) -> tuple[int, str]:
    """Enough for about 100 steps, at most 10 epochs: Google's rule for its service has 110 steps and the same limit."""
    epochs = min(_MOST_PRACTICE, max(1, -(-_PRACTICE_STEPS * batch // prompts)))
    return (
        epochs,
        f"about {_PRACTICE_STEPS} steps of {batch} prompts, 1 to {_MOST_PRACTICE} epochs of {prompts:,} prompts",
    )


def _batch_rule(method: Method) -> Callable[[int], tuple[int, str]]:
    return {"supervised": _batch, "dpo": _pairs, "reinforcement": _prompts}[method]


def _epochs_of(method: Method, examples: int, batch: int) -> tuple[int, str]:
    if method == "supervised":
        return _epochs(examples)
    return _pair_epochs(examples, batch) if method == "dpo" else _practice_epochs(examples, batch)


def _section(model: type[BaseModel], name: str, field: str) -> Any:
    annotation = model.model_fields[name].annotation if name in model.model_fields else None
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        raise ValueError(f"a job spec has no field {field}")
    return annotation
