"""Rules about what a file teaches as a whole: repetition, contradiction, balance, system messages, refusals.

Most are advice. They read columns of hashes and counts, and come back to a few lines of the file where texts decide.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ftbridge.data.lint.dataset import Dataset
from ftbridge.data.lint.rule import Context, Problem, lines_of, look, quoted, rule
from ftbridge.data.lint.rules.near import pairs_within
from ftbridge.data.lint.screens import any_of, pattern

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FEW = 20
"""Examples below which shares mean nothing."""

_READ = 5_000
"""Lines that a rule reads again at most."""

_LEE = "Lee et al., Deduplicating Training Data Makes Language Models Better (2022)"

# Repetition


@rule(
    "FTB300",
    "duplicate-example",
    kind="data",
    severity="info",
    needs=("hashes",),
    reason="Every copy of an example is paid for, and the model learns a repeated example by heart.",
    source=_LEE,
    bad="two lines with the same messages and tools",
    good="each example once; more epochs repeat all of them",
)
def duplicate_example(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """Two lines hold the same example."""
    for lines in _groups(dataset.columns.content, dataset.columns.line):
        yield Problem("", f"is repeated in {lines_of(lines[1:])}. Keep one of them.", line=lines[0])


@rule(
    "FTB301",
    "near-duplicate",
    kind="data",
    severity="info",
    needs=("hashes", "sketch"),
    reason="Examples that differ by a few words teach little more than one of them, and hide how much data there is.",
    source=f"{_LEE}; Broder, On the Resemblance and Containment of Documents (1997) for the sketches",
    bad="the same conversation with another order number",
    good="conversations that differ in what they ask",
)
def near_duplicate(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """Two lines hold nearly the same example."""
    line = dataset.columns.line
    stands_for: dict[int, int] = {}
    clusters: dict[int, list[tuple[int, float]]] = defaultdict(list)
    near = pairs_within(dataset, context)
    for row, other, alike in near.pairs:
        first = stands_for.get(other, other)
        stands_for[row] = first
        clusters[first].append((int(line[row]), alike))
    for first, cluster in sorted(clusters.items()):
        least = min(alike for _, alike in cluster)
        which = lines_of([number for number, _ in cluster])
        description = (
            f"is nearly the same as {which} (similarity {least:.2f} or more). Keep the ones that teach something "
            "different."
        )
        yield Problem("", description, line=int(line[first]))
    if near.note:
        yield Problem("", near.note)


# Contradiction


@rule(
    "FTB302",
    "same-prompt-different-answers",
    kind="data",
    severity="warning",
    methods=("supervised", "reinforcement"),
    needs=("hashes",),
    reason="The model cannot tell which completion is right, and learns a mixture of both.",
    source="Northcutt et al., Confident Learning (2021): conflicting labels are label errors",
    bad="the same question answered yes in one line and no in another",
    good="one completion for each prompt, or prompts that tell the cases apart",
)
def same_prompt(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """The same prompt has different completions, or different item fields."""
    columns = dataset.columns
    differ = "item fields" if dataset.method == "reinforcement" else "completions"
    for rows in _group_rows(columns.prompt, columns.completion != 0):
        completions = len(set(columns.completion[rows].tolist()))
        if completions > 1:
            others = lines_of(columns.line[rows[1:]].tolist())
            detail = f"has the same prompt as {others}, with {completions:,} different {differ}."
            yield Problem(
                "", f"{detail} Keep one, or add to the prompt what distinguishes them.", line=int(columns.line[rows[0]])
            )


@rule(
    "FTB303",
    "contradicting-preferences",
    kind="data",
    severity="warning",
    methods=("dpo",),
    needs=("hashes",),
    reason="One line prefers what another rejects, for the same prompt: their losses cancel.",
    source="Rafailov et al., Direct Preference Optimization (2023), equation 7",
    bad="A preferred to B in one line, B preferred to A in another",
    good="one order for each pair of completions",
)
def contradicting_preferences(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """Two lines have the same prompt and the same completions, the other way round."""
    columns = dataset.columns
    read = 0
    for rows in _group_rows(columns.prompt, columns.completion != 0):
        if len(set(columns.completion[rows].tolist())) < 2:
            continue
        read += len(rows)
        if read > _READ:
            return
        first: dict[tuple[str, str], int] = {}
        sides = [(int(columns.line[row]), _sides(dataset.example(int(row)), context)) for row in rows]
        for line, pair in sides:
            first.setdefault(pair, line)
        for line, (better, worse) in sides:
            other = first.get((worse, better))
            if other is not None and better != worse:
                yield Problem("non_preferred_output", f"is preferred in line {other:,} for the same prompt.", line=line)


def _sides(document: Any, context: Context) -> tuple[str, str]:
    texts = {"preferred_output": "", "non_preferred_output": ""}
    for spot in look(document, context).messages:
        if spot.output:
            content = [spot.message.get("content"), spot.message.get("tool_calls")]
            with contextlib.suppress(RecursionError):
                texts[spot.at.split("[")[0]] += json.dumps(content, sort_keys=True)
    return texts["preferred_output"], texts["non_preferred_output"]


# Balance


@rule(
    "FTB304",
    "label-imbalance",
    kind="data",
    severity="info",
    methods=("supervised",),
    needs=("hashes",),
    reason="A model that sees one label most of the time says it most of the time.",
    source="He and Garcia, Learning from Imbalanced Data (2009)",
    bad="950 times spam, 50 times ham",
    good="labels about as often as they are when the model is used",
)
def label_imbalance(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """Answers are labels, and some of them are rare."""
    labels = _labels(dataset)
    if len(labels) < 2:
        return
    total = sum(labels.values())
    (most, often), (least, seldom) = labels.most_common()[0], labels.most_common()[-1]
    if often >= 10 * seldom:
        description = (
            f"has {len(labels):,} labels as completions: {quoted(most)} in {often / total:.0%}, "
            f"{quoted(least)} in {seldom / total:.1%} of the examples. Add examples of the rare ones."
        )
        yield Problem("", description)


@rule(
    "FTB305",
    "one-answer-dominates",
    kind="data",
    severity="info",
    methods=("supervised",),
    needs=("hashes",),
    reason="Half of all examples teach the same words, regardless of the prompt.",
    source="OpenAI fine-tuning best practices: the answers in the data should be spread as they are in use",
    bad='"I will forward this to a colleague." as the completion of 60% of the questions',
    good="completions that depend on the question",
)
def one_answer(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """Half of the examples or more have the same completion."""
    import numpy as np

    completions = dataset.columns.completion[dataset.columns.completion != 0]
    if len(completions) < _FEW or len(_labels(dataset)) > 1:
        return
    values, counts = np.unique(completions, return_counts=True)
    often = int(counts.max())
    if often * 2 >= len(completions):
        row = int(np.flatnonzero(dataset.columns.completion == values[counts.argmax()])[0])
        line = int(dataset.columns.line[row])
        description = (
            f"has the completion that {often:,} of {len(completions):,} examples have ({often / len(completions):.0%})."
        )
        yield Problem("", f"{description} Check whether the model should say it that often.", line=line)


# System messages


@rule(
    "FTB306",
    "system-message-in-some",
    kind="data",
    severity="info",
    methods=("supervised", "dpo"),
    needs=("hashes",),
    reason="A model shows what it learnt best under the system message that it was trained with; a mixture weakens that.",
    source="OpenAI fine-tuning best practices: keep the instructions that worked best in every example",
    bad="900 examples with a system message and 100 without",
    good="the same system message in training and in use",
)
def system_in_some(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """Some examples have a system message and others have none."""
    system, line = dataset.columns.system, dataset.columns.line
    without = line[system == 0].tolist()
    if without and len(without) < dataset.rows:
        description = f"has {dataset.rows - len(without):,} examples with a system message and {len(without):,} without"
        yield Problem("", f"{description}: {lines_of(without)}.", line=without[0])


@rule(
    "FTB307",
    "stray-system-message",
    kind="data",
    severity="info",
    methods=("supervised", "dpo"),
    needs=("hashes",),
    reason="A system message that differs from all others is often an older wording or a mistake.",
    source="OpenAI fine-tuning best practices: keep the instructions that worked best in every example",
    bad='"You are a helpful asistant." in 3 of 1,000 examples',
    good="one wording in all of them",
)
def stray_system(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """Almost all examples share a system message, and a few have another."""
    import numpy as np

    columns = dataset.columns
    has_system = columns.system != 0
    values, counts = np.unique(columns.system[has_system], return_counts=True)
    if counts.sum() < _FEW or len(values) < 2 or counts.max() * 10 < counts.sum() * 9:
        return
    lines = columns.line[has_system & (columns.system != values[counts.argmax()])].tolist()
    share = counts.max() / counts.sum()
    description = f"has another system message than {share:.0%} of the examples, as do {len(lines) - 1:,} more"
    yield Problem("", f"{description}: {lines_of(lines)}.", line=lines[0])


@rule(
    "FTB308",
    "many-system-messages",
    kind="data",
    severity="info",
    methods=("supervised", "dpo"),
    needs=("hashes",),
    reason="If nearly every example has a different system message, the model learns none of them well.",
    source="OpenAI fine-tuning best practices: keep the instructions that worked best in every example",
    bad="1,000 examples with 700 wordings of the same instruction",
    good="one instruction, and what changes in the user's message",
)
def many_systems(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """Half as many system messages as examples."""
    import numpy as np

    system = dataset.columns.system[dataset.columns.system != 0]
    different = len(np.unique(system))
    if len(system) >= _FEW and different * 2 >= len(system):
        description = f"has {different:,} different system messages in {len(system):,} examples."
        yield Problem("", f"{description} The one that is used later should be among them, or be the only one.")


# Answers that say nothing

_CANNOT = r"(?: can(?:['’]?t|not| not)| won['’]t| am (?:unable|not able)|['’]m (?:unable|not able))"
_REFUSAL = re.compile(
    rf"\s*(?:(?:I['’]m|I am|I['’]m very|I['’]m really) sorry|Sorry|I apologi[sz]e|Unfortunately)[,.]? (?:but )?I{_CANNOT}"
    rf"|\s*I{_CANNOT} (?:to )?(?:help|assist|provide|fulfil|comply|answer|do that|create|generate|discuss|write|engage)"
)
_AS_AN_AI = re.compile(r"\b[Aa]s an? (?:AI|artificial intelligence|large language model|language model)\b")


@rule(
    "FTB309",
    "refusal-as-answer",
    kind="text",
    severity="info",
    methods=("supervised",),
    answers_only=True,
    reason="Refusals of another model teach the tuned model to refuse.",
    source="ShareGPT_Vicuna_unfiltered and the data sets made of it, which leave such answers out",
    bad=json.dumps(
        {
            "messages": [
                {"role": "user", "content": "Write a limerick."},
                {"role": "assistant", "content": "I'm sorry, but as an AI language model I can't do that."},
            ]
        }
    ),
    good=json.dumps(
        {
            "messages": [
                {"role": "user", "content": "Write a limerick."},
                {"role": "assistant", "content": "I can! There was a young coder from Kent…"},
            ]
        }
    ),
    screen=any_of(
        pattern(
            rb"I(?: can(?:'| ?not|t |\\u2019|\xe2\x80\x99)| won| am (?:un|not )able"
            rb"|(?:'|\\u2019|\xe2\x80\x99)m (?:un|not )able)"
        ),
        pattern(rb"s an? (?:AI|artificial|large lang|language m)"),
    ),
)
def refusal(text: str, context: Context) -> Iterator[Problem]:
    """A completion declines, or speaks of itself as an AI model."""
    match = _REFUSAL.match(text) or _AS_AN_AI.search(text)
    if match:
        shown = quoted(text[match.start() : match.start() + 60])
        detail = f"says {shown}: a refusal of another model. Write a completion, or leave the example out."
        yield Problem("", detail, span=match.span())


_LEFT_BEHIND = re.compile(
    r" ?(?:[Nn]ull|NULL|None|NONE|[Nn]a[Nn]|NAN|NaT|[Nn]/[Aa]|undefined|#N/A|#VALUE!|#REF!|#NAME\?|#DIV/0!|<NA>|\(null\)"
    r"|\[object Object\])\s*"
)


@rule(
    "FTB311",
    "literal-null-answer",
    kind="text",
    severity="warning",
    methods=("supervised", "dpo"),
    answers_only=True,
    reason="Exports write such a word for a missing value; the model learns to answer with it.",
    source="what pandas, JavaScript, SQL and spreadsheets write for a missing value",
    bad=json.dumps(
        {"messages": [{"role": "user", "content": "Where is order 7?"}, {"role": "assistant", "content": "undefined"}]}
    ),
    good=json.dumps(
        {
            "messages": [
                {"role": "user", "content": "Where is order 7?"},
                {"role": "assistant", "content": "It was sent."},
            ]
        }
    ),
    screen=pattern(rb'" ?(?:[Nn](?:ull|one|ULL|ONE|a[NnT]|AN|(?:\\?/)[Aa])|undefined|#[NVRD]|<NA>|\(null|\[object)'),
)
def literal_null(text: str, context: Context) -> Iterator[Problem]:
    """A completion is the word for a missing value: null, None, NaN, undefined, N/A, [object Object]."""
    if _LEFT_BEHIND.fullmatch(text):
        description = f"is {quoted(text)} and nothing else, which exports write for a missing value."
        yield Problem("", f"{description} Write the completion, or remove the example.", span=(0, len(text)))


# Groups


def _labels(dataset: Dataset) -> Any:
    """How often each label is the completion; empty where completions are not labels."""
    labels, others = dataset.tally.labels, dataset.tally.other_answers
    total = sum(labels.values()) + others
    few = max(2, min(50, total // 5))
    return labels if total >= _FEW and others * 20 <= total and len(labels) <= few else type(labels)()


def _group_rows(hashes: NDArray[np.uint64], keep: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Rows that share a hash other than 0, in order, for each hash that more than one row has."""
    import numpy as np

    rows = np.flatnonzero((hashes != 0) & keep)
    order = rows[np.argsort(hashes[rows], kind="stable")]
    ends: NDArray[np.int64] = np.append(np.flatnonzero(hashes[order][1:] != hashes[order][:-1]) + 1, len(order))
    starts = np.concatenate([[0], ends[:-1]])
    shared = ends - starts > 1
    groups = [order[start:end] for start, end in zip(starts[shared], ends[shared], strict=True)]
    yield from sorted(groups, key=lambda group: int(group[0]))


def _groups(hashes: NDArray[np.uint64], lines: NDArray[np.int64]) -> Iterator[list[int]]:
    for rows in _group_rows(hashes, hashes != 0):
        yield lines[rows].tolist()
