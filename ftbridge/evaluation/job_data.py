"""A job as every command reads it: its spec, its prepared data, and the request that a provider would get.

    spec ── prepare ──▶ splits, manifest ── resolve ──▶ "auto" as numbers ── map ──▶ request, field mapping
                        items, questions               (for a provider)             (of that provider)

A run, a dry run, a plan, a probe and an evaluation outside a run compose these steps here, so that they settle a spec alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ftbridge import providers
from ftbridge.data.manifest import Manifest, SplitName, load_manifest
from ftbridge.data.notation import count_reasoning
from ftbridge.data.prepare import prepare
from ftbridge.evaluation.items import Item, load_items
from ftbridge.evaluation.retention.questions import write_questions
from ftbridge.providers import MappedJob
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec, SpecFile
from ftbridge.spec.resolve import ResolvedSpec


@dataclass(frozen=True)
class JobData:
    """A spec, the folder of its canonical splits, and their manifest. What is read of the folder is read once."""

    spec: JobSpec
    folder: Path
    manifest: Manifest

    @classmethod
    def prepare(cls, spec_file: SpecFile, folder: Path) -> JobData:
        """Write the splits of a spec, and its retention questions, to `folder`. Raises as `data.prepare.prepare` does."""
        job = cls(spec_file.spec, folder, prepare(spec_file.spec, base=spec_file.base, out=folder))
        job._write_questions()
        return job

    @classmethod
    def of_run(cls, run: Run) -> JobData:
        """The data in a run's folder, with its resolved spec. Raises `DataError` where they are not prepared."""
        return cls(run.resolved_spec(), run.data, load_manifest(run.data))

    @property
    def examples(self) -> int:
        """Training examples."""
        return self.manifest.splits["train"].examples

    @property
    def train(self) -> Path:
        """The canonical training split."""
        return self.path("train")

    def path(self, split: SplitName) -> Path:
        """The file of a split, which exists where the manifest has the split."""
        return self.folder / f"{split}.jsonl"

    @cached_property
    def reasoning(self) -> int:
        """Training examples whose completion has reasoning; "auto" of `local.thinking` is settled by it."""
        return count_reasoning(self.train)

    @cached_property
    def items(self) -> list[Item]:
        """The test items; none where the spec has no test data."""
        return load_items(self.path("test")) if self.path("test").exists() else []

    @cached_property
    def questions(self) -> list[Item]:
        """What retention asks; none where the spec does not want it measured. Written where an older run lacks them."""
        if self.spec.evaluation.retention is None:
            return []
        if not self._questions_path.exists():
            self._write_questions()
        return load_items(self._questions_path)

    def resolve(self, provider: str) -> ResolvedSpec:
        """The spec with its "auto" fields settled for these data and this provider."""
        return providers.resolve(self.spec, self.examples, provider, self.reasoning)

    def map(self, provider: str) -> MappedJob:
        """The resolved spec and its field mapping at a provider. Refused fields are in the mapping, and raise nothing."""
        return providers.map_fields(self.resolve(provider), provider)

    @property
    def _questions_path(self) -> Path:
        return self.folder / "retention.jsonl"

    def _write_questions(self) -> None:
        if (retention := self.spec.evaluation.retention) is not None:
            write_questions(retention, self.train, self._questions_path)
