"""explain.html: a program in words, with everything that was measured of it; opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from selfdev.cli.terminal_explain import TITLES, cells
from selfdev.explain.explanation import Effect, Explanation, Simplified
from selfdev.report.figures import figure, section, table
from selfdev.report.findings import percent, points
from selfdev.report.report import highlight, page
from selfdev.report.svg import Axis, axis_over, circle, line, number_tick, svg, text, ticks

ROW = 22  # height of a bar's row, in user units
NAMES, RIGHT = 170, 446  # where names end and the plot begins, and where it ends
HEADS = ("change", "line", "effect", "moved")
SCORED = ("score", "95 % interval", "change", "95 % interval", "p, Holm")


def render(found: Explanation) -> str:
    """The whole page as text."""
    first, *rest = found.words
    asked = f"{found.questions:,} dev questions" if found.questions else "probes only, no questions asked"
    sentences = "".join(f"<li>{escape(words)}</li>" for words in rest)
    return page(
        f"{found.program} · explained",
        f'<header><p class="run"><span>{escape(found.program)}</span><span>{escape(asked)}</span></p>'
        f"<h1>{escape(first)}</h1></header>"
        + section("In words", f"<aside><ul>{sentences}</ul></aside>")
        + _worth(found)
        + "".join(_effects(found, kind, title) for kind, title in TITLES)
        + _simplified(found.simplified)
        + (_simplified(found.simplified_by_score) if found.simplified_by_score else "")
        + _likeness(found)
        + section("The program as it was", _code(found.code)),
    )


def _worth(found: Explanation) -> str:
    """A chart of what the program loses without each expert and each group of layers."""
    parts = [e for e in (*found.of("expert"), *found.of("layers")) if e.what.startswith("without ")]
    known = [e for e in parts if e.difference is not None]
    if not known:
        return ""
    ends = [100 * end for e in known if e.difference for end in (e.difference.low, e.difference.high)]
    x = axis_over(ends, NAMES, RIGHT, low=min(0.0, *ends))
    bottom = ROW * (len(known) + 1)
    body = "".join(line(x.at(t), ROW / 2, x.at(t), bottom, "grid") for t in ticks(x))
    body += "".join(text(x.at(t), bottom + 16, number_tick(t), "tick") for t in ticks(x))
    body += line(x.at(0), ROW / 2, x.at(0), bottom, "axis") if x.low <= 0 <= x.high else ""
    body += "".join(_bar(effect, x, ROW * (place + 1)) for place, effect in enumerate(known))
    words = "Points of accuracy that the program changes by without each part"
    drawing = svg(body, "What each part is worth", words, bottom + 24)
    lead = "Points won or lost with the seed's weights in its place, and the paired 95 % interval."
    return section("What each part is worth", figure("Without each part", lead, drawing))


def _bar(effect: Effect, x: Axis, y: float) -> str:
    assert effect.difference is not None
    d = effect.difference
    hint = f"{effect.what}: {points(d.points)} points, {points(d.low)} to {points(d.high)}"
    return (
        text(NAMES - 8, y + 4, effect.what, "label", "end")
        + line(x.at(100 * d.low), y, x.at(100 * d.high), y, "kind-discovered whisker")
        + circle(x.at(100 * d.points), y, 4, "kind-discovered", hint)
    )


def _effects(found: Explanation, kind: str, title: str) -> str:
    effects = found.of(kind)  # type: ignore[arg-type]
    if not effects:
        return ""
    rows: list[Sequence[str]] = []
    for effect in effects:
        place, what, *rest = cells(effect, found.questions)
        rows.append((what, place, *rest))
    heads = (*HEADS, *SCORED) if found.questions else HEADS
    lead = "moved: how far it moves the program's change of the probes, in shares of that change."
    return section(title, table(heads, rows), lead=lead)


def _simplified(simple: Simplified) -> str:
    steps = "".join(f"<li>{escape(step)}</li>" for step in simple.steps) or "<li>nothing</li>"
    lead = {
        "behaviour": "The same fingerprint, and the same weights where there are models: checked, not read.",
        "score": "It behaves differently: checked by its score on dev questions alone.",
    }[simple.by]
    return section(
        f"Simplified by {simple.by}",
        _code(simple.code),
        f"<details><summary>What was taken out</summary><ul>{steps}</ul></details>",
        lead=f"{lead} {simple.statements} statements.",
    )


def _likeness(found: Explanation) -> str:
    methods = [(one.method, f"{one.distance:.3g}", f"{one.factor:.3g}") for one in found.nearest]
    probes = [
        (one.parameter, one.method, f"{one.distance:.3g}", f"{one.to_nearest:.3g}") for one in found.per_probe
    ]
    sums = [
        (one.group, *(f"{weight:.3g}" for weight in one.weights.values()), percent(one.rest))
        for one in found.weighted_sums
    ]
    near = table(("parameter", "its nearest method", "distance", "to the nearest on the whole"), probes)
    return section(
        "What it is like",
        table(("method", "distance", "factor"), methods),
        f"<details><summary>Parameter by parameter</summary>{near}</details>",
        "<h3>The nearest weighted sum of task vectors</h3>",
        table(("layers", *found.experts, "left over"), sums),
        lead="On probe tensors. Distance 0: the same direction; 1: nothing in common.",
    )


def _code(code: str) -> str:
    return f'<div class="code" tabindex="0">{highlight(code)}</div>'
