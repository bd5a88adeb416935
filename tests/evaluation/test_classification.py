"""The classification report against counts made by hand."""

from __future__ import annotations

import json

import pytest

from ftbridge.evaluation.classification import classify, labels_of
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import load_items


@pytest.fixture
def items(tmp_path):
    def items_of(references):
        chats = [
            [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": r}]
            for n, r in enumerate(references)
        ]
        (tmp_path / "t.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
        return load_items(tmp_path / "t.jsonl")

    return items_of


def predictions(items, outputs):
    return [
        Prediction(key=item.key, index=item.index, prompt_sha256="", output_text=output or "", finish_reason="stop",
                   prompt_tokens=1, completion_tokens=1, error=None if output is not None else "HTTP 500")
        for item, output in zip(items, outputs, strict=True)
    ]  # fmt: skip


def test_confusion_precision_recall_and_macro_f1_are_those_of_a_hand_count(items):
    them = items(["a"] * 4 + ["b"] * 3 + ["c"] * 3)
    result = classify(them, {"x": predictions(them, ["a", " a\n", "b", "it is a", "b", "b", "a", None, "b", "b"])})["x"]
    assert result.labels == ["a", "b", "c"]
    assert result.confusion == [[2, 1, 0, 1], [1, 2, 0, 0], [0, 2, 0, 1]]
    assert result.accuracy == pytest.approx(0.4)
    a, b, c = (result.per_label[label] for label in "abc")
    assert (a.precision, a.recall, a.f1, a.support) == pytest.approx((2 / 3, 1 / 2, 4 / 7, 4))
    assert (b.precision, b.recall, b.f1) == pytest.approx((2 / 5, 2 / 3, 1 / 2))
    assert (c.precision, c.recall, c.f1) == (0, 0, 0)
    assert result.macro_f1 == pytest.approx((4 / 7 + 1 / 2) / 3)


def test_answers_in_free_words_are_no_labels(items):
    assert labels_of(items([f"answer {n}" for n in range(30)])) is None
    assert labels_of(items(["same"] * 30)) is None
    assert labels_of(items(["a", "b"] * 2)) is None
    assert classify(items(["a", "", "b"] * 9), {}) == {}
