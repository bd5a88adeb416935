"""Runs and jobs on the terminal: the runs of a home as a table, one run as a panel, the jobs of an account as a table.

Everything reads at 80 columns and without colour; colour adds to what the words say.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ftbridge.report.terminal.tables import plain_table
from ftbridge.runs.run import RunState

_STATES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "paused": "yellow", "pausing": "yellow"}
_ID_WIDTH = 44


def runs_table(runs: Sequence[RunState]) -> RenderableType:
    """One line for each run, in the order given: id, state, figures, age."""
    table = plain_table()
    for heading in ("run", "state", "progress", "loss", "started"):
        right = heading in ("loss", "started")
        table.add_column(heading, overflow="fold", justify="right" if right else "left", no_wrap=heading != "progress")
    for run in runs:
        training = run.step is not None and run.stage == "training"
        losses = (run.metrics.valid_loss, run.metrics.train_loss) if run.metrics is not None else ()
        loss = next((loss for loss in losses if loss is not None), None)
        table.add_row(
            Text(run.id),
            _state(run.state),
            Text(f"step {run.step}/{run.total_steps}" if training else run.stage),
            Text(f"{loss:.3f}" if loss is not None else ""),
            Text(_ago(run.created)),
        )
    table.columns[0].no_wrap = max((len(run.id) for run in runs), default=0) <= _ID_WIDTH
    return table


def run_panel(run: RunState) -> RenderableType:
    """One run: state, data, training figures, tuned model, error."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, fact in _facts(run):
        grid.add_row(label, fact)
    return Panel(grid, title=Text(run.id, style="bold"), title_align="left", border_style="dim", expand=False)


def _facts(run: RunState) -> Iterator[tuple[str, Text]]:
    stage = f", {run.stage}" if run.stage not in ("", "done") else ""
    yield "state", Text.assemble(_state(run.state), stage)
    yield "provider", Text(run.provider)
    end = run.finished if run.finished is not None else run.updated
    yield "started", Text(f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(run.created))}, {_ago(run.created)}")
    if end > run.created:
        yield ("took" if run.finished is not None else "so far"), Text(_span(end - run.created))
    if run.data:
        splits = [f"{name} {split.examples:,}" for name, split in run.data.splits.items()]
        replayed = [run.replay.sentence] if run.replay is not None else []
        yield "examples", Text(" · ".join([*splits, *replayed]))
    if run.chosen:
        chosen = " · ".join(f"{name} {value:g}" for name, value in run.chosen.items())
        yield "chosen", Text(f"{chosen}, by the provider")
    figures = run.metrics.by_name() if run.metrics is not None else {}
    if figures.get("step") is not None:
        of = f" of {figures['total_steps']}" if figures.get("total_steps") else ""
        yield "step", Text(f"{figures['step']}{of}")
    if losses := [
        f"{word} {figures[key]:.3f}"
        for word, key in (("train", "train_loss"), ("validation", "valid_loss"), ("replay", "train_replay_loss"))
        if figures.get(key) is not None
    ]:
        yield "loss", Text(" · ".join(losses))
    if figures.get("valid_mean_token_accuracy") is not None:
        yield "accuracy", Text(f"{100 * figures['valid_mean_token_accuracy']:.1f} % of validation tokens")
    for word, split in (("validation", "valid"), ("training", "train")):
        if (accuracy := figures.get(f"{split}_reward_accuracy")) is not None:
            margin, chosen = (figures.get(f"{split}_{name}", 0.0) for name in ("reward_margin", "chosen_reward"))
            text = f"{100 * accuracy:.1f} % of {word} pairs the right way round · margin {margin:.3g}"
            yield "rewards", Text(f"{text} · preferred completion {chosen:+.3g}")
            break
    yield from _rewards(figures)
    if run.tuned:
        yield "tuned model", Text(run.tuned.id)
    if run.error:
        yield "error", Text(str(run.error.get("message") or run.error.get("kind") or "unknown"), style="red")
        if run.error.get("hint"):
            yield "what to do", Text(str(run.error["hint"]))


def _rewards(figures: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    """Reinforcement at its latest step: never a bare loss, whose value says nothing."""
    if figures.get("train_mean_reward") is None:
        return
    text = f"train {figures['train_mean_reward']:.3f}"
    if (held_out := figures.get("full_valid_mean_reward")) is not None:
        text += f" · held out {held_out:.3f}"
    yield "reward", Text(text)
    text = f"{figures['live_groups']:.0%} of groups differ · entropy {figures['entropy']:.2f} nats"
    text += f" · {figures['clipped_share']:.0%} cut at the limit"
    yield "health", Text(f"{text} · {figures['completion_tokens_mean']:.1f} tokens a completion")


def _state(state: str) -> Text:
    return Text(state, style=_STATES.get(state, "cyan"))


def _ago(moment: float) -> str:
    seconds = time.time() - moment
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= (2 if unit == "days" else 1) * length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"


def _span(seconds: float) -> str:
    """A duration in its largest unit, or two of them while both matter."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class AccountJobRow(Protocol):
    """What a row shows."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def model(self) -> str | None: ...
    @property
    def created(self) -> float | None: ...
    @property
    def run(self) -> str | None: ...


def jobs_table(jobs: Sequence[AccountJobRow]) -> Table:
    """One row a job, newest first, with the run that it belongs to."""
    table = Table(box=None, pad_edge=False)
    for title in ("job", "state", "model", "created", "run"):
        table.add_column(title, overflow="fold", no_wrap=title == "job")  # an id is there to be copied
    for job in jobs:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created)) if job.created else "not known"
        run = job.run or "not one of this home"
        table.add_row(job.id, _state(job.state), job.model or "", created, run)
    return table
