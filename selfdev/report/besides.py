"""What changed besides the score, in the report."""

from __future__ import annotations

from collections.abc import Sequence

from selfdev.report.figures import section, table
from selfdev.report.findings import p_value, percent, points
from selfdev.results import Besides, Change, Lengths
from selfdev.tasks.replies import OPENING

LEAD = (
    "The best program's model beside the seed, on the same questions. p: exact McNemar, adjusted by Holm over"
    " the rows of a table; intervals: paired 95 %, in points. A change is named only where p is below 5 % and"
    " the interval leaves out zero; everything else is not shown to have changed."
)
ABOUT_REPLIES = (
    "Strict reading wants the task's own form, flexible takes any answer. Repetitive: fewer than a quarter of"
    " the 8-character pieces differ. A refusal: “I cannot”, “I am sorry”, “as an AI” or the like within the"
    f" first {OPENING} characters."
)
HEAD = ("", "n", "seed", "best", "difference", "95 % interval", "p, Holm", "change")


def besides_section(found: Besides | None) -> str:
    """The section; nothing where the best model is the seed."""
    if found is None:
        return ""
    parts = (
        _part("Right, by kind of test question", found.kinds, ("better", "worse")),
        _part("Replies to test questions", found.replies, ("more", "fewer"), ABOUT_REPLIES),
        _length(found.lengths),
        _part("Right, on tasks that the search never saw", found.tasks, ("better", "worse")),
    )
    return section("What changed besides", *parts, lead=LEAD)


def _part(title: str, changes: Sequence[Change], words: tuple[str, str], about: str = "") -> str:
    if not changes:
        return ""
    rows = [
        (
            c.name,
            f"{c.n:,}",
            percent(c.seed),
            percent(c.best),
            points(c.best - c.seed),
            f"{points(c.low)} to {points(c.high)}",
            p_value(c.p_holm),
            {"up": words[0], "down": words[1]}.get(c.moved, "not shown"),
        )
        for c in sorted(changes, key=lambda c: c.best - c.seed)
    ]
    note = f'<p class="small">{about}</p>' if about else ""
    return f"<h3>{title}</h3>{table(HEAD, rows)}{note}"


def _length(found: Lengths | None) -> str:
    if found is None:
        return '<p class="small">The task grades its own replies: nothing else is known of them.</p>'
    moved = "shorter" if found.high < 0 else "longer" if found.low > 0 else "no change shown"
    return (
        f'<p class="small">Mean length of a reply: {found.best:.1f} characters after {found.seed:.1f}'
        f" ({found.low:+.1f} to {found.high:+.1f}, n = {found.n:,}): {moved}.</p>"
    )
