"""A classification report, where the expected answers are labels: which are confused with which, and how well each is found.

Answers are labels where the references have at most `MOST_LABELS` different values and each of them is expected `FEWEST` times
on average: then a model that names one is classifying. An answer counts as a label when it is one, but for space at its ends;
all others stand in a last column of their own.

    precision = right / named, recall = right / expected, F1 = 2 right / (named + expected); 0 where there is none

Macro F1 is the mean over the labels, each counting the same (as scikit-learn's `classification_report` defines them, with
zero_division=0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import Field

from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item
from ftbridge.providers.base import Frozen

MOST_LABELS = 40
FEWEST = 3


class LabelScore(Frozen):
    """How well one label is found, 0 to 1."""

    precision: float
    recall: float
    f1: float
    support: int = Field(description="Items whose reference is this label.")


class Classification(Frozen):
    """One candidate's answers as labels."""

    labels: list[str] = Field(description="Every label that is expected, the most frequent first.")
    confusion: list[list[int]] = Field(
        description=(
            "Rows: expected labels. Columns: predicted labels in the same order; the last one counts completions "
            "that are not a label."
        )
    )
    accuracy: float
    macro_f1: float
    per_label: dict[str, LabelScore]


def labels_of(items: Sequence[Item]) -> list[str] | None:
    """The labels, the most frequent first; None where the references are not labels."""
    counts = Counter(str(item.fields.get("reference", "")).strip() for item in items)
    if not 2 <= len(counts) <= MOST_LABELS or len(items) < FEWEST * len(counts) or "" in counts:
        return None
    return sorted(counts, key=lambda label: (-counts[label], label))


def classify(items: Sequence[Item], predictions: Mapping[str, Sequence[Prediction]]) -> dict[str, Classification]:
    """A report for each candidate; empty where the references are not labels."""
    labels = labels_of(items)
    if labels is None:
        return {}
    return {name: _report(items, predicted, labels) for name, predicted in predictions.items()}


def _report(items: Sequence[Item], predictions: Sequence[Prediction], labels: Sequence[str]) -> Classification:
    index_of = {label: number for number, label in enumerate(labels)}
    completions = {
        prediction.key: prediction.output_text.strip() for prediction in predictions if prediction.error is None
    }
    confusion = [[0] * (len(labels) + 1) for _ in labels]
    for item in items:
        row = index_of[str(item.fields["reference"]).strip()]
        confusion[row][index_of.get(completions.get(item.key, ""), len(labels))] += 1
    scores = {label: _score(confusion, number) for label, number in index_of.items()}
    right = sum(confusion[number][number] for number in range(len(labels)))
    return Classification(
        labels=list(labels),
        confusion=confusion,
        accuracy=right / len(items),
        macro_f1=sum(score.f1 for score in scores.values()) / len(scores),
        per_label=scores,
    )


def _score(confusion: Sequence[Sequence[int]], label: int) -> LabelScore:
    right, expected = confusion[label][label], sum(confusion[label])
    named = sum(row[label] for row in confusion)
    return LabelScore(
        precision=right / named if named else 0.0,
        recall=right / expected if expected else 0.0,
        f1=2 * right / (named + expected) if named + expected else 0.0,
        support=expected,
    )
