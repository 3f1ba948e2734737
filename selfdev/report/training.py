"""The part of report.html about the factory's training: curves of loss and margin."""

from __future__ import annotations

from collections.abc import Sequence

from selfdev.report.figures import figure, legend, section, table
from selfdev.report.findings import percent
from selfdev.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    axis_over,
    circle,
    number_tick,
    path,
    svg,
    x_axis,
    y_axis,
)
from selfdev.results import IterationStats, RunResult

MOST_POINTS = 300  # of one curve; more cannot be seen at this size
OBJECTIVES = {
    "dpo": "Direct Preference Optimisation",
    "rpo": "Direct Preference Optimisation with the chosen programs' likelihood (RPO)",
    "ipo": "Identity Preference Optimisation",
    "f-dpo": "Direct Preference Optimisation under another divergence (f-DPO)",
    "kto": "Kahneman-Tversky Optimisation",
    "sft": "Fine-tuning on the chosen programs",
    "grpo": "Group Relative Policy Optimisation on the programs' scores",
}


def training_section(result: RunResult) -> str:
    """Everything about the training; empty text when there was none."""
    charts = training(result.iterations)
    if not charts:
        return ""
    objective = OBJECTIVES[result.config.get("dpo", {}).get("objective", "dpo")]
    lead = (
        f"{objective}. These curves show that the factory learned its lessons, not that its programs became"
        " better."
    )
    return section(
        "Training of the factory", f'<div class="charts">{charts}</div>', checks(result.iterations), lead=lead
    )


def checks(turns: Sequence[IterationStats]) -> str:
    """Each trained factory on pairs it never saw, and its distance from the first one; empty without any."""
    found = [(t.iteration, t.check) for t in turns if t.check and (t.check.held_out or t.check.programs)]
    if not found:
        return ""
    head = (
        "after iteration",
        "trained pairs",
        "held-out pairs",
        "ranked right",
        "95 % interval",
        "KL, nats",
        "programs",
    )
    rows = [
        (
            str(iteration),
            f"{c.trained:,}",
            f"{c.held_out:,}",
            percent(c.accuracy),
            f"{percent(c.low)} to {percent(c.high)}" if c.held_out else "–",
            _with_error(c.kl, c.kl_error),
            f"{c.programs:,}",
        )
        for iteration, c in found
    ]
    words = (
        "Held-out pairs: no program of theirs was trained on. KL: from the first factory, per program, on"
        " programs written at temperature 1, with its standard error."
    )
    return f"<p>{words}</p>{table(head, rows)}"


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"


def training(turns: Sequence[IterationStats]) -> str:
    """Loss and, where the objective has one, reward margin of every factory that was trained."""
    trained = [t for t in turns if t.dpo]
    if not trained:
        return ""
    head = (
        "after iteration",
        "pairs",
        "first loss",
        "last loss",
        "first margin",
        "last margin",
        "ranked right",
    )
    numbers = table(head, [_row(t) for t in trained])
    loss = _curves(
        [(t.iteration, [(s.step, s.loss) for s in t.dpo]) for t in trained],
        "Training loss",
        "Each factory's training, one line per iteration.",
        numbers,
    )
    margins = [(t.iteration, [(s.step, s.margin) for s in t.dpo if s.margin is not None]) for t in trained]
    if not any(steps for _, steps in margins):
        return loss
    words = "How much more the trained factory prefers the chosen over the rejected program than before."
    return loss + _curves([m for m in margins if m[1]], "Reward margin", words, numbers)


def _row(turn: IterationStats) -> tuple[str, ...]:
    first, last = turn.dpo[0], turn.dpo[-1]
    values = (first.loss, last.loss, first.margin, last.margin)
    ranked = percent(last.accuracy, 0)
    return (str(turn.iteration), str(turn.pairs), *("–" if v is None else f"{v:.3f}" for v in values), ranked)


def _curves(
    turns: Sequence[tuple[int, Sequence[tuple[int, float]]]], title: str, caption: str, numbers: str
) -> str:
    """One line per iteration: each turn is its number and (step, value) points."""
    kept = [(number, steps[:: 1 + len(steps) // MOST_POINTS]) for number, steps in turns]
    y = axis_over([value for _, steps in kept for _, value in steps], BOTTOM, TOP + 6)
    x = axis_over([float(step) for _, steps in kept for step, _ in steps], LEFT, RIGHT, low=0.0)
    parts = [y_axis(y, title.lower(), number_tick), x_axis(x, "optimiser step", number_tick)]
    for i, (number, steps) in enumerate(kept):
        places = [(x.at(step), y.at(value)) for step, value in steps]
        parts.append(path(places, f"line turn-{i % 6}"))
        end = f"{title} after iteration {number}: {steps[-1][1]:.3f}"
        parts.append(circle(*places[-1], 4, f"fill-{i % 6}", end))
    about = "; ".join(f"iteration {i}: from {s[0][1]:.3f} to {s[-1][1]:.3f}" for i, s in kept)
    keys = legend([(f"fill-{i % 6}", f"after iteration {n}") for i, (n, _) in enumerate(kept)])
    return figure(title, caption, svg("".join(parts), title, about), numbers, keys)
