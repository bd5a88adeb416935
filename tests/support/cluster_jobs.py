"""A prepared run of a cluster's provider, and what its launches and worker recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftbridge.providers.base import Submission
from ftbridge.runner.start import create_run
from ftbridge.spec import SpecFile
from support.jobs import lines, write_job


def submission_of(
    folder: Path, provider: str, token: str = "token", model: str | Path = "smollm2-135m-instruct", **changes: Any
) -> Submission:
    """The submission of a small run in `folder/home`, as its driver would make it. Nothing is submitted."""
    spec = write_job(folder, model=model, **{"local.quantization": "none", **changes})
    run = create_run(SpecFile.of(spec), provider, lint=False, home=folder / "home")
    request = json.loads(run.lowering_path.read_text())["request"]
    validation = run.data / "validation.jsonl"
    return Submission(
        token=token, folder=run.path, request=request, train=run.data / "train.jsonl", validation=validation
    )


def launches(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Events of one type in the journal of launches."""
    return [event["data"] for event in lines(folder / "cluster" / "launches.jsonl") if event["type"] == kind]
