"""What a run found, in words: the sentences on top of the report, the terminal table and the model card.

A gain is claimed only where the paired test is below 5 % and the interval of the difference leaves out zero;
everything else is worded as no gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from selfdev.results import Kind, Promotion, RunResult, TestRow

SIGNIFICANT = 0.05

Verdict = Literal["gain", "partial", "no gain", "worse", "empty"]


@dataclass(frozen=True, slots=True)
class Gain:
    """Accuracy of one row less that of another (-1..1), Newcombe's 95 % interval of it, paired p-value."""

    over: str  # in words, such as "the seed"
    difference: float
    low: float
    high: float
    p: float | None

    @property
    def verdict(self) -> Verdict:
        surely = self.p is None or self.p < SIGNIFICANT
        if surely and self.low > 0:
            return "gain"
        return "worse" if surely and self.high < 0 else "no gain"


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdict, a headline, the same in full, and the rows they speak of (None: not tested)."""

    verdict: Verdict
    headline: str
    detail: str
    best: TestRow | None
    seed: TestRow | None
    baseline: TestRow | None
    over_seed: Gain | None
    over_baseline: Gain | None


def findings(result: RunResult) -> Findings:
    """What the test set says about the program chosen on dev."""
    best = next((row for row in result.test if row.name == result.best_name and row.kind != "seed"), None)
    seed = next((row for row in result.test if row.kind == "seed"), None)
    baseline = best_baseline(result.test)
    over_seed = gain("the seed", best, seed, best.p_vs_seed, best.interval_vs_seed) if best and seed else None
    name = "the best tuned baseline"
    over_baseline = None
    if best and baseline:
        over_baseline = gain(name, best, baseline, best.p_vs_best_baseline, best.interval_vs_best_baseline)
    gains = [g for g in (over_baseline, over_seed) if g]
    verdict: Verdict
    if best is None or not gains:
        verdict, (headline, detail) = "empty", _nothing(result, seed)
    else:
        verdict, headline, detail = verdict_of(gains), headline_of(gains), detail_of(best, gains)
    return Findings(verdict, headline, detail, best, seed, baseline, over_seed, over_baseline)


def best_baseline(rows: tuple[TestRow, ...]) -> TestRow | None:
    """The tuned baseline with the highest test accuracy: the hardest to beat."""
    return best_of(rows, "baseline")


def best_of(rows: tuple[TestRow, ...], kind: Kind) -> TestRow | None:
    """The row of a kind with the highest test accuracy; the earlier one wins a tie."""
    return max((row for row in rows if row.kind == kind), key=lambda row: row.accuracy, default=None)


def gain(
    over: str, row: TestRow, other: TestRow, p: float | None, interval: tuple[float, float] | None = None
) -> Gain:
    """Difference of two accuracies with its interval: the paired one that is given, else Newcombe's (1998)
    method 10 for unpaired results, wider than need be where both models solve the same questions."""
    difference = row.accuracy - other.accuracy
    low = difference - math.hypot(row.accuracy - row.low, other.high - other.accuracy)
    high = difference + math.hypot(row.high - row.accuracy, other.accuracy - other.low)
    return Gain(over, difference, *(interval or (low, high)), p)


def percent(share: float | None, digits: int = 1) -> str:
    """0.6314 -> "63.1 %"; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def points(difference: float) -> str:
    """0.042 -> "+4.2"; a true minus sign in front of losses."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """ "0.031", "< 0.001" or a dash for None."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_words(p: float | None) -> str:
    """ "p = 0.031", "p < 0.001", or that there is none."""
    return "not paired" if p is None else f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def promotion_words(p: Promotion) -> str:
    """Whether an iteration's winner became the next seed, in one sentence."""
    if p.program is None or p.low is None or p.high is None:
        return f"Iteration {p.iteration}: the seed stays, {p.reason}."
    gain = f"{percent(p.accuracy)} after {percent(p.seed_accuracy)}"
    test = f"{gain}, 95 % interval of the gain {points(p.low)} to {points(p.high)} points, n = {p.n:,}"
    if p.promoted:
        return f"Iteration {p.iteration}: {p.program} became the seed of the next ({test})."
    return f"Iteration {p.iteration}: the seed stays, {p.program} is not promoted: {p.reason} ({test})."


def duration(seconds: float) -> str:
    """75 -> "1 min 15 s"; 7500 -> "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"


def scored(result: RunResult) -> int:
    """Programs of all iterations that reached a score."""
    return sum(turn.states.get("SCORED", 0) for turn in result.iterations)


def verdict_of(gains: list[Gain]) -> Verdict:
    """The verdict on all comparisons together: the worst, or partial where some are gains and none a loss."""
    verdicts = {g.verdict for g in gains}
    if "worse" in verdicts:
        return "worse"
    if verdicts == {"gain"}:
        return "gain"
    return "partial" if "gain" in verdicts else "no gain"


def headline_of(gains: list[Gain], who: str = "The best discovered program") -> str:
    """The comparison that came out worst, with its interval; then what is gained all the same."""
    order = ("worse", "no gain", "gain")
    first, *rest = sorted(gains, key=lambda g: order.index(g.verdict))
    interval = f"95 % interval {points(first.low)} to {points(first.high)}"
    amount = f"{100 * abs(first.difference):.1f} points"
    words = {
        "gain": f"{who} beats {first.over} by {amount} ({interval})",
        "worse": f"{who} stays {amount} below {first.over} ({interval})",
    }.get(first.verdict, f"No gain over {first.over} ({points(first.difference)} points, {interval})")
    for other in rest:
        if other.verdict == "gain" and first.verdict != "gain":
            words += f"; over {other.over} it gains {100 * other.difference:.1f} points"
    return f"{words}."


def detail_of(best: TestRow, gains: list[Gain]) -> str:
    """What a row answers and each of its comparisons, in one sentence."""
    start = (
        f"{best.name} answers {percent(best.accuracy)} of {best.n:,} test questions"
        f" (95 % interval {percent(best.low)} to {percent(best.high)})"
    )
    return f"{start}: {', and '.join(_against(g) for g in gains)}."


def _against(g: Gain) -> str:
    words = {"gain": "a gain over", "worse": "worse than"}.get(g.verdict, "no gain over")
    interval = f"{points(g.low)} to {points(g.high)}"
    return f"{words} {g.over} ({points(g.difference)} points, {interval}, {p_words(g.p)})"


def _nothing(result: RunResult, seed: TestRow | None) -> tuple[str, str]:
    """Why there is nothing to claim, and the number that says so."""
    written = sum(turn.written for turn in result.iterations)
    count = f"{scored(result):,} of {written:,} programs were scored on dev questions."
    if not scored(result):
        return "No program could be scored.", f"{written:,} were written; none made a model that works."
    if not result.test:
        return "The test set was not opened.", count
    if seed and result.best_name == seed.name:
        return (
            "No gain: the best model is the seed itself.",
            f"It answers {percent(seed.accuracy)} of {seed.n:,} test questions (95 % interval"
            f" {percent(seed.low)} to {percent(seed.high)}); no program did better on dev. {count}",
        )
    return "No discovered program was tested beside the seed.", count
