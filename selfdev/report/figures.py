"""The charts of report.html: each takes records and gives a <figure> with its numbers in a folded table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from selfdev.records import State
from selfdev.report.findings import percent
from selfdev.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    axis_over,
    circle,
    line,
    number_tick,
    path,
    percent_tick,
    rect,
    svg,
    text,
    x_axis,
    y_axis,
)
from selfdev.results import IterationStats, TestRow

STATES = (
    State.SCORED,
    State.MERGED,
    State.BAD_WEIGHTS,
    State.CRASHED,
    State.TIMED_OUT,
    State.OUT_OF_MEMORY,
    State.FORBIDDEN,
    State.INVALID,
    State.UNSCORED,
)


def section(title: str, *parts: str, lead: str = "") -> str:
    """A part of the page with its heading and, before anything else, how to read it."""
    words = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(title)}</h2>{words}{''.join(parts)}</section>\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], classes: str = "") -> str:
    """An HTML table; the first column names the row, the others are numbers."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table class="{classes}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(title: str, caption: str, drawing: str, numbers: str = "", legend: str = "") -> str:
    """A titled chart with a sentence on how to read it and its numbers folded away."""
    folded = f"<details><summary>Numbers</summary>{numbers}</details>" if numbers else ""
    return (
        f"<figure><h3>{escape(title)}</h3><figcaption>{escape(caption)}</figcaption>"
        f"{legend}{drawing}{folded}</figure>"
    )


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Swatches with words; each entry is (class of the colour, words)."""
    items = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true">{rect(0, 0, 10, 10, c)}</svg>{escape(words)}</li>'
        for c, words in entries
    )
    return f'<ul class="legend">{items}</ul>'


def distribution(turns: Sequence[IterationStats], seed: TestRow | None, baseline: TestRow | None) -> str:
    """Dev accuracy of every scored program: one mirrored histogram per iteration."""
    named = ((seed, "seed"), (baseline, "baseline"))
    marks = [(row.dev_accuracy, name) for row, name in named if row and row.dev_accuracy is not None]
    values = [score for turn in turns for score in turn.dev_scores] + [mark for mark, _ in marks]
    y = axis_over(values, BOTTOM, TOP + 6)
    parts = [y_axis(y, "dev accuracy", percent_tick), line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")]
    width = (RIGHT - LEFT - (60 if marks else 0)) / max(
        len(turns), 1
    )  # names of the marks stand at the right
    for i, turn in enumerate(turns):
        centre = round(LEFT + (i + 0.5) * width, 1)
        parts += [
            _violin(turn, centre, width * 0.46, y),
            text(centre, BOTTOM + 18, str(turn.iteration), "tick"),
        ]
    parts += [_mark(y.at(value), name) for value, name in marks]
    parts.append(text((LEFT + RIGHT) / 2, BOTTOM + 42, "iteration", "label"))
    head = ("iteration", "scored", "distinct", "mean", "median", "p90", "best")
    rows = [
        (str(t.iteration), f"{len(t.dev_scores):,}", f"{t.unique:,}", *(percent(v) for v in _dev_values(t)))
        for t in turns
    ]
    about = "; ".join(f"iteration {row[0]}: median {row[4]}, best {row[6]}" for row in rows)
    caption = "How often each dev accuracy was reached. Bar: median; dot: best program." + common(turns)
    if marks:
        caption += " Dashed: seed and best baseline on their own, larger set of dev questions."
    return figure(
        "Scores of the programs", caption, svg("".join(parts), "Dev scores", about), table(head, rows)
    )


def common(turns: Sequence[IterationStats]) -> str:
    """What mean and median are over, where some programs were stopped early."""
    least = min((t.dev_common for t in turns if t.dev_scores), default=0)
    if not any(0 < t.dev_common < t.dev_n for t in turns):
        return ""
    return f" Mean and median: the first {least:,} questions, which all were asked."


def _dev_values(turn: IterationStats) -> tuple[float | None, ...]:
    return turn.dev_mean, turn.dev_median, turn.dev_p90, turn.dev_best


def _mark(y: float, name: str) -> str:
    """A dashed line across the chart with its name at the right, seed below it and baseline above."""
    words = text(RIGHT, y + (14 if name == "seed" else -5), name, f"note kind-{name}", "end")
    return line(LEFT, y, RIGHT, y, f"mark kind-{name}") + words


def _violin(turn: IterationStats, centre: float, half: float, y: Axis) -> str:
    if not turn.dev_scores:
        return text(centre, (TOP + BOTTOM) / 2, "none scored", "note")
    bins = 36
    size = (y.high - y.low) / bins
    counts = [0] * bins
    for score in turn.dev_scores:
        counts[min(int((score - y.low) / size), bins - 1)] += 1
    tallest = max(counts)
    height = abs(y.at(y.low) - y.at(y.low + size))
    bars = [
        rect(
            centre - half * count / tallest,
            y.at(y.low + (i + 1) * size),
            2 * half * count / tallest,
            height - 0.6,
            "violin",
            f"{count} programs at {percent(y.low + i * size)} to {percent(y.low + (i + 1) * size)}",
        )
        for i, count in enumerate(counts)
        if count
    ]
    if turn.dev_median is not None:
        at = y.at(turn.dev_median)
        bars.append(line(centre - half * 0.6, at, centre + half * 0.6, at, "median"))
    best = max(turn.dev_scores)
    return "".join(bars) + circle(centre, y.at(best), 4, "best", f"best: {percent(best)}")


def outcomes(turns: Sequence[IterationStats]) -> str:
    """How the programs of each iteration ended: one stacked bar per iteration."""
    row, x = max(30, 232 // max(len(turns), 3)), Axis(0, 1, LEFT - 30, RIGHT)
    parts = [
        text(LEFT - 38, 12 + (i + 0.36) * row, str(t.iteration), "tick", "end") for i, t in enumerate(turns)
    ]
    parts += [_stack(turn, 8 + i * row, 0.72 * row, x) for i, turn in enumerate(turns)]
    used = [state for state in STATES if any(t.states.get(state, 0) for t in turns)]
    head = ("iteration", "written", *(_state_words(state) for state in used), "distinct")
    rows = [
        (str(t.iteration), f"{t.written:,}", *(f"{t.states.get(s, 0):,}" for s in used), f"{t.unique:,}")
        for t in turns
    ]
    reasons = [(str(t.iteration), f"{n:,}", why) for t in turns for why, n in _most(t.failures)]
    numbers = table(head, rows)
    if reasons:
        numbers += table(("iteration", "times", "most frequent reasons"), reasons, "words")
    printed = {state: text for t in turns for state, text in t.printed.items()}
    numbers += "".join(_example(state, printed[state]) for state in STATES if state in printed)
    about = "; ".join(f"iteration {t.iteration}: {percent(_yield(t), 0)} scored" for t in turns)
    drawing = svg("".join(parts), "How programs ended", about, 14 + row * max(len(turns), 1))
    keys = legend([(f"state-{state.lower()}", _state_words(state)) for state in used])
    return figure(
        "How the programs ended", "Share of the programs written in each iteration.", drawing, numbers, keys
    )


def _stack(turn: IterationStats, y: float, height: float, x: Axis) -> str:
    parts, start = [], 0.0
    for state in STATES:
        count = turn.states.get(state, 0)
        if not count:
            continue
        end = start + count / max(turn.written, 1)
        left, width = x.at(start), x.at(end) - x.at(start)
        hint = f"{_state_words(state)}: {count:,} of {turn.written:,}"
        parts.append(rect(left, y, width - 1, height, f"state-{state.lower()}", hint))
        if width > 40:
            share = percent(count / turn.written, 0)
            parts.append(text(left + width / 2, y + height / 2 + 4, share, f"inside on-{state.lower()}"))
        start = end
    return "".join(parts)


def _example(state: State, printed: str) -> str:
    """The last lines that one program printed, folded away."""
    title = f"Last lines of one that ended as {_state_words(state)}"
    return f"<details><summary>{title}</summary><pre>{escape(printed)}</pre></details>"


def _most(failures: dict[str, int], count: int = 6) -> list[tuple[str, int]]:
    return sorted(failures.items(), key=lambda item: -item[1])[:count]


def _state_words(state: State) -> str:
    return state.lower().replace("_", " ")


def _yield(turn: IterationStats) -> float:
    return turn.states.get(State.SCORED, 0) / max(turn.written, 1)


def temperature(turns: Sequence[IterationStats]) -> str:
    """Sampling temperature and share of programs that reached a score, by iteration."""
    warmth, shares = [t.temperature for t in turns], [_yield(t) for t in turns]
    x = Axis(0.5, max(len(turns), 1) + 0.5, LEFT, RIGHT)
    y = axis_over([1.2 * v for v in warmth + shares], BOTTOM, TOP + 6, low=0.0)
    parts = [y_axis(y, "temperature, yield", number_tick)]
    parts.append(x_axis(x, "iteration", lambda i: str(turns[int(i) - 1].iteration), range(1, len(turns) + 1)))
    for name, values, shift in (("temperature", warmth, -10), ("yield", shares, 20)):
        places = [(x.at(i), y.at(v), v) for i, v in enumerate(values, start=1)]
        parts.append(path([(px, py) for px, py, _ in places], f"line line-{name}"))
        parts += [circle(px, py, 4, f"dot-{name}", f"{name} {v:.3g}") for px, py, v in places]
        for px, py, v in places[:12]:
            below = py + shift if py + shift < BOTTOM else py - 10
            parts.append(text(px, below, f"{v:.2f}", f"note text-{name}"))
    rows = [(str(t.iteration), f"{t.temperature:.3f}", percent(_yield(t)), str(t.pairs)) for t in turns]
    numbers = table(("iteration", "temperature", "yield", "preference pairs"), rows)
    caption = "Cooler sampling alone raises the yield: only a comparison at one temperature credits training."
    keys = legend([("dot-temperature", "sampling temperature"), ("dot-yield", "yield: share scored")])
    about = "; ".join(f"iteration {i}: temperature {t}, yield {share}" for i, t, share, _ in rows)
    drawing = svg("".join(parts), "Temperature and yield", about)
    return figure("Temperature and yield", caption, drawing, numbers, keys)
