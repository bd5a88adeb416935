"""The JSON Schemas (draft 2020-12) of what ftbridge reads and writes, made from the models themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

NAMES = (
    "job",
    "example",
    "preference-example",
    "reinforcement-example",
    "lint-report",
    "journal-event",
    "evaluation",
    "lowering",
    "manifest",
    "scenario",
    "comparison",
    "plan",
    "proof",
)
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(name: str) -> dict[str, Any]:
    """The schema of this name (one of `NAMES`)."""
    return {"$schema": _DIALECT, **_model(name).model_json_schema()}


def write_all(folder: Path) -> None:
    """Write every schema to `folder`/NAME.schema.json."""
    for name in NAMES:
        (folder / f"{name}.schema.json").write_text(text(name), encoding="utf-8")


def text(name: str) -> str:
    """A schema as the file holds it."""
    return json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"


def _model(name: str) -> type[BaseModel]:
    if name == "job":
        from ftbridge.spec import JobSpec

        return JobSpec
    if name == "example":
        from ftbridge.data.examples import ChatExample

        return ChatExample
    if name == "preference-example":
        from ftbridge.data.examples import PreferenceExample

        return PreferenceExample
    if name == "reinforcement-example":
        from ftbridge.data.examples import ReinforcementExample

        return ReinforcementExample
    if name == "lint-report":
        from ftbridge.data.lint.findings import LintReport

        return LintReport
    if name == "journal-event":
        from ftbridge.runs.journal import Event

        return Event
    if name == "evaluation":
        from ftbridge.evaluation.evaluate import Evaluation

        return Evaluation
    if name == "manifest":
        from ftbridge.data.manifest import Manifest

        return Manifest
    if name == "plan":
        from ftbridge.planning.plan import Plan

        return Plan
    if name == "comparison":
        from ftbridge.comparison import Comparison

        return Comparison
    if name == "proof":
        from ftbridge.migrate.prove import Proof

        return Proof
    if name == "scenario":
        from ftbridge.server.scripted.scenario import Scenario

        return Scenario
    from ftbridge.lowering import Lowering

    return Lowering


if __name__ == "__main__":
    write_all(Path("schemas"))
