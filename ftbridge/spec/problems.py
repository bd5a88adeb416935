"""Sentences for what pydantic finds wrong: the field as the user wrote it, the problem, and the nearest known key."""

from __future__ import annotations

import difflib
from types import UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ftbridge.redaction import without_secrets


def problems(error: ValidationError, root: type[BaseModel], where: str) -> list[str]:
    """One sentence for each problem; the branches of a union that fail together are sentences as one."""
    sentences: dict[str, list[str]] = {}
    for problem in error.errors():
        field = _field(root, problem["loc"])
        kind = problem["type"]
        if kind == "extra_forbidden":
            text = f"unknown key{_nearest(root, problem['loc'])}."
        elif kind == "missing":
            text = "is missing."
        elif kind == "value_error":
            text = f"{problem['ctx']['error']}."
        elif kind == "union_tag_not_found":
            field, text = f"{field}.type", "is missing."
        elif kind == "union_tag_invalid":
            allowed = problem["ctx"]["expected_tags"].replace("'", "")
            field, text = f"{field}.type", f"there is no type {problem['ctx']['tag']}; known types: {allowed}."
        else:
            text = f"{problem['msg'].removeprefix('Input ')}, not {without_secrets(repr(problem['input']))}."
        sentences.setdefault(field, []).append(text)
    return [
        f"{where}: {f'{field}: ' if field else ''}{texts[0] if len(texts) == 1 else ' Or: '.join(texts)}"
        for field, texts in sentences.items()
    ]


def _field(root: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """Dotted path of the user's keys: pydantic's names of union branches are left out."""
    return ".".join(_walk(root, loc)[0]).replace(".[", "[")


def _walk(root: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], Any]:
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
