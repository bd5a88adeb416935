"""A score that a failed judge owes is shown as missing, and changes nothing."""

from __future__ import annotations

from ftbridge.evaluation.document import Answered, Score
from ftbridge.evaluation.verdict import compare_paired
from ftbridge.report.html.contents import CandidatePair, Column, Contents, ItemRow, ShownCompletion
from ftbridge.report.html.page import page
from ftbridge.report.terminal.comparison import changed

GRADERS = ("exact", "tone")


def contents_of_scores(*rows: tuple[dict[str, float | None], dict[str, float | None]]) -> Contents:
    score = Score(mean=0.5, ci95=(0.0, 1.0), n=1)
    took = Answered(prompt_tokens=1, completion_tokens=1, p50_seconds=None, p95_seconds=None, cut_off=0, failed=0)
    columns = tuple(Column(name, "", name, "", dict.fromkeys(GRADERS, score), took, None) for name in ("base", "tuned"))
    verdicts = compare_paired({"exact": [0.0], "tone": [0.0]}, {"exact": [1.0], "tone": [1.0]})
    items = tuple(
        ItemRow(
            where + 1,
            (("user", f"question {where}"),),
            "expected",
            tuple(ShownCompletion(f"answer {side}", False, scores, ()) for side, scores in enumerate(pair)),
        )
        for where, pair in enumerate(rows)
    )
    return Contents("t", GRADERS, columns, (CandidatePair("tuned", "base", verdicts),), items, (), (), (), ())


def test_an_item_whose_only_change_is_a_missing_score_is_unchanged():
    contents = contents_of_scores(({"exact": 1.0, "tone": 1.0}, {"exact": 1.0, "tone": None}))
    html = page(contents)
    assert 'data-kinds="same same0"' in html
    assert "tone: no score" in html
    assert changed(contents) == []


def test_the_graders_that_did_score_still_tell_the_change():
    contents = contents_of_scores(
        ({"exact": 1.0, "tone": None}, {"exact": 0.0, "tone": 0.9}),
        ({"exact": 0.0, "tone": 0.5}, {"exact": 0.0, "tone": 0.75}),
    )
    html = page(contents)
    assert 'data-kinds="worse worse0"' in html
    assert 'data-kinds="better same0 better1"' in html
    assert len(changed(contents)) == 4
