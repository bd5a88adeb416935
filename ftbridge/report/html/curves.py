"""Loss curves as drawings in the page: thin lines for training, thick ones with dots for validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ftbridge.report.html.element import Html, element
from ftbridge.report.html.sources import Curve
from ftbridge.runs.curves import Point

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34
_MOST = 400
"""Points of one line; where there are more, neighbours are averaged."""


def loss_curves(curves: Sequence[Curve]) -> Html | None:
    """One drawing for all runs. Along it: steps for one run, the share of training for several; up it: nats a token."""
    if not curves:
        return None
    pairs = [curve.by_pairs for curve in curves]
    unit = "Nats a pair; 0.693 where the model is its own reference." if all(pairs) else "Nats a trained token."
    if any(pairs) and not all(pairs):
        unit = "Nats a trained token, or a pair where a run was tuned by preferences: these are not comparable."
    return element(
        "section",
        element("h2", "Loss"),
        element("p", f"{unit} Thin: training. Thick, with dots: validation.", class_="quiet"),
        drawing(curves, "Loss over training.", "validation loss", lower_is_better=True),
        id="loss",
    )


def drawing(curves: Sequence[Curve], about: str, what: str, *, lower_is_better: bool = False) -> Html:
    """The lines of several runs, what they came to in words, and a table of the measured points. `what` names these."""
    scale = _Scale.of(curves)
    svg = element(
        "svg",
        scale.grid(),
        [_lines(curve, scale, f"series{place % 4}", what) for place, curve in enumerate(curves)],
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        class_="curves",
        aria_label=f"{about[:-1]}; the figures are in the table below.",
    )
    best = min if lower_is_better else max
    legend = [
        element("li", element("span", class_=f"swatch series{place % 4}"), f"{curve.label}: {_told(curve, best)}")
        for place, curve in enumerate(curves)
    ]
    tables = [_table(curve, what) for curve in curves if curve.valid]
    return element("div", svg, element("ul", legend, class_="legend"), tables)


class _Scale:
    """From steps and losses to places in the drawing."""

    def __init__(self, last: Sequence[int], top: float, *, share: bool) -> None:
        self.share, self.last = share, last
        self.tick = _round_tick(top / 4)
        self.top = self.tick * math.ceil(top / self.tick)

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> _Scale:
        ends = [max(step for step, _ in (*curve.train, *curve.valid)) for curve in curves]
        losses = [loss for curve in curves for loss in (*_thinned(curve.train), *curve.valid)]
        return cls(ends, max((loss for _, loss in losses), default=1.0) or 1.0, share=len(curves) > 1)

    def x(self, step: float, end: int) -> float:
        return round(_LEFT + step / max(1, end) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, loss: float) -> float:
        return round(_HEIGHT - _BOTTOM - loss / self.top * (_HEIGHT - _TOP - _BOTTOM), 1)

    def grid(self) -> list[Html]:
        lines = []
        for count in range(round(self.top / self.tick) + 1):
            y = self.y(count * self.tick)
            lines.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
            lines.append(element("text", f"{count * self.tick:g}", x=_LEFT - 8, y=y + 4, text_anchor="end"))
        for part in (0, 1, 2, 3, 4):
            text = f"{25 * part} %" if self.share else f"{self.last[0] * part / 4:.0f}{' steps' * (part == 4)}"
            x = self.x(part, 4)
            anchor = "end" if part == 4 else "middle" if part else "start"
            lines.append(element("text", text, x=x, y=_HEIGHT - 12, text_anchor=anchor))
        return lines


def _lines(curve: Curve, scale: _Scale, series: str, what: str) -> list[Html]:
    end = max(step for step, _ in (*curve.train, *curve.valid))

    def places(points: Sequence[Point]) -> str:
        return " ".join(f"{scale.x(step, end):g},{scale.y(loss):g}" for step, loss in points)

    return [
        element("polyline", points=places(_thinned(curve.train)), class_=f"train {series}"),
        element("polyline", points=places(curve.valid), class_=f"valid {series}"),
        *(
            element(
                "circle",
                element("title", f"{curve.label}, step {step}: {what} {loss:.4f}"),
                cx=scale.x(step, end),
                cy=scale.y(loss),
                r=3.5,
                class_=f"dot {series}",
            )
            for step, loss in curve.valid
        ),
    ]


def _thinned(points: Sequence[Point]) -> list[Point]:
    size = math.ceil(len(points) / _MOST)
    groups = [points[start : start + size] for start in range(0, len(points), size)] if points else []
    return [(group[len(group) // 2][0], math.fsum(loss for _, loss in group) / len(group)) for group in groups]


def _round_tick(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _told(curve: Curve, best_of: Callable[..., Point]) -> str:
    steps = f"{curve.train[-1][0]} steps, training {curve.train[-1][1]:.3f}"
    if not curve.valid:
        return steps
    step, best = best_of(curve.valid, key=lambda point: point[1])
    return f"{steps}, validation {curve.valid[-1][1]:.3f} (best {best:.3f} at step {step})"


def _table(curve: Curve, what: str) -> Html:
    rows = [
        element("tr", element("td", f"{step}", class_="number"), element("td", f"{loss:.4f}", class_="number"))
        for step, loss in curve.valid
    ]
    head = element("thead", element("tr", element("th", "step"), element("th", what)))
    table = element("table", head, element("tbody", rows))
    return element("details", element("summary", f"{curve.label}: {what} by step"), table)
