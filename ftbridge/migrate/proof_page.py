"""The page of a proof: one self-contained HTML file for the person who decides whether the replacement goes live.

It shows the verdict in a sentence, the measures with their intervals and the noise floor, what was compared and with what data,
the items on which the replacement falls most behind, and a line to sign.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftbridge import files
from ftbridge.evaluation.verdict import PairedComparison
from ftbridge.evaluation.wording import margin_words
from ftbridge.migrate.measuring import Measured
from ftbridge.migrate.prove import Proof, Shown
from ftbridge.report.html.bars import Bar, difference_bar, reach_of, reach_words
from ftbridge.report.html.rendering import percent, render


@dataclass(frozen=True)
class MeasureRow:
    """One measure; shares are in words, and `paired` is None where it could not be compared."""

    measure: Measured
    replacement: str
    recorded: str
    noise: str
    paired: PairedComparison | None
    bar: Bar | None


@dataclass(frozen=True)
class ProofItem:
    """One item: its prompt, completions with their headings, and how the measures changed."""

    prompt: str
    completions: list[tuple[str, str]]
    changes: str


def write_page(proof: Proof, path: Path) -> Path:
    """Write the page to `path`, whole or not at all; returns the path. It may hold personal data: only its owner reads it."""
    files.write_text(path, page(proof))
    path.chmod(0o600)
    return path


def page(proof: Proof) -> str:
    """The page as text."""
    reach = reach_of([one.judged for one in proof.measures if one.judged is not None], proof.margin)
    return render(
        "proof.html.j2",
        package="ftbridge.migrate",
        now=proof.made,
        proof=proof,
        margin=margin_words(proof.margin),
        reach=reach_words(reach),
        measures=[_measure(one, reach) for one in proof.measures],
        facts=_facts(proof),
        worst=_items(proof.worst),
        refusals=_items(proof.refusals),
    )


def _measure(one: Measured, reach: float) -> MeasureRow:
    return MeasureRow(
        measure=one,
        replacement=_percent(one.replacement.mean if one.replacement.n else None),
        recorded=_percent(one.recorded.mean if one.recorded is not None else None),
        noise=_percent(one.noise),
        paired=one.judged,
        bar=difference_bar(one.judged, reach) if one.judged is not None else None,
    )


def _facts(proof: Proof) -> list[tuple[str, str]]:
    recorded = (
        f"{_day(proof.recorded_from)} to {_day(proof.recorded_to)}" if proof.recorded_from is not None else "unknown"
    )
    left_out = ", ".join(f"{count} {reason}" for reason, count in proof.left_out.items()) or "none"
    return [
        ("recorded model", proof.model),
        ("recorded", recorded),
        (
            "items compared",
            f"{proof.items}, each once greedily and {proof.samples} times at temperature {proof.temperature:g}",
        ),
        ("items left out", left_out),
        ("replacement", proof.replacement),
        ("run", f"{proof.run} ({proof.provider})"),
        ("margin", margin_words(proof.margin)),
        ("recording, SHA-256", proof.recording_sha256),
        ("training data, SHA-256", proof.train_sha256 or "unknown"),
    ]


def _items(items: Sequence[Shown]) -> list[ProofItem]:
    return [
        ProofItem(
            prompt=one.prompt,
            completions=[
                ("recorded", one.recorded),
                ("replacement", one.replacement),
                *[("recorded again", text) for text in one.again if text != one.recorded][:1],
            ],
            changes=" · ".join(
                f"{name} {_percent(first)} → {_percent(second)}" for name, (first, second) in one.scores.items()
            ),
        )
        for one in items
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else percent(share)


def _day(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment)) if moment is not None else "unknown"
