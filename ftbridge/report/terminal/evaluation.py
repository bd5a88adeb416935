"""An evaluation for machines, pull requests and CI: every candidate's score, and verdicts against the first."""

from __future__ import annotations

from collections.abc import Iterator

from ftbridge.evaluation.document import Evaluation
from ftbridge.evaluation.verdict import PairedComparison
from ftbridge.evaluation.wording import distinct_rivals, sentence
from ftbridge.report.amounts import dollars, latency
from ftbridge.report.formats.tables import Cell, Markdown, csv_text, junit_text, markdown_table, markdown_text
from ftbridge.report.terminal.comparison import fails
from ftbridge.report.terminal.judges import judge_sentences


def as_csv(evaluation: Evaluation) -> str:
    """One line for each candidate and grader; verdict columns are empty for a candidate that was judged against nobody."""
    heads = ["candidate", "grader", "mean", "low", "high", "n", "against", "difference", "p_adjusted", "verdict"]
    usage = ["prompt_tokens", "completion_tokens", "p50_seconds", "p95_seconds", "usd"]
    counts = ["difference_low", "difference_high", "better", "worse"]
    return csv_text([*heads, *usage, *counts], _csv_rows(evaluation))


def _csv_rows(evaluation: Evaluation) -> Iterator[list[Cell]]:
    for name, by in evaluation.candidates.items():
        took = evaluation.answered.get(name)
        used: list[Cell] = [None] * 5
        if took is not None:
            used = [took.prompt_tokens, took.completion_tokens, took.p50_seconds, took.p95_seconds]
            used.append(took.usd)
        for grader, score in by.items():
            cells: list[Cell] = [None] * 4
            counts: list[Cell] = [None] * 4
            for baseline, verdicts in _against(evaluation, name):
                one = verdicts[grader]
                cells = [baseline, one.difference, one.p_adjusted, one.verdict]
                counts = [*one.ci95, one.better, one.worse]
                break
            yield [name, grader, score.mean, *score.ci95, score.n, *cells, *used, *counts]


def as_junit(evaluation: Evaluation) -> str:
    """One test case for each pair and grader: it fails when a margin is not met, or when the candidate is worse."""
    cases = [
        (
            f"{name} against {baseline}: {grader}",
            sentence(grader, paired, candidate=name, baseline=baseline) if fails(paired) else None,
        )
        for name in evaluation.candidates
        for baseline, by in _against(evaluation, name)
        for grader, paired in by.items()
    ]
    return junit_text(f"{evaluation.items} items", "ftbridge.evaluation", cases)


def as_markdown(evaluation: Evaluation, title: str = "") -> str:
    """A table for a pull request: candidates by graders, the best in bold; below it the verdicts."""
    best = {grader: max(by[grader].mean for by in evaluation.candidates.values()) for grader in evaluation.graders}
    rows = []
    for name, by in evaluation.candidates.items():
        cells = []
        for grader in evaluation.graders:
            score, mark = by[grader], "**" if by[grader].mean == best[grader] else ""
            low, high = (100 * end for end in score.ci95)
            cells.append(Markdown(f"{mark}{100 * score.mean:.1f} %{mark} ({low:.1f} to {high:.1f})"))
        took = evaluation.answered.get(name)
        tokens = f"{took.prompt_tokens + took.completion_tokens:,}" if took else ""
        p95 = (latency(took.p95_seconds, in_batches=took.in_batches) if took else None) or ""
        usd = took.usd if took is not None else None
        rows.append([name, *cells, tokens, p95, dollars(usd) if usd is not None else ""])
    heads = ["candidate", *evaluation.graders, "tokens", "p95", "cost"]
    sentences = [
        f"- {markdown_text(sentence(grader, paired, candidate=name, baseline=baseline))}\n"
        for name, baseline, by in distinct_rivals(evaluation.candidates, evaluation.verdicts)
        for grader, paired in by.items()
    ]
    lines = "".join(f"{markdown_text(line)}\n\n" for line in evaluation.summary)
    sentences += [f"- {markdown_text(one)}\n" for one in judge_sentences(evaluation)]
    notes = [f"- Note: {markdown_text(note)}\n" for note in evaluation.notes]
    head = f"{markdown_text(title)}, {evaluation.items} items" if title else f"{evaluation.items} items"
    return f"{head}\n\n{lines}{markdown_table(heads, rows)}" + (
        f"\n{''.join([*sentences, *notes])}" if sentences or notes else ""
    )


def _against(evaluation: Evaluation, name: str) -> Iterator[tuple[str, dict[str, PairedComparison]]]:
    """Whom a candidate was judged against; base before the others."""
    for baseline in evaluation.candidates:
        if (verdicts := evaluation.verdicts.get(f"{name}-{baseline}")) is not None:
            yield baseline, verdicts
