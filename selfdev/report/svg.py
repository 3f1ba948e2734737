"""Small parts of charts as SVG text: scales, axes, legends. Colours are classes that style.css defines.

The report draws its own SVG rather than bringing plotly.js: 60 kB instead of 5 MB, no script, sharp on
paper, readable by screen readers, and right in light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 54, 444, 18, 250  # the plot area, in user units


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale from data (low..high) to user units (start..end)."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def axis_over(values: Sequence[float], start: float, end: float, *, low: float | None = None) -> Axis:
    """An axis whose ends are round numbers around the values, and `low` if given."""
    known = [v for v in values if math.isfinite(v)] + ([] if low is None else [low])
    least, most = min(known, default=0.0), max(known, default=1.0)
    if most - least < 1e-12:
        least, most = least - (abs(least) * 0.1 or 0.5), most + (abs(most) * 0.1 or 0.5)
        least = least if low is None else max(low, least)
    step = _step(most - least, 5)
    return Axis(math.floor(least / step + 1e-9) * step, math.ceil(most / step - 1e-9) * step, start, end)


def ticks(axis: Axis, count: int = 5) -> list[float]:
    """Round numbers along an axis."""
    step = _step(axis.high - axis.low, count)
    first = math.ceil(axis.low / step - 1e-9)
    return [i * step for i in range(first, math.floor(axis.high / step + 1e-9) + 1)]


def _step(span: float, count: int) -> float:
    """The 1, 2 or 5 times a power of ten that cuts a span into about `count` parts."""
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    return min((f * power for f in (1, 2, 5, 10)), key=lambda step: abs(step - rough))


def text(x: float, y: float, words: str, classes: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" class="{classes}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="{classes}"/>'


def rect(x: float, y: float, width: float, height: float, classes: str, hint: str = "") -> str:
    """A rectangle; `hint` is shown by the browser when the pointer rests on it."""
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
    return (
        f'<rect {shape} class="{classes}"><title>{escape(hint)}</title></rect>'
        if hint
        else f'<rect {shape} class="{classes}"/>'
    )


def circle(x: float, y: float, radius: float, classes: str, hint: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" class="{classes}"><title>{escape(hint)}</title></circle>'


def path(points: Sequence[tuple[float, float]], classes: str) -> str:
    steps = " ".join(f"{'L' if i else 'M'}{x} {y}" for i, (x, y) in enumerate(points))
    return f'<path d="{steps}" class="{classes}"/>'


def y_axis(axis: Axis, label: str, write: Callable[[float], str]) -> str:
    """Horizontal grid lines with numbers on the left and the axis label on top."""
    parts = [text(LEFT - 46, TOP - 4, label, "label", "start")]
    for tick in ticks(axis):
        if tick < axis.high + 1e-9 and axis.at(tick) > TOP + 8:
            parts.append(text(LEFT - 8, axis.at(tick) + 4, write(tick), "tick", "end"))
        parts.append(line(LEFT, axis.at(tick), RIGHT, axis.at(tick), "grid"))
    return "".join(parts)


def x_axis(axis: Axis, label: str, write: Callable[[float], str], at: Sequence[float] | None = None) -> str:
    """Numbers below the plot area and the axis label under them."""
    places = ticks(axis, 4) if at is None else at
    parts = [text(axis.at(tick), BOTTOM + 18, write(tick), "tick") for tick in places]
    return "".join(
        [
            line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"),
            *parts,
            text((LEFT + RIGHT) / 2, HEIGHT - 8, label, "label"),
        ]
    )


def svg(body: str, title: str, description: str, height: int = HEIGHT) -> str:
    """A whole drawing, with what a screen reader says of it."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}. {escape(description)}">'
        f"{body}</svg>"
    )


def percent_tick(value: float) -> str:
    return f"{100 * value:.4g} %"


def number_tick(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
