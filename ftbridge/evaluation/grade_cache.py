"""What judges said, kept: `grades.jsonl` of a run. A question that was asked is not asked, or paid, again.

A result stands while grader, item and answer are the same. Only graders that ask a model are kept; others are computed again.
Results with errors are not kept: the next time, the judge is asked again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge.files import sha256_bytes, write_text
from ftbridge.graders import GraderResult
from ftbridge.spec.graders import Grader

Grades = dict[str, GraderResult]
"""Results by `name_of`."""


class Grade(BaseModel):
    """One line of `grades.jsonl`."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="SHA-256 of grader, item and completion.")
    result: GraderResult = Field(description="The judge's prompt and reply, and the reward.")


def name_of(grader: Grader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """The SHA-256 of everything a result depends on.

    Fields of a grader that have their default are left out, so a field that a later version adds changes no name.
    """
    return _digest(grader.model_dump(mode="json", exclude_defaults=True), item, sample)


def name_in_version_0_1(grader: Grader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """The name that version 0.1 gave the same result: of every field of the grader."""
    return _digest(grader.model_dump(mode="json"), item, sample)


def lookup(grades: Grades, grader: Grader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> GraderResult | None:
    """The recorded result of this grader on this item and completion, or None."""
    name = name_of(grader, item, sample)
    return grades.get(name) or grades.get(name_in_version_0_1(grader, item, sample))


def _digest(definition: Mapping[str, Any], item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    return sha256_bytes(json.dumps([definition, dict(item), dict(sample)], sort_keys=True).encode())


def keep(grades: Grades, name: str, result: GraderResult) -> None:
    """Add a result if it is one to keep."""
    if result.metadata.calls and not result.errors:
        grades[name] = result


def read_grades(paths: Iterable[Path]) -> Grades:
    """The results in these files; files that are not there, and lines that cannot be read, hold none."""
    grades: Grades = {}
    for path in paths:
        for line in path.read_bytes().splitlines() if path.exists() else []:
            try:
                grade = Grade.model_validate_json(line)
            except ValidationError:
                continue
            grades[grade.name] = grade.result
    return grades


@contextmanager
def stored_grades(path: Path) -> Iterator[Grades]:
    """The results in a file, to which others are added; they are written when the context ends, also by an error."""
    grades = read_grades([path])
    try:
        yield grades
    finally:
        write_grades(path, grades)


def write_grades(path: Path, grades: Grades) -> None:
    """Write the results, whole or not at all; nothing when there are none. Raises `DiskFull`."""
    if grades:
        lines = [Grade(name=name, result=result).model_dump_json() for name, result in sorted(grades.items())]
        write_text(path, "\n".join(lines) + "\n")
