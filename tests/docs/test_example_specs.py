"""Every example's spec is one that a run would take: data, graders, baselines and fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftbridge.evaluation.items import load_items
from ftbridge.evaluation.retrieval import retrieval
from ftbridge.runner.start import dry_run
from ftbridge.spec import SpecFile
from support.paths import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/job.yaml")), ids=lambda path: path.parent.name)
def test_an_example_would_run(path: Path) -> None:
    manifest, resolved, lowering = dry_run(SpecFile.of(path), "local")
    assert manifest.splits["train"].examples >= 10
    assert not [field for field in lowering.fields if field.outcome == "refused"]
    assert resolved.spec.evaluation.graders
    assert (path.parent / "README.md").exists()


def test_the_documents_of_the_judging_example_hold_the_facts_that_are_asked_for() -> None:
    folder = EXAMPLES / "judging"
    candidate = retrieval(folder / "documents")
    items = load_items(folder / "test.jsonl")
    found = sum(str(item.fields["fact"]).lower() in candidate.prompt(item).messages[0].text.lower() for item in items)
    assert found >= 0.9 * len(items)
