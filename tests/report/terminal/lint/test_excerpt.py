"""Excerpts: what a finding is about is shown, underlined where it stands, and secrets are not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ftbridge.data.lint.findings import Finding
from ftbridge.report.terminal.lint.excerpt import Excerpt, excerpt, masked

KEY = "sk-proj-" + "Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0Fe" * 2


def finding(field: str | None, span: tuple[int, int] | None = None, *, secret: bool = False) -> Finding:
    return Finding(code="FTB021", severity="error", line=1, field=field, message="", fix=None, span=span, secret=secret)


def line(user: str, reply: object = "fine") -> str:
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]
    return json.dumps({"messages": messages}, ensure_ascii=False)


def underlined(piece: Excerpt) -> str:
    """The characters in the cells that are underlined."""
    cells = [character for character in piece.text for _ in range(cell_len(character))]
    return "".join(dict.fromkeys(cells[piece.start : piece.start + piece.length]))


@pytest.mark.parametrize("width", [20, 40, 80, 300])
@pytest.mark.parametrize("before", ["", "short", "long " * 400, "日本語" * 50, "tab\tand\x00bell", "é" * 80])
def test_the_piece_is_underlined_wherever_it_stands_and_the_rest_is_cut(before: str, width: int):
    piece = excerpt(line(before, None).encode(), finding("messages[1].content"), (), width)
    assert piece is not None
    assert underlined(piece) == "nul"
    assert cell_len(piece.text) <= width
    assert piece.text.isprintable()


def test_cut_ends_are_marked_and_whole_lines_are_not():
    short = excerpt(b'{"messages": null}', finding("messages"), (), 80)
    long = excerpt(line("long " * 40, 7).encode() + b" " * 5, finding("messages[0].content", (60, 64)), (), 40)
    assert short
    assert short.text == '{"messages": null}'
    assert long
    assert long.text[0] == long.text[-1] == "…"
    assert underlined(long) == "long"


def test_a_secret_near_the_piece_is_masked_though_no_finding_tells_of_it():
    raw = line(f"use {KEY} and again {KEY}", None).encode()
    piece = excerpt(raw, finding("messages[0].role"), (), 300)
    assert piece
    assert "Zx9Yw8" not in piece.text
    assert piece.text.count("•") == 2 * len(KEY)
    assert piece.text[piece.start : piece.start + piece.length] == '"user"'


def test_a_secret_that_escapes_hide_is_masked_by_its_finding():
    raw = line("_" + KEY, None).replace("sk-proj", "s\\u006b-proj").encode()
    names = finding("messages[0].content", (1, 1 + len(KEY)), secret=True)
    piece = excerpt(raw, finding("messages[1].content"), [names], 300)
    assert piece
    assert "Zx9Yw8" not in piece.text
    assert underlined(piece) == "nul"


def test_more_secrets_than_a_rule_tells_of_are_all_masked():
    keys = [f"sk-proj-Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2Ji1{index:03}Hg" for index in range(70)]
    text = " ".join(keys)
    hidden = masked(text)
    assert len(hidden) == len(text)
    assert set(hidden) == {"•", " "}


@pytest.mark.parametrize(("raw", "field"), [(b"", "a"), (b"   ", "a"), (b'{"a": 1}', None)])
def test_there_is_no_excerpt_where_there_is_nothing_to_show(raw: bytes, field: str | None):
    assert excerpt(raw, finding(field), (), 80) is None


@given(raw=st.binary(max_size=200), width=st.integers(12, 60), start=st.integers(0, 80))
@settings(max_examples=300, deadline=None)
def test_no_line_breaks_it(raw: bytes, width: int, start: int):
    piece = excerpt(raw, finding("messages[0].content", (start, start + 3)), (), width)
    assert piece is None or (cell_len(piece.text) <= width and piece.length >= 1)
