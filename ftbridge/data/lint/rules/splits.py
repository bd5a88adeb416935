"""Rules about the files of one job together: leakage between what is trained on and what is measured.

A finding stands at the line that is measured, and names the line that gives it away. Validation and test are compared
with training data, and test with validation, which chooses the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ftbridge.data.lint.dataset import Dataset, Splits
from ftbridge.data.lint.rule import Context, Problem, lines_of, rule
from ftbridge.data.lint.rules.near import pairs_between

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WHY = "The model already knows what it was trained on; a measurement on it says nothing about new examples."
_SOURCE = "Magar and Schwartz, Data Contamination: From Memorization to Exploitation (2022)"


@rule(
    "FTB350",
    "leaked-example",
    kind="split",
    severity="warning",
    needs=("hashes",),
    reason=_WHY,
    source=f"{_SOURCE}; OpenAI supervised fine-tuning guide: keep a test set apart",
    bad="an example in both train.jsonl and test.jsonl",
    good="each example in one file",
)
def leaked_example(splits: Splits, context: Context) -> Iterator[tuple[str, Problem]]:
    """The same example is trained on and measured."""
    for measured, training in _compared(splits):
        for row, other in _same(measured.columns.content, training.columns.content):
            yield _problem(
                measured, row, f"is the same example as {_place(training, other)}. Remove it from one of them."
            )


@rule(
    "FTB351",
    "leaked-prompt",
    kind="split",
    severity="warning",
    needs=("hashes",),
    reason=f"{_WHY} Here only the completion differs.",
    source=_SOURCE,
    bad="a question in test.jsonl that train.jsonl answers in other words",
    good="other questions in test.jsonl than in train.jsonl",
)
def leaked_prompt(splits: Splits, context: Context) -> Iterator[tuple[str, Problem]]:
    """The same prompt is trained on and measured, with another completion."""
    import numpy as np

    for measured, training in _compared(splits):
        is_duplicate = np.isin(measured.columns.content, training.columns.content)
        for row, other in _same(measured.columns.prompt, training.columns.prompt):
            if not is_duplicate[row]:
                same = f"has the same prompt as {_place(training, other)}, with another completion."
                description = f"{same} Keep a prompt in one file."
                yield _problem(measured, row, description)


@rule(
    "FTB352",
    "nearly-leaked-example",
    kind="split",
    severity="info",
    needs=("hashes", "sketch"),
    reason=f"{_WHY} A few different words change little.",
    source=f"{_SOURCE}; Lee et al. (2022) found such pairs between the splits of common data sets",
    bad="an example in test.jsonl that differs from one in train.jsonl by a name",
    good="examples of other cases in test.jsonl",
)
def nearly_leaked(splits: Splits, context: Context) -> Iterator[tuple[str, Problem]]:
    """Nearly the same example is trained on and measured."""
    import numpy as np

    for measured, training in _compared(splits):
        prompts = measured.columns.prompt
        is_known = np.isin(prompts, training.columns.prompt) & (prompts != 0)
        near = pairs_between(measured, training, context)
        for row, other, alike in near.pairs:
            if not is_known[row]:
                description = f"is nearly the same as {_place(training, other)} (similarity {alike:.2f})."
                yield _problem(measured, row, description)
        if near.note:
            yield measured.path, Problem("", f"{near.note} They are pairs with {_name(training)}.")


@rule(
    "FTB353",
    "same-example-in-two-files",
    kind="split",
    severity="info",
    needs=("hashes",),
    reason="Examples in two training files are trained on twice.",
    source="Lee et al., Deduplicating Training Data Makes Language Models Better (2022)",
    bad="part-1.jsonl and part-2.jsonl with the same lines",
    good="each example in one of them",
)
def in_two_files(splits: Splits, context: Context) -> Iterator[tuple[str, Problem]]:
    """Two files with the same part in the job share examples."""
    for index, later in enumerate(splits.files):
        for earlier in splits.files[:index]:
            if earlier.role != later.role:
                continue
            pairs = list(_same(later.columns.content, earlier.columns.content))
            if pairs:
                lines = [int(later.columns.line[row]) for row, _ in pairs]
                description = f"shares examples with {_name(earlier)}: {lines_of(lines)}. Keep them in one file."
                yield later.path, Problem("", description, line=lines[0])


def _compared(splits: Splits) -> Iterator[tuple[Dataset, Dataset]]:
    """(what is measured on, what gives it away)."""
    for measured in splits.files:
        for training in splits.files:
            if training.role == "train" != measured.role or (training.role, measured.role) == ("validation", "test"):
                yield measured, training


def _same(measured: NDArray[np.uint64], training: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Rows that share a hash other than 0 with a row of the other file: each with the first such."""
    import numpy as np

    values, first = np.unique(training, return_index=True)
    if not len(values):
        return
    index = np.minimum(np.searchsorted(values, measured), len(values) - 1)
    for row in np.flatnonzero((values[index] == measured) & (measured != 0)).tolist():
        yield row, int(first[index[row]])


def _problem(dataset: Dataset, row: int, description: str) -> tuple[str, Problem]:
    return dataset.path, Problem("", description, line=int(dataset.columns.line[row]))


def _place(dataset: Dataset, row: int) -> str:
    return f"{_name(dataset)}:{int(dataset.columns.line[row]):d} ({dataset.role})"


def _name(dataset: Dataset) -> str:
    return Path(dataset.path).name
