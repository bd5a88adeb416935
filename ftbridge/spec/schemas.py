"""The JSON Schemas (draft 2020-12) of what ftbridge reads and writes, made from the models themselves."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

_MODELS = {
    "job": "ftbridge.spec.job.JobSpec",
    "example": "ftbridge.data.examples.ChatExample",
    "preference-example": "ftbridge.data.examples.PreferenceExample",
    "reinforcement-example": "ftbridge.data.examples.ReinforcementExample",
    "lint-report": "ftbridge.data.lint.findings.LintReport",
    "journal-event": "ftbridge.runs.journal.Event",
    "evaluation": "ftbridge.evaluation.document.Evaluation",
    "lowering": "ftbridge.spec.lowering.Lowering",
    "manifest": "ftbridge.data.manifest.Manifest",
    "scenario": "ftbridge.server.simulator.scenario.Scenario",
    "comparison": "ftbridge.evaluation.compare.Comparison",
    "plan": "ftbridge.planning.plan.Plan",
    "proof": "ftbridge.migrate.prove.Proof",
}
"""The model of each document, by name; imported when its schema is wanted."""

NAMES = tuple(_MODELS)
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
    module, _, attribute = _MODELS[name].rpartition(".")
    model: type[BaseModel] = getattr(importlib.import_module(module), attribute)
    return model


if __name__ == "__main__":
    write_all(Path("schemas"))
