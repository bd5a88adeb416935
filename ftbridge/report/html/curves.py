"""Curves of runs as coordinates of a drawing: thin lines for training, thick ones with dots for validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ftbridge.report.html.sources import Curve
from ftbridge.runs.metrics import Point

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34
_MAX_POINTS = 400
"""Points of one line; where there are more, neighbours are averaged."""


@dataclass(frozen=True)
class CurveText:
    """A label beside an axis; `anchor` is what SVG calls text-anchor."""

    x: float
    y: float
    anchor: str
    text: str


@dataclass(frozen=True)
class Dot:
    """One measured point of a curve, and where it is drawn."""

    x: float
    y: float
    step: int
    value: float


@dataclass(frozen=True)
class Series:
    """One run: its lines as SVG's `points`, its dots, and in words what it came to. `style` is the number of its colour."""

    label: str
    style: int
    train: str
    valid: str
    dots: list[Dot]
    caption: str


@dataclass(frozen=True)
class CurveDrawing:
    """The lines of several runs on a common grid. `what` names the measured points, `about` the whole."""

    WIDTH: ClassVar[int] = 720
    HEIGHT: ClassVar[int] = 300
    LEFT: ClassVar[int] = _LEFT
    RIGHT: ClassVar[int] = WIDTH - _RIGHT
    about: str
    what: str
    grid: list[tuple[float, CurveText]]
    """Lines across, by their y, with their labels."""
    steps: list[CurveText]
    series: list[Series]


@dataclass(frozen=True)
class LossSection:
    """Loss curves, and the unit they are in."""

    unit: str
    drawing: CurveDrawing


def loss_curves(curves: Sequence[Curve]) -> LossSection | None:
    """One drawing for all runs. Along it: steps for one run, the share of training for several; up it: nats per loss token."""
    if not curves:
        return None
    pairs = [curve.by_pairs for curve in curves]
    unit = "Nats per pair; 0.693 where the model is its own reference." if all(pairs) else "Nats per loss token."
    if any(pairs) and not all(pairs):
        unit = "Nats per loss token, or per pair where a run was tuned by preferences: the two cannot be compared."
    return LossSection(unit, drawing(curves, "Loss over training", "validation loss", lower_is_better=True))


def drawing(curves: Sequence[Curve], about: str, what: str, *, lower_is_better: bool = False) -> CurveDrawing:
    """The lines of several runs, and what they came to in words. `what` names the measured points."""
    scale = _Scale.of(curves)
    best_of = min if lower_is_better else max
    return CurveDrawing(
        about=about,
        what=what,
        grid=list(scale.grid()),
        steps=list(scale.steps()),
        series=[_series(curve, scale, number % 4, best_of) for number, curve in enumerate(curves)],
    )


class _Scale:
    """From steps and losses to coordinates."""

    def __init__(self, last: Sequence[int], top: float, *, share: bool) -> None:
        self.share, self.last = share, last
        self.tick = _round_tick(top / 4)
        self.top = self.tick * math.ceil(top / self.tick)

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> _Scale:
        losses = [loss for curve in curves for _, loss in (*_thinned(curve.train), *curve.valid)]
        return cls([_last_step(curve) for curve in curves], max(losses, default=1.0) or 1.0, share=len(curves) > 1)

    def x(self, step: float, last: int) -> float:
        return round(_LEFT + step / max(1, last) * (CurveDrawing.RIGHT - _LEFT), 1)

    def y(self, loss: float) -> float:
        return round(CurveDrawing.HEIGHT - _BOTTOM - loss / self.top * (CurveDrawing.HEIGHT - _TOP - _BOTTOM), 1)

    def grid(self) -> Iterator[tuple[float, CurveText]]:
        for count in range(round(self.top / self.tick) + 1):
            y = self.y(count * self.tick)
            yield y, CurveText(_LEFT - 8, y + 4, "end", f"{count * self.tick:g}")

    def steps(self) -> Iterator[CurveText]:
        for part, anchor in enumerate(("start", "middle", "middle", "middle", "end")):
            text = f"{25 * part} %" if self.share else f"{self.last[0] * part / 4:.0f}{' steps' * (part == 4)}"
            yield CurveText(self.x(part, 4), CurveDrawing.HEIGHT - 12, anchor, text)


def _series(curve: Curve, scale: _Scale, style: int, best_of: Callable[..., Point]) -> Series:
    last = _last_step(curve)
    lines = [
        [(scale.x(step, last), scale.y(loss)) for step, loss in line] for line in (_thinned(curve.train), curve.valid)
    ]
    train, valid = (" ".join(f"{x:g},{y:g}" for x, y in line) for line in lines)
    dots = [Dot(x, y, step, loss) for (x, y), (step, loss) in zip(lines[1], curve.valid, strict=True)]
    return Series(curve.label, style, train, valid, dots, _caption(curve, best_of))


def _last_step(curve: Curve) -> int:
    return max(step for step, _ in (*curve.train, *curve.valid))


def _thinned(points: Sequence[Point]) -> list[Point]:
    size = math.ceil(len(points) / _MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)] if points else []
    return [(group[len(group) // 2][0], math.fsum(loss for _, loss in group) / len(group)) for group in groups]


def _round_tick(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _caption(curve: Curve, best_of: Callable[..., Point]) -> str:
    steps = f"{curve.train[-1][0]} steps, training {curve.train[-1][1]:.3f}"
    if not curve.valid:
        return steps
    step, best = best_of(curve.valid, key=lambda point: point[1])
    return f"{steps}, validation {curve.valid[-1][1]:.3f} (best {best:.3f} at step {step})"
