"""A plan for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ftbridge.planning.hosted_plan import Managed
from ftbridge.planning.local_plan import Local
from ftbridge.planning.plan import Plan
from ftbridge.planning.replay import ReplayPlan
from ftbridge.planning.sharding import ClusterPlan

_OUTCOMES = {"exact": "green", "translated": "cyan", "approximated": "yellow", "refused": "bold red", "unused": "dim"}


def plan_view(estimate: Plan, *, fields: bool = False) -> RenderableType:
    """Data, each side, dates, advice; with `fields` also the field mapping of both sides."""
    parts: list[RenderableType] = [_data(estimate), Text()]
    if estimate.openai is not None:
        parts += [_managed(estimate.openai), Text()]
    if estimate.local is not None:
        parts += [_local(estimate.local), Text()]
    if fields:
        parts += [_fields(estimate), Text()]
    for piece in estimate.advice:
        style = "yellow" if piece.level == "warning" else ""
        parts.append(Text.assemble((f"{piece.level}: ", style), piece.text, (f" ({piece.evidence})", "dim")))
    parts += [Text(f"not met: {gate.message}", style="bold red") for gate in estimate.gates]
    return Group(*parts)


def _data(estimate: Plan) -> Table:
    table = _grid("split", "examples", "tokens", "trained", "longest")
    for name, split in estimate.splits.items():
        cells = (split.examples, split.tokens, split.trained, split.longest)
        table.add_row(name, *(f"{value:,}" for value in cells))
    train = estimate.splits["train"]
    table.add_row("", "", "", "", "")
    schedules = estimate.schedules or {"": estimate.schedule("")}
    if len({(one.epochs, one.steps) for one in schedules.values()}) == 1:
        schedules = {"": next(iter(schedules.values()))}
    for provider, one in schedules.items():
        remarks = ", ".join(filter(None, (provider, "estimate" if one.estimated else "")))
        epochs = f"{_count(one.epochs, 'epoch')}{f' ({remarks})' if remarks else ''}"
        table.add_row(epochs, _count(one.steps, "step"), f"{train.tokens * one.epochs:,}", "", "")
    return table


def _managed(side: Managed) -> Table:
    table = _facts(f"openai: {side.model}" + (f" at {side.target}" if side.target != "openai" else ""))
    money = side.money
    table.add_row("training", _usd(money.training))
    judges = f", judges {_span(money.judges)} of it" if money.judges and money.judges[1] else ""
    table.add_row("evaluation", f"{_span(money.evaluation)}{judges}")
    table.add_row("together", Text(_span(money.total), style="bold"))
    if money.serving_per_million is not None:
        read, written = money.serving_per_million
        table.add_row("serving", f"${read:g} a million tokens read, ${written:g} written")
    if money.batch_saves:
        table.add_row("openai.batch", f"would save up to {_usd(money.batch_saves)}")
    table.add_row("prices of", f"{money.prices_as_of}, {_count(money.age_days, 'day')} old")
    if side.replay is not None:
        table.add_row("replay", f"{_replay(side.replay)}; included in the sums above, at its longest")
    if side.stops is not None:
        days = side.days_left or 0
        left = f"in {_count(days, 'day')}" if days >= 0 else f"{_count(-days, 'day')} ago"
        table.add_row("stops", Text(f"{side.stops}, {left}: the base model and all tuned from it", style="yellow"))
    if side.pace.hours is not None:
        table.add_row("time", f"{_hours(side.pace.hours[0])} to {_hours(side.pace.hours[1])}, from {side.pace.source}")
    if side.no_new_jobs is not None:
        table.add_row("no new jobs", f"from {side.no_new_jobs}")
    for note in money.notes:
        table.add_row("note", Text(note, style="yellow"))
    return table


def _local(side: Local) -> Table:
    size = f", {side.parameters / 1e9:.2f} billion parameters" if side.parameters else ""
    table = _facts(f"local: {side.model}{size}, weights {side.quantization}")
    for rows in (_token_rows, _memory_rows, _device_rows, _time_rows, _rollout_rows, _cost_rows):
        for name, value in rows(side):
            table.add_row(name, value)
    for note in side.notes:
        table.add_row("note", Text(note, style="dim"))
    return table


_Rows = Iterator["tuple[str, str | Text]"]


def _token_rows(side: Local) -> _Rows:
    if side.tokens is not None:
        train = side.tokens["train"]
        parts = f"{train.tokens:,} read, {train.trained:,} trained, longest {train.longest:,}"
        yield "tokens", f"{parts} (train, by its own tokenizer and template)"


def _memory_rows(side: Local) -> _Rows:
    """What training holds, and which GPUs hold that."""
    if side.memory is not None:
        memory = side.memory
        named = {
            "weights": memory.weights,
            "trained": memory.trained,
            "activations": memory.activations,
            "logits": memory.logits,
            **({"generation": memory.generation} if memory.generation else {}),
        }
        parts = ", ".join(f"{name} {_gb(size)}" for name, size in named.items())
        yield "memory", f"about {_gb(memory.total)} on a GPU, micro-batches of {memory.pass_tokens:,} tokens ({parts})"
        fits = [fit for fit in side.cards if fit.pass_tokens]
        if fits:
            yield "fits", f"{fits[0].card} and larger; micro-batches of {fits[0].pass_tokens:,} tokens there"
        else:
            yield "fits", Text("no single GPU of the list", style="bold red")
    if len(side.gpu_sets) > 1 or (side.gpu_sets and side.gpu_sets[0].gpus > 1):
        sets = [f"{one.gpus} x {one.card} ({one.sharding})" for one in side.gpu_sets if one.gpus > 1]
        yield "several GPUs", " or ".join(sets)
    for row in side.per_gpu:
        if row.gpus > 1 and row.sharding == "fsdp2":
            sharded = f"on each of {row.gpus}, sharded: about {_gb(row.memory.total)}"
            yield "", f"{sharded}; sends {_gb(row.traffic)} a micro-batch"
    for cluster in side.clusters:
        yield cluster.provider, _cluster(cluster)


def _cluster(cluster: ClusterPlan) -> Text:
    """The GPUs that the spec requests of a cluster, and what each holds and sends."""
    row, nodes = cluster.per_gpu, f"{cluster.nodes} nodes x " if cluster.nodes > 1 else ""
    requested = f"{nodes}{_count(cluster.gpus_per_node, 'GPU')}"
    how = f" ({row.sharding})" if row.gpus > 1 else ""
    sends = (
        f"; sends {_gb(row.traffic)} a {'micro-batch' if row.sharding == 'fsdp2' else 'step'}" if row.gpus > 1 else ""
    )
    if cluster.smallest is None:
        return Text(f"{requested}: no common GPU holds this job", style="bold red")
    each = " on each" if row.gpus > 1 else ""
    return Text(f"{requested}: about {_gb(row.memory.total)}{each}{how}, {cluster.smallest.card} and larger{sends}")


def _device_rows(side: Local) -> _Rows:
    """This machine's GPUs, and what fits the device that training takes."""
    for card in side.machine.cards:
        held = f", {_gb(card.used)} held by others" if card.used else ""
        yield "GPU", f"{card.index}: {card.name}, {_gb(card.free)} of {_gb(card.total)} free{held}"
    if side.here is not None:
        device_fit = side.here
        passes = f"micro-batches of up to {device_fit.pass_tokens:,} tokens, an example of up to {device_fit.longest_example:,}"
        fit = Text(passes) if device_fit.pass_tokens else Text("does not fit the free memory", style="bold red")
        yield "here", Text.assemble(f"{device_fit.card}, {device_fit.gib:.1f} GiB free: ", fit)


def _time_rows(side: Local) -> _Rows:
    if side.pace.hours is not None:
        yield "time", f"training {_time(side.pace.hours)}"
    yield "" if side.pace.hours else "time", Text(side.pace.source, style="dim")
    if side.whole is not None:
        parts = f"loading {_time(side.whole.loading)}, completing {_time(side.whole.completing)}"
        duration = f"{_time(side.whole.hours)} ({parts})" if side.whole.hours is not None else f"training and {parts}"
        yield "whole run", duration
        yield "", Text(side.whole.source, style="dim")


def _rollout_rows(side: Local) -> _Rows:
    """Completions that training draws or sees beside the data."""
    if side.rollouts is not None:
        drawn = side.rollouts
        low, high = drawn.tokens
        each = f"{_count(drawn.steps, 'step')} of {drawn.step_completions:,}, and those of validation prompts"
        yield "rollouts", f"{_count(drawn.completions, 'completion')} ({each}), {low:,} to {high:,} tokens"
        if drawn.questions:
            cost = "at prices that are not known" if drawn.judges_usd is None else _span(drawn.judges_usd)
            yield "judges", f"at most {_count(drawn.questions, 'question')} while training: {cost}"
    if side.replay is not None:
        yield "replay", _replay(side.replay)


def _cost_rows(side: Local) -> _Rows:
    if side.usd is not None:
        yield "cost", _span(side.usd)
    if side.break_even_tokens is not None:
        yield "break-even", f"serving on your own GPU is cheaper above {side.break_even_tokens:,} tokens a month"
    if side.monthly is not None:
        month = side.monthly
        costs = f"{_usd(month.managed_usd)} at the service, {_usd(month.local_usd)} for a GPU all month"
        yield "a month", f"{month.tokens:,} tokens: {costs}"


def _replay(plan: ReplayPlan) -> str:
    """How many completions of the base model training sees, and their tokens."""
    low, high = plan.training_tokens
    return (
        f"the base model completes {plan.completions:,} of {_count(plan.prompts, 'prompt')}; "
        f"{_count(plan.examples, 'example')} in training, {low:,} to {high:,} tokens"
    )


def _fields(estimate: Plan) -> Table:
    """Both sides beside each other: fields that the spec gives, and those that do not mean on a side what they say."""
    table = _grid("field", *estimate.lowering)
    by_side = [{report.field: report for report in lowering.fields} for lowering in estimate.lowering.values()]
    for field in by_side[0]:
        reports = [side.get(field) for side in by_side]
        outcomes = {report.outcome for report in reports if report is not None}
        if field not in estimate.explicit and not outcomes & {"translated", "approximated", "refused"}:
            continue
        cells = [
            Text.assemble((report.outcome, _OUTCOMES[report.outcome]), f" {report.how}") if report else Text("")
            for report in reports
        ]
        table.add_row(field, *cells)
    return table


def _grid(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for index, heading in enumerate(headings):
        numbers = index and headings[0] == "split"
        table.add_column(heading, justify="right" if numbers else "left", overflow="fold")
    return table


def _facts(title: str) -> Table:
    table = Table(
        box=None, padding=(0, 2, 0, 0), show_header=False, title=Text(title, style="bold"), title_justify="left"
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _usd(value: float | None) -> str:
    return "not known" if value is None else f"${value:,.2f}"


def _span(span: tuple[float, float] | None) -> str:
    if span is None:
        return "not known"
    return _usd(span[0]) if f"{span[0]:.2f}" == f"{span[1]:.2f}" else f"{_usd(span[0])} to {_usd(span[1])}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _time(span: tuple[float, float]) -> str:
    return f"{_hours(span[0])} to {_hours(span[1])}"


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"
