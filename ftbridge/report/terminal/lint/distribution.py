"""How long a file's examples are, drawn in the terminal: bars of equal bins, quantiles, and the model's limit."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from ftbridge.data.lint.findings import FileReport, Tokens

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_WIDEST = 40
_EMPTY_RUN = 3
"""So many empty bins in a row are drawn as one."""


def distribution(file: FileReport, tokens: Tokens, limit: int | None, *, width: int, plain: bool) -> Iterator[Text]:
    """The lines of the drawing, at most `width` cells; `plain` draws in ASCII. `limit` is in tokens an example."""
    yield Text(f"{file.path}: {tokens.total:,} tokens in {file.examples:,} examples", style="bold")
    most = max(count for _, _, count in tokens.histogram)
    digits = len(f"{tokens.largest:,}")
    room = max(4, min(_WIDEST, width - 2 * digits - len(f"{most:,}") - 5))
    empty = 0
    for index, (start, below, count) in enumerate(tokens.histogram):
        before = tokens.histogram[index - 1][0] if index else 0
        if limit is not None and before <= limit < start:
            yield _limit_line(limit, plain)
        empty = 0 if count else empty + 1
        if _runs_on(tokens, index, empty):
            continue
        gap = empty >= _EMPTY_RUN
        label = (
            f"{':' if plain else '⋮':>{digits}}"
            if gap
            else _label(start, min(below - 1, tokens.largest), digits, plain)
        )
        bar = "" if gap else f"{_bar(count / most, room, plain)} {count:,}".lstrip()
        over = limit is not None and below - 1 > limit and count
        yield Text.assemble(f"{label:<{2 * digits + 2}}", (bar, "red" if over else ""))
    if limit is not None and limit >= tokens.histogram[-1][0]:
        yield _limit_line(limit, plain)
    counted = f"counted with {tokens.counted_with}"
    yield Text(f"median {tokens.median:,}, 95 % up to {tokens.p95:,}, most {tokens.largest:,}; {counted}", style="dim")


def _runs_on(tokens: Tokens, index: int, empty: int) -> bool:
    """Whether an empty bin is left out, because the last of its run stands for all."""
    counts = [count for _, _, count in tokens.histogram]
    ahead = 0
    while index + 1 + ahead < len(counts) and counts[index + 1 + ahead] == 0:
        ahead += 1
    return empty > 0 and empty + ahead >= _EMPTY_RUN and ahead > 0


def _label(first: int, last: int, digits: int, plain: bool) -> str:
    dash = "-" if plain else "–"
    return f"{first:>{digits},}{dash}{last:<{digits},}" if last > first else f"{first:>{digits},}"


def _limit_line(limit: int, plain: bool) -> Text:
    rule = "-" if plain else "─"
    return Text(f"{rule * 3} the model reads {limit:,} {rule * 3}", style="red")


def _bar(share: float, room: int, plain: bool) -> str:
    if plain:
        return "#" * max(round(share * room), share > 0)
    eighths = max(round(share * room * 8), share > 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
