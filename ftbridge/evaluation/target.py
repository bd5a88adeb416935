"""Does prompting do already? The baselines' scores before anything is spent, against `evaluation.target`.

A baseline meets the target when its mean reaches it on every grader. The mean, not its interval's low end: the target asks
whether training is worth trying, and few items would never allow a no. The interval is told beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftbridge.evaluation.document import Score


def meets(scores: Mapping[str, Mapping[str, Score]], target: float) -> list[str]:
    """The candidates that reach the target on every grader, in the order given."""
    return [name for name, by in scores.items() if by and all(score.mean >= target for score in by.values())]


def target_sentence(scores: Mapping[str, Mapping[str, Score]], names: Sequence[str] | None = None) -> str:
    """Scores with their intervals, in a line: "base exact 0.0 % [0.0, 4.1], few_shot exact 31.1 % [22.5, 41.3]"."""
    return ", ".join(
        f"{name} {grader} {100 * score.mean:.1f} % [{100 * score.ci95[0]:.1f}, {100 * score.ci95[1]:.1f}]"
        for name, by in scores.items()
        if names is None or name in names
        for grader, score in by.items()
    )
