"""Graders in OpenAI's own schemas, and six of ours: each turns one item and one answer into a reward.

    item     the test example's own fields, and its `reference`
    sample   the answer: `output_text`, `output_json`, `output_tools`, `choices`

    check(grader, item)              before anything is spent: what would fail for every answer
    grade(grader, item, sample)      one answer; what goes wrong is in the result, with reward 0
    grade_all(grader, pairs)         many; graders that wait for others work side by side
    variables(grader)                the template variables it reads

A new type of grader is a model in `ftbridge.spec.graders`, a module here with a `grade` function that returns an `Outcome`,
and an entry in `kinds.KINDS`.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ftbridge.graders.calls import Calls
from ftbridge.graders.kinds import Grading, kind_of
from ftbridge.graders.preflight import Uninformative, preflight, remarks
from ftbridge.graders.python import PythonPolicy
from ftbridge.graders.result import ErrorName, GraderResult, Metadata, Outcome, failed, openai_document
from ftbridge.graders.sample import NAMES, BadSample, complete
from ftbridge.graders.template import GraderError, VariableMissing, render
from ftbridge.graders.template import variables as _variables
from ftbridge.spec.graders import (
    Grader,
    JsonSchemaGrader,
    LabelModelGrader,
    PairwiseGrader,
    PythonGrader,
    ScoreModelGrader,
    StringCheckGrader,
    parts_of,
)

__all__ = [
    "Calls",
    "ErrorName",
    "GraderError",
    "GraderResult",
    "Metadata",
    "PythonPolicy",
    "Uninformative",
    "check",
    "grade",
    "grade_all",
    "judges_of",
    "openai_document",
    "preflight",
    "reads_answer",
    "remarks",
    "score",
    "templates",
    "together",
    "variables",
]

JUDGES = 8
"""Questions to judges that are under way at once."""


def grade(
    grader: Grader,
    item: Mapping[str, Any],
    sample: Mapping[str, Any],
    *,
    policy: PythonPolicy | None = None,
    calls: Calls | None = None,
) -> GraderResult:
    """One answer's reward, and whether it passed.

    What goes wrong with this item, this answer or a judge is in `errors`, with reward 0. Raises `GraderError` for a grader
    that can grade nothing (a template, formula or schema that cannot be read, Python source that is not allowed), and
    `MissingDependency` without the libraries it needs. `policy` defaults to that of the environment; `calls` holds the
    questions to judges that were asked before, and takes new ones.
    """
    policy = policy or PythonPolicy.from_environment()
    _check(grader, policy)
    began = time.perf_counter()
    try:
        sample = complete(sample)
        grading = Grading(
            item,
            sample,
            policy,
            calls,
            grade_part=lambda part: grade(part, item, sample, policy=policy, calls=calls),
            score=score,
        )
        outcome = kind_of(grader).grade(grader, grading)
    except BadSample as error:
        outcome = failed("sample_parse_error", str(error))
    except VariableMissing as error:
        outcome = _missing(error)
    except RecursionError:
        outcome = failed("other_error", "the item or the completion is nested too deeply")
    return _result(grader, outcome, time.perf_counter() - began)


def grade_all(
    grader: Grader,
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    *,
    policy: PythonPolicy | None = None,
    calls: Calls | None = None,
    on_result: Callable[[GraderResult], None] | None = None,
    at_once: int | None = None,
) -> list[GraderResult]:
    """`grade` of every (item, sample), in order. Python runs on every core; judges are asked `JUDGES` at a time, or `at_once`
    where that is less: so many questions are paid for nothing when the process is killed.

    `on_result` hears each result, in order and in this thread; when it raises, nothing more is asked.
    """
    policy = policy or PythonPolicy.from_environment()
    hear = on_result or (lambda result: None)
    workers = min(_workers(grader), at_once or JUDGES) if judges_of([grader]) else _workers(grader)
    pool = ThreadPoolExecutor(workers)
    side_by_side = pool.map if workers > 1 else map
    graded: list[GraderResult] = []
    try:
        for result in side_by_side(lambda pair: grade(grader, *pair, policy=policy, calls=calls), pairs):
            graded.append(result)
            hear(result)
    finally:
        pool.shutdown(cancel_futures=True)
    return graded


def check(grader: Grader, item: Mapping[str, Any], *, policy: PythonPolicy | None = None) -> None:
    """Raise what would keep the grader from grading any answer to this item; for use before answers exist.

    That is what `grade` raises; a `GraderError` for a template that names what the item, or any sample, does not have; and
    `Uninformative` for an item on which the grader scores every completion alike, or cannot grade the expected one.
    """
    _check(grader, policy or PythonPolicy.from_environment())
    for variable in sorted(variables(grader)):
        if variable.startswith("item"):
            render(f"{{{{ {variable} }}}}", item, {}, grader=grader.name)
        elif variable.removeprefix("sample.").partition(".")[0].partition("[")[0] not in NAMES:
            raise VariableMissing(
                f"grader {grader.name}: {{{{ {variable} }}}} does not exist: a sample has {', '.join(NAMES)}.",
                hint="Change the template.",
                variable=variable,
            )
    preflight(grader, item)


def variables(grader: Grader) -> set[str]:
    """The template variables a grader reads, such as `item.tags[0].name` and `sample.output_text`.

    A python grader's source is not looked into. Raises `GraderError` for a template that cannot be read.
    """
    return {name for template in templates(grader) for name in _variables(template, grader=grader.name)}


def templates(grader: Grader) -> tuple[str, ...]:
    """Every template of a grader, those of the graders in a multi grader included."""
    return kind_of(grader).templates(grader)


def judges_of(graders: Sequence[Grader]) -> list[ScoreModelGrader | LabelModelGrader | PairwiseGrader]:
    """The graders that ask a model, those in multi graders and panels included, each as often as it is asked."""
    parts = [part for grader in graders for part in parts_of(grader)]
    return [part for part in parts if isinstance(part, (ScoreModelGrader, LabelModelGrader, PairwiseGrader))]


def reads_answer(grader: Grader) -> bool:
    """Whether the grader looks at the answer at all; one that does not gives every candidate the same reward."""
    parts = parts_of(grader)
    return any(isinstance(part, PythonGrader) for part in parts) or any(
        variable.startswith("sample.") for variable in variables(grader)
    )


def score(grader: Grader, result: GraderResult) -> float:
    """A result as a score from 0 to 1, for statistics.

    score_model by its range (its lowest is 0, its highest 1), and 0 for an answer it could not grade, wherever 0 lies in
    the range; what python and multi compute outside 0 to 1 is clipped.
    """
    if result.samples:
        scores = [score(grader, one) for one in result.samples if not one.is_missing]
        return math.fsum(scores) / len(scores) if scores else 0.0
    reward = result.reward
    if isinstance(grader, ScoreModelGrader):
        low, high = grader.range
        reward = 0.0 if result.errors else (reward - low) / (high - low)
    return min(1.0, max(0.0, reward))


def together(grader: Grader, results: Sequence[GraderResult]) -> GraderResult:
    """One result for all completions of an item: the mean reward of those that have a score, and each of them."""
    present = [one for one in results if not one.is_missing]
    reward = math.fsum(one.reward for one in present) / len(present) if present else 0.0
    return GraderResult(
        name=grader.name,
        type=grader.type,
        reward=reward,
        passed=_passed(grader, reward, not present),
        metadata=Metadata(
            execution_time=math.fsum(one.metadata.execution_time for one in results),
            calls=[call for one in results for call in one.metadata.calls],
        ),
        samples=list(results),
    )


def _check(grader: Grader, policy: PythonPolicy) -> None:
    """What can be said of a grader without an item."""
    kind_of(grader).check(grader, policy)
    variables(grader)


def _missing(error: VariableMissing) -> Outcome:
    """A variable that is not there; a sample without `output_json` is an answer that is not JSON."""
    if error.at == "sample" and re.match(r"sample\.output_json\b", error.variable):
        return failed("sample_parse_error", f"the completion is not JSON, but a template reads {error.variable}")
    return failed("invalid_variable_error", error.message)


def _result(grader: Grader, outcome: Outcome, seconds: float) -> GraderResult:
    errors, reward = dict(outcome.errors), outcome.reward
    if not math.isfinite(reward):
        errors["other_error"], reward = f"the reward is {reward}, not a finite number", 0.0
    return GraderResult(
        name=grader.name,
        type=grader.type,
        reward=reward,
        passed=_passed(grader, reward, bool(errors)),
        errors=errors,
        sub_rewards=dict(outcome.sub_rewards),
        metadata=Metadata(execution_time=seconds, details=dict(outcome.details), calls=list(outcome.calls)),
    )


def _passed(grader: Grader, reward: float, in_error: bool) -> bool | None:
    """At the threshold or above, and without errors; graders that only say yes or no pass with 1."""
    threshold = 1.0
    if not isinstance(grader, (StringCheckGrader, LabelModelGrader, JsonSchemaGrader)):
        if grader.pass_threshold is None:
            return None
        threshold = grader.pass_threshold
    return reward >= threshold and not in_error


def _workers(grader: Grader) -> int:
    parts = parts_of(grader)
    if judges_of(parts):
        return JUDGES
    return (os.cpu_count() or 1) if any(isinstance(part, PythonGrader) for part in parts) else 1
