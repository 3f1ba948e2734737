"""What a run or another verb found, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from selfdev.cli.answer import digits_of
from selfdev.errors import one_line
from selfdev.report.findings import duration, findings, p_value, percent
from selfdev.results import IterationStats, RunResult, TestRow

if TYPE_CHECKING:
    from selfdev.evidence.comparison import Comparison
    from selfdev.evidence.learning import Fresh
    from selfdev.evidence.transfer_result import TransferResult
    from selfdev.evidence.tune import TuneResult
    from selfdev.stats import Correlation

COLOURS = {"gain": "green", "partial": "yellow", "no gain": "yellow", "worse": "red", "empty": "yellow"}
KIND_COLOURS = {
    "seed": "default",
    "expert": "magenta",
    "baseline": "yellow",
    "home baseline": "green",
    "discovered": "cyan",
}
KINDS = (
    "discovered and home baseline: unchanged from home, with their dev score there; baseline: tuned again on"
    " these models; *: the home winner."
)


def print_run(result: RunResult, console: Console) -> None:
    """The iterations, the test set and the headline of a run."""
    found = findings(result)
    if result.iterations:
        console.print(iterations_table(result.iterations))
    if result.test:
        console.print(scores_table(result.test, result.best_name))
    for note in result.notes:
        console.print(f"- {note}", markup=False, highlight=False)
    colour = COLOURS[found.verdict]
    console.print(f"\n[bold {colour}]{escape(found.headline)}[/]", highlight=False)
    console.print(found.detail, markup=False, highlight=False)
    if result.best_nearest is not None and result.best_distance is not None:
        near = f"Nearest human-designed method: {result.best_nearest}, distance {result.best_distance:.3g}."
        console.print(near, markup=False, highlight=False)
    console.print(f"Time: {duration(result.seconds)}.", highlight=False)


def print_tuned(result: TuneResult, console: Console) -> None:
    """The test set of a search over coefficients, and what it found."""
    if result.test:
        console.print(scores_table(result.test, result.best_name))
    for note in result.notes:
        console.print(f"- {note}", markup=False, highlight=False)
    print_mapping({**result.parameters, "evaluations": round(result.evaluations), "out": result.out}, console)


def print_comparison(result: Comparison, console: Console) -> None:
    """One row per search at the same budget, then a sentence for each control."""
    table = _table(f"Controls ({result.budget:,.0f} full scores of {result.dev:,} dev questions)")
    table.add_column("search", overflow="fold")
    for head in ("spent", "programs", "scored", "distinct", "dev", "test", "95 % interval", "n", "p, Holm"):
        table.add_column(head, justify="right")
    for row in (result.discovered, *result.controls):
        one = row.chosen
        table.add_row(
            row.title,
            *(f"{number:,.0f}" for number in (row.spent, row.tried, row.scored, row.distinct)),
            percent(one.dev_accuracy if one else None),
            percent(one.accuracy if one else None),
            f"{percent(one.low)} to {percent(one.high)}" if one else "–",
            f"{one.n:,}" if one else "–",
            p_value(row.p_holm),
        )
    console.print(table)
    _print_fresh("Fresh programs at equal temperature [95 % intervals]", result.fresh, console)
    _print_fresh("The same lesson by other settings [95 % intervals]", result.lessons, console)
    for note in result.notes:
        console.print(f"- {note}", markup=False, highlight=False)


def _print_fresh(title: str, rows: Sequence[Fresh], console: Console) -> None:
    if not rows:
        return
    from selfdev.evidence.learning import HEAD, table_of

    table = _table(title)
    for head in HEAD:
        table.add_column(head, justify="left" if head == "factory" else "right")
    for cells in table_of(rows):
        table.add_row(*map(escape, cells))
    console.print(table)


def print_transfer(result: TransferResult, console: Console) -> None:
    """The away test set, what failed, the agreement of home and away, and whether the home winner gains."""
    if result.test:
        console.print(scores_table(result.test, result.best_name))
        console.print(KINDS, style="dim", highlight=False)
    failed = [f"{row.name} ({row.kind}) ended in {row.state}: {row.reason}" for row in result.failed]
    for note in (*failed, *result.notes, _agreement(result.correlation)):
        console.print(f"- {note}", markup=False, highlight=False)
    claim = result.claim
    console.print(f"\n[bold {COLOURS[claim.verdict]}]{escape(claim.headline)}[/]", highlight=False)
    console.print(claim.detail, markup=False, highlight=False)
    console.print(f"Time: {duration(result.seconds)}.", highlight=False)


def _agreement(found: Correlation | None) -> str:
    """Whether finalists that were better at home are better away."""
    if found is None:
        return "Rank correlation of finalists, home and away: none, it takes three of different scores."
    interval = f"95 % interval {found.low:+.2f} to {found.high:+.2f}, n = {found.n}"
    return f"Rank correlation of finalists, home dev and away test: {found.rho:+.2f} ({interval})."


def iterations_table(turns: Sequence[IterationStats]) -> Table:
    """One row per iteration: how programs were written, how many worked and what they scored on dev."""
    n, common = turns[-1].dev_n, turns[-1].dev_common
    partly = f"; mean and median: the first {common:,}" if 0 < common < n else ""
    table = _table(f"Search ({n:,} dev questions{partly})")
    for head in (
        "iteration",
        "temperature",
        "written",
        "scored",
        "distinct",
        "mean",
        "median",
        "p90",
        "best",
        "pairs",
    ):
        table.add_column(head, justify="right")
    for turn in turns:
        yielded = turn.states.get("SCORED", 0)
        table.add_row(
            str(turn.iteration),
            f"{turn.temperature:.2f}",
            f"{turn.written:,}",
            f"{yielded:,} ({percent(yielded / max(turn.written, 1), 0)})",
            f"{turn.unique:,}",
            *(percent(v) for v in (turn.dev_mean, turn.dev_median, turn.dev_p90, turn.dev_best)),
            f"{turn.pairs:,}",
        )
    return table


def scores_table(rows: Sequence[TestRow], best: str) -> Table:
    """One row per model on the test set; the program chosen on dev is marked with a star."""
    table = _table(f"Test ({rows[0].n:,} questions)")
    table.add_column("model", overflow="fold")
    for head in ("kind", "accuracy", "95 % interval", "p, baseline", "p, seed", "dev", rows[0].other[0]):
        table.add_column(head, justify="left" if head == "kind" else "right")
    for row in sorted(rows, key=lambda row: -row.accuracy):
        table.add_row(
            escape(row.name) + (" *" if row.name == best else ""),
            row.kind,
            percent(row.accuracy),
            f"{percent(row.low)} to {percent(row.high)}",
            p_value(row.p_vs_best_baseline),
            p_value(row.p_vs_seed),
            percent(row.dev_accuracy),
            percent(row.other[1]),
            style=f"bold {KIND_COLOURS[row.kind]}" if row.name == best else KIND_COLOURS[row.kind],
        )
    return table


def print_record(record: Any, console: Console) -> None:
    """A frozen record as names and values, one below the other."""
    print_mapping({field.name: getattr(record, field.name) for field in fields(record)}, console)


def print_mapping(values: Mapping[str, Any], console: Console) -> None:
    """Names and values, one below the other; what is None or empty is left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in values.items():
        if value is not None and value not in ("", {}, ()):
            table.add_row(name.replace("_", " "), escape(_words(value)))
    console.print(table)


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_words(inner)}" for name, inner in value.items())
    if isinstance(value, Path | str):
        return "\n".join(map(one_line, str(value).splitlines()))  # a program's text must not steer a terminal
    if isinstance(value, Sequence):
        return ", ".join(_words(inner) for inner in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return digits_of(value)
    return str(value)


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
