"""Rules about graders: whether the items have what the graders of the job read.

The variables come in as text (`Context.variables`), since data and graders know nothing of each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ftbridge.data.lint.rule import JSON, Context, Line, Problem, kind_of, rule

_STEP = re.compile(r"\.([^\s.\[\]{}]+)|\[(\d+)\]")


def _line(**fields: Any) -> str:
    return json.dumps({"messages": [{"role": "user", "content": "2+2? Number only."}], **fields})


@rule(
    "FTB095",
    "grader-variable-missing",
    kind="line",
    severity="error",
    methods=("supervised", "reinforcement"),
    reason=(
        "A grader that reads a field that an item lacks fails with invalid_variable_error, and the completion gets "
        "no reward."
    ),
    source="OpenAI graders guide: templates read item and sample; grader errors of the fine-tuning API",
    bad=_line(completion="4"),
    good=_line(reference_answer="4"),
)
def grader_variable_missing(line: Line) -> Iterator[Problem]:
    """A grader reads a field that the item does not have."""
    document, context = line.document, line.context
    if not isinstance(document, dict) or not _is_graded(context):
        return
    for variable in context.variables:
        # The evaluator adds `reference`, the last answer, to items that are supervised examples.
        if not variable.startswith("item") or (context.method == "supervised" and variable == "item.reference"):
            continue
        missing = _missing(document, variable)
        if missing:
            at, instead = missing
            yield Problem(at, f"is missing, but a grader reads {{{{ {variable} }}}}: {instead}.")


def _is_graded(context: Context) -> bool:
    """Whether graders see these lines: all reinforcement data, and the test file of other methods."""
    return bool(context.variables) and (context.method == "reinforcement" or context.role == "test")


def _missing(document: dict[str, JSON], variable: str) -> tuple[str, str] | None:
    """Where a path leaves what exists, and what there is instead; None when it leads to a value."""
    value: JSON = {key: entry for key, entry in document.items() if key not in ("messages", "tools")}
    at, owner = "", "the item"
    for step in _STEP.finditer(variable):
        key, position = step.groups()
        path = f"{at}.{key}".lstrip(".") if key is not None else f"{at}[{position}]"
        if key is not None:
            if not isinstance(value, dict):
                return path, f"{owner} is {kind_of(value)} and has no keys"
            if key not in value:
                nothing = "no fields" if not at else "no keys"
                keys = ", ".join(list(value)[:8])
                return path, f"{owner} has {f'the keys {keys}' if keys else nothing}"
            value = value[key]
        else:
            if not isinstance(value, list):
                return path, f"{owner} is {kind_of(value)}, not a list"
            if int(position) >= len(value):
                return path, f"{owner} has {len(value)} elements, counted from 0"
            value = value[int(position)]
        at = owner = path
    return None
