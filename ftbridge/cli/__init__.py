"""The `ftbridge` command: one small file per command, loaded when it is called; parsing and printing only."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from types import TracebackType
from typing import Any

import click

from ftbridge import __version__
from ftbridge.errors import FormerName, FtbridgeError

COMMANDS = {
    "lint": "Check training files before you upload or train.",
    "convert": "Convert files to canonical JSON Lines, or back.",
    "plan": "Estimate tokens, cost, memory and time; show the field mapping.",
    "run": "Fine-tune a model and evaluate it.",
    "list": "List runs, newest first.",
    "show": "Show a run, its field mapping, or its training tokens.",
    "watch": "Follow a run from any shell.",
    "cancel": "Cancel a run and its job.",
    "pause": "Save a checkpoint and stop; resume continues.",
    "resume": "Continue a run that stopped.",
    "retry": "Train a failed or cancelled job again; this may be billed again.",
    "worker": "Train a submitted job in this process, on one machine or several.",
    "jobs": "List, adopt, cancel or probe the jobs of a service's account.",
    "eval": "Evaluate candidates on the spec's test items, and compare them.",
    "compare": "Compare two runs by paired verdicts.",
    "report": "Write one self-contained HTML page about runs.",
    "chat": "Talk to a run's tuned model.",
    "export": "Write a run's tuned weights for other programs.",
    "migrate": "Leave a hosted provider, from inventory to proof.",
    "serve": "Serve OpenAI's API over this machine's own models.",
    "simulate": "Serve OpenAI's API with scripted completions and faults.",
    "schema": "Print a JSON Schema.",
    "doctor": "Check what this machine can do, and what is missing.",
}
"""Name and short help, so that `--help` imports none of them."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a run's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command, or None for an unknown name."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ftbridge.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The short helps, without importing."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command for an unknown one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]}?" if close else f" Commands: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ftbridge")
def cli() -> None:
    """Fine-tune on OpenAI's API or your own GPU from one job spec, with one evaluator."""


def main(args: list[str] | None = None) -> None:
    """Run the command line; errors become one clear message and their exit code."""
    sys.excepthook = _unforeseen
    warnings.showwarning = _note
    try:
        status: Any = cli.main(args, standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        error.show()
        status = 2
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except FtbridgeError as error:
        _tell(error)
        status = error.exit_code
    raise SystemExit(status if isinstance(status, int) else 0)


_show_other_warning = warnings.showwarning


def _note(message: Warning | str, *rest: Any, **more: Any) -> None:
    """A former name as one line on standard error; other warnings as Python shows them."""
    if isinstance(message, FormerName):
        print(f"note: {message}", file=sys.stderr)
    else:
        _show_other_warning(message, *rest, **more)


def _tell(error: FtbridgeError) -> None:
    """What happened, where, and what to do, on standard error; a traceback only with -vv."""
    from ftbridge.cli.options import verbosity
    from ftbridge.redaction import without_secrets

    if verbosity() >= 2:
        _unforeseen(type(error), error, error.__traceback__)
    from rich.text import Text

    from ftbridge.report.terminal.console import SafeConsole

    console = SafeConsole(stderr=True, highlight=False, soft_wrap=True)
    label, style = ("", "yellow") if error.exit_code == 130 else ("error: ", "bold red")
    console.print(Text(label, style=style) + Text(without_secrets(error.message)))
    if error.hint:
        console.print(Text(without_secrets(error.hint), style="cyan"))


def _unforeseen(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Print a traceback without keys: the exceptions of libraries repeat what a service sent, and what was sent to it."""
    import traceback

    from ftbridge.redaction import without_secrets

    sys.stderr.write(without_secrets("".join(traceback.format_exception(kind, error, where))))
