"""The test set in the report: the table with its intervals, and dev against test."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from selfdev.report.figures import figure, legend, section, table
from selfdev.report.findings import Findings, p_value, percent
from selfdev.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    axis_over,
    circle,
    line,
    percent_tick,
    svg,
    text,
    x_axis,
    y_axis,
)
from selfdev.results import RunResult, TestRow

KIND_ORDER = ("discovered", "baseline", "seed", "expert")


def scores_section(result: RunResult, found: Findings) -> str:
    if not result.test:
        return section("On the test set", lead="The test set was not opened in this run.")
    axis = interval_axis(result.test)
    rows = sorted(result.test, key=lambda row: (KIND_ORDER.index(row.kind), -row.accuracy))
    target = found.baseline.accuracy if found.baseline else None
    body = "".join(_test_row(row, axis, target, row.name == result.best_name) for row in rows)
    titles = (
        "model",
        "accuracy",
        "95 % interval",
        "p, baseline",
        "p, seed",
        "dev",
        rows[0].other[0],
    )
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    against = f"; the line is the best baseline, {found.baseline.name}" if found.baseline else ""
    lead = (
        f"Opened once, at the end: {rows[0].n:,} questions, the same for every row. The marked program was"
        f" chosen on dev. Intervals: Wilson{against}."
        " p: exact McNemar test against best baseline and seed, on the same questions, not corrected for the"
        f" number of rows. Accuracy: {rows[0].lead} reading of answers; strict wants the task's own form,"
        " flexible takes any last answer."
    )
    grid = f'<table class="test"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return section("On the test set", f'<div class="scroll" tabindex="0">{grid}</div>', lead=lead)


def _test_row(row: TestRow, axis: Axis, target: float | None, chosen: bool) -> str:
    name = f"<strong>{escape(row.name)}</strong>" if chosen else escape(row.name)
    cells = (
        f"<strong>{percent(row.accuracy)}</strong><small>{percent(row.low)} to {percent(row.high)}</small>",
        interval_bar(row, axis, target),
        p_value(row.p_vs_best_baseline),
        p_value(row.p_vs_seed),
        percent(row.dev_accuracy) + (f"<small>of {row.dev_n:,}</small>" if row.dev_n else ""),
        percent(row.other[1]),
    )
    body = "".join(f"<td>{cell}</td>" for cell in cells)
    mark = ' class="chosen"' if chosen else ""
    return f'<tr{mark}><th scope="row">{name}<small>{row.kind}</small></th>{body}</tr>'


def dev_test(rows: Sequence[TestRow], best: str) -> str:
    """Dev against test accuracy with the diagonal; empty text when no row has both."""
    both = [(row, row.dev_accuracy) for row in rows if row.dev_accuracy is not None]
    focus = [(row, dev) for row, dev in both if row.kind != "expert"] or both
    if not both:
        return ""
    values = [v for row, dev in focus for v in (dev, row.low, row.high)]
    x, y = axis_over(values, LEFT, RIGHT), axis_over(values, BOTTOM, TOP + 6)
    parts = [y_axis(y, "test accuracy", percent_tick), x_axis(x, "dev accuracy", percent_tick)]
    parts.append(line(x.at(x.low), y.at(y.low), x.at(x.high), y.at(y.high), "mark"))
    inside = [(r, d) for r, d in both if x.low <= d <= x.high and y.low <= r.accuracy <= y.high]
    parts += [_point(row, x.at(dev), y) for row, dev in inside]
    parts += [_name(row, x.at(dev), y, best) for row, dev in inside if row.name == best or row.kind == "seed"]
    kinds = [k for k in ("seed", "baseline", "discovered", "expert") if any(r.kind == k for r, _ in inside)]
    caption = "Below the diagonal: dev promised more than test kept, the price of choosing the best of many."
    left_out = [row.name for row, dev in both if (row, dev) not in inside]
    if left_out:
        caption += f" Outside the frame: {', '.join(left_out)}."
    numbers = table(
        ("model", "dev", "test", "gap in points"),
        [(r.name, percent(d), percent(r.accuracy), f"{100 * (r.accuracy - d):+.1f}") for r, d in both],
    )
    about = "; ".join(f"{r.name}: dev {percent(d)}, test {percent(r.accuracy)}" for r, d in inside)
    keys = legend([(f"kind-{k}", k) for k in kinds])
    return figure("Dev against test", caption, svg("".join(parts), "Dev against test", about), numbers, keys)


def _point(row: TestRow, x: float, y: Axis) -> str:
    interval = f"{percent(row.low)} to {percent(row.high)}"
    hint = f"{row.name}: dev {percent(row.dev_accuracy)}, test {percent(row.accuracy)} ({interval})"
    whisker = line(x, y.at(max(row.low, y.low)), x, y.at(min(row.high, y.high)), f"whisker kind-{row.kind}")
    return whisker + circle(x, y.at(row.accuracy), 5, f"kind-{row.kind}", hint)


def _name(row: TestRow, x: float, y: Axis, best: str) -> str:
    """The name of a point, above or below its whisker and inside the frame."""
    anchor = "end" if x > RIGHT - 40 else "start" if x < LEFT + 40 else "middle"
    if row.name == best:
        return text(x, max(y.at(row.high) - 6, TOP), "best", "note", anchor)
    return text(x, min(y.at(row.low) + 15, BOTTOM - 4), row.name, "note", anchor)


def interval_bar(row: TestRow, axis: Axis, target: float | None) -> str:
    """The interval of a table row as a small drawing; a line at `target`, an arrow if off the scale."""
    body = "" if target is None else line(axis.at(target), 0, axis.at(target), 24, "target")
    if row.high < axis.low or row.low > axis.high:
        x, arrow = (6, "◂") if row.high < axis.low else (axis.end - 6, "▸")
        body += text(x, 17, arrow, f"kind-{row.kind}")
    else:
        left, right = axis.at(max(row.low, axis.low)), axis.at(min(row.high, axis.high))
        body += line(left, 12, right, 12, f"whisker kind-{row.kind}")
        centre = min(max(axis.at(row.accuracy), left), right)
        body += circle(centre, 12, 4.5, f"kind-{row.kind}", percent(row.accuracy))
    box = f"0 0 {axis.start + axis.end:.0f} 24"
    return f'<svg class="bar" viewBox="{box}" aria-hidden="true">{body}</svg>'


def interval_axis(rows: Sequence[TestRow]) -> Axis:
    """The scale of the table's intervals: wide enough for all but the experts."""
    focus = [row for row in rows if row.kind != "expert"] or list(rows)
    low, high = min(row.low for row in focus), max(row.high for row in focus)
    margin = 0.05 * (high - low) or 0.01
    return Axis(low - margin, high + margin, 8, 212)
