"""The candidates of a spec: base, its baselines, tuned; and how each of them asks."""

from __future__ import annotations

from pathlib import Path

from ftbridge.errors import UsageError
from ftbridge.evaluation.candidates import Candidate, few_shot, instructed, plain
from ftbridge.evaluation.retrieval import retrieval
from ftbridge.spec import JobSpec


def candidates_of(spec: JobSpec, train: Path) -> list[Candidate]:
    """The candidates a spec asks for: base first, then its baselines, tuned last.

    `train` is the canonical training split; it is read only when `few_shot` first asks. Raises `UsageError` for a documents
    folder without text.
    """
    candidates = [
        baseline(name, spec, train)
        for name in ("zero_shot", "few_shot", "retrieval")
        if name in spec.evaluation.baselines
    ]
    return [Candidate("base", plain), *candidates, Candidate("tuned", plain)]


def baseline(name: str, spec: JobSpec, train: Path) -> Candidate:
    """One of the candidates that are the base model, prompted. Raises `UsageError` for retrieval without documents."""
    settings = spec.evaluation
    match name:
        case "zero_shot" if settings.system is not None:
            return instructed(settings.system)
        case "zero_shot":
            return Candidate(name, plain, shares="base")
        case "few_shot":
            return few_shot(train, examples=settings.few_shot_examples, seed=spec.seed, by=settings.few_shot_selection)
        case "retrieval" if settings.documents is not None:
            return retrieval(Path(settings.documents))
        case "retrieval":
            hint = "Name their folder: evaluation.documents in the spec, or --documents FOLDER"
            raise UsageError("retrieval needs documents.", hint=hint)
        case _:
            return Candidate(name, plain)
