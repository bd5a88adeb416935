"""OpenAI's `multi` grader: a formula over the rewards of other graders."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from ftbridge.graders.formula import FUNCTIONS, ArithmeticFailed, Formula, FormulaError, parse
from ftbridge.graders.result import ErrorName, GraderResult, Outcome
from ftbridge.graders.template import GraderError
from ftbridge.spec.graders import MultiGrader, SingleGrader


def grade(grader: MultiGrader, part: Callable[[SingleGrader], GraderResult]) -> Outcome:
    """The formula over what `part` says of each grader.

    A grader in error counts with its reward, 0, and its error is told under its name. A formula without a result for these
    rewards (division by zero, a logarithm of 0) is `other_error`, and the reward is 0.
    """
    results = {key: part(inner) for key, inner in grader.graders.items()}
    rewards = {key: result.reward for key, result in results.items()}
    messages: dict[ErrorName, list[str]] = {}
    for key, result in results.items():
        for error, text in result.errors.items():
            messages.setdefault(error, []).append(f"{key}: {text}")
    reward = 0.0
    try:
        reward = compute(grader, rewards)
    except ArithmeticFailed as error:
        messages.setdefault("other_error", []).append(f"calculate_output: {error}")
    return Outcome(
        reward,
        errors={error: "; ".join(texts) for error, texts in messages.items()},
        details={key: result.metadata.details for key, result in results.items() if result.metadata.details},
        calls=tuple(call for result in results.values() for call in result.metadata.calls),
        sub_rewards=rewards,
    )


def compute(grader: MultiGrader, rewards: Mapping[str, float]) -> float:
    """The formula over the rewards of its graders, by their keys. Raises `ArithmeticFailed` where it has no result."""
    return _formula(grader).compute(rewards)


def check(grader: MultiGrader) -> None:
    """Raise `GraderError` for a formula that cannot be read, or names a grader that is not there (formula_parse_error)."""
    _formula(grader)


def same_for_all(grader: MultiGrader) -> tuple[str, str] | None:
    """Why the formula gives every completion the same reward, or none, and what to do; None where rewards differ.

    The formula is computed for 64 seeded draws of rewards from 0 to 1, the first with all 0 and all 1.
    """
    formula = _formula(grader)
    if not formula.names:
        return (
            "calculate_output names none of its graders, so every completion scores the same.",
            "Name them in the formula.",
        )
    dice, names = random.Random(0), sorted(grader.graders)
    draws = [dict.fromkeys(names, 0.0), dict.fromkeys(names, 1.0)]
    draws += [{name: dice.choice((0.0, 1.0, dice.random())) for name in names} for _ in range(62)]
    why = ""
    for rewards in draws:
        try:
            formula.compute(rewards)
        except ArithmeticFailed as error:
            why = str(error)
        else:
            return None
    return f"calculate_output has no result for any rewards from 0 to 1: {why}.", "Correct the formula."


def _formula(grader: MultiGrader) -> Formula:
    try:
        formula = parse(grader.calculate_output)
    except FormulaError as error:
        raise GraderError(
            f"grader {grader.name}: calculate_output cannot be read: {error}.",
            hint="A formula consists of grader names, numbers, + - * / ^, parentheses and functions.",
        ) from None
    if unknown := sorted(formula.names - grader.graders.keys()):
        raise GraderError(
            f"grader {grader.name}: calculate_output names {', '.join(unknown)}, which is not one of its graders.",
            hint=f"Its graders are {', '.join(grader.graders)}.",
        )
    if taken := sorted(FUNCTIONS & grader.graders.keys()):
        raise GraderError(f"grader {grader.name}: {', '.join(taken)} is a function.", hint="Rename this grader's key.")
    return formula
