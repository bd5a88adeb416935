"""The drawing of a file's token counts."""

from __future__ import annotations

import pytest

from ftbridge.data.lint.findings import FileReport, Tokens
from ftbridge.report.terminal.lint.distribution import distribution

BINS = [(0, 100, 40), (100, 200, 20), (200, 300, 0), (300, 400, 0), (400, 500, 0), (500, 600, 0), (600, 700, 1)]


def draw(limit: int | None, *, width: int = 80, plain: bool = False) -> list[str]:
    tokens = Tokens(total=9_000, smallest=3, median=80, p95=190, largest=640, histogram=BINS, counted_with="o200k_base")
    file = FileReport(path="train.jsonl", examples=61, tokens=9_000, errors=0, warnings=0, findings=[])
    return [line.plain for line in distribution(file, tokens, limit, width=width, plain=plain)]


def test_bars_are_as_long_as_their_counts_and_empty_bins_in_a_row_are_one():
    head, *bins, foot = draw(None)
    assert head == "train.jsonl: 9,000 tokens in 61 examples"
    assert [line.split()[0] for line in bins] == ["0–99", "100–199", "⋮", "600–640"]
    assert [line.count("█") for line in bins] == [40, 20, 0, 1]
    assert [line.split()[-1] for line in bins] == ["40", "20", "⋮", "1"]
    assert foot == "median 80, 95 % up to 190, most 640; counted with o200k_base"


@pytest.mark.parametrize(
    ("limit", "before"), [(50, "100–199"), (150, "⋮"), (250, "⋮"), (620, "median"), (65_536, "median")]
)
def test_the_limit_is_marked_where_it_lies(limit: int, before: str):
    lines = draw(limit)
    at = next(index for index, line in enumerate(lines) if f"reads {limit:,}" in line)
    assert lines[at + 1].split()[0] == before


@pytest.mark.parametrize("width", [30, 40, 80])
def test_it_fits_the_terminal_and_is_ascii_where_it_must_be(width: int):
    plain = draw(300, width=width, plain=True)
    assert all(line.isascii() for line in plain)
    assert all(len(line) <= width for line in plain[1:-1])
    assert "#" in "".join(plain)
