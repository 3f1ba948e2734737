"""comparison.html: a run's search and its controls, best so far against budget; opens offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from selfdev.cli.answer import to_json
from selfdev.evidence.comparison import QUARTERS, Comparison, Searched
from selfdev.evidence.learning import HEAD, table_of
from selfdev.report.figures import section, table
from selfdev.report.findings import p_value, percent
from selfdev.report.report import page
from selfdev.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    axis_over,
    circle,
    number_tick,
    path,
    percent_tick,
    svg,
    x_axis,
    y_axis,
)

Points = Sequence[tuple[float, float]]
LEARNED = (
    "Fresh programs of the trained and the untrained factory at the same temperature, each asked all dev"
    " questions; 95 % intervals in brackets."
)
LESSONS = (
    "The programs of the first iteration, taught to the same first factory in other ways; then fresh programs"
    " of each, by the same random numbers at the same temperature, each asked all dev questions."
)
COLOURS = 6  # of curves, in style.css; more controls repeat them with another dash


def write_comparison(found: Comparison, folder: Path) -> None:
    """Write comparison.json and comparison.html; old files stay until the new ones are whole."""
    for name, text in (("comparison.json", to_json(found) + "\n"), ("comparison.html", render(found))):
        draft = folder / f"{name}.part"
        draft.write_text(text, encoding="utf-8")
        draft.replace(folder / name)


def render(found: Comparison) -> str:
    """The whole page as text."""
    every = (found.discovered, *found.controls)
    budget = f"{found.budget:,.0f} full scores of {found.dev:,} dev questions each"
    sentences = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    charts = _chart(
        every, "Best on dev so far", "Chosen by these questions: optimistic.", lambda row: row.curve
    ) + _chart(every, "Its accuracy on test", "Of the program that led on dev at that point.", _on_test)
    return page(
        f"{found.run} · controls",
        f"<header><h1>Controls at the same budget</h1><p>{escape(found.run)} · {escape(budget)}</p></header>"
        + section("What they say", f"<aside><ul>{sentences}</ul></aside>")
        + section("Best so far", f'<div class="charts">{charts}</div>', legend(every))
        + section("Test", test_table(every), lead="The best of each search by fresh dev questions.")
        + (section("What the factory learned", table(HEAD, table_of(found.fresh)), lead=LEARNED))
        * bool(found.fresh)
        + section("The same lesson by other settings", table(HEAD, table_of(found.lessons)), lead=LESSONS)
        * bool(found.lessons),
    )


def test_table(rows: Sequence[Searched]) -> str:
    """One row per search: what it took, and its choice on test."""
    head = (
        "search",
        "full scores",
        "programs",
        "scored",
        "distinct",
        "dev",
        "test",
        "95 % interval",
        "n",
        "p, Holm",
    )
    cells = []
    for row in rows:
        one = row.chosen
        cells.append(
            (
                row.title,
                f"{row.spent:,.0f}",
                f"{row.tried:,}",
                f"{row.scored:,}",
                f"{row.distinct:,}",
                percent(one.dev_accuracy) if one else "–",
                percent(one.accuracy) if one else "–",
                f"{percent(one.low)} to {percent(one.high)}" if one else "–",
                f"{one.n:,}" if one else "–",
                p_value(row.p_holm),
            )
        )
    return table(head, cells)


def legend(rows: Sequence[Searched]) -> str:
    """Which line is which search."""
    names = _names(rows)
    items = [f"<li>{_key(_line(i))} {escape(name)}</li>" for i, name in enumerate(names)]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _key(classes: str) -> str:
    stroke = path([(0, 4), (30, 4)], classes)
    return f'<svg viewBox="0 0 30 8" width="30" height="8" aria-hidden="true">{stroke}</svg>'


def _on_test(row: Searched) -> Points:
    places = zip(QUARTERS, row.quarters, strict=True)
    return [(share * row.spent, one.accuracy) for share, one in places if one is not None]


def _chart(rows: Sequence[Searched], name: str, lead: str, points_of: Callable[[Searched], Points]) -> str:
    curves = {control: [points_of(row) for row in rows if row.control == control] for control in _names(rows)}
    known = [point for group in curves.values() for points in group for point in points]
    if not known:
        return ""
    x = axis_over([x for x, _ in known], LEFT, RIGHT, low=0.0)
    y = axis_over([y for _, y in known if y > 0], BOTTOM, TOP)
    body = y_axis(y, "accuracy", percent_tick) + x_axis(x, "budget, full scores", number_tick)
    for i, (control, group) in enumerate(curves.items()):
        body += "".join(_curve(points, x, y, _line(i), control) for points in group)
    words = f"{name} against budget for {len(curves)} searches"
    rows_of = [(c, *(percent(points[-1][1]) for points in g if points)) for c, g in curves.items()]
    return (
        f'<figure><h3>{escape(name)}</h3><p class="lead">{escape(lead)}</p>{svg(body, name, words)}'
        f"<details><summary>Last values</summary>{table(_head(rows_of), _even(rows_of))}</details></figure>"
    )


def _names(rows: Sequence[Searched]) -> list[str]:
    return list(dict.fromkeys(row.control for row in rows))


def _curve(points: Points, x: Axis, y: Axis, classes: str, hint: str) -> str:
    shown = [(x.at(a), y.at(b)) for a, b in points if b > 0]
    marks = [circle(a, b, 2.5, classes, hint) for a, b in shown] if len(shown) <= len(QUARTERS) else []
    return path(shown, classes) + "".join(marks) if shown else ""


def _line(place: int) -> str:
    """Classes of a curve: a colour, and a dash from the second round of colours on."""
    return f"line turn-{place % COLOURS}" + (" dashed" if place >= COLOURS else "")


def _head(rows: Sequence[Sequence[str]]) -> list[str]:
    most = max(map(len, rows)) - 1
    return ["search", *(f"repeat {i + 1}" if most > 1 else "accuracy" for i in range(most))]


def _even(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    most = max(map(len, rows))
    return [[*row, *["–"] * (most - len(row))] for row in rows]
