"""Nothing that a model, a service or a file says reaches the terminal as a command."""

from __future__ import annotations

import io
import re

import pytest
from rich.table import Table
from rich.text import Text

from ftbridge.report.terminal.comparison import changed_items
from ftbridge.report.terminal.console import SafeConsole, printable

HOSTILE = {
    "clears": "\x1b[2J\x1b[1;31mdone",
    "title": "\x1b]0;owned\x07text",
    "c1": "\x9b31mred",
    "bell and backspace": "ok\x07\x08\x08no",
    "carriage return": "all good\rall bad ",
    "turned": "safe\u202e)dab(\u2066",
    "half a character": "cut \ud83d",
    "hyperlink": "\x1b]8;;http://example.com\x1b\\click\x1b]8;;\x1b\\",
}


def shown(*parts, terminal=False):
    stream = io.StringIO()
    console = SafeConsole(
        file=stream, width=100, force_terminal=terminal, color_system="standard" if terminal else None
    )
    for part in parts:
        console.print(part)
    return stream.getvalue()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_text_is_shown_and_not_obeyed_wherever_it_stands(text):
    table = Table("grader")
    table.add_row(Text(text), end_section=True)
    for part in (text, Text(text), table, *changed_items([(1, text, [(text, text), ("b", "x")])], 1)):
        result = shown(part)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", result)
        result.encode("utf-8")


def test_what_was_sent_can_still_be_read():
    assert printable("\x1b[2Jdone\x7f\x9b\u202e\ttab\nline é 😀") == "␛[2Jdone␡<U+009B><U+202E>\ttab\nline é 😀"


def test_styles_of_the_program_itself_are_kept():
    result = shown(Text("bad \x1b[32mword", style="bold red"), terminal=True)
    assert result.startswith("\x1b[1")
    assert "␛[32m" in result
    assert "\x1b[32m" not in result
