"""The line of seeds in the report of a run that promotes its winners."""

from __future__ import annotations

from collections.abc import Sequence

from selfdev.report.figures import section, table
from selfdev.report.findings import percent, points
from selfdev.results import Promotion

LEAD = (
    "After each iteration but the last its winner by dev and the current seed were asked the finalists' dev"
    " questions; the winner's model became the next seed where the paired 95 % interval of its gain, in"
    " points, is above zero. Dev and test questions are the same for all iterations; the seed of the"
    " test table is that of the config."
)
HEAD = ("iteration", "its seed", "n", "seed's score", "winner", "score", "gain", "95 % interval", "next seed")


def line_section(line: Sequence[Promotion]) -> str:
    """The section; nothing for a run whose seed never changes."""
    return section("The line of seeds", table(HEAD, [_row(p) for p in line]), lead=LEAD) if line else ""


def _row(p: Promotion) -> tuple[str, ...]:
    outcome = "the winner" if p.promoted else f"the same: {p.reason}"
    if p.program is None or p.low is None or p.high is None:
        return (str(p.iteration), p.seed, "–", "–", "–", "–", "–", "–", outcome)
    gain = (p.accuracy or 0.0) - (p.seed_accuracy or 0.0)
    scores = (percent(p.seed_accuracy), p.program, percent(p.accuracy))
    interval = f"{points(p.low)} to {points(p.high)}"
    return (str(p.iteration), p.seed, f"{p.n:,}", *scores, points(gain), interval, outcome)
