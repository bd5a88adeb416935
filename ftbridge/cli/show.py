"""`ftbridge show`."""

from __future__ import annotations

import click
from rich.text import Text

from ftbridge.cli import COMMANDS
from ftbridge.cli.options import Command, as_json, find_run, print_json, run_argument, verbosity
from ftbridge.report.terminal.console import SafeConsole
from ftbridge.runner import summary
from ftbridge.runs.rollouts import FOLDER, Rollout, read_rollouts
from ftbridge.runs.run import Run


def _rollouts(run: Run) -> dict[int, list[Rollout]]:
    """The completions of the last step that drew any for it, by prompt; none but in reinforcement."""
    latest: dict[int, list[Rollout]] = {}
    for path in sorted((run.path / FOLDER).glob("[0-9]*.jsonl")):
        step: dict[int, list[Rollout]] = {}
        for rollout in read_rollouts(path):
            step.setdefault(rollout.prompt, []).append(rollout)
        latest |= step
    return latest


def _rollout(rollout: Rollout) -> Text:
    reward = "no reward" if rollout.reward is None else f"reward {rollout.reward:.3g}"
    return Text.assemble((f"  {reward:>12}  ", "dim"), (rollout.text, "bold green"))


@click.command("show", cls=Command, help=COMMANDS["show"])
@run_argument
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Print N training examples as tokens; those with a loss are coloured.",
)
@click.option("--mapping", is_flag=True, help="Print the field mapping.")
@as_json
def command(run: str, tokens: int | None, mapping: bool, as_json: bool) -> None:
    """Show one run: state, figures, evaluation."""
    stored_run = find_run(run)
    console = SafeConsole(highlight=False)
    if tokens is not None:
        previews = summary.preview_tokens(stored_run, tokens)
        if as_json:
            print_json([[{"text": text, "trained": in_loss} for text, in_loss in pieces] for pieces in previews])
            return
        pairs = stored_run.spec().method == "dpo"
        rollouts = _rollouts(stored_run)
        for index, pieces in enumerate(previews):
            side = (", preferred", ", non-preferred")[index % 2] if pairs else ""
            console.rule(f"example {(index // 2 if pairs else index) + 1}{side}", style="dim")
            heading = Text()
            for text, in_loss in pieces:
                heading.append(
                    text if console.color_system or not in_loss else f"⟦{text}⟧", "bold green" if in_loss else "dim"
                )
            console.print(heading)
            for rollout in rollouts.get(index, ()):
                console.print(_rollout(rollout))
        console.print(Text("tokens with a loss are green, or in ⟦brackets⟧ without colour", style="dim"))
    elif as_json:
        print_json(summary.summary(stored_run))
    elif mapping:
        from ftbridge.report.terminal.tables import lowering_table

        console.print(lowering_table(summary.read_lowering(stored_run)))
    else:
        from ftbridge.planning.actual import compared
        from ftbridge.report.terminal.runs import run_panel
        from ftbridge.report.terminal.tables import compared_table, evaluation_table

        console.print(run_panel(stored_run.state()))
        evaluation = summary.read_evaluation(stored_run)
        if evaluation is not None:
            console.print(evaluation_table(evaluation, sentences=verbosity() > 0))
        for part in compared_table(compared(stored_run)):
            console.print(part)
        console.print(f"run folder  {stored_run.path}", soft_wrap=True)
