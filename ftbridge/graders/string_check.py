"""OpenAI's `string_check` grader: one text compared with another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftbridge.graders.result import Outcome
from ftbridge.graders.template import render
from ftbridge.spec.graders import StringCheckGrader


def grade(grader: StringCheckGrader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Outcome:
    """1.0 when the check holds, else 0.0.

        eq      input and reference are the same text          ne      they are not
        like    input contains reference                       ilike   it does when case is ignored

    Compared letter by letter: nothing is stripped, and no Unicode form is changed. `ilike` compares case-folded text
    (Unicode 3.13, default caseless matching). Everything contains an empty reference. Source: OpenAI's graders guide.
    Raises `GraderError` when a template names what is not there.
    """
    text = render(grader.input, item, sample, grader=grader.name)
    reference = render(grader.reference, item, sample, grader=grader.name)
    holds = {
        "eq": text == reference,
        "ne": text != reference,
        "like": reference in text,
        "ilike": reference.casefold() in text.casefold(),
    }
    return Outcome(float(holds[grader.operation]))
