"""How a run looks while it works, on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from ftbridge.cli.options import verbosity
from ftbridge.http import Retry, on_retry
from ftbridge.providers.base import JobEvent, Metrics
from ftbridge.redaction import without_secrets
from ftbridge.report.terminal.console import SafeConsole
from ftbridge.runs.run import Run

LINE_EVERY = 15.0
"""Seconds between lines for steps without news, where there is no terminal to draw on."""
LASTING_TRIES, LASTING_SECONDS = 3, 5.0
"""From so many failed tries, or so long a wait, people are shown what is waited for, at most every `LASTING_SECONDS`."""


class _Figures(ProgressColumn):
    """Loss, rate and time left of a task, told in its fields."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("figures", "")), style="dim")


class TerminalWatcher(AbstractContextManager["TerminalWatcher"]):
    """A bridge watcher that draws. Use as a context manager, so that the terminal is left whole."""

    def __init__(self) -> None:
        self.console = SafeConsole(stderr=True, highlight=False, soft_wrap=True)
        self.quiet = verbosity() < 0
        self.bars: Progress | None = None
        if self.console.is_terminal and not self.quiet:
            self.bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                _Figures(),
                console=self.console,
            )
        self._tasks: dict[str, TaskID] = {}
        self._told = 0.0
        self._retry_shown = -LASTING_SECONDS
        self._hooks = ExitStack()

    def __enter__(self) -> TerminalWatcher:
        self._hooks.enter_context(on_retry(self.retried))
        if self.bars:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()
        if self.bars:
            self.bars.stop()

    def retried(self, retry: Retry) -> None:
        """One line for what is waited for, once that lasts; with -v every retry is logged already."""
        lasts = retry.attempt >= LASTING_TRIES or retry.seconds >= LASTING_SECONDS
        now = time.monotonic()
        if verbosity() > 0 or not lasts or now - self._retry_shown < LASTING_SECONDS:
            return
        self._retry_shown = now
        cause = " ".join(without_secrets(retry.cause).split())[:300].rstrip(".")
        text = f"  {retry.doing}: try {retry.attempt} failed ({cause}); waiting {_span(retry.seconds)} to try again"
        self._say(Text(text, style="yellow"))

    def stage(self, run: Run, name: str) -> None:
        """A heading for each stage; the run's id above the first."""
        if "run" not in self._tasks:
            self._tasks["run"] = TaskID(-1)
            self._say(Text.assemble("run ", (run.id, "bold")))
        if not name.startswith("answering"):
            self._say(Text(name, style="bold"))

    def note(self, text: str) -> None:
        """One line."""
        self._say(Text(f"  {text}", style="dim"))

    def answered(self, candidate: str, done: int, total: int) -> None:
        """A bar for each candidate."""
        if self.bars:
            name = f"answer {candidate}"
            if name not in self._tasks:
                self._tasks[name] = self.bars.add_task(f"[bold]generating completions with {candidate}[/]", total=total)
            self.bars.update(self._tasks[name], completed=done)
        elif done in (0, total):
            self._say(Text(f"generating completions with {candidate}: {done}/{total}"))

    def job_event(self, event: JobEvent) -> None:
        """Steps move a bar; validations, checkpoints and messages leave a line."""
        if event.metrics is not None:
            self._metrics(event.metrics)
        elif event.level != "info" or event.type == "message" or verbosity() > 0:
            style = {"warn": "yellow", "error": "red"}.get(event.level, "dim")
            self._say(Text(f"  {event.message}", style=style))

    def _metrics(self, figures: Metrics) -> None:
        if self.bars:
            if "steps" not in self._tasks:
                self._tasks["steps"] = self.bars.add_task("[bold]training[/]", total=figures.total_steps or 1)
            self.bars.update(self._tasks["steps"], completed=figures.step, figures=describe(figures))
        measured = figures.valid_loss is not None or "full_valid_mean_reward" in figures.more
        news = measured or figures.step == figures.total_steps
        if news or (not self.bars and time.monotonic() - self._told > LINE_EVERY) or verbosity() > 0:
            self._told = time.monotonic()
            self._say(Text(f"  step {figures.step}/{figures.total_steps}  {describe(figures)}"))

    def _say(self, text: Text) -> None:
        if not self.quiet:
            self.console.print(text)
            sys.stderr.flush()


def describe(figures: Metrics) -> str:
    """One line of a step's figures."""
    parts = []
    if figures.train_loss is not None:
        parts.append(f"loss {figures.train_loss:.3f}")
    if figures.valid_loss is not None:
        parts.append(f"validation {figures.valid_loss:.3f}")
    if figures.valid_mean_token_accuracy is not None:
        parts.append(f"accuracy {figures.valid_mean_token_accuracy:.1%}")
    for split in ("valid", "train"):
        if (accuracy := figures.more.get(f"{split}_reward_accuracy")) is not None:
            parts.append(
                f"reward accuracy {accuracy:.1%}, margin {figures.more.get(f'{split}_reward_margin', 0.0):.3g}"
            )
            break
    parts += _rewards(figures)
    if figures.tokens_per_second is not None:
        parts.append(f"{figures.tokens_per_second:.0f} tokens/s")
    if figures.memory_gb is not None:
        parts.append(f"{figures.memory_gb:.1f} GB")
    if figures.seconds_left:
        parts.append(f"{_span(figures.seconds_left)} left")
    return " · ".join(parts)


def _rewards(figures: Metrics) -> list[str]:
    """Reinforcement in a few words: whether it learns, and what to look at when it does not."""
    more = figures.more
    if (reward := more.get("train_mean_reward")) is None:
        return []
    held_out = f", held out {more['full_valid_mean_reward']:.3f}" if "full_valid_mean_reward" in more else ""
    return [
        f"reward {reward:.3f}{held_out}",
        f"live groups {more['live_groups']:.0%}",
        f"entropy {more['entropy']:.2f}",
        f"cut {more['clipped_share']:.0%}",
        f"grader {more['grader_latency']:.2f} s",
    ]


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
