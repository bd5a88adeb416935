"""Sentences for what pydantic finds wrong: the field as the user wrote it, the problem, and the nearest known key.

Every file, request and record that pydantic checks is reported in these words: `problems` for a whole spec, `first_problem`
where one sentence is enough, `field_of` and `reason` for callers that put them together themselves.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeGuard, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ftbridge.redaction import without_secrets

Problem = TypeVar("Problem", bound=Mapping[str, Any])
LONGEST_VALUE = 60
"""Characters of a value that a sentence quotes."""
_TYPES = ("int", "float", "str", "bool", "list", "dict")
_BRANCHES = frozenset(_TYPES) | {f"constrained-{name}" for name in _TYPES}
_BRANCH = re.compile(r"[a-z-]+\[.*\]$")
"""A branch that pydantic names by its type, such as `list[Part]` or `literal['auto']`."""


def first_problem(error: ValidationError, within: str = "", *, root: Any = None) -> str:
    """`FIELD: REASON` for the first problem, or the reason alone where the whole value is wrong; without a full stop.

    `within` is the path of what was checked, which the field's own path is appended to. `root` is the annotation that was
    checked; it is needed where that is a union told apart by `type`, whose names pydantic mixes into the path.
    """
    problems = error.errors(include_url=False)
    field = field_of(problems[0]["loc"], within, root=root)
    problem = closest([one for one in problems if field_of(one["loc"], within, root=root) == field])[0]
    return f"{field}: {reason(problem)}" if field else reason(problem)


def closest(problems: Sequence[Problem]) -> list[Problem]:
    """Of one field's problems, those that say most: where a branch of a union took the value's type, what it misses there.

    So 60 for `1..50 or "auto"` is too large, and not also "not auto".
    """
    return [one for one in problems if not _is_of_another_type(one["type"])] or list(problems)


def _is_of_another_type(kind: str) -> bool:
    return kind == "literal_error" or kind.endswith(("_type", "_parsing"))


def field_of(loc: tuple[int | str, ...], within: str = "", *, root: Any = None) -> str:
    """The path of a problem as people write it, such as `messages[0].content`; pydantic's names of union branches left out."""
    if root is not None:
        keys = _walk(root, loc)[0]
    else:
        keys = [f"[{part}]" if isinstance(part, int) else part for part in loc if not _is_branch(part)]
    return ".".join([within, *keys] if within else keys).replace(".[", "[")


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and (part in _BRANCHES or _BRANCH.match(part) is not None)


def reason(problem: Mapping[str, Any]) -> str:
    """What is wrong with the value of one of `ValidationError.errors()`, in words and without a full stop."""
    match problem["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing" | "union_tag_not_found":
            return "is missing"
        case "value_error" | "assertion_error":
            return str(problem["ctx"]["error"]).rstrip(".")
        case "union_tag_invalid":
            allowed = problem["ctx"]["expected_tags"].replace("'", "")
            return f"there is no type {problem['ctx']['tag']}; known types: {allowed}"
        case "json_invalid":
            return f"not valid JSON: {problem['ctx']['error']}"
        case _:
            return f"{problem['msg'].removeprefix('Input ').rstrip('.')}, not {_quoted(problem['input'])}"


def _quoted(value: Any) -> str:
    """A value as JSON, shortened, without what looks like a secret."""
    text = without_secrets(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def problems(error: ValidationError, root: type[BaseModel], where: str) -> list[str]:
    """One sentence for each problem; the branches of a union that fail together are sentences as one."""
    by_field: dict[str, list[ErrorDetails]] = {}
    for problem in error.errors():
        field = field_of(problem["loc"], root=root)
        if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
            field += ".type"
        by_field.setdefault(field, []).append(problem)
    return [
        f"{where}: {f'{field}: ' if field else ''}{' Or: '.join(_sentence(problem, root) for problem in closest(same))}"
        for field, same in by_field.items()
    ]


def _sentence(problem: ErrorDetails, root: type[BaseModel]) -> str:
    nearest = _nearest(root, problem["loc"]) if problem["type"] == "extra_forbidden" else ""
    return f"{reason(problem)}{nearest}."


def _walk(root: Any, loc: tuple[int | str, ...]) -> tuple[list[str], Any]:
    """The user's keys on the way that pydantic tells, and the annotation it ends at."""
    keys: list[str] = []
    node: Any = root
    for part in loc:
        branches = _branches(node)
        only = branches[0] if len(branches) == 1 else None
        if isinstance(part, int):
            keys.append(f"[{part}]")
            node = next((get_args(branch)[0] for branch in branches if get_origin(branch) is list), None)
        elif part == "[key]":
            continue
        elif len(branches) > 1:
            node = next((branch for branch in branches if _is_called(branch, part)), None)
        elif get_origin(only) is dict:
            keys.append(part)
            node = get_args(only)[1]
        elif _is_model(only):
            keys.append(part)
            node = only.model_fields[part].annotation if part in only.model_fields else None
    return keys, node


def _branches(annotation: Any) -> list[Any]:
    """What an annotation can hold, beside None: the branches of unions, without their marks."""
    if get_origin(annotation) is Annotated:
        return _branches(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [branch for inner in get_args(annotation) for branch in _branches(inner)]
    return [] if annotation in (None, type(None)) else [annotation]


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_called(branch: Any, label: str) -> bool:
    """Whether pydantic calls this branch of a union so: a list by its type, a model by its class or its `type`."""
    if not _is_model(branch):
        return get_origin(branch) is list and "list[" in label
    tag = branch.model_fields.get("type")
    return label == branch.__name__ or (tag is not None and label in get_args(tag.annotation))


def _nearest(root: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """What to say of an unknown key: the nearest known one, or all of them."""
    models = [branch for branch in _branches(_walk(root, loc[:-1])[1]) if _is_model(branch)]
    if len(models) != 1:
        return ""
    field_names = list(models[0].model_fields)
    close = difflib.get_close_matches(str(loc[-1]), field_names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known keys: {', '.join(field_names)}"
