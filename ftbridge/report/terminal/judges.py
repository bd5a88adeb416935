"""How far judges can be trusted, in sentences: agreement of panels, wins at equal length, graders beside people."""

from __future__ import annotations

from collections.abc import Iterator

from ftbridge.evaluation.agreement import RELIABLE, TENTATIVE
from ftbridge.evaluation.calibration import Calibration
from ftbridge.evaluation.document import Evaluation


def judge_sentences(evaluation: Evaluation) -> list[str]:
    """One sentence for each figure that the evaluation has of its judges; none where it has none."""
    return [*_panels(evaluation), *_lengths(evaluation), *_people(evaluation)]


def _panels(evaluation: Evaluation) -> Iterator[str]:
    for name, one in evaluation.agreement.items():
        raters = ", ".join(f"{rater} {_percent(mean.mean)}" for rater, mean in one.raters.items())
        word = "not known, since nothing differs" if one.alpha is None else f"{one.alpha:.2f} ({_level(one.alpha)})"
        yield (
            f"{name}: Krippendorff's alpha of its judges is {word} over {one.completions} completions; they give the same "
            f"score in {_percent(one.same)} of pairs. Mean scores: {raters}."
        )


def _level(alpha: float) -> str:
    if alpha >= RELIABLE:
        return "reliable"
    return "for tentative conclusions" if alpha >= TENTATIVE else f"below {TENTATIVE}, too little for conclusions"


def _lengths(evaluation: Evaluation) -> Iterator[str]:
    for name, by in evaluation.length_controlled.items():
        for grader, one in by.items():
            low, high = one.ci95
            yield (
                f"{grader}: {name} wins {_percent(one.win_rate)}, and {_percent(one.controlled)} ({_percent(low)} to "
                f"{_percent(high)}) if both completions had the same length; its completions are longer in "
                f"{_percent(one.longer)}."
            )


def _people(evaluation: Evaluation) -> Iterator[str]:
    for grader, one in evaluation.calibration.items():
        low, high = (100 * end for end in one.bias_ci95)
        kappa = f", Cohen's kappa {one.kappa:.2f}" if one.kappa is not None else ""
        yield (
            f"{grader} compared with people on {one.n} completions: the same score in {_percent(one.same)}{kappa}; it "
            f"scores {_lenience(one)} ({low:+.1f} to {high:+.1f} points). Passed by people and by it: "
            f"{one.confusion['yes_yes']}; by people alone: {one.confusion['yes_no']}; by it alone: "
            f"{one.confusion['no_yes']}; by neither: {one.confusion['no_no']}."
        )
        for name, fixed in one.corrected.items():
            low, high = fixed.ci95
            whose = "its own" if fixed.own else "all"
            yield (
                f"{grader}, {name} as people would score it: {_percent(fixed.mean)} ({_percent(low)} to {_percent(high)}), "
                f"from {whose} {fixed.labelled} labels."
            )


def _lenience(one: Calibration) -> str:
    points = f"{abs(100 * one.bias):.1f} points"
    return f"{points} above them" if one.bias > 0 else f"{points} below them" if one.bias < 0 else "as they do"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
