"""Help texts: each exists once, in the imperative, and former names of options still work."""

from __future__ import annotations

import importlib

import click
import pytest
from click.testing import CliRunner

from ftbridge.cli import COMMANDS, cli
from ftbridge.cli.options import RENAMED

ALL = [(name, importlib.import_module(f"ftbridge.cli.{name}").command) for name in COMMANDS]
OPTIONS = [(name, option) for name, command in ALL for option in command.params if isinstance(option, click.Option)]
NO_VERBS = {
    "one",
    "the",
    "a",
    "an",
    "what",
    "how",
    "where",
    "whose",
    "who",
    "for",
    "more",
    "only",
    "of",
    "several",
    "not",
}
"""First words of a help text that does not say what an option does."""


@pytest.mark.parametrize(("name", "command"), ALL)
def test_the_short_help_of_a_command_exists_once(name: str, command: click.Command) -> None:
    assert command.help == COMMANDS[name]


@pytest.mark.parametrize("help", COMMANDS.values())
def test_a_short_help_is_one_sentence_that_begins_with_a_verb(help: str) -> None:
    assert help.split()[0].lower() not in NO_VERBS
    assert help.endswith(".")
    assert len(help) <= 66  # one line of `ftbridge --help` at 80 columns


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_its_own_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "-h"], prog_name="ftbridge")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: ftbridge {name} ")


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=[f"{name}{option.opts[0]}" for name, option in OPTIONS])
def test_an_option_says_in_the_imperative_what_it_does(name: str, option: click.Option) -> None:
    assert option.help, f"{name} {option.opts[0]} has no help"
    assert option.help.split()[0].lower() not in NO_VERBS, f"{name} {option.opts[0]}: {option.help}"


@pytest.mark.parametrize(
    ("command", "old", "new"), [(c, old, new) for c, both in RENAMED.items() for old, new in both.items()]
)
def test_a_former_name_of_an_option_is_accepted_with_a_note(command: str, old: str, new: str) -> None:
    names = {name for _, option in OPTIONS for name in option.opts}
    assert new in names
    assert old not in names
    value = ["1"] if command == "serve" else []
    result = CliRunner().invoke(cli, [command, old, *value, "--no-such-option"])
    assert f"note: {old} is now {new}" in result.stderr
    assert "No such option" in result.stderr


def test_after_two_dashes_and_as_values_former_names_are_left_alone() -> None:
    result = CliRunner().invoke(cli, ["run", "--", "--anyway"])
    assert "note:" not in result.stderr
