"""Graders of JSON answers, ours beyond OpenAI's: `json_schema` (valid or not) and `json_fields` (share of equal fields)."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from ftbridge import extras
from ftbridge.graders.result import Outcome, failed
from ftbridge.graders.sample import NotJson, parse_json
from ftbridge.graders.template import GraderError, render
from ftbridge.spec.graders import JsonFieldsGrader, JsonSchemaGrader

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_PATH = re.compile(r"(?:[^.\[\]]+|\[\d+\])(?:\.[^.\[\]]+|\[\d+\])*")
_ABSENT = object()


def grade_schema(grader: JsonSchemaGrader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Outcome:
    """1 when the input is JSON that the schema accepts, else 0 and the first reason in `details`.

    JSON Schema draft 2020-12, or the one that `$schema` names; `format` is not checked, references to other documents are
    not followed. Text that is not JSON is an answer that does not fit, not an error: finding it is this grader's work.
    """
    try:
        document = parse_json(_unfenced(render(grader.input, item, sample, grader=grader.name), grader.fenced))
    except NotJson as error:
        return Outcome(0.0, details={"violation": f"not JSON: {error}"})
    # One violation is enough, and the first is the same every time: errors come in the order of the schema's keywords.
    validator = _validator(json.dumps(grader.json_schema), grader.name)
    try:
        violation = next(validator.iter_errors(document), None)
    except RecursionError:
        return failed("other_error", "the completion is nested too deeply for the schema")
    except Exception as error:  # jsonschema raises what its referencing library raises, whose names differ by version
        raise GraderError(
            f"grader {grader.name}: json_schema cannot be used: {error}.",
            hint="References stay inside the schema: #/$defs/NAME.",
        ) from None
    if violation is None:
        return Outcome(1.0)
    return Outcome(0.0, details={"violation": f"{violation.json_path}: {violation.message[:500]}"})


def check_schema(grader: JsonSchemaGrader) -> None:
    """Raise `GraderError` when the schema is none, `MissingDependency` without jsonschema."""
    _validator(json.dumps(grader.json_schema), grader.name)


def grade_fields(grader: JsonFieldsGrader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Outcome:
    """The share of fields that both sides have with the same value, 0 to 1.

    The fields are those named, or every top-level key of either side. A named field that the reference has not is an error.
    Same value means the same JSON: 1 and 1.0 are one number, 1 and true are not, the order of keys does not matter, that
    of lists does. Two empty objects score 1. An answer that is not JSON scores 0; a reference that is not is an error.
    """
    try:
        reference = parse_json(_unfenced(render(grader.reference, item, sample, grader=grader.name), grader.fenced))
    except NotJson as error:
        return failed("other_error", f"the reference is not JSON: {error}")
    try:
        completion = parse_json(_unfenced(render(grader.input, item, sample, grader=grader.name), grader.fenced))
    except NotJson as error:
        return Outcome(0.0, details={"violation": f"not JSON: {error}"})
    fields = grader.fields
    if fields is None:
        if not isinstance(reference, Mapping):
            return failed("other_error", "the reference is not a JSON object; name the fields to compare")
        if not isinstance(completion, Mapping):
            return Outcome(0.0, details={"violation": "the completion is not a JSON object"})
        pairs = {
            key: (completion.get(key, _ABSENT), reference.get(key, _ABSENT)) for key in {**reference, **completion}
        }
    else:
        pairs = {path: (_at(completion, path), _at(reference, path)) for path in fields}
        if unknown := [path for path, (_, expected) in pairs.items() if expected is _ABSENT]:
            return failed("other_error", f"the reference has no field {', '.join(unknown)}")
    wrong = [field for field, (one, other) in pairs.items() if not same_json(one, other)]
    return Outcome(1 - len(wrong) / len(pairs) if pairs else 1.0, details={"different": wrong} if wrong else {})


_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n`]*\n(.*?)^ {0,3}\1[`~]*[ \t]*$", re.DOTALL | re.MULTILINE)
"""A fenced block of Markdown (CommonMark 0.31, section 4.5)."""


def _unfenced(text: str, fenced: bool) -> str:
    """What stands in the only fenced block of a text, where that is allowed; else the text."""
    blocks = _FENCE.findall(text) if fenced else []
    return blocks[0][1] if len(blocks) == 1 else text


def check_fields(grader: JsonFieldsGrader) -> None:
    """Raise `GraderError` for a path that cannot be read."""
    for path in grader.fields or ():
        if not _PATH.fullmatch(path):
            raise GraderError(
                f"grader {grader.name}: the field {path!r} is not a valid path.",
                hint="Write order.id, tags[0] or [0].name.",
            )


def same_json(one: Any, other: Any) -> bool:
    """Whether two parsed JSON documents are the same: true is not 1, 1 is 1.0, keys have no order, lists have."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


@functools.lru_cache(maxsize=64)
def _validator(schema: str, grader: str) -> Any:
    try:
        from jsonschema import SchemaError, validators
        from referencing import Registry
    except ImportError:
        raise extras.missing("eval", f"the json_schema grader {grader}", "jsonschema") from None
    document = json.loads(schema)
    kind = validators.validator_for(document, default=validators.Draft202012Validator)
    try:
        kind.check_schema(document)
    except SchemaError as error:
        raise GraderError(
            f"grader {grader}: json_schema is not a JSON Schema: {error.json_path}: {error.message}.",
            hint="Check it against https://json-schema.org.",
        ) from None
    # An empty registry: jsonschema would otherwise fetch references over the network.
    return kind(document, registry=Registry())


def _at(document: Any, path: str) -> Any:
    for key, position in _STEP.findall(path):
        if key and isinstance(document, Mapping) and key in document:
            document = document[key]
        elif position and isinstance(document, list) and int(position) < len(document):
            document = document[int(position)]
        else:
            return _ABSENT
    return document
