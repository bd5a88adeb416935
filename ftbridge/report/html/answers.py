"""Items and answers side by side, with the words that differ marked, and filters for what became worse or better."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ftbridge.report.html.contents import Contents, Row, ShownCompletion
from ftbridge.report.html.element import Html, element

MOST_ROWS = 2_000
"""Items on a page: those that changed first. How many are left out is told."""
LONGEST = 20_000
"""Characters of one text on a page; the rest stays in the run folder, and the page says so."""
_WORDS_TO_COMPARE = 1_500
_ALIKE = 0.3
"""Share of words in common below which nothing is marked."""
_FILTERS = (
    ("all", "All"), ("worse", "Worse"), ("better", "Better"), ("same", "Unchanged"), ("trouble", "Cut off or not graded"),
)  # fmt: skip


def completions_section(contents: Contents) -> Html | None:
    """Every item, those that became worse first."""
    if not contents.rows:
        return None
    labels = [column.label for column in contents.columns]
    pair = contents.pairs[0] if contents.pairs else None
    places = (labels.index(pair.baseline), labels.index(pair.candidate)) if pair else (0, 0)
    ordered = sorted(contents.rows, key=lambda row: (_gain(row, places), row.line))
    ordered = sorted(ordered, key=lambda row: _gain(row, places) == 0)
    shown = ordered[:MOST_ROWS]
    kinds = [_kinds(row, places) for row in shown]
    about = ""
    if pair:
        about = (
            f"Marked: words of {pair.baseline} that {pair.candidate} does not have (red), and the other way round (green, "
            "underlined). Better and worse: whether any grader scores "
            f"{pair.candidate} higher or lower than {pair.baseline}."
        )
    if left_out := len(ordered) - len(shown):
        about += f" {left_out} items that changed less are not on this page."
    return element(
        "section",
        element("h2", "Answers"),
        element("p", about, class_="quiet"),
        element(
            "div",
            [
                element(
                    "button",
                    f"{text} ({len(kinds) if name == 'all' else sum(name in kind for kind in kinds)})",
                    type="button",
                    data_filter=name,
                    aria_pressed="true" if name == "all" else "false",
                )
                for name, text in _FILTERS
            ],
            _choices(contents),
            element("input", type="search", placeholder="Find text", aria_label="Find text in items", id="find"),
            element("span", id="count", role="status"),
            class_="filters",
        ),
        [_item(row, labels, places, contents.graders) for row in shown],
        id="answers",
    )


def _choices(contents: Contents) -> list[Html]:
    """A list of graders, by which better and worse are meant, and one of slices."""
    choices = []
    if len(contents.graders) > 1:
        options = [element("option", grader, value=str(index)) for index, grader in enumerate(contents.graders)]
        every = element("option", "any grader", value="")
        choices.append(
            element("select", every, options, id="by-grader", aria_label="Grader that better and worse are by")
        )
    values: dict[str, dict[str, int]] = {}
    for row in contents.rows:
        for name, value in row.slices.items():
            values.setdefault(name, {}).setdefault(value, 0)
            values[name][value] += 1
    if values:
        groups = [
            element(
                "optgroup",
                [
                    element("option", f"{value or '(empty)'} ({count})", value=f"{name}={value}")
                    for value, count in by.items()
                ],
                label=name,
            )
            for name, by in values.items()
        ]
        choices.append(
            element("select", element("option", "all items", value=""), groups, id="by-slice", aria_label="Slice")
        )
    return choices


def _gain(row: Row, places: tuple[int, int]) -> float:
    """How much better the pair's candidate does on an item, over all graders."""
    first, second = (row.completions[index] for index in places)
    return sum(first.changes(second).values())


def _kinds(row: Row, places: tuple[int, int]) -> list[str]:
    first, second = (row.completions[index] for index in places)
    changes = first.changes(second)
    kinds = []
    if any(change < 0 for change in changes.values()):
        kinds.append("worse")
    if any(change > 0 for change in changes.values()):
        kinds.append("better")
    if not kinds:
        kinds.append("same")
    if any(completion.cut_off or completion.errors for completion in row.completions):
        kinds.append("trouble")
    return kinds


def _item(row: Row, labels: Sequence[str], places: tuple[int, int], graders: Sequence[str]) -> Html:
    kinds = _kinds(row, places)
    first, second = (_short(row.completions[index].text) for index in places)
    marked = dict(zip(places, differing(first, second), strict=True)) if places[0] != places[1] else {}
    cells = [
        _answer(label, completion, marked.get(index), changed=index == places[1] and places[0] != places[1])
        for index, (label, completion) in enumerate(zip(labels, row.completions, strict=True))
    ]
    return element(
        "article",
        element(
            "h3",
            element("a", f"Line {row.line}", href=f"#line-{row.line}", class_="permalink"),
            [element("span", kind, class_=f"chip {kind}") for kind in kinds if kind in ("worse", "better")],
            [element("span", f"{name} {value}", class_="quiet slice") for name, value in row.slices.items() if value],
        ),
        _prompt(row.prompt),
        element(
            "div", element("h4", "Expected"), element("p", _short(row.reference), class_="text"), class_="expected"
        ),
        element("div", cells, class_="answers"),
        class_="item",
        id=f"line-{row.line}",
        data_kinds=" ".join([*kinds, *_kinds_by_grader(row, places, graders)]),
        data_slices="\n".join(f"{name}={value}" for name, value in row.slices.items()) or None,
    )


def _kinds_by_grader(row: Row, places: tuple[int, int], graders: Sequence[str]) -> list[str]:
    """worse0, better1, same2: what each grader says, by its place."""
    first, second = (row.completions[index] for index in places)
    changes = first.changes(second)
    return [
        f"{'worse' if changes[grader] < 0 else 'better' if changes[grader] > 0 else 'same'}{index}"
        for index, grader in enumerate(graders)
        if grader in changes
    ]


def _prompt(prompt: Sequence[tuple[str, str]]) -> Html:
    """The last message in sight, those before it folded away."""
    *before, last = prompt or [("", "")]
    folded = element(
        "details",
        element("summary", "1 message before" if len(before) == 1 else f"{len(before)} messages before"),
        [element("p", element("b", role), " ", _short(text), class_="text") for role, text in before],
    )
    return element("div", folded if before else None, element("p", _short(last[1]), class_="text"), class_="prompt")


def _answer(label: str, completion: ShownCompletion, marked: Html | None, *, changed: bool) -> Html:
    text: Html | str = marked if marked is not None else _short(completion.text)
    return element(
        "div",
        element("h4", label),
        element("p", [_chip(grader, value) for grader, value in completion.scores.items()], class_="chips"),
        element("p", f"the first of {len(completion.more) + 1} completions; scores are the mean", class_="quiet")
        if completion.more
        else None,
        element(
            "p", text if completion.text else element("i", "no answer"), class_="text changed" if changed else "text"
        ),
        element("p", "cut off at the token limit", class_="trouble") if completion.cut_off else None,
        [element("p", error, class_="trouble") for error in completion.errors],
        [
            element(
                "details",
                element("summary", f"what {grader} was asked and replied"),
                element("p", _short(prompt), class_="text quiet"),
                element("p", element("b", "reply "), _short(reply), class_="text"),
            )
            for grader, prompt, reply in completion.calls
        ],
        _others(completion) if completion.more else None,
        class_="answer",
    )


def _others(completion: ShownCompletion) -> Html:
    """The other completions of an item, folded away, each with its own scores."""
    scores = element("p", [_chip(grader, value) for grader, value in completion.grader_scores.items()], class_="chips")
    return element(
        "details",
        element("summary", "every completion"),
        element("div", element("b", "1"), scores),
        [
            element(
                "div",
                element("p", element("b", f"{number} "), _short(one.text) or element("i", "no answer"), class_="text"),
                element("p", [_chip(grader, value) for grader, value in one.scores.items()], class_="chips"),
                [element("p", error, class_="trouble") for error in one.errors],
            )
            for number, one in enumerate(completion.more, 2)
        ],
    )


def _chip(grader: str, value: float | None) -> Html:
    if value is None:
        return element("span", f"{grader}: no score", class_="score part")
    level = "full" if value >= 1 else "none" if value <= 0 else "part"
    return element(
        "span", f"{grader} {value:g}" if value in (0, 1) else f"{grader} {value:.2f}", class_=f"score {level}"
    )


def differing(first: str, second: str) -> tuple[Html, Html]:
    """Both texts, with the words marked that only one of them has at that place.

    Texts with little in common are left unmarked, since everything would be, and so are very long ones.
    """
    ones, others = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (first, second))
    if max(len(ones), len(others)) > _WORDS_TO_COMPARE:
        return element("span", first), element("span", second)
    left: list[Html | str] = []
    right: list[Html | str] = []
    matcher = difflib.SequenceMatcher(None, ones, others, autojunk=False)
    if matcher.ratio() < _ALIKE:
        return element("span", first), element("span", second)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        one, other = "".join(ones[i1:i2]), "".join(others[j1:j2])
        left.append(one if kind == "equal" else element("del", one) if one else "")
        right.append(other if kind == "equal" else element("ins", other) if other else "")
    return element("span", left), element("span", right)


def _short(text: str) -> str:
    return (
        text
        if len(text) <= LONGEST
        else f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters in the run folder)"
    )
