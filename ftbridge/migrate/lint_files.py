"""Linting the files that were downloaded, each training file with the validation files of its jobs, once.

    files on disk ─▶ groups that belong together ─▶ lint ─▶ file_linted {errors, warnings, rules} or file_lint_failed

A file that was linted as it is, and beside the same kind of files, is not linted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ftbridge.data.lint.engine import Options, lint
from ftbridge.data.lint.engine import Role as LintRole
from ftbridge.errors import FtbridgeError
from ftbridge.migrate.account import Inventory
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.loading import saved_files
from ftbridge.migrate.manifest import WantedFile


def lint_files(
    migration: Migration, inventory: Inventory, wanted: Sequence[WantedFile], tell: Callable[[str], None]
) -> None:
    """Lint downloaded data, each training file together with the validation files of its jobs, unless that was done before."""
    saved = {id: one for id, one in saved_files(migration).items() if one.is_here}
    linted = {_key(event.data) for event in migration.of("file_linted")}
    for group in _groups(inventory, [one for one in wanted if one.id in saved]):
        first = group[0]
        keys = {one.id: _key({"id": one.id, "sha256": saved[one.id].sha256, "beside": len(group) > 1}) for one in group}
        if keys[first.id] in linted:
            continue
        tell(f"linting {first.filename or first.id}")
        has_validation = any(job.validation_file for job in inventory.jobs if job.id in first.jobs)
        base = (first.base or "").removeprefix("ft:").split(":")[0] or None
        # A validation file that cannot be had is named as such: its job was not without one.
        ignore = ("FTB097",) if has_validation and len(group) == 1 else ()
        options = Options(target="openai", method=first.method, model=base, keep=1, ignore=ignore)  # type: ignore[arg-type]
        paths = [path for one in group if (path := saved[one.id].path) is not None]
        try:
            reports = lint(paths, options, roles=[_LINT_ROLES[one.role] for one in group]).files
        except FtbridgeError as error:
            migration.append("file_lint_failed", id=first.id, sha256=saved[first.id].sha256, why=error.message)
            continue
        for one, report in zip(group, reports, strict=True):
            if keys[one.id] in linted:
                continue  # a validation file of several jobs
            linted.add(keys[one.id])
            migration.append(
                "file_linted",
                id=one.id,
                sha256=saved[one.id].sha256,
                beside=[other.id for other in group if other is not one],
                examples=report.examples,
                tokens=report.tokens,
                errors=report.errors,
                warnings=report.warnings,
                rules=report.rules,
            )


_LINT_ROLES: dict[str, LintRole] = {"training": "train", "validation": "validation"}


def _key(data: Mapping[str, Any]) -> tuple[str, str | None, bool]:
    """What a file was linted as: its content, and whether other files of its jobs were beside it."""
    return data["id"], data["sha256"], bool(data.get("beside"))


def _groups(inventory: Inventory, downloaded: Sequence[WantedFile]) -> Iterator[list[WantedFile]]:
    """The files to lint together, the one that they are about first; a validation file alone where nothing trains beside it."""
    validation = {one.id: one for one in downloaded if one.role == "validation"}
    trained_beside: set[str] = set()
    for one in downloaded:
        if one.role != "training":
            continue
        ids = dict.fromkeys(job.validation_file for job in inventory.jobs if job.id in one.jobs)
        beside = [validation[id] for id in ids if id in validation]
        trained_beside |= {other.id for other in beside}
        yield [one, *beside]
    yield from ([one] for one in validation.values() if one.id not in trained_beside)
