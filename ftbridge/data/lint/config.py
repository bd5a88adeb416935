"""What a project asks of the linter: `[tool.ftbridge.lint]` in the nearest pyproject.toml.

    [tool.ftbridge.lint]
    target = "azure"
    ignore = ["FTB3"]
    max-findings = 50

    [tool.ftbridge.lint.per-file-ignores]
    "test*.jsonl" = ["FTB303"]

The command line wins over it.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import sys
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge.data.lint.rule import Method
from ftbridge.data.targets import TargetName
from ftbridge.errors import UsageError
from ftbridge.spec.problems import field_of, reason


class LintConfig(BaseModel):
    """The table's keys, spelled with hyphens in TOML. Every one may be absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"))
    target: TargetName | None = None
    method: Method | None = None
    model: str | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    max_findings: Annotated[int, Field(ge=0)] | None = None
    per_file_ignores: dict[str, tuple[str, ...]] = {}

    def ignored_for(self, path: str) -> tuple[str, ...]:
        """The codes that are ignored in one file, by its name or path."""
        name = Path(path).name
        return tuple(
            code
            for pattern, codes in self.per_file_ignores.items()
            if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(path, pattern)
            for code in codes
        )


def find_config(folder: Path) -> LintConfig:
    """The table of the nearest pyproject.toml from `folder` upwards that has one; empty if none has.

    Raises `UsageError` with the file and key for what cannot be read or is not a setting.
    """
    for directory in (folder.resolve(), *folder.resolve().parents):
        path = directory / "pyproject.toml"
        if path.is_file() and (table := _table(path)) is not None:
            return _checked(path, table)
    return LintConfig()


def _table(path: Path) -> object | None:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        document = toml.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}.") from None
    tool = document.get("tool", {}).get("ftbridge", {})
    return tool.get("lint") if isinstance(tool, dict) else None


def _checked(path: Path, table: object) -> LintConfig:
    try:
        return LintConfig.model_validate(table)
    except ValidationError as error:
        problem = error.errors()[0]
        at = field_of(problem["loc"], "tool.ftbridge.lint")
        if problem["type"] == "extra_forbidden":
            setting_names = [name.replace("_", "-") for name in LintConfig.model_fields]
            close = difflib.get_close_matches(str(problem["loc"][-1]), setting_names, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(setting_names)}."
            raise UsageError(f"{path}: {at} is not a setting of the linter.", hint=hint) from None
        raise UsageError(f"{path}: {at}: {reason(problem)}.") from None
