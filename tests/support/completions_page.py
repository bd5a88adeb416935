"""Pages for tests: real items, answers, grades and verdicts, without a model."""

from __future__ import annotations

import json
from pathlib import Path

from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import load_items
from ftbridge.evaluation.score import judge
from ftbridge.report.html import write_page
from ftbridge.report.html.contents import contents_of_completions
from ftbridge.spec.graders import StringCheckGrader

EXACT = StringCheckGrader(
    type="string_check", name="exact", operation="eq", input="{{sample.output_text}}", reference="{{item.reference}}"
)


NAMED = StringCheckGrader(
    type="string_check", name="named", operation="ilike", input="{{sample.output_text}}", reference="{{item.kind}}"
)


def evaluated(folder: Path, questions, candidates, graders=(EXACT,), pairs=None):
    """Items, predictions and their evaluation; `questions` are (prompt, expected), `candidates` answers by name.

    A third part of a question is its fields, such as `kind`.
    """
    lines = [
        {
            "messages": [{"role": "user", "content": request}, {"role": "assistant", "content": expected}],
            **dict(*fields),
        }
        for request, expected, *fields in questions
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    items = load_items(folder / "test.jsonl")
    predictions = {
        name: [
            Prediction(
                key=item.key,
                index=item.index,
                output_text=text,
                finish_reason="stop",
                prompt_tokens=9,
                completion_tokens=4,
                prompt_sha256="0" * 64,
                seconds=0.5,
            )
            for item, text in zip(items, texts, strict=True)
        ]
        for name, texts in candidates.items()
    }
    first, *others = candidates
    evaluation = judge(items, predictions, graders, pairs=pairs or [(name, first) for name in others])
    return items, predictions, evaluation


def answers_page(folder: Path, questions, candidates, graders=(EXACT,), pairs=None) -> Path:
    """An HTML page about these answers."""
    items, predictions, evaluation = evaluated(folder, questions, candidates, graders, pairs)
    contents = contents_of_completions("answers", items, predictions, graders, evaluation, {})
    return write_page(contents, folder / "page.html", "ftbridge eval job.yaml")
