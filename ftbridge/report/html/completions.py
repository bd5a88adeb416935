"""Items with every candidate's completion side by side, with the words that differ marked, and filters for what changed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ftbridge.report.html.contents import CandidatePair, Contents, ItemRow, ShownCompletion
from ftbridge.report.html.rendering import shortened

Change = Literal["worse", "better", "same"]
"""How a candidate scores on an item, against the baseline."""
MAX_ITEMS = 2_000
"""Items on a page: those that changed first. The page says how many are left out."""
_MAX_WORDS_TO_COMPARE = 1_500
_ALIKE = 0.3
"""Share of words in common below which nothing is marked."""


class Segment(NamedTuple):
    """A part of a text: `del` where only the baseline has it, `ins` where only the candidate has it, empty where both do."""

    text: str
    mark: Literal["", "del", "ins"] = ""


@dataclass(frozen=True)
class ItemCell:
    """One candidate's completion of an item; `segments` is its text, None where it is not compared."""

    label: str
    completion: ShownCompletion
    segments: list[Segment] | None
    is_candidate: bool
    """Whether it is the candidate that is compared with a baseline."""


@dataclass(frozen=True)
class ShownItem:
    """One item. `changes` are worse, better, same and trouble; `changes_by_grader` the same with a grader's number: worse0."""

    row: ItemRow
    changes: list[str]
    changes_by_grader: list[str]
    cells: list[ItemCell]

    @property
    def slices(self) -> list[str]:
        """What the filter by slice compares with: `field=value`."""
        return [f"{name}={value}" for name, value in self.row.slices.items()]


@dataclass(frozen=True)
class CompletionSection:
    """Items that are shown, the pair they are compared by, and how many items are `left_out`.

    `counts` are shown items by change; `slices` counts of all items by field and value.
    """

    pair: CandidatePair | None
    graders: Sequence[str]
    items: list[ShownItem]
    left_out: int
    counts: dict[str, int]
    slices: dict[str, dict[str, int]]


def completions(contents: Contents) -> CompletionSection | None:
    """Every item, those that became worse first; None without items."""
    if not contents.rows:
        return None
    labels = [column.label for column in contents.columns]
    pair = contents.pairs[0] if contents.pairs else None
    compared = (labels.index(pair.baseline), labels.index(pair.candidate)) if pair else (0, 0)
    ordered = sorted(contents.rows, key=lambda row: _urgency(row, compared))
    items = [_item(row, labels, compared, contents.graders) for row in ordered[:MAX_ITEMS]]
    counts = {name: sum(name in item.changes for item in items) for name in ("worse", "better", "same", "trouble")}
    return CompletionSection(
        pair=pair,
        graders=contents.graders,
        items=items,
        left_out=len(ordered) - len(items),
        counts={"all": len(items), **counts},
        slices=_slices(contents.rows),
    )


def differing(first: str, second: str) -> tuple[list[Segment], list[Segment]]:
    """Both texts in segments, with the words marked that only one of them has at that position.

    Texts with little in common are left unmarked, since everything would be, and so are very long ones.
    """
    ones, others = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (first, second))
    unmarked = [Segment(first)], [Segment(second)]
    if max(len(ones), len(others)) > _MAX_WORDS_TO_COMPARE:
        return unmarked
    matcher = difflib.SequenceMatcher(None, ones, others, autojunk=False)
    if matcher.ratio() < _ALIKE:
        return unmarked
    left, right = [], []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        left.append(Segment("".join(ones[i1:i2]), "" if kind == "equal" else "del"))
        right.append(Segment("".join(others[j1:j2]), "" if kind == "equal" else "ins"))
    return [segment for segment in left if segment.text], [segment for segment in right if segment.text]


def _item(row: ItemRow, labels: Sequence[str], compared: tuple[int, int], graders: Sequence[str]) -> ShownItem:
    differences = _differences(row, compared)
    segments: dict[int, list[Segment]] = {}
    if compared[0] != compared[1]:
        texts = [shortened(row.completions[index].text) for index in compared]
        segments = dict(zip(compared, differing(*texts), strict=True))
    return ShownItem(
        row=row,
        changes=list(_changes(row, list(differences.values()))),
        changes_by_grader=[
            f"{_change(differences[grader])}{index}" for index, grader in enumerate(graders) if grader in differences
        ],
        cells=[
            ItemCell(label, completion, segments.get(index), index == compared[1] and bool(segments))
            for index, (label, completion) in enumerate(zip(labels, row.completions, strict=True))
        ],
    )


def _urgency(row: ItemRow, compared: tuple[int, int]) -> tuple[bool, float, int]:
    """Sorts items: those that lost most first, those that gained after them, and those without a change last."""
    gain = sum(_differences(row, compared).values())
    return gain == 0, gain, row.line


def _differences(row: ItemRow, compared: tuple[int, int]) -> dict[str, float]:
    """By grader, how much higher the compared candidate scores than the baseline."""
    baseline, candidate = (row.completions[index] for index in compared)
    return baseline.changes(candidate)


def _change(difference: float) -> Change:
    return "worse" if difference < 0 else "better" if difference > 0 else "same"


def _changes(row: ItemRow, differences: Sequence[float]) -> Iterator[str]:
    changes = {_change(difference) for difference in differences}
    if changes <= {"same"}:
        yield "same"
    yield from (change for change in ("worse", "better") if change in changes)
    if any(completion.cut_off or completion.errors for completion in row.completions):
        yield "trouble"


def _slices(rows: Sequence[ItemRow]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        for name, value in row.slices.items():
            values = counts.setdefault(name, {})
            values[value] = values.get(value, 0) + 1
    return counts
