"""A program explained, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from selfdev.explain.explanation import Effect, Explanation
from selfdev.report.findings import p_value, percent, points

TITLES = (
    ("statement", "Each statement deleted"),
    ("constant", "Each constant made simpler"),
    ("expert", "Experts, the seed's weights in place of the others"),
    ("layers", "Layers, the seed's weights in place of the others"),
)
COLOURS = {
    "lower": "red",
    "higher": "green",
    "fails": "dim",
    "same behaviour": "cyan",
    "same weights": "cyan",
}
MOST_METHODS = 5


def print_explanation(found: Explanation, console: Console) -> None:
    """Tables of what was measured, the simplified program, and last the words."""
    if found.nearest:
        console.print(methods_table(found))
    for kind, title in TITLES:
        effects = found.of(kind)  # type: ignore[arg-type]
        if effects:
            console.print(effects_table(effects, title, found.questions))
    shortest = found.simplified_by_score or found.simplified
    console.print(
        f"\n[bold]Simplified by {shortest.by}[/] ({shortest.statements} statements)", highlight=False
    )
    console.print(Syntax(shortest.code, "python", background_color="default", word_wrap=True))
    console.print(f"[bold]{escape(found.program)}[/]", highlight=False)
    for sentence in found.words:
        console.print(f"- {sentence}", markup=False, highlight=False)
    for name, path in (("simplified program", found.out), ("page", found.page)):
        if path:
            console.print(f"{name}: {path}", markup=False, highlight=False, soft_wrap=True)


def methods_table(found: Explanation) -> Table:
    """The nearest human-designed methods by what they change on probes."""
    table = _table("Human-designed methods that are nearest on probes", ("method", "distance", "factor"))
    for one in found.nearest[:MOST_METHODS]:
        table.add_row(escape(one.method), f"{one.distance:.3g}", f"{one.factor:.3g}")
    return table


def effects_table(effects: Sequence[Effect], title: str, questions: int) -> Table:
    """One row per change: what it is, what it does, and with scores by how much."""
    asked = f" ({questions:,} dev questions)" if questions else ""
    scores = ("score", "95 % interval", "change", "95 % interval", "p, Holm") if questions else ()
    table = _table(title + asked, ("line", "change", "effect", "moved", *scores))
    for effect in effects:
        table.add_row(*(escape(cell) for cell in cells(effect, questions)), style=COLOURS.get(effect.verdict))
    return table


def cells(effect: Effect, questions: int) -> list[str]:
    """What a table says of an effect: `moved` is on probes, the rest on dev questions."""
    state = f" ({effect.state})" if effect.verdict == "fails" else ""
    first = [
        str(effect.line or ""), effect.what, f"{effect.verdict}{state}", percent(effect.moved, 0),
    ]  # fmt: skip
    if not questions:
        return first
    score, d = effect.score, effect.difference
    return [
        *first,
        percent(score.accuracy if score else None),
        f"{percent(score.low)} to {percent(score.high)}" if score else "–",
        points(d.points) if d else "–",
        f"{points(d.low)} to {points(d.high)}" if d else "–",
        p_value(d.p_holm if d else None),
    ]


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    for place, head in enumerate(heads):
        words = place < 3 and head in ("change", "effect", "method")  # the later change is a number
        table.add_column(head, justify="left" if words else "right", overflow="fold")
    return table
