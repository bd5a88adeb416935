"""Printing an evaluation, in whatever shape was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Group, RenderableType
from rich.text import Text

from ftbridge.cli.options import verbosity
from ftbridge.evaluation.document import Evaluation
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.grade_cache import Grades
from ftbridge.evaluation.items import Item
from ftbridge.report.formats.tables import Shape, write_output
from ftbridge.report.terminal.console import SafeConsole
from ftbridge.spec import JobSpec

if TYPE_CHECKING:
    from ftbridge.report.html.contents import Contents


class EvaluationOutput:
    """Keeps the items and answers that an evaluation tells of."""

    def __call__(self, items: Sequence[Item], predictions: Mapping[str, Sequence[Prediction]], grades: Grades) -> None:
        self.items, self.predictions, self.grades = items, predictions, grades

    def contents(self, spec: JobSpec, evaluated: Evaluation) -> Contents:
        """Items and answers side by side."""
        from ftbridge.report.html.contents import contents_of_completions

        return contents_of_completions(
            spec.name, self.items, self.predictions, spec.evaluation.graders, evaluated, self.grades
        )


def evaluated(result: Evaluation, contents: Contents) -> RenderableType:
    """The verdicts and scores, what so many items can show, what answering took, and the items that changed."""
    from ftbridge.report.terminal.comparison import changed
    from ftbridge.report.terminal.judges import judge_sentences
    from ftbridge.report.terminal.tables import answered_table, evaluation_table, power

    sees = [power(result)] if result.verdicts else []
    first = evaluation_table(result, sentences=verbosity() > 0)
    judges = [Text(sentence) for sentence in judge_sentences(result)]
    return Group(first, *sees, *judges, "", answered_table(result), *changed(contents))


def write(
    result: Evaluation, shape: Shape, out: Path | None, *, text: Callable[[], RenderableType], title: str
) -> None:
    """Print an evaluation, or write it to `out`. Raises `UsageError` for a path that cannot be written."""
    if shape == "text" and out is None:
        SafeConsole(highlight=False).print(text())
        return
    from ftbridge.report.terminal import evaluation

    match shape:
        case "text":
            console = SafeConsole(highlight=False, width=100, color_system=None)
            with console.capture() as captured:
                console.print(text())
            captured_text = captured.get()
        case "csv":
            captured_text = evaluation.as_csv(result)
        case "junit":
            captured_text = evaluation.as_junit(result)
        case "markdown":
            captured_text = evaluation.as_markdown(result, title)
        case _:
            captured_text = result.model_dump_json(indent=2) + "\n"
    if out is None:
        click.echo(captured_text, nl=False)
        return
    write_output(out, captured_text)
